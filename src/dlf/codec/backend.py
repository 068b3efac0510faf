"""The border between the codec and whatever runs the networks (numpy in, numpy out)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from numpy.typing import NDArray

from dlf.errors import BundleError, is_out_of_memory
from dlf.records import WHOLE, Float32, Int32, Latents, Place, Prior, StepParams, UInt8


class Backend(Protocol):
    """The four networks of one model."""

    def analyse(self, rgb: UInt8, quality: int, place: Place = WHOLE) -> Latents:
        """Pixels to latents.

        rgb: uint8 (H, W, 3), H and W multiples of 32.  quality: 0..100.
        """
        ...

    def prior(self, rows: int, cols: int, quality: int, tokens: Int32) -> Prior:
        """Integer parameters that are known before any detail symbol; exact everywhere.

        tokens: int32 (windows, tokens a window), -1 where not sent.  Only a model whose tables say
        `token_prior` reads them; with any other, size and quality decide all.
        """
        ...

    def context(self, step: int, y_hat: Int32, common: Float32) -> StepParams:
        """Integer parameters of step 1, 2 or 3 from what is decoded so far; exact everywhere.

        y_hat: int32 (channels, rows, cols) in units of 1/16, zero where not yet decoded.
        """
        ...

    def synthesise(self, tokens: Int32, y_hat: Float32, quality: int, place: Place = WHOLE) -> UInt8:
        """Latents to pixels: uint8 (32 * rows, 32 * cols, 3).

        tokens: int32 (windows, tokens a window), -1 where not sent.
        y_hat: float32 (channels, rows, cols), dequantised (times the step).
        """
        ...


@runtime_checkable
class Preparing(Protocol):
    """A backend that can build graphs before they are needed."""

    def prepare(self, graphs: Iterable[str]) -> None:
        """Begin to build graphs that are not built yet; returns at once."""
        ...


Run = Callable[[Sequence[str], Mapping[str, NDArray[Any]]], list[NDArray[Any]]]


@dataclass(frozen=True)
class Network:
    """A graph of ONNX that a library has built.

    inputs: names of those that it has.
    run: called with names of outputs and an array for each input, returns the outputs.
    run_large: the same, where memory counts more than a tenth of the time: it is given back afterwards.
    """

    inputs: tuple[str, ...]
    run: Run
    run_large: Run | None = None


@contextmanager
def library_errors(sentence: str) -> Iterator[None]:
    """Make a BundleError, or a MemoryError, of whatever a library raises."""
    try:
        yield
    except Exception as error:  # the libraries' exceptions have no common base of their own
        if is_out_of_memory(error):
            raise MemoryError from error
        msg = f"{sentence} ({error})"
        raise BundleError(msg) from error
