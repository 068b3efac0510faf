"""Names of metrics, and what is said where the library or the weights of one are missing."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from dlf.errors import MissingExtra, SpecError
from dlf.evaluation.metrics import learned
from dlf.evaluation.metrics.catalogue import METRICS, SETS, check_metric, open_metric


def test_names_of_metrics() -> None:
    assert check_metric("LPIPS-alex") == "lpipsalex"
    assert check_metric("stem:a:b") == "stem:a:b"
    with pytest.raises(SpecError, match="'x' is not one of"):
        check_metric("x:psnr")
    for name in ("stem", "stem-kid"):
        with pytest.raises(SpecError, match="needs a file"):
            open_metric(name)


@pytest.mark.torch
@pytest.mark.parametrize(
    "name",
    ["lpipsalex", "dists", "ssimulacra2", "fid", "kid", "faces", "classes", "objects", "objectsmap"],
)
def test_what_is_missing_says_what_to_type(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    for module in list(sys.modules):
        if module.partition(".")[0] in ("torchmetrics", "torchvision", "lpips", "cv2", "ssimulacra2"):
            monkeypatch.delitem(sys.modules, module)
    for module in ("lpips", "DISTS_pytorch", "ssimulacra2", "torchmetrics", "torchvision", "cv2"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtra, match="pip install"):
        {**METRICS, **SETS}[name](None)


def test_a_library_that_does_not_fit_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "unfit_library.py").write_text("import no_such_module")
    (tmp_path / "broken_library.py").write_text("raise RuntimeError('operator does not exist')")
    monkeypatch.syspath_prepend(tmp_path)
    for name, sentence in (
        ("absent_library.part", "absent_library is not installed; run: pip install x"),
        ("unfit_library", r"unfit_library does not work here \(No module named 'no_such_module'\); run"),
        ("broken_library", r"broken_library does not work here \(operator does not exist\); run"),
    ):
        with pytest.raises(MissingExtra, match=sentence):
            learned.loaded(name, "pip install x")


@pytest.mark.torch
def test_weights_that_cannot_be_downloaded_are_named() -> None:
    pytest.importorskip("torch")

    def make() -> SimpleNamespace:
        msg = "<urlopen error no route>"
        raise OSError(msg)

    with pytest.raises(MissingExtra, match=r"weights of the net could not be downloaded to .*checkpoints"):
        learned.with_weights("the net", make)
