"""The networks of a bundle in torch, for models too large for a graph file, and for GPUs."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from threading import Lock

import numpy as np
import torch
from torch import Tensor, nn

from dlf.codec.bundle import ANALYSIS, CONTEXT, SYNTHESIS, ModelBundle
from dlf.codec.engine import EngineOptions
from dlf.entropy.tables import Tables
from dlf.errors import BundleError, EngineError
from dlf.geometry import CELL, Plan
from dlf.nn.context import ContextModel
from dlf.nn.levels import from_levels, to_levels
from dlf.nn.model import Analysis, Dlf, Synthesis
from dlf.nn.model_config import ModelConfig, from_dict
from dlf.nn.windows import Grid, make_grid
from dlf.records import WHOLE, Float32, Int32, Latents, Place, Prior, StepParams, UInt8
from dlf.torch_engine.linear import linear_factory
from dlf.torch_engine.loading import load_part, stored_type, tensors_of
from dlf.torch_engine.pixel_decoder import decoder_dtype, prepare_decoder
from dlf.torch_engine.resources import (
    activation_bytes,
    check_memory,
    limited_threads,
    report_progress,
    weight_bytes,
)
from dlf.torch_engine.snapped_context import MEAN_UNIT, STEP_UNIT, SnappedContext


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
        units = (tables.mean_unit, tables.step_unit) == (MEAN_UNIT, STEP_UNIT)
        if config.quant.integer or tables.token_prior or not units:
            msg = f"the tables of the model '{bundle.manifest.name}' do not fit its context network"
            raise BundleError(msg)
        with torch.device("meta"):
            self.model = Dlf(config).eval().requires_grad_(False)
        self._bundle, self._options, self._device = bundle, options, usable_device(options)
        self._loaded: set[str] = set()
        self._precision = "float32"
        self._context: SnappedContext | None = None
        self._loading = Lock()

    def analyse(self, rgb: UInt8, quality: int, place: Place = WHOLE) -> Latents:
        """Pixels to latents; see `Backend`."""
        z, y = self.latents(rgb, quality, place.corner)
        with torch.inference_mode(), limited_threads(self._options.threads):
            tokens = self.model.quantize.nearest(z).cpu().numpy().astype(np.int32)
        return Latents(tokens, y[0].float().cpu().numpy())

    def prior(self, rows: int, cols: int, quality: int, tokens: Int32) -> Prior:
        """Parameters of the first step; see `Backend`.  No model of floats reads the tokens here."""
        with limited_threads(self._options.threads):
            return self._snapped().prior(rows, cols, quality)

    def context(self, step: int, y_hat: Int32, common: Float32) -> StepParams:
        """Parameters of step 1, 2 or 3; see `Backend`."""
        with limited_threads(self._options.threads):
            return self._snapped().context(step, y_hat, common)

    def synthesise(self, tokens: Int32, y_hat: Float32, quality: int, place: Place = WHOLE) -> UInt8:
        """Latents to pixels; see `Backend`."""
        synthesis = self.decode(tokens, y_hat, quality, place.corner)
        with torch.inference_mode(), limited_threads(self._options.threads):
            rgb: UInt8 = to_levels(synthesis.image[0].float()).permute(1, 2, 0).cpu().numpy()
        return rgb

    @torch.inference_mode()
    def latents(self, rgb: UInt8, quality: int, corner: tuple[int, int] = (0, 0)) -> Analysis:
        """What the networks make of an image, unquantised, a batch of one; arguments as `analyse`."""
        with limited_threads(self._options.threads):
            dlf = self.load(ANALYSIS, rgb.shape[0] * rgb.shape[1])
            pixels = from_levels(torch.tensor(rgb, device=self._device))
            return dlf.analyse(
                pixels, self._quality(quality), self._grid(Plan(rgb.shape[0], rgb.shape[1], corner=corner))
            )

    @torch.inference_mode()
    def decode(
        self, tokens: Int32, y_hat: Float32, quality: int, corner: tuple[int, int] = (0, 0)
    ) -> Synthesis:
        """Image and fused latent in floats, a batch of one; arguments as `synthesise`."""
        with limited_threads(self._options.threads):
            dlf = self.load(SYNTHESIS, CELL**2 * y_hat[0].size)
            grid = self._grid(Plan(CELL * y_hat.shape[1], CELL * y_hat.shape[2], corner=corner))
            indices = torch.from_numpy(tokens.astype(np.int64)).to(self._device)
            details = torch.from_numpy(y_hat)[None].to(self._device)
            return dlf.synthesise(dlf.lookup(indices), indices >= 0, details, self._quality(quality), grid)

    def _snapped(self) -> SnappedContext:
        with self._loading:
            if self._context is None:
                load_part(self.model, self._bundle.check(CONTEXT), torch.float32, "cpu")
                context = self.model.details.context
                assert isinstance(context, ContextModel)  # the other kind belongs to an ablation
                self._context = SnappedContext(context)
            return self._context

    def load(self, name: str, pixels: int) -> Dlf:
        """The model with one of its parts ready to run on so many pixels; reads it the first time.

        Raises:
            BundleError: the part's file is damaged.
            EngineError: there is not enough memory.
        """
        with self._loading:
            if name in self._loaded:
                check_memory(self._work(name, pixels), f"an image of {pixels:,} pixels")
            else:
                self._load(name, pixels)
        return self.model

    def _load(self, name: str, pixels: int) -> None:
        path = self._bundle.check(name)
        precision = self._options.precision or _PRECISION[stored_type(path)]
        self._precision = precision = "float32" if self._options.compiled else precision
        size = weight_bytes(sum(map(prod, tensors_of(self.model, name).values())), precision)
        check_memory(size + self._work(name, pixels), f"the model in {precision}")
        make = None if self._options.compiled else linear_factory(precision, self._device)
        load_part(self.model, path, torch.float32, self._device, make)
        if name == SYNTHESIS:
            prepare_decoder(self.model.vqgan.decoder, decoder_dtype(precision, self._device))
        for module in _PARTS[name](self.model):
            if self._options.compiled:
                module.compile()
        if self._options.progress is not None:
            report_progress(_PARTS[name](self.model), _LABELS[name], self._options.progress)
        self._loaded.add(name)

    def _work(self, name: str, pixels: int) -> int:
        """Bytes of memory that a part needs to run on so many pixels; not known for a GPU's own."""
        if self._device != "cpu":
            return 0
        dtype = decoder_dtype(self._precision, self._device) if name == SYNTHESIS else None
        return activation_bytes(self.model.config, pixels, dtype)

    def _grid(self, plan: Plan) -> Grid:
        # the model's own `grid` follows a buffer that no file fills
        window = self.model.config.detail.swin_window
        return make_grid(*plan.patches, window, torch.device(self._device), plan.first_patch)

    def _quality(self, quality: int) -> Tensor:
        return torch.tensor([float(quality)], device=self._device)


_LABELS = {ANALYSIS: "analysis", SYNTHESIS: "synthesis"}
_PARTS: dict[str, Callable[[Dlf], list[nn.Module]]] = {
    ANALYSIS: lambda model: [model.encoder],
    SYNTHESIS: lambda model: [model.decoder, model.fusion, model.vqgan.decoder],
}

# what a stored type runs in unless told otherwise; few processors multiply in float16
_PRECISION = {"F32": "float32", "BF16": "bfloat16", "F16": "float32"}


def usable_device(options: EngineOptions) -> str:
    """Return the device that options name; raises EngineError if it or the precision cannot be had here."""
    try:
        torch.empty(0, device=options.device)
    except (RuntimeError, AssertionError) as error:
        msg = f"torch cannot use the device '{options.device}' here"
        raise EngineError(msg) from error
    if options.precision == "int8" and (
        options.device != "cpu" or "fbgemm" not in torch.backends.quantized.supported_engines
    ):
        msg = "int8 needs an x86 processor"
        raise EngineError(msg)
    if options.compiled and options.precision not in (None, "float32"):
        msg = "a compiled model runs in float32 only"
        raise EngineError(msg)
    return options.device
