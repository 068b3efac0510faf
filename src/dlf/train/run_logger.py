"""What a run tells: a line of the log, a row of ``log.jsonl``, images, and TensorBoard if asked for.

Telling never ends a run: where the disk is full, the row is lost and the reason is logged.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from dlf.extras import need

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

log = logging.getLogger(__name__)

LOG = "log.jsonl"
SHEET, SHEET_QUALITY = "sheet.jpg", 90  # of a run of several stages
EVENTS = "tensorboard"


class RunLogger:
    """Writes into a run's folder.

    steps: of the whole run, or None where minutes say how long it is.  tensorboard: also write event
    files, to its folder "tensorboard".  stage: of a run of several; its rows name it, and an image takes
    the place of the one before.

    Raises:
        MissingExtra: tensorboard is asked for and not installed.
    """

    def __init__(
        self, folder: Path, steps: int | None, *, tensorboard: bool = False, stage: str = ""
    ) -> None:
        self.folder, self.steps, self.stage = folder, steps, stage
        self.events = _open_events(folder / EVENTS) if tensorboard else None

    def log_terms(
        self, kind: str, step: int, terms: Mapping[str, float], pace: float = 0.0, left: float = 0.0
    ) -> None:
        """Tell the terms of a step; pace: seconds a step.  left: seconds to the end of the run."""
        text = "  ".join(f"{k} {v:.4g}" for k, v in terms.items())
        rest = f"  ({time_left(left)} left)" if pace else ""
        whole = f"/{self.steps}" if self.steps else ""
        log.info("%s %d%s  %s%s", kind, step, whole, text, rest)
        stage = {"stage": self.stage} if self.stage else {}
        row = {"kind": kind, **stage, "step": step, **{k: round(v, 5) for k, v in terms.items()}}
        try:
            with (self.folder / LOG).open("a", encoding="utf-8") as file:
                file.write(json.dumps({**row, "seconds": round(pace, 4)}) + "\n")
            if self.events is not None:
                for key, value in terms.items():
                    self.events.add_scalar(f"{kind}/{key}", value, step)
        except OSError as error:
            log.error("cannot log step %d: %s", step, error.strerror or error)

    def log_image(self, step: int, image: Image.Image) -> None:
        """Keep an image of a step."""
        try:
            if self.stage:
                image.save(self.folder / SHEET, quality=SHEET_QUALITY)
            else:
                image.save(self.folder / f"val_{step:07d}.png")
            if self.events is not None:
                self.events.add_image("val/images", np.asarray(image), step, dataformats="HWC")
        except OSError as error:
            log.error("cannot keep the image of step %d: %s", step, error.strerror or error)

    def close(self) -> None:
        """Write what is still in memory."""
        if self.events is not None:
            self.events.close()


def time_left(seconds: float) -> str:
    """A duration to read: "40 s", "5 min", "3 h 05 min", "2 d 04 h"."""
    minutes, hours = round(seconds / 60), round(seconds / 3600)
    if seconds < 90:
        return f"{seconds:.0f} s"
    if minutes < 60:
        return f"{minutes} min"
    if hours < 48:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{hours // 24} d {hours % 24:02d} h"


def _open_events(folder: Path) -> SummaryWriter:
    need("tensorboard", "tensorboard")
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder))
