"""`dlf web`: what the folder holds, what it refuses, and that npm is asked only where nothing is at hand."""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from dlf.cli.main import main
from dlf.codec import bundle
from dlf.errors import MissingExtra, SiteError
from dlf.web import runtime, site
from shipped_models import DEFAULT

ROOT = Path(__file__).parents[2]
MODEL = ("context.onnx", "manifest.json", "prior.onnx", "synthesis.onnx", "tables.npz")


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """Runs the command in this process."""

    def run(*arguments: str) -> Done:
        code = main(arguments)
        return Done(code, *capsys.readouterr())

    return run


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A folder that looks like the npm package."""
    dist = tmp_path / "node_modules" / runtime.PACKAGE / "dist"
    dist.mkdir(parents=True)
    for name in runtime.FILES.values():
        (dist / name).write_text(name)
    return tmp_path


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_the_folder_holds_all_that_decoding_needs(
    package: Path, mock_models: None, run: Callable[..., Done]
) -> None:
    out = package / "site"
    done = run("web", "-o", str(out), "--onnxruntime-web", str(package))
    assert done.code == 0, done.err
    written = names(out)
    assert {*(f"models/{DEFAULT}/{name}" for name in MODEL), "models/index.json", "site.json"} <= written
    assert {f"onnxruntime/{name}" for name in runtime.FILES} <= written
    source = {f"decoder/{path.name}" for path in (site.FOLDER / "decoder").iterdir()}
    assert source <= written
    assert not [name for name in written if name.endswith((".py", ".mjs")) or "analysis" in name]
    assert json.loads((out / "models" / "index.json").read_text()) == {"models": [DEFAULT]}
    assert json.loads((out / "site.json").read_text()) == {"service": False, "decoder": True}
    assert (out / "onnxruntime" / "ort.js").read_text() == "ort.wasm.min.mjs"
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    assert done.out == f"{out}: {len(written)} files, {size / 1e6:.1f} MB, models: {DEFAULT}\n"


def test_a_folder_that_is_taken_stays_as_it_is(
    package: Path, mock_models: None, run: Callable[..., Done]
) -> None:
    out = package / "site"
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    arguments = ["web", "-o", str(out), "--onnxruntime-web", str(package)]
    done = run(*arguments)
    assert (done.code, names(out)) == (1, {"mine.txt"})
    assert done.err == f"dlf: {out} is not empty (--overwrite replaces its files)\n"
    assert run(*arguments, "--overwrite").code == 0
    assert {"mine.txt", "site.json"} <= names(out)
    done = run("web", "-o", str(out / "mine.txt"), "--onnxruntime-web", str(package))
    assert (done.code, done.err) == (1, f"dlf: {out / 'mine.txt'} is a file\n")


def test_a_damaged_model_is_refused(
    package: Path, mock_models: None, tmp_path: Path, run: Callable[..., Done]
) -> None:
    (tmp_path / "assets" / DEFAULT / "prior.onnx").write_bytes(b"other")
    done = run("web", "-o", str(package / "site"), "--onnxruntime-web", str(package))
    assert done.code == 1
    assert "prior.onnx of the model 'mock' is damaged" in done.err


def test_models_of_users(mock_models: None, tmp_path: Path, write_bundle: Callable[..., Path]) -> None:
    """Names of folders that a URL cannot hold, or that come twice, become others; torch models stay out."""
    folders = [tmp_path / "models" / name for name in ("a b", DEFAULT, "mine")]
    files_of = [{"context.onnx": folder.name.encode()} for folder in folders]
    written = [write_bundle(folder, other, id=9) for folder, other in zip(folders, files_of, strict=True)]
    bundles = [bundle.ModelBundle.open(folder) for folder in written]
    files = site.site_files({}, [bundle.find(), *bundles], service=True)
    listed = json.loads(bytes(files["models/index.json"]))["models"]
    assert listed == [DEFAULT, "model-1", "model-2", "mine"]
    assert files["models/model-1/prior.onnx"] == folders[0] / "prior.onnx"
    assert json.loads(bytes(files["site.json"])) == {"service": True, "decoder": False}
    with pytest.raises(SiteError, match="no model that runs in browsers"):
        site.site_files({}, [])


@pytest.mark.parametrize(
    ("named", "there"),
    [(("default", "base", "fast"), "base"), (("fast", "base"), "fast"), (("fast",), "fast")],
)
def test_of_models_for_the_same_streams_the_first_is_there(named: tuple[str, ...], there: str) -> None:
    files = site.site_files({}, [bundle.find(name) for name in named])
    index = files["models/index.json"]
    assert isinstance(index, bytes)
    assert json.loads(index) == {"models": [there]}
    assert {name.split("/")[1] for name in files if name.startswith("models/")} == {there, "index.json"}


def test_a_wheel_holds_page_and_decoder_but_no_runtime() -> None:
    wheel = pytest.importorskip("hatchling.builders.wheel", reason="hatchling is not installed")
    packed = {Path(file.distribution_path) for file in wheel.WheelBuilder(str(ROOT)).recurse_included_files()}
    wanted = {name for name, content in site.site_files({}).items() if isinstance(content, Path)}
    assert {Path("dlf", "web", name) for name in wanted if not name.startswith("models/")} <= packed
    assert not [path for path in packed if path.suffix == ".wasm"]


def test_a_folder_without_the_package(tmp_path: Path) -> None:
    with pytest.raises(SiteError, match=r"no package onnxruntime-web in .*ort\.wasm\.min\.mjs"):
        runtime.installed_files(tmp_path)


def test_one_version_is_tested_and_fetched() -> None:
    text = json.loads((ROOT / "tests" / "web" / "package.json").read_text())
    assert text["dependencies"] == {runtime.PACKAGE: runtime.VERSION}
    lock = json.loads((ROOT / "tests" / "web" / "package-lock.json").read_text())
    assert lock["packages"][f"node_modules/{runtime.PACKAGE}"]["version"] == runtime.VERSION
    assert not [entry for entry in lock["packages"].values() if "resolved" in entry]


@pytest.fixture
def npm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program of that name that copies its neighbour package.tgz, or fails as npm does."""
    if os.name == "nt":
        pytest.skip("needs a shell script")
    program = tmp_path / "bin" / "npm"
    program.parent.mkdir()
    program.write_text(
        '#!/bin/sh\necho "$@" > "$(dirname "$0")/asked"\n'
        'cp "$(dirname "$0")/package.tgz" . 2> /dev/null || { echo "npm error 404" >&2; exit 1; }\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    return program.parent


def test_npm_fetches_the_package(package: Path, npm: Path) -> None:
    with tarfile.open(npm / "package.tgz", "w:gz") as tar:
        tar.add(package / "node_modules" / runtime.PACKAGE, "package")
    fetched = runtime.fetched_files()
    assert fetched == {name: source.encode() for name, source in runtime.FILES.items()}
    assert (npm / "asked").read_text() == f"pack --silent {runtime.PACKAGE}@{runtime.VERSION}\n"


def test_npm_that_fails(npm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SiteError, match=r"npm cannot fetch onnxruntime-web@.* \(npm error 404\)"):
        runtime.fetched_files()
    with tarfile.open(npm / "package.tgz", "w:gz"):
        pass
    with pytest.raises(SiteError, match="lacks a file"):
        runtime.fetched_files()
    monkeypatch.setenv("PATH", "")
    with pytest.raises(MissingExtra, match="install npm, or name its folder by --onnxruntime-web"):
        runtime.fetched_files()
