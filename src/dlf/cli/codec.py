"""The codec that the options ask for, refused before the first input where its model cannot follow them."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import chain

import click

import dlf
from dlf.cli.display import Display
from dlf.cli.names import Job
from dlf.cli.options import REFERENCE, Common, Engine, Outputs
from dlf.cli.process import share_one_heap
from dlf.codec.bundle import ModelBundle, find
from dlf.codec.engine import EngineOptions, check_options
from dlf.errors import DlfError, EngineError

log = logging.getLogger(__name__)


def codec_to_encode(common: Common, outputs: Outputs, engine: Engine, display: Display) -> dlf.Codec:
    """Return a codec of the model that is asked for; raises click.UsageError, DlfError."""
    if engine.engine == REFERENCE:
        msg = "--engine reference only decodes"
        raise click.UsageError(msg)
    bundle = find(common.model)
    codec = _codec(common, outputs, engine, display, [bundle])
    if not outputs.skip_existing and bundle.manifest.engine == "onnx":
        with suppress(DlfError):  # said when the first image needs the model
            codec.preload(encode=True)
    return codec


def codec_to_decode(
    common: Common, outputs: Outputs, engine: Engine, display: Display, jobs: Iterable[Job]
) -> dlf.Codec:
    """Return a codec for files that name their models themselves; raises click.UsageError, DlfError."""
    asked = None if common.model is None else find(common.model)
    jobs = list(jobs)
    codec = _codec(
        common, outputs, engine, display, chain([asked] if asked else [], _readers_of(jobs, asked))
    )
    bundle = None if outputs.skip_existing else next(_readers_of(jobs, asked), None)
    if bundle is not None and bundle.manifest.engine == "onnx":
        with suppress(DlfError):  # said when the first file needs the model
            codec.preload(decode=True, model=bundle.folder)
    return codec


def _codec(
    common: Common, outputs: Outputs, engine: Engine, display: Display, bundles: Iterable[ModelBundle]
) -> dlf.Codec:
    share_one_heap()
    options = engine.options(outputs.jobs, display.network)
    if engine.given() or outputs.jobs > 1 or log.isEnabledFor(logging.DEBUG):
        for bundle in bundles:
            _check(bundle, outputs, engine.given(), options)
    log.debug("threads %s, device %s", options.threads or "all", options.device)
    return dlf.Codec(
        common.model, max_pixels=common.max_pixels, max_seconds=common.max_seconds, engine=options
    )


def _check(bundle: ModelBundle, outputs: Outputs, given: list[str], options: EngineOptions) -> None:
    """Raise click.UsageError for options that the engine of a model cannot follow."""
    name = bundle.manifest.name
    log.debug("model %s, number %d, in %s", name, bundle.manifest.id, bundle.folder)
    if bundle.manifest.engine == "torch" and outputs.jobs > 1:
        msg = f"--jobs does not go with the model '{name}': torch runs it with all that there is"
        raise click.UsageError(msg)
    if given:
        try:
            check_options(bundle, options)
        except EngineError as error:
            msg = f"{', '.join(given)}: {error}"
            raise click.UsageError(msg) from error


def _readers_of(jobs: Iterable[Job], asked: ModelBundle | None) -> Iterator[ModelBundle]:
    """Yield the models that read .dlf files, each once; those that cannot be known yet are left out.

    asked: the model that is asked for; it reads files of its number, whichever model wrote them.
    """
    from dlf.bitstream.header import MAX_HEADER_BYTES, Header

    seen = set()
    for job in jobs:
        if not os.path.isfile(job.source):
            continue  # what is read only once is not read here
        try:
            with open(job.source, "rb") as file:
                header, _ = Header.unpack(file.read(MAX_HEADER_BYTES))
            if header.model not in seen:
                seen.add(header.model)
                yield find(header.model, asked)
        except (DlfError, OSError):
            continue  # said when its turn comes
