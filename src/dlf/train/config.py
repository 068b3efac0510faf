"""Training configuration: frozen dataclasses, read from YAML or JSON; unknown keys are errors."""

from __future__ import annotations

import difflib
import json
import re
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, is_dataclass
from pathlib import Path
from typing import Any, Literal

from dlf.extras import need
from dlf.geometry import CELL
from dlf.losses.adversarial import Adversarial
from dlf.losses.objective import Weights
from dlf.nn.model_config import from_dict
from dlf.train.rate import Rate

EXPONENT = re.compile(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+")


@dataclass(frozen=True)
class Optimiser:
    """Adam and its rate of learning.

    lr is reached after `warmup` steps, held for the fraction `hold` of the run, then falls along a
    cosine to `lr_end`.  betas: of the means of gradients and of their squares.  clip: largest norm of the
    gradient of each tensor (see `dlf.train.engine.clip_each`).
    """

    lr: float
    lr_end: float
    warmup: int = 200
    hold: float = 0.5
    betas: tuple[float, float] = (0.9, 0.99)
    clip: float = 1.0


@dataclass(frozen=True)
class TrainConfig:
    """One stage of training.

    stage: tokenizer (VQGAN), align (latents), joint (pixels), decoder (what lies behind the symbols; the
    streams stay as they are), encoder (what makes the symbols, for a decoder that stays).
    shapes: (height, width) of crops,
    multiples of 32, one drawn for each step.  minutes: if above 0, the run ends after so many, however
    many steps that are; what else is said in steps or fractions of the run keeps its share of `steps`, but
    images are drawn and checkpoints written by the clock (see `dlf.train.budget`).  pixels: of one
    batch; it takes as many crops as fit.
    parts: batches of a step, whose gradients are averaged (gradient accumulation); several processes
    share them, so their number must divide it.  The result depends on it, not on the processes.
    ema: decay of the averaged weights that are validated and exported; 0: the weights themselves are.
    precision: bf16 uses autocast, worth 1.6-1.8x on CPUs that have it.  freeze: prefixes of parameters
    that do not train.  detail_dropout: share of samples decoded from tokens alone at the start of the
    run, falling to none at its end; without pretrained tokens the details otherwise learn everything.
    quantised: in the tokenizer stage, False trains its decoder on latents that are not rounded to codes,
    for a later stage with `codebook_spread` above 1, by which a warm start moves the codes away from their
    mean (see `dlf.train.mixture`).
    token_ends: in the stages decoder and encoder, tokens that a window sends at qualities 0 and 50, as the
    bundle has them (see `dlf.nn.schedule.token_schedule`); empty: as the model was trained.
    stream: decode images when they are drawn instead of holding them all in memory.  sampler: whether
    crops are cut on the host or on the training device; auto is the device where that is a GPU.
    downscale: largest factor by which crops are shrunk at random, on the device only.  recompute:
    gradient checkpointing, less memory for about a third more time.  compile: let torch.compile make one
    kernel of many; where that fails, the run goes on without.  graph: on a GPU, record a step and replay it
    (see `dlf.train.graph`).
    """

    preset: str
    stage: Literal["tokenizer", "align", "joint", "decoder", "encoder"]
    steps: int
    shapes: tuple[tuple[int, int], ...]
    pixels: int
    optimiser: Optimiser
    weights: Weights
    rate: Rate = field(default_factory=Rate)
    adversarial: Adversarial = field(default_factory=Adversarial)
    ema: float = 0.999
    seed: int = 0
    precision: Literal["float32", "bf16"] = "bf16"
    freeze: tuple[str, ...] = ()
    detail_dropout: float = 0.0
    quantised: bool = True
    codebook_spread: float = 1.0
    token_ends: tuple[int, ...] = ()
    parts: int = 1
    stream: bool = False
    sampler: Literal["auto", "host", "device"] = "auto"
    downscale: float = 1.0
    recompute: bool = False
    compile: bool = False
    graph: bool = False
    validate_every: int = 2000
    log_every: int = 50
    checkpoint_minutes: float = 10.0
    minutes: float = 0.0

    def __post_init__(self) -> None:
        """Raise ValueError for shapes that do not fill whole latent cells, and for what makes no sense."""
        if self.minutes < 0 or self.steps < 1:
            msg = f"a run of {self.steps} steps and {self.minutes:g} minutes: neither may be negative"
            raise ValueError(msg)
        if self.downscale < 1 or (self.downscale > 1 and (self.sampler == "host" or self.stream)):
            msg = f"downscale: {self.downscale:g} must be at least 1, and above 1 needs `sampler: device`"
            raise ValueError(msg)
        if self.sampler == "device" and self.stream:
            msg = "images that are streamed are not on the device: leave out `stream` or `sampler: device`"
            raise ValueError(msg)
        if self.codebook_spread != 1.0 and self.stage != "joint":
            msg = f"codebook_spread belongs to the joint stage: in {self.stage} the codes stay where they are"
            raise ValueError(msg)
        for height, width in self.shapes:
            if height % CELL or width % CELL or min(height, width) < CELL:
                msg = f"crops of {height}x{width} pixels: both sides must be multiples of {CELL}"
                raise ValueError(msg)


def load_config(path: Path, overrides: Sequence[str] = ()) -> TrainConfig:
    """Read a file; a key `base` names another one, relative to it, that this one overrides.

    overrides: further values in the form of `override`, which go before the file's.

    Raises:
        ValueError: it is neither YAML nor JSON, or says what `TrainConfig` does not know.
        MissingExtra: it is YAML, which another package reads.
    """
    return _build(_read(path), overrides)


def config_of(values: Mapping[str, object], folder: Path, overrides: Sequence[str] = ()) -> TrainConfig:
    """As `load_config`, of values that are read already; folder: what their `base` is relative to."""
    return _build(_over_base(values, folder), overrides)


def override(values: Mapping[str, object], text: str) -> dict[str, object]:
    """Values with one of them replaced: "steps=100", "optimiser.lr=1e-4", "shapes=[[128, 128]]".

    What follows the sign is read as JSON, and as text where it is none.

    Raises:
        ValueError: the text has another form.
    """
    key, sign, value = text.partition("=")
    if not sign or not all(part.isidentifier() for part in key.split(".")):
        msg = f"'{text}' does not say what to change: write KEY=VALUE, such as steps=100 or optimiser.lr=1e-4"
        raise ValueError(msg)
    try:
        new: object = json.loads(value)
    except json.JSONDecodeError:
        new = value
    for part in reversed(key.split(".")):
        new = {part: new}
    assert isinstance(new, dict)
    return merged(values, new)


def merged(values: Mapping[str, object], over: Mapping[str, object]) -> dict[str, object]:
    """Both, where `over` goes before: mappings key by key at every depth, anything else as a whole."""
    result = dict(values)
    for key, value in over.items():
        old = result.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            result[key] = merged(old, value)
        else:
            result[key] = value
    return result


def _build(values: Mapping[str, object], overrides: Sequence[str]) -> TrainConfig:
    for text in overrides:
        values = override(values, text)
    _check_keys(TrainConfig, values, "")
    return from_dict(TrainConfig, dict(values))


def _check_keys(cls: Any, values: Mapping[str, object], prefix: str) -> None:
    """Raise ValueError for a key that there is not, with those that it may have been meant for."""
    hints = typing.get_type_hints(cls)
    for key, value in values.items():
        if key not in hints:
            near = difflib.get_close_matches(key, hints, 3) or list(hints)
            inner = f" of {prefix.rstrip('.')}" if prefix else ""
            msg = f"there is no key {prefix}{key}; the keys{inner} nearest to it: {', '.join(near)}"
            raise ValueError(msg)
        if is_dataclass(hints[key]) and isinstance(value, Mapping):
            _check_keys(hints[key], value, f"{prefix}{key}.")


def _read(path: Path) -> dict[str, object]:
    data = parse(path)
    if not isinstance(data, dict):
        msg = f"{path} is not a YAML mapping"
        raise ValueError(msg)
    return _over_base(data, path.parent)


def _over_base(values: Mapping[str, object], folder: Path) -> dict[str, object]:
    values = dict(values)
    base = values.pop("base", None)
    return values if base is None else merged(_read(folder / str(base)), values)


def parse(path: Path) -> object:
    """What a YAML or JSON file says; errors as those of `load_config`."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".json":
        try:
            return json.loads(text)
        except json.JSONDecodeError as error:
            msg = f"{path} is not JSON: {error}"
            raise ValueError(msg) from error
    yaml = need("yaml", "torch")
    try:
        return _numbers(yaml.safe_load(text))
    except yaml.YAMLError as error:
        msg = f"{path} is not YAML: {' '.join(str(error).split())}"
        raise ValueError(msg) from error


def _numbers(value: object) -> object:
    """Read 1e-4 as a number wherever it stands: YAML 1.1, which pyyaml reads, takes it for text."""
    if isinstance(value, dict):
        return {key: _numbers(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_numbers(part) for part in value]
    return float(value) if isinstance(value, str) and EXPONENT.fullmatch(value) else value


def dotted(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested values side by side, under names such as "optimiser.lr"."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= dotted(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return flat
