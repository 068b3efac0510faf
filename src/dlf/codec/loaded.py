"""Models that are ready to run: the one that was asked for, and those that files name."""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlf.codec import bundle
from dlf.codec.bundle import ModelBundle
from dlf.codec.codec import StreamCodec
from dlf.codec.effort import STEPS, Effort, Judges, Search, check_effort
from dlf.codec.engine import EngineOptions, make_codec, make_judges
from dlf.errors import ChecksumError

if TYPE_CHECKING:
    from dlf.codec.file_forms import WholeFile


@dataclass(frozen=True)
class _Loaded:
    bundle: ModelBundle
    codec: StreamCodec


class LoadedModels:
    """Models, each loaded once, when first needed; several threads may use them.

    first: the model that is taken where a file does not ask for another.
    engine: what runs their networks.
    max_seconds: limit of the time of one image, or None.
    """

    def __init__(self, first: ModelBundle, engine: EngineOptions, max_seconds: float | None) -> None:
        self.first, self.engine, self.max_seconds = first, engine, max_seconds
        self._loaded: dict[Path, _Loaded] = {}
        self._judges: dict[Path, Judges] = {}

    def __getstate__(self) -> dict[str, Any]:
        """All but what is loaded: networks can be neither copied nor sent."""
        return vars(self) | {"_loaded": {}, "_judges": {}}

    def within(self, max_seconds: float | None) -> LoadedModels:
        """Return the same models, with the networks that are loaded, under another limit of time."""
        other = copy(self)
        other.max_seconds = max_seconds
        other._loaded, other._judges = self._loaded, self._judges
        return other

    def writer(self, file: WholeFile) -> ModelBundle:
        """Return the model whose symbols a file holds: the first, else one that fits.

        Raises:
            UnknownModel: no model of the file's number is installed.
            ChecksumError: none of those that are fits.
        """
        number, misfits = file.header.model, set()
        for candidate in self._candidates(number):
            if file.fits(candidate.manifest.numerics):
                return candidate
            misfits.add(f"'{candidate.manifest.name}'")
        if not misfits:
            raise bundle.not_installed(number)
        msg = (
            "the checksum does not match: the file is damaged, or written with another model of the number "
            f"{number} than {', '.join(sorted(misfits))}"
        )
        raise ChecksumError(msg)

    def _candidates(self, number: int) -> Iterator[ModelBundle]:
        """Yield the models of a number: the first, those that are loaded, then the installed."""
        loaded = [kept.bundle for kept in list(self._loaded.values())]
        for candidate in chain([self.first], loaded, bundle.installed()):
            if candidate.manifest.id == number:
                yield candidate

    def ready(self, model: ModelBundle | None = None, soon: tuple[str, ...] = ()) -> StreamCodec:
        """Return what codes one image with a model, None being the first.

        soon: graphs to begin to build, those that are not built; see `make_codec`.
        """
        codec = self._load(model or self.first, soon).codec
        return codec if self.max_seconds is None else codec.within(self.max_seconds)

    def searching(self, effort: int, soon: tuple[str, ...] = ()) -> StreamCodec:
        """Return what codes one image with the first model and an effort; soon: see `ready`.

        Raises:
            InvalidArgument, TypeError: there is no such effort.
            MissingExtra: an effort above 0 needs torch, which is not installed.
            EngineError: the model cannot be searched with.
        """
        steps = STEPS[check_effort(effort)]
        if not steps:
            return self.ready(soon=soon)
        place = self.first.folder
        if place not in self._judges:
            self._judges.setdefault(place, make_judges(self.first, self.engine))
        return self.ready(soon=soon).searching(Effort(Search(steps), self._judges[place]))

    def _load(self, model: ModelBundle, soon: tuple[str, ...]) -> _Loaded:
        if model.folder not in self._loaded:
            loaded = _Loaded(model, make_codec(model, model.tables(), self.engine, soon))
            self._loaded.setdefault(model.folder, loaded)  # all threads take the one that came first
        else:
            self._loaded[model.folder].codec.prepare(soon)
        return self._loaded[model.folder]
