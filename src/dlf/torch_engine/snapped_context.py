"""The float context network for real streams: float64, then snapped to a grid.

Two machines may sum in another order, so their float64 results differ in the last bits, by some 1e-14 of
the value.  What decides symbols is therefore rounded to the nearest point of a much coarser grid (halves
to the even one) before anything depends on it:

    scale   2**-20, and compared with the tables' bounds in this form
    mean    2**-14 of a quantisation step; what later steps see is whole in these units
    common  float32

Both machines get the same point unless a value lies within their difference of the middle between two.
Nothing is gained by a finer grid than a symbol needs, and with each step the network starts again from
equal numbers.  The remaining chance is caught by the sum that follows the symbols
(`dlf.codec.symbol_sum`).
"""

from __future__ import annotations

import copy

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dlf.errors import EngineError
from dlf.nn.context import ContextModel, Params
from dlf.records import Float32, Int32, Prior, StepParams

SCALE_UNIT = 2**20
MEAN_UNIT = 2**14
STEP_UNIT = 2**16
_LIMIT = 2**30  # a symbol of 2**15 in units of the mean and a mean together fit an int32


class SnappedContext:
    """`Backend.prior` and `Backend.context` of a float model.

    context: its network; it stays as it is, a copy works in float64 on the processor.
    """

    def __init__(self, context: ContextModel) -> None:
        self._context = copy.deepcopy(context).to("cpu", torch.float64).requires_grad_(False)

    @torch.inference_mode()
    def prior(self, rows: int, cols: int, quality: int) -> Prior:
        """Parameters of the first step; see `Backend`."""
        vector = self._context.prior_vector(torch.tensor([quality], dtype=torch.float64))
        first, step, common = self._context.prior(vector.expand(-1, -1, rows, cols))
        return Prior(
            first=_params(first), common=_numpy(common).astype(np.float32), step=_snap(step, STEP_UNIT)
        )

    @torch.inference_mode()
    def context(self, step: int, y_hat: Int32, common: Float32) -> StepParams:
        """Parameters of step 1, 2 or 3; see `Backend`."""
        decoded = torch.from_numpy(y_hat.astype(np.float64) / MEAN_UNIT)[None]
        features = torch.from_numpy(common.astype(np.float64))[None]
        return _params(self._context.context(step - 1, decoded, features))


def _params(params: Params) -> StepParams:
    return StepParams(_snap(params.scale, SCALE_UNIT), _snap(params.mean, MEAN_UNIT))


def _snap(x: Tensor, unit: int) -> Int32:
    """Float64 (1, C, h, w) to the nearest grid point, int32 (C, h, w) in units of 1 / unit."""
    return np.clip(np.rint(_numpy(x) * unit), -_LIMIT, _LIMIT).astype(np.int32)


def _numpy(x: Tensor) -> NDArray[np.float64]:
    """The one sample of float64 (1, C, h, w); raises EngineError for what is not finite."""
    sample: NDArray[np.float64] = x[0].numpy()
    if not np.isfinite(sample).all():
        msg = "the model's context network gave a value that is not finite"
        raise EngineError(msg)
    return sample
