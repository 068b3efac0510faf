"""LPIPS, DISTS and SSIMULACRA2 through the libraries of their authors; imported when a metric is made.

Zhang et al. 2018; Ding et al. 2020; Cloudinary's SSIMULACRA 2.1.  The networks under LPIPS and DISTS are
torchvision's, whose weights it downloads when they are first used; without them a metric is left out.
"""

from __future__ import annotations

import io
import sys
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlf.errors import MissingExtra
from dlf.evaluation.metrics.metric import Metric, Score
from dlf.evaluation.metrics.pixels import extended, png
from dlf.extras import first_line, loaded, need
from dlf.records import UInt8

if TYPE_CHECKING:
    from torch import Tensor

Distance = Callable[["Tensor", "Tensor"], "Tensor"]
"""Of RGB float32 (1, 3, H, W) in [0, 1]."""

SMALLEST_SIDE = 64
"""A smaller image is extended by repeating its last line, for AlexNet needs as much."""


def lpips_metric(network: str, *, random_weights: bool = False) -> Metric:
    """LPIPS version 0.1 over "alex" or "vgg"; random_weights: of the network below, for tests.

    Raises:
        MissingExtra: the library or the weights are not there.
    """
    library = loaded("lpips", "pip install lpips torchvision")
    title = {"alex": "LPIPS (Alex)", "vgg": "LPIPS (VGG)"}[network]
    model = with_weights(
        f"the {network} network of LPIPS",
        lambda: library.LPIPS(net=network, pnet_rand=random_weights, verbose=False).eval(),
    )
    identity = f"lpips {network} {version('lpips')}"
    return _metric(f"lpips_{network}", title, identity, lambda x, y: model(2 * x - 1, 2 * y - 1))


def dists_metric() -> Metric:
    """DISTS.

    Raises:
        MissingExtra: the library or the weights are not there.
    """
    library = loaded("DISTS_pytorch", "pip install dists-pytorch torchvision")
    torch = need("torch", "torch")
    # the library looks for its own few weights where not every way of installing it puts them
    own = Path(library.__file__).parent / "weights.pt"
    path = own if own.exists() else Path(sys.prefix, "weights.pt")

    def make() -> Any:
        model = library.DISTS(load_weights=False)
        weights = torch.load(path, weights_only=True)
        model.alpha.data, model.beta.data = weights["alpha"], weights["beta"]
        return model.eval()

    model = with_weights("the network of DISTS", make)
    return _metric("dists", "DISTS", f"dists {version('dists-pytorch')}", lambda x, y: model(x, y))


def ssimulacra2_metric() -> Metric:
    """SSIMULACRA 2.1, up to 100, higher is better; an image smaller than 8 pixels is extended.

    Raises:
        MissingExtra: the library is not installed.
    """
    library = loaded("ssimulacra2", "pip install ssimulacra2")

    def against(original: UInt8) -> Score:
        reference = png(extended(original, 8))
        return lambda image: float(
            library.compute_ssimulacra2(io.BytesIO(reference), io.BytesIO(png(extended(image, 8))))
        )

    return Metric("ssimulacra2", "SSIMULACRA2", 2, against, identity=f"ssimulacra2 {version('ssimulacra2')}")


def with_weights(what: str, make: Callable[[], Any]) -> Any:
    """Return what `make` makes; raises MissingExtra that names the weights if they cannot be had."""
    from torch import hub

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torchvision deprecates what LPIPS and DISTS ask it for
            return make()
    except (OSError, RuntimeError) as error:  # no network, no such file, a file cut off
        folder = Path(hub.get_dir()) / "checkpoints"
        msg = f"the weights of {what} could not be downloaded to '{folder}' ({first_line(error)})"
        raise MissingExtra(msg) from error


def _metric(name: str, title: str, identity: str, distance: Distance) -> Metric:
    import torch

    def prepare(image: UInt8) -> Tensor:
        wide = extended(image, SMALLEST_SIDE)
        return torch.tensor(wide).permute(2, 0, 1)[None].float() / 255

    def against(original: UInt8) -> Score:
        reference = prepare(original)

        def score(image: UInt8) -> float:
            with torch.inference_mode():
                return float(distance(reference, prepare(image)))

        return score

    return Metric(name, title, 4, against, lower_is_better=True, identity=identity)
