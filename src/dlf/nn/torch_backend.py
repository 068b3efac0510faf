"""The networks of a bundle in torch, for models too large for a graph file, and for GPUs."""

from __future__ import annotations

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from dlf.codec.bundle import ANALYSIS, CONTEXT, SYNTHESIS, ModelBundle
from dlf.codec.engine import EngineOptions
from dlf.entropy.tables import Tables
from dlf.errors import BundleError, EngineError
from dlf.geometry import PATCH
from dlf.nn.config import ModelConfig, from_dict
from dlf.nn.model import Dlf, Fused
from dlf.nn.packed import linear_maker
from dlf.nn.parts import load_part
from dlf.nn.snapped import MEAN_UNIT, STEP_UNIT, SnappedContext
from dlf.nn.windows import Grid, Windows
from dlf.records import Float32, Int32, Latents, Prior, StepParams, UInt8


class TorchBackend:
    """`Backend` over `Dlf`; each part of the model is read when first needed.

    Raises:
        BundleError: the bundle is damaged or not of this form.
        EngineError: the device is not there.
    """

    def __init__(self, bundle: ModelBundle, tables: Tables, options: EngineOptions) -> None:
        try:
            config = from_dict(ModelConfig, bundle.manifest.network)
        except ValueError as error:
            msg = f"the model '{bundle.manifest.name}' has a configuration that this package does not read"
            raise BundleError(msg) from error
        if config.quant.integer or (tables.mean_unit, tables.step_unit) != (MEAN_UNIT, STEP_UNIT):
            msg = f"the tables of the model '{bundle.manifest.name}' do not fit its context network"
            raise BundleError(msg)
        with torch.device("meta"):
            self.model = Dlf(config).eval().requires_grad_(False)
        self._bundle, self._options, self._device = bundle, options, _device(options)
        self._loaded: set[str] = set()
        self._context: SnappedContext | None = None
        if options.threads is not None:
            torch.set_num_threads(options.threads)

    def analyse(self, rgb: UInt8, quality: int) -> Latents:
        """Pixels to latents; see `Backend`."""
        z, y = self.latents(rgb, quality)
        with torch.inference_mode():
            tokens = self.model.quantize.nearest(z).cpu().numpy().astype(np.int32)
        return Latents(tokens, y.float().cpu().numpy())

    def prior(self, rows: int, cols: int, quality: int) -> Prior:
        """Parameters of the first step; see `Backend`."""
        return self._snapped().prior(rows, cols, quality)

    def context(self, step: int, y_hat: Int32, common: Float32) -> StepParams:
        """Parameters of step 1, 2 or 3; see `Backend`."""
        return self._snapped().context(step, y_hat, common)

    def synthesise(self, tokens: Int32, y_hat: Float32, quality: int) -> UInt8:
        """Latents to pixels; see `Backend`."""
        _, picture = self.paint(tokens, y_hat, quality)
        with torch.inference_mode():
            levels = ((picture.clamp(-1, 1) + 1) * 127.5 + 0.5).floor().permute(1, 2, 0)
            found: UInt8 = levels.to(torch.uint8).cpu().numpy()
        return found

    @torch.inference_mode()
    def latents(self, rgb: UInt8, quality: int) -> tuple[Tensor, Tensor]:
        """Token vectors (windows, tokens, code dim) and latent y (channels, rows, cols), unquantised."""
        model = self._part(ANALYSIS)
        pixels = torch.from_numpy(rgb).to(self._device).permute(2, 0, 1)[None].float() / 255
        z, feature = model.encoder(pixels, self._grid(*rgb.shape[:2]))
        return z, model.details.analyse(feature, self._quality(quality))[0]

    @torch.inference_mode()
    def paint(self, tokens: Int32, y_hat: Float32, quality: int) -> tuple[Fused, Tensor]:
        """The fused latent and the picture, float (3, H, W) in about [-1, 1]; arguments as `synthesise`."""
        model = self._part(SYNTHESIS)
        grid = self._grid(*(2 * PATCH * n for n in y_hat.shape[1:]))
        indices = torch.from_numpy(tokens.astype(np.int64)).to(self._device)
        codes = model.quantize.codebook()[indices.clamp(min=0)]
        latent = torch.from_numpy(y_hat)[None].to(self._device)
        fused = model.fuse(codes, indices >= 0, latent, self._quality(quality), grid)
        return fused, model.vqgan.decode(fused.latent)[0]

    def _snapped(self) -> SnappedContext:
        if self._context is None:
            load_part(self.model, self._bundle.check(CONTEXT), torch.float32, "cpu")
            self._context = SnappedContext(self.model.details.context)
        return self._context

    def _part(self, name: str) -> Dlf:
        """The model with one of its parts ready to run."""
        if name not in self._loaded:
            path = self._bundle.check(name)
            with safe_open(path, "pt") as file:
                stored = file.get_slice("quantize.embedding.weight").get_dtype()
            precision = self._options.precision or _PRECISION[stored]
            load_part(self.model, path, torch.float32, self._device, linear_maker(precision, self._device))
            if name == SYNTHESIS:
                self.model.vqgan.decoder.to(memory_format=torch.channels_last)
            self._loaded.add(name)
        return self.model

    def _grid(self, height: int, width: int) -> Grid:
        return Grid(*(_to(win, self._device) for win in self.model.grid(height, width)))

    def _quality(self, quality: int) -> Tensor:
        return torch.tensor([float(quality)], device=self._device)


# what a stored type runs in unless told otherwise; few processors multiply in float16
_PRECISION = {"F32": "float32", "BF16": "bfloat16", "F16": "float32"}


def _device(options: EngineOptions) -> str:
    try:
        torch.empty(0, device=options.device)
    except (RuntimeError, AssertionError) as error:
        msg = f"torch cannot use the device '{options.device}' here"
        raise EngineError(msg) from error
    if options.device != "cpu" and options.precision == "int8":
        msg = "int8 runs on the processor only"
        raise EngineError(msg)
    return options.device


def _to(win: Windows, device: str) -> Windows:
    return Windows(*(part.to(device) for part in win[:4]), whole=win.whole)
