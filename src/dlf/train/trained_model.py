"""What an export needs of a training: the model of a checkpoint, and images of a folder."""

from __future__ import annotations

from pathlib import Path

from dlf.nn.build import PRESETS, create_model
from dlf.nn.model import Dlf
from dlf.records import UInt8
from dlf.train.data import load_images, whole_cells
from dlf.train.shards import find_images
from dlf.train.weights import load_labelled

SMALLEST = 64  # pixels of an image's shorter side


def load_model(path: Path, preset: str | None = None) -> Dlf:
    """The model of a checkpoint, or of a folder of weights alone, with the averaged weights.

    preset: of weights that do not say it.

    Raises:
        ValueError: these are no weights of ours, or not those of a codec of the preset.
    """
    weights, about = load_labelled(path)
    said = about.get("preset", preset)
    if said is None:
        msg = (
            f"the weights in {path} do not say which preset they are of; a checkpoint does, and --preset of "
            "dlf export"
        )
        raise ValueError(msg)
    if preset not in (None, said):
        msg = f"{path} is of the preset '{said}', not of '{preset}'"
        raise ValueError(msg)
    if said not in PRESETS:
        msg = f"{path} is of the preset '{said}', which this package does not have"
        raise ValueError(msg)
    model = create_model(said).eval()
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:  # what torch makes of missing and unknown names
        msg = f"{path} does not hold the weights of a codec of the preset '{said}'"
        raise ValueError(msg) from error
    return model


def sample_images(folder: Path, count: int) -> list[UInt8]:
    """About `count` of a folder's images, spread over all: uint8 (H, W, 3), cut to multiples of 32."""
    files = find_images(folder)
    spread = files[:: max(1, len(files) // count)]
    return [whole_cells(image) for image in load_images(spread, SMALLEST)]
