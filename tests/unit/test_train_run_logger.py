"""What a run tells, and that telling never ends it."""

# ruff: noqa: E402
from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
from PIL import Image

torch = pytest.importorskip("torch")

from dlf.errors import MissingExtra
from dlf.train import run_logger
from dlf.train.run_logger import EVENTS, LOG, RunLogger, time_left

pytestmark = pytest.mark.torch


def test_rows_and_time_left(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    logger = RunLogger(tmp_path, 1000)
    with caplog.at_level(logging.INFO, "dlf"):
        logger.log_terms("train", 400, {"l1": 0.123456789}, pace=2.0, left=1200.0)
        logger.log_terms("val", 400, {"psnr": 20.0})
    logger.close()
    train, val = (json.loads(line) for line in (tmp_path / LOG).read_text("utf-8").splitlines())
    assert train == {"kind": "train", "step": 400, "l1": 0.12346, "seconds": 2.0}
    assert val == {"kind": "val", "step": 400, "psnr": 20.0, "seconds": 0.0}
    assert "train 400/1000  l1 0.1235  (20 min left)" in caplog.text
    assert caplog.messages[1] == "val 400/1000  psnr 20"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (89, "89 s"), (120, "2 min"), (3 * 3600 + 300, "3 h 05 min"), (52 * 3600, "2 d 04 h")],
)
def test_durations(seconds: float, text: str) -> None:
    assert time_left(seconds) == text


def test_what_cannot_be_written_is_reported_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    logger = RunLogger(tmp_path / "nowhere", 10)
    logger.log_terms("train", 1, {"l1": 1.0})
    logger.log_image(1, Image.new("RGB", (8, 8)))
    assert "cannot log step 1" in caplog.text
    assert "cannot keep the image of step 1" in caplog.text


def test_tensorboard_holds_numbers_and_pictures(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="the extra tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logger = RunLogger(tmp_path, 10, tensorboard=True)
    logger.log_terms("train", 5, {"l1": 0.5, "bpp": 0.02})
    logger.log_terms("val", 10, {"l1": 0.25})
    logger.log_image(10, Image.new("RGB", (16, 8), "red"))
    logger.close()
    events = EventAccumulator(str(tmp_path / EVENTS))
    events.Reload()
    assert set(events.Tags()["scalars"]) == {"train/l1", "train/bpp", "val/l1"}
    assert [(e.step, e.value) for e in events.Scalars("val/l1")] == [(10, 0.25)]
    (shown,) = events.Images("val/images")
    assert (shown.step, shown.width, shown.height) == (10, 16, 8)


def test_missing_tensorboard_says_what_to_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(module: str, extra: str) -> None:
        msg = f"{module} is not installed; run: pip install 'dlf-codec[{extra}]'"
        raise MissingExtra(msg)

    monkeypatch.setattr(run_logger, "need", absent)
    with pytest.raises(MissingExtra, match="tensorboard"):
        RunLogger(tmp_path, 10, tensorboard=True)
