"""imageio reads and writes ``.dlf`` files once this module is imported, under the plugin name "dlf".

>>> import dlf.imageio_plugin
>>> iio.imwrite("photo.dlf", rgb, quality=30)
>>> iio.imread("photo.dlf")
"""

from __future__ import annotations

from typing import Any

import numpy as np
from imageio.config import FileExtension, PluginConfig, known_extensions, known_plugins
from imageio.core.request import InitializationError, IOMode, Request
from imageio.plugins.pillow import PillowPlugin
from numpy.typing import ArrayLike

from dlf import pillow_plugin

NAME = "dlf"


class DlfPlugin(PillowPlugin):
    """imageio's own plugin for Pillow, for ``.dlf`` files alone; its keywords are the same.

    Raises InitializationError if the data to read or the name to write is not of this format.
    """

    def __init__(self, request: Request) -> None:
        writing = request.mode.io_mode == IOMode.write
        if writing:
            request.format_hint = pillow_plugin.EXTENSION  # the bytes or file to write may have no name
        super().__init__(request)
        if writing:
            fits = request.extension == pillow_plugin.EXTENSION
        else:
            fits = isinstance(self._image, pillow_plugin.DlfImageFile)
        if not fits:
            msg = "this is not a .dlf file"
            raise InitializationError(msg)

    def write(
        self, ndimage: ArrayLike | list[ArrayLike], *, is_batch: bool | None = None, **options: Any
    ) -> bytes | None:
        """Write one image: uint8 (H, W) or (H, W, 3); options: as `dlf.pillow_plugin.register` says.

        Returns the bytes of the file where the target is "<bytes>", else None.

        Raises:
            ValueError: several images, or as Pillow's `save`.
        """
        if is_batch or isinstance(ndimage, list) or np.ndim(ndimage) > 3:
            msg = "a .dlf file holds one image, not a batch"
            raise ValueError(msg)
        data: bytes | None = super().write(ndimage, format=pillow_plugin.FORMAT, is_batch=False, **options)
        return data


def register() -> None:
    """Tell imageio of the plugin; importing this module has done it already."""
    known_plugins[NAME] = PluginConfig(NAME, "DlfPlugin", __name__)
    known_extensions[pillow_plugin.EXTENSION] = [
        FileExtension(extension=pillow_plugin.EXTENSION, priority=[NAME], name=pillow_plugin.FORMAT)
    ]


register()
