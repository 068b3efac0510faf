"""``.dlf`` in imageio: its functions, found by name, by contents and by the plugin's name."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import dlf
from dlf import api
from dlf.codec import bundle
from dlf.records import UInt8

iio = pytest.importorskip("imageio.v3")
from dlf import imageio_plugin  # noqa: E402

pytestmark = pytest.mark.usefixtures("mock_models")


@pytest.fixture
def rgb(picture: Callable[[int, int], UInt8]) -> UInt8:
    return picture(40, 50)


def test_write_and_read(rgb: UInt8, tmp_path: Path) -> None:
    path = tmp_path / "a.dlf"
    iio.imwrite(path, rgb, quality=30)
    data = path.read_bytes()
    assert data == dlf.encode(rgb, 30)
    decoded = np.asarray(dlf.decode(data))
    for source in (path, str(path), data, io.BytesIO(data)):
        for plugin in (None, "dlf", imageio_plugin.DlfPlugin):
            found = iio.imread(source, plugin=plugin)
            np.testing.assert_array_equal(found, decoded)
            assert found.flags.writeable


def test_the_plugin_is_chosen_for_the_name(rgb: UInt8, tmp_path: Path) -> None:
    path = tmp_path / "a.dlf"
    for mode in "wr":
        with iio.imopen(path, mode) as file:
            assert isinstance(file, imageio_plugin.DlfPlugin)
            if mode == "w":
                file.write(rgb)
            else:
                assert file.read(mode="L").shape == (40, 50)


def test_bytes(rgb: UInt8) -> None:
    grey = rgb[..., 0]
    for image in (rgb, grey):
        for chosen in ({"plugin": "dlf"}, {"extension": ".dlf"}):
            assert iio.imwrite("<bytes>", image, quality=80, **chosen) == dlf.encode(image, 80)


def test_properties_and_metadata_need_no_model(rgb: UInt8, monkeypatch: pytest.MonkeyPatch) -> None:
    exif = Image.Exif()
    exif[0x010F] = "maker"
    data = iio.imwrite("<bytes>", rgb, extension=".dlf", exif=exif)
    monkeypatch.setattr(bundle, "find", None)
    api._default_codec.cache_clear()
    properties = iio.improps(data, plugin="dlf")
    assert (properties.shape, properties.dtype, properties.is_batch) == ((40, 50, 3), np.uint8, False)
    metadata = iio.immeta(data, plugin="dlf")
    assert (metadata["quality"], metadata["model"], metadata["Make"]) == (50, 1, "maker")


def test_one_image(rgb: UInt8, tmp_path: Path) -> None:
    data = iio.imwrite("<bytes>", rgb, extension=".dlf")
    assert [image.shape for image in iio.imiter(data, plugin="dlf")] == [(40, 50, 3)]
    assert iio.imread(data, plugin="dlf", index=...).shape == (1, 40, 50, 3)
    for batch in ([rgb], [rgb, rgb], np.stack([rgb, rgb])):
        with pytest.raises(ValueError, match="one image"):
            iio.imwrite(tmp_path / "a.dlf", batch)
    with pytest.raises(ValueError, match="one image"):
        iio.imwrite(tmp_path / "a.dlf", rgb[..., 0], is_batch=True)


def test_what_is_no_dlf_file(rgb: UInt8, tmp_path: Path) -> None:
    iio.imwrite(tmp_path / "a.png", rgb)
    (tmp_path / "a.png").rename(tmp_path / "b.dlf")
    np.testing.assert_array_equal(iio.imread(tmp_path / "b.dlf"), rgb)  # imageio goes by contents
    with pytest.raises(OSError, match="can not handle"):
        iio.imread(tmp_path / "b.dlf", plugin="dlf")
    with pytest.raises(OSError, match="can not handle"):
        iio.imwrite(tmp_path / "c.png", rgb, plugin="dlf")
    assert not (tmp_path / "c.png").exists()


def test_damage_is_told(rgb: UInt8) -> None:
    data = iio.imwrite("<bytes>", rgb, extension=".dlf")
    with pytest.raises(OSError, match="checksum"):
        iio.imread(data[:-1], plugin="dlf")
