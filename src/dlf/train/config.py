"""Training configuration: frozen dataclasses, read from YAML or JSON; unknown keys are errors."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from dlf.extras import need
from dlf.geometry import CELL
from dlf.losses.adversarial import Adversarial
from dlf.losses.objective import Weights
from dlf.nn.config import from_dict
from dlf.train.controller import Ladder


@dataclass(frozen=True)
class Rate:
    """Weight of bits per pixel: `at_low` for quality 0 to `at_high` for quality 100 (geometric between).

    It starts at `initial` times that and grows geometrically to 1 times between the fractions
    `ramp_from` and `ramp_to` of the run: with the full weight from the start pictures stay grey.
    ladder: for a model of one rate, takes the place of all that (see `dlf.train.controller`).
    """

    at_low: float = 0.0
    at_high: float = 0.0
    initial: float = 0.05
    ramp_from: float = 0.0
    ramp_to: float = 0.25
    ladder: Ladder = field(default_factory=Ladder)


@dataclass(frozen=True)
class TrainConfig:
    """One stage of training.

    stage: tokenizer (VQGAN), align (latents), joint (pixels), decoder (what lies behind the symbols; the
    streams stay as they are).  shapes: (height, width) of crops,
    multiples of 32, one drawn for each step.  minutes: if above 0, the run ends after so many, however
    many steps that are; what else is said in steps or fractions of the run keeps its share of `steps`, but
    pictures are drawn and checkpoints written every minute (see `dlf.train.budget`).  pixels: of one
    batch; it takes as many crops as fit.
    parts: batches of a step, whose gradients are averaged (gradient accumulation); several processes
    share them, so their number must divide it.  The result depends on it, not on the processes.
    lr is reached after `warmup` steps, held for the fraction `hold` of the run, then falls along a
    cosine to `lr_end`.  ema: decay of the averaged weights that are validated and exported.
    precision: bf16 uses autocast, worth 1.6-1.8x on CPUs that have it.  freeze: prefixes of parameters
    that do not train.  detail_dropout: share of samples decoded from tokens alone at the start of the
    run, falling to none at its end; without pretrained tokens the details otherwise learn everything.
    quantised: in the tokenizer stage, False trains its decoder on latents that are not rounded to codes,
    for a later stage with `codes_apart` above 1, where a warm start places the codes (see
    `dlf.train.mixture`).
    token_ends: in the decoder stage, tokens that a window sends at qualities 0 and 50, as the bundle has them
    (see `dlf.nn.schedule.token_schedule`); empty: as the model was trained.
    stream: decode pictures when they are drawn instead of holding them all in memory.  sampler: whether
    crops are cut on the host or on the training device; auto is the device where that is a GPU.
    downscale: largest factor by which crops are shrunk at random, on the device only.  recompute:
    gradient checkpointing, less memory for about a third more time.  compile: let torch.compile make one
    kernel of many; where that fails, the run goes on without.  graph: on a GPU, record a step and replay it
    (see `dlf.train.graph`).
    """

    preset: str
    stage: Literal["tokenizer", "align", "joint", "decoder"]
    steps: int
    shapes: tuple[tuple[int, int], ...]
    pixels: int
    lr: float
    lr_end: float
    weights: Weights
    rate: Rate = field(default_factory=Rate)
    adversarial: Adversarial = field(default_factory=Adversarial)
    warmup: int = 200
    hold: float = 0.5
    betas: tuple[float, float] = (0.9, 0.99)
    clip: float = 1.0
    ema: float = 0.999
    seed: int = 0
    precision: Literal["float32", "bf16"] = "bf16"
    freeze: tuple[str, ...] = ()
    detail_dropout: float = 0.0
    quantised: bool = True
    codes_apart: float = 1.0
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
            msg = "pictures that are streamed are not on the device: leave out `stream` or `sampler: device`"
            raise ValueError(msg)
        if self.codes_apart != 1.0 and self.stage != "joint":
            msg = f"codes_apart belongs to the joint stage: in {self.stage} the tokenizer's codes are targets"
            raise ValueError(msg)
        for height, width in self.shapes:
            if height % CELL or width % CELL or min(height, width) < CELL:
                msg = f"crops of {height}x{width} pixels: both sides must be multiples of {CELL}"
                raise ValueError(msg)


def load_config(path: Path) -> TrainConfig:
    """Read a file; a key `base` names another one, relative to it, that this one overrides.

    Raises:
        ValueError: it is neither YAML nor JSON, or says what `TrainConfig` does not know.
        MissingExtra: it is YAML, which another package reads.
    """
    return from_dict(TrainConfig, _read(path))


def config_of(values: dict[str, object], folder: Path) -> TrainConfig:
    """As `load_config`, of values that are read already; folder: what their `base` is relative to."""
    return from_dict(TrainConfig, _over_base(values, folder))


def _read(path: Path) -> dict[str, object]:
    data = parse(path)
    if not isinstance(data, dict):
        msg = f"{path} is not a YAML mapping"
        raise ValueError(msg)
    return _over_base(data, path.parent)


def _over_base(values: dict[str, object], folder: Path) -> dict[str, object]:
    values = dict(values)
    base = values.pop("base", None)
    if base is None:
        return values
    merged = _read(folder / str(base))
    for key, value in values.items():
        old = merged.get(key)
        merged[key] = {**old, **value} if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


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
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        msg = f"{path} is not YAML: {' '.join(str(error).split())}"
        raise ValueError(msg) from error
