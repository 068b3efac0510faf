"""Parameters of a request's query to the tasks they ask for."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from starlette.datastructures import QueryParams

from dlf.errors import InvalidArgument
from dlf.imageio.formats import OUTPUTS
from dlf.service.media import MEDIA_TYPES, accepted
from dlf.service.tasks import Decode, Describe, Encode, Refused, Rival, Spending

WHOLE = re.compile(r"[0-9]{1,12}")
NUMBER = re.compile(r"[0-9]{0,6}\.?[0-9]{1,12}")
TRUTH = {"1": True, "true": True, "0": False, "false": False}


class Query:
    """The query of a request; raises Refused (422) for what it holds besides `names`, or holds twice."""

    def __init__(self, query: QueryParams, names: Collection[str]) -> None:
        self._values = dict(query)
        if unknown := sorted(set(self._values) - set(names)):
            known = ", ".join(names) or "none at all"
            raise Refused(422, f"there is no parameter {unknown[0]!r:.40} here; there are: {known}")
        if len(query.multi_items()) > len(self._values):
            raise Refused(422, "a parameter is given twice")

    def whole(self, name: str) -> int | None:
        """Return a whole number, None where it is not given; raises Refused."""
        text = self._values.get(name)
        if text is None:
            return None
        if not WHOLE.fullmatch(text):
            raise Refused(422, f"{name} must be a whole number, not {text!r:.40}")
        return int(text)

    def number(self, name: str) -> float | None:
        """Return a number, None where it is not given; raises Refused."""
        text = self._values.get(name)
        if text is None:
            return None
        if not NUMBER.fullmatch(text):
            raise Refused(422, f"{name} must be a number such as 0.02, not {text!r:.40}")
        return float(text)

    def truth(self, name: str) -> bool:
        """Return a truth value, False where it is not given; raises Refused."""
        text = self._values.get(name, "false")
        if text.lower() not in TRUTH:
            raise Refused(422, f"{name} must be true or false, not {text!r:.40}")
        return TRUTH[text.lower()]

    def text(self, name: str) -> str | None:
        """Return a text, None where it is not given."""
        return self._values.get(name)


def encode(query: QueryParams, models: Mapping[str, str]) -> Encode:
    """Read what is asked of an encoding; models: folders by whatever clients may call them.

    Raises:
        Refused: 422.
    """
    values = Query(query, ("quality", "bytes", "bpp", "best", "model", "metadata"))
    sizes = [name for name in ("quality", "bytes", "bpp") if values.text(name) is not None]
    if len(sizes) > 1:
        raise Refused(422, f"{sizes[1]} is not allowed with {sizes[0]}")
    model = values.text("model")
    if model is not None and model not in models:
        # looked up among names only: a client's text must never be taken for a folder
        raise Refused(422, f"there is no model {model!r:.60} here; there are: {', '.join(models)}")
    return Encode(
        model=None if model is None else models[model],
        quality=values.whole("quality"),
        max_bytes=values.whole("bytes"),
        bpp=values.number("bpp"),
        best=values.truth("best"),
        metadata=values.truth("metadata"),
    )


def decode(query: QueryParams, accept: str, formats: Collection[str]) -> Decode:
    """Read what is asked of a decoding; formats: those that can be written here.

    Raises:
        Refused: 422, or 406 where the client accepts no picture that we have.
    """
    values = Query(query, ("format", "quality"))
    name = values.text("format")
    if name is None:
        name = accepted(accept)
        if name is None:
            raise Refused(
                406, f"none of {', '.join(MEDIA_TYPES.values())} is accepted, and nothing else is made"
            )
        name = name if name in formats else "png"
    name = {"jpg": "jpeg"}.get(name.lower(), name.lower())
    if name not in formats:
        raise Refused(422, f"there is no format {name!r:.40} here; there are: {', '.join(formats)}")
    quality = values.whole("quality")
    try:
        OUTPUTS[name].check_quality(quality)  # before a worker decodes for nothing
    except InvalidArgument as error:
        raise Refused(422, str(error)) from error
    return Decode(name, quality)


def describe(query: QueryParams) -> Describe:
    """Read what is asked of a description; raises Refused (422)."""
    return Describe(Query(query, ("symbols",)).truth("symbols"))


def rival(query: QueryParams) -> Rival:
    """Read what is asked of the rival; raises Refused (422)."""
    values = Query(query, ("bytes", "best"))
    most = values.whole("bytes")
    if not most:
        raise Refused(422, "say how many bytes the AVIF file may have: ?bytes=1200")
    return Rival(most, values.truth("best"))


def spending(query: QueryParams) -> Spending:
    """Return the task, which takes no parameters; raises Refused (422) where there are some."""
    Query(query, ())
    return Spending()
