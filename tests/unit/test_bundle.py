"""Bundles: reading, refusing, finding."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from dlf.codec import bundle
from dlf.codec.bundle import FILES, GRAPHS, MANIFEST, TABLES, Manifest, ModelBundle, find, numerics_id
from dlf.errors import BundleError, UnknownModel
from shipped_models import DEFAULT

Write = Callable[..., Path]


def test_a_good_bundle_gives_its_files_and_tables(tmp_path: Path, write_bundle: Write) -> None:
    found = ModelBundle.open(write_bundle(tmp_path))
    assert (found.manifest.name, found.manifest.id) == ("mock", 1)
    assert found.read("context.onnx") == b"context.onnx"
    assert found.tables().tokens == 6


def test_the_manifest_survives_its_own_text(tmp_path: Path, write_bundle: Write) -> None:
    manifest = ModelBundle.open(write_bundle(tmp_path)).manifest
    assert Manifest.parse(manifest.dump()) == manifest
    assert manifest.numerics == numerics_id(manifest.files)


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_refused_when_it_is_read(name: str, tmp_path: Path, write_bundle: Write) -> None:
    write_bundle(tmp_path)
    (tmp_path / name).write_bytes(b"damaged")
    found = ModelBundle.open(tmp_path)
    with pytest.raises(BundleError, match="hash"):
        found.read(name)
    (tmp_path / name).unlink()
    with pytest.raises(BundleError, match="lacks"):
        found.read(name)
    for other in set(GRAPHS) - {name}:
        found.read(other)


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"id": -1},
        {"id": True},
        {"id": 2**35},
        {"name": 5},
        {"tokens": 0},
        {"tokens": "6"},
        {"codes": 1},
        {"channels": 6},
        {"channels": 2**40},
        {"swin_window": 0},
        {"default_quality": 101},
        {"card": "text"},
        {"files": {}},
        {"files": []},
        {"files": dict.fromkeys(FILES, 1)},
        {"files": dict.fromkeys([*FILES, "../secret"], "00")},
        {"numerics": "00"},
        {"surprise": 1},
    ],
)
def test_a_wrong_manifest_is_refused(change: dict[str, object], tmp_path: Path, write_bundle: Write) -> None:
    with pytest.raises(BundleError):
        ModelBundle.open(write_bundle(tmp_path, **change))


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "{}", "[" * 100_000, '"\\ud800', "\0"])
def test_a_manifest_that_is_none_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / MANIFEST).write_text(text)
    with pytest.raises(BundleError):
        ModelBundle.open(tmp_path)


def test_missing_keys_are_named(tmp_path: Path, write_bundle: Write) -> None:
    values = json.loads((write_bundle(tmp_path) / MANIFEST).read_text())
    del values["codes"]
    (tmp_path / MANIFEST).write_text(json.dumps(values))
    with pytest.raises(BundleError, match="codes"):
        ModelBundle.open(tmp_path)


def test_tables_must_fit_the_manifest(
    tmp_path: Path,
    write_bundle: Write,
    arrays: dict[str, NDArray[np.generic]],
    to_npz: Callable[[dict[str, NDArray[np.generic]]], bytes],
) -> None:
    with pytest.raises(BundleError, match="fit"):
        ModelBundle.open(write_bundle(tmp_path / "a", tokens=7)).tables()
    arrays["token_frequency"] = arrays["token_frequency"].reshape(12, 8) * 2
    with pytest.raises(BundleError):
        ModelBundle.open(write_bundle(tmp_path / "b", {TABLES: to_npz(arrays)})).tables()


@pytest.fixture
def installed(tmp_path: Path, write_bundle: Write, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A shipped model 1 and the user's models 1 and 7, one of them broken."""
    write_bundle(tmp_path / "assets" / DEFAULT, name="shipped")
    write_bundle(tmp_path / "models" / "again", name="again")
    write_bundle(tmp_path / "models" / "mine", name="mine", id=7)
    write_bundle(tmp_path / "models" / "broken", format=9)
    monkeypatch.setattr(bundle, "ASSETS", tmp_path / "assets")
    monkeypatch.setenv("DLF_MODELS", str(tmp_path / "models"))
    return tmp_path


@pytest.mark.parametrize(
    ("model", "name"), [(None, "shipped"), (1, "shipped"), (7, "mine"), ("mine", "mine"), ("again", "again")]
)
def test_models_are_found(model: str | int | None, name: str, installed: Path) -> None:
    assert find(model).manifest.name == name


def test_of_bundles_with_one_id_the_default_paints(installed: Path, write_bundle: Write) -> None:
    write_bundle(installed / "assets" / "another", name="before the default by its letters")
    assert [found.manifest.name for found in bundle.installed()][:2] == [
        "shipped",
        "before the default by its letters",
    ]
    assert find(1).manifest.name == "shipped"


def test_roles(installed: Path, write_bundle: Write) -> None:
    assert find("default").manifest.name == find("base").manifest.name == "shipped"
    with pytest.raises(UnknownModel, match=r"no model 'fast'; it has 'default', 'base'$"):
        find("fast")
    write_bundle(installed / "models" / "own", name="fast", id=9)
    assert find("fast").manifest.id == 9
    write_bundle(installed / "assets" / "fast", name="small", id=5)
    assert find("fast").manifest.name == "small"
    assert find(None).manifest.name == "shipped"


def test_models_are_found_by_folder(installed: Path) -> None:
    folder = installed / "models" / "mine"
    assert find(folder).folder == find(str(folder)).folder == folder


def test_unknown_and_broken_models(installed: Path, caplog: pytest.LogCaptureFixture) -> None:
    for model in (3, "other", str(installed), ""):
        with caplog.at_level(logging.WARNING), pytest.raises(UnknownModel, match="not installed"):
            find(model)
    assert "broken" in caplog.text
    with pytest.raises(BundleError):
        find(installed / "models" / "broken")


def test_without_a_home_folder_the_models_of_the_package_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    pwd = pytest.importorskip("pwd", reason="this system has no such users")

    def nobody(_: int) -> None:
        raise KeyError

    monkeypatch.setattr(pwd, "getpwuid", nobody)
    for name in ("HOME", "DLF_MODELS", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert bundle.user_folder() is None
    assert all(model.folder.parent == bundle.ASSETS for model in bundle.installed())
    with pytest.raises(UnknownModel, match=r"put its folder where \$DLF_MODELS says"):
        bundle.find("nowhere")


def test_the_user_folder_has_a_place_on_every_system(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DLF_MODELS", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    monkeypatch.setenv("LOCALAPPDATA", "/data")
    assert bundle.user_folder() == Path("/data/dlf/models")
