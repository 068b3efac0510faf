"""A plan: several stages one after the other within one budget of minutes, and what it needs.

A plan is a JSON list of ``{"config": ..., "share": ...}``.  The configuration is a file's name, relative to
the plan, or the values themselves, which may have a `base`; the shares of the minutes sum to 1.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from dlf.errors import TrainingError
from dlf.losses.discriminators import LiteFeatures
from dlf.losses.image import feature_users
from dlf.nn.build import PRESETS
from dlf.nn.model import Dlf
from dlf.nn.model_config import to_dict
from dlf.nn.vqgan import Vqgan
from dlf.train.config import TrainConfig, config_of, load_config, parse
from dlf.train.run import Sources, Start, check_spread, is_codec, open_perceptual

TOLERANCE = 1e-3  # of the sum of the shares
# seconds in which a stage certainly comes to nothing: a first step, images and weights; compiling as well
LEAST, LEAST_COMPILED = 3.0, 40.0


@dataclass(frozen=True)
class Planned:
    """A stage and its share of the minutes, in (0, 1]."""

    config: TrainConfig
    share: float


Plan = tuple[Planned, ...]


def load_plan(path: Path, overrides: Sequence[str] = ()) -> Plan:
    """Read a plan; overrides: of values in every stage, in the form of `dlf.train.config.override`.

    Raises:
        ValueError: it is none, its shares do not sum to 1, or its stages do not follow on each other.
        MissingExtra: a configuration is YAML, which another package reads.
        OSError: a file cannot be read.
    """
    entries = parse(path)
    if not isinstance(entries, list) or not entries:
        msg = f"{path} is not a list of stages"
        raise ValueError(msg)
    plan = tuple(_planned(entry, path, overrides) for entry in entries)
    total = sum(planned.share for planned in plan)
    if abs(total - 1) > TOLERANCE:
        msg = f"the shares in {path} sum to {total:.4g}, not to 1"
        raise ValueError(msg)
    presets = sorted({planned.config.preset for planned in plan})
    if len(presets) > 1:
        msg = (
            f"the stages of {path} are of several presets ({', '.join(presets)}), so none can follow another"
        )
        raise ValueError(msg)
    if presets[0] not in PRESETS:
        msg = f"there is no preset {presets[0]}; there are {', '.join(PRESETS)}"
        raise ValueError(msg)
    if any(planned.config.stage == "tokenizer" for planned in plan[1:]):
        msg = f"a tokenizer stage in {path} comes after another stage, of which it would keep nothing"
        raise ValueError(msg)
    return plan


def _planned(entry: object, path: Path, overrides: Sequence[str]) -> Planned:
    if not isinstance(entry, dict) or set(entry) != {"config", "share"}:
        msg = f"a stage in {path} has other keys than config and share"
        raise ValueError(msg)
    share, what = entry["share"], entry["config"]
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share <= 1:
        msg = f"the share {share!r} in {path} is not a number above 0 and up to 1"
        raise ValueError(msg)
    if isinstance(what, str):
        config = load_config(path.parent / what, overrides)
    elif isinstance(what, dict):
        config = config_of(what, path.parent, overrides)
    else:
        msg = f"a configuration in {path} is neither a file's name nor values"
        raise ValueError(msg)
    if config.stream:
        msg = f"{path} says `stream`, but a plan holds its images in memory"
        raise ValueError(msg)
    return Planned(config, float(share))


def from_stage(plan: Plan, stage: str) -> Plan:
    """The plan from the first stage of that kind on, whose shares then make up the whole.

    Raises:
        ValueError: there is no such stage.
    """
    kinds: list[str] = [planned.config.stage for planned in plan]
    if stage not in kinds:
        msg = f"the plan has no stage {stage}; its stages are {', '.join(kinds)}"
        raise ValueError(msg)
    rest = plan[kinds.index(stage) :]
    whole = sum(planned.share for planned in rest)
    return tuple(replace(planned, share=planned.share / whole) for planned in rest)


def as_json(plan: Plan) -> str:
    """The plan with all values of its configurations, which needs no other file and no YAML."""
    entries = [{"config": to_dict(planned.config), "share": planned.share} for planned in plan]
    return json.dumps(entries, indent=1)


def check_plan(plan: Plan, sources: Sources, start: Start | None, minutes: float | None) -> None:
    """Raise ValueError, TrainingError or OSError for what would end the plan later.

    start: weights that the first stage starts from.  minutes: of the whole plan; None for a profile, which
    starts from nothing.
    """
    for planned in plan:
        open_perceptual(planned.config, sources.perceptual)
        if feature_users(planned.config.weights, planned.config.adversarial):
            _check_features(sources.features)
    if minutes is None:
        return
    _check_budget(plan, minutes)
    _check_start(plan[0].config, None if start is None else start.weights)
    for before, planned in zip((start, *(Start({}, p.config.stage) for p in plan)), plan, strict=False):
        check_spread(planned.config, before)
    sources.out.mkdir(parents=True, exist_ok=True)
    if not os.access(sources.out, os.W_OK):
        msg = f"the folder {sources.out} cannot be written to"
        raise ValueError(msg)


def _check_features(path: Path | None) -> None:
    if path is None or not path.is_file():
        named = "none is named" if path is None else f"there is no file {path}"
        msg = f"a stage has a judge on frozen features, whose weights --features names; {named}"
        raise ValueError(msg)
    LiteFeatures(path)


def _check_budget(plan: Plan, minutes: float) -> None:
    for planned in plan:
        config, seconds = planned.config, 60 * minutes * planned.share
        least = LEAST_COMPILED if config.compile else LEAST
        if seconds < least:
            reason = ", which compiles," if config.compile else ""
            msg = (
                f"a budget of {minutes:.3g} minutes is too small: the {config.stage} stage{reason} would get "
                f"{seconds:.3g} s and needs {least:.3g} s at least"
            )
            raise TrainingError(msg)


def _check_start(config: TrainConfig, start: Mapping[str, Tensor] | None) -> None:
    """Refuse weights that the first stage cannot start from, and none where it needs some."""
    first = config.stage
    if start is None:
        if first == "tokenizer":
            return
        msg = f"the plan begins with the {first} stage: name the weights that it starts from with --start"
        raise ValueError(msg)
    codec = is_codec(start)
    if first == ("tokenizer" if codec else "decoder"):
        kind = "a whole codec" if codec else "an autoencoder alone"
        msg = f"the weights of --start are those of {kind}, from which a {first} stage cannot start"
        raise ValueError(msg)
    preset = PRESETS[config.preset]
    with torch.device("meta"):
        module = Dlf(preset) if codec else Vqgan(preset.vqgan)
    shapes = {name: tensor.shape for name, tensor in module.state_dict().items()}
    if shapes != {name: tensor.shape for name, tensor in start.items()}:
        msg = f"the weights of --start are not those of the preset {config.preset}"
        raise ValueError(msg)


def smallest_side(plan: Sequence[Planned]) -> int:
    """Images with a shorter side below this are of no use to any stage."""
    return min(min(shape) for planned in plan for shape in planned.config.shapes)
