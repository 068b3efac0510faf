"""The whole check of a file, part after part, up to the first that is wrong."""

from __future__ import annotations

from collections.abc import Callable

from dlf.bitstream import container, packets
from dlf.codec import file_forms
from dlf.codec.loaded import LoadedModels
from dlf.errors import DlfError, UnknownModel
from dlf.records import Verdict


def check_file(
    read: Callable[[], bytes],
    max_pixels: int,
    models: LoadedModels,
    *,
    paint: bool = False,
) -> Verdict:
    """Check a file, as `dlf.Codec.verify` says.

    read: returns its bytes, and refuses those whose header no file has.
    models: those that may have written it.
    """
    size: int | None = None
    name: str | None = None
    good: dict[str, bool] = {}
    part = "header"
    try:
        data = read()
        size = len(data)
        if data.startswith(packets.START):
            packets.load(data, max_pixels)  # which have no metadata
            good[part], part = True, "metadata"
        else:
            opened = container.open_parts(data, max_pixels)
            good[part], part = True, "metadata"
            opened.metadata()
        good[part], part = True, "checksum"
        file = file_forms.load(data, max_pixels)
        model = models.writer(file)
        name, codec = model.manifest.name, models.ready(model)
        good[part], part = True, "symbols"
        received = file.receive(codec)
        good[part], part = True, "painted"
        if paint:
            codec.paint(received, file.header)
            good[part] = True
    except DlfError as error:
        if not isinstance(error, UnknownModel):  # which says nothing of the file
            good[part] = False
        return Verdict(str(error), size, name, **good)
    return Verdict(None, size, name, **good)
