"""The whole check of a file, part after part, up to the first that is wrong."""

from __future__ import annotations

from collections.abc import Callable

from dlf.bitstream import container, packets
from dlf.codec import file_forms
from dlf.codec.bundle import ModelBundle
from dlf.codec.codec import StreamCodec
from dlf.codec.file_forms import WholeFile
from dlf.errors import DlfError, UnknownModel
from dlf.records import Verdict


def check_file(
    read: Callable[[], bytes],
    max_pixels: int,
    model_of: Callable[[WholeFile], ModelBundle],
    codec_of: Callable[[ModelBundle], StreamCodec],
    *,
    paint: bool = False,
) -> Verdict:
    """Check a file, as `dlf.Codec.verify` says.

    read: returns its bytes, and refuses those whose header no file has.
    model_of: returns the model whose checksum a file has, or raises.  codec_of: makes it ready.
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
        model = model_of(file)
        name, codec = model.manifest.name, codec_of(model)
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
