"""The whole check of a file, part after part, up to the first that is wrong."""

from __future__ import annotations

from collections.abc import Callable

from dlf.bitstream import container, packets
from dlf.codec import file_forms
from dlf.codec.codec import StreamCodec
from dlf.codec.file_forms import WholeFile
from dlf.errors import DlfError, UnknownModel
from dlf.records import Verdict


def check_file(
    read: Callable[[], bytes],
    max_pixels: int,
    codec_of: Callable[[WholeFile], tuple[str, StreamCodec]],
    *,
    paint: bool = False,
) -> Verdict:
    """Check a file, as `dlf.Codec.verify` says.

    read: returns its bytes, and refuses those whose header no file has.
    codec_of: returns name and codec of the model whose checksum a stream has, or raises.
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
        name, codec = codec_of(file)
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
