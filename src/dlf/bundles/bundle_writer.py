"""What all bundles have alike when they are written: tables, hashes, manifest, a folder that is whole."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from dlf.codec.bundle import ENGINES, FORMAT, MANIFEST, TABLES, Manifest, numerics_id, sha256_of
from dlf.codec.exactness import CONTEXT, PRIOR, prove_files
from dlf.entropy.tables import Tables
from dlf.files import write_bytes
from dlf.nn.model_config import ModelConfig, to_dict


@dataclass(frozen=True)
class BundleSpec:
    """What a manifest says beside the model itself.

    name, id: how people and streams name the model.  default_quality: 0..100.  card: what people should know
    about it, free-form.
    """

    name: str
    id: int
    default_quality: int = 50
    card: dict[str, Any] = field(default_factory=dict)


def tables_file(**arrays: Any) -> bytes:
    """The bytes of a `tables.npz`; see `dlf.entropy.tables.Tables` for names, shapes and types."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def seal(folder: Path, engine: str, config: ModelConfig, spec: BundleSpec) -> None:
    """Write the manifest of the files that lie in a folder, the last of a bundle.

    engine: what runs the model, a key of `dlf.codec.bundle.ENGINES`.

    Raises:
        BundleError: a value of the manifest is out of range, or what decides symbols is not exact.
        OSError: a file is missing, or the manifest cannot be written.
    """
    _prove(folder, engine)
    hashes = _hashes(folder, engine)
    manifest = Manifest(
        format=FORMAT,
        name=spec.name,
        id=spec.id,
        numerics=numerics_id(hashes, ENGINES[engine].numerics),
        files=hashes,
        tokens=config.tokens.count,
        codes=config.tokens.codes,
        channels=config.quant.channels,
        swin_window=config.detail.swin_window,
        default_quality=spec.default_quality,
        card=spec.card,
        engine=engine,
        # graphs say for themselves what they compute
        network=to_dict(config) if engine == "torch" else {},
    )
    _write(folder, manifest)


def seal_like(folder: Path, base: Manifest, name: str, card: dict[str, Any]) -> None:
    """As `seal`, for files of which those that decide the symbols are the ones of `base`."""
    _prove(folder, base.engine)
    _write(folder, replace(base, name=name, card=card, files=_hashes(folder, base.engine)))


@contextmanager
def staged(folder: Path) -> Iterator[Path]:
    """A folder to write to, which takes the place of `folder` at the end.

    Whatever fails removes it; then the folder that was there is as it was.
    """
    part, old = (folder.with_name(folder.name + ending) for ending in (".part", ".old"))
    for left in (part, old):
        shutil.rmtree(left, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        yield part
        if folder.exists():
            folder.rename(old)
        try:
            part.rename(folder)
        except OSError:
            if old.exists():
                old.rename(folder)
            raise
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _prove(folder: Path, engine: str) -> None:
    """Refuse graphs in which a number can reach 2**24; of the torch engine there are none."""
    if engine == "onnx":
        tables, prior, context = ((folder / name).read_bytes() for name in (TABLES, PRIOR, CONTEXT))
        prove_files(Tables.load(tables), prior, context)


def _hashes(folder: Path, engine: str) -> dict[str, str]:
    return {name: sha256_of(folder / name) for name in ENGINES[engine].files}


def _write(folder: Path, manifest: Manifest) -> None:
    write_bytes(folder / MANIFEST, manifest.dump().encode())
