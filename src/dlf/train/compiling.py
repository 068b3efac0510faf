"""Compiled networks with a way back, and what a GPU may do faster."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from dlf.errors import DlfError, TrainingError, is_out_of_memory
from dlf.extras import first_line
from dlf.losses.image import Wrap
from dlf.train.config import TrainConfig

log = logging.getLogger(__name__)

VARIANTS = 32  # of a function: shapes, with and without gradients of the input and of the weights


class Compiler:
    """Compiles functions of fixed shapes; after `give_up` they run as they were written.

    A graph's way back is compiled when it is first needed, outside of the function, so what fails is a
    step.  Whoever makes the steps therefore asks `gives_up` and tries again.
    """

    def __init__(self, compile_with: Wrap | None = None) -> None:
        self.active = True
        self._compile = compile_with or _compiled

    def __call__(self, function: Any) -> Any:
        """Return a function that is compiled when it is first called; once for each shape."""
        compiled = self._compile(function)

        def call(*args: Any, **kwargs: Any) -> Any:
            if not self.active:
                return function(*args, **kwargs)
            with torch._dynamo.config.patch(recompile_limit=VARIANTS):
                return compiled(*args, **kwargs)

        return call

    def gives_up(self, error: Exception) -> bool:
        """Whether the step that ended with this error should be tried again without compiling."""
        if not self.active or isinstance(error, DlfError) or is_full(error):
            return False
        self.active = False
        log.warning("compiling failed (%s); the run goes on without", first_line(error))
        return True


def _compiled(function: Any) -> Any:
    return torch.compile(function, dynamic=False)


@contextmanager
def fast_backends(device: torch.device) -> Iterator[None]:
    """Choose what is fast on a GPU and exact where the integer context network needs it; then as it was.

    TF32 stays off: whole numbers below 2**24 would no longer be exact, and what is large runs in bf16
    anyway.  Attention of cuDNN gave NaN on the way back in bf16 on GPUs of 2022 and later.
    """
    if device.type != "cuda":
        yield
        return
    cudnn, cuda = torch.backends.cudnn, torch.backends.cuda
    before = (cudnn.benchmark, cudnn.benchmark_limit, cudnn.allow_tf32, cuda.matmul.allow_tf32)
    attention = cuda.cudnn_sdp_enabled()
    cudnn.benchmark = True  # shapes are few and fixed
    cudnn.benchmark_limit = 4  # of its ten ways: all take half a minute for `base`
    cudnn.allow_tf32 = cuda.matmul.allow_tf32 = False
    cuda.enable_cudnn_sdp(False)
    try:
        yield
    finally:
        cudnn.benchmark, cudnn.benchmark_limit, cudnn.allow_tf32, cuda.matmul.allow_tf32 = before
        cuda.enable_cudnn_sdp(attention)


@contextmanager
def any_shape() -> Iterator[None]:
    """Do not try out convolutions meanwhile: whole images have many shapes, each seen once."""
    before, torch.backends.cudnn.benchmark = torch.backends.cudnn.benchmark, False
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def is_full(error: BaseException) -> bool:
    """Whether a step has ended for want of memory, on a GPU or beside the processor."""
    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError | MemoryError) and is_out_of_memory(error)
    )


def too_large(config: TrainConfig) -> TrainingError:
    """What to say when the memory of what trains is full."""
    return TrainingError(
        f"there is not enough memory for a batch of {config.pixels} pixels: lower `pixels` (and raise "
        f"`parts`, now {config.parts}, as much), or set `recompute: true`; the last checkpoint stays"
    )
