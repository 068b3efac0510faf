"""The parts of a model on disk: which tensors each holds, and loading one without a second copy."""

from __future__ import annotations

import warnings
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from dlf.codec.bundle import ANALYSIS, CONTEXT, SYNTHESIS
from dlf.errors import BundleError
from dlf.nn.layers import Mlp
from dlf.torch_engine.linear import LinearFactory, replace_linear

PARTS = {
    ANALYSIS: ("encoder.", "quantize.", "details.enc_"),
    CONTEXT: ("details.context.",),
    SYNTHESIS: (
        "decoder.",
        "quantize.",
        "details.dec_",
        "fusion.",
        "vqgan.quantize.",
        "vqgan.post_quant_conv.",
        "vqgan.decoder.",
    ),
}
"""File to the beginnings of its tensors' names.  The codebook of the tokens is in two of them."""

_TOGETHER = 1 << 28  # bytes of a file that may be mapped before its pages are given back


def tensors_of(model: nn.Module, part: str) -> dict[str, tuple[int, ...]]:
    """Name and shape of each tensor of a part."""
    return {
        name: tuple(tensor.shape)
        for name, tensor in model.state_dict().items()
        if name.startswith(PARTS[part])
    }


def stored_type(path: Path) -> str:
    """How the file calls the type of a part's numbers: "F32", "BF16" or "F16"; raises BundleError."""
    try:
        with safe_open(path, "pt") as file:
            dtype: str = file.get_slice("quantize.embedding.weight").get_dtype()
    except (OSError, SafetensorError) as error:
        msg = f"the file {path.name} of the model cannot be read ({error})"
        raise BundleError(msg) from error
    return dtype


def load_part(
    model: nn.Module, path: Path, dtype: torch.dtype, device: str, make: LinearFactory | None = None
) -> None:
    """Fill one part of a model that was built on the meta device.

    path: a file of that part.  dtype: of the parameters.  make: what replaces linear layers, if anything
    (`dlf.torch_engine.linear.linear_factory`).

    Without `make` the parameters stay mapped to the file where device and dtype allow it.  With it layers
    are replaced while the next ones are read, so that there is never more in memory than the model and a
    few of its layers.

    Raises:
        BundleError: the file does not hold the tensors of that part in their shapes.
    """
    try:
        _check(path, tensors_of(model, path.name))
        source = _Source(path, dtype, device, mapped=make is None)
        if make is None:
            _fill(model, "", source, None)
        else:
            with warnings.catch_warnings(), _Packers(make) as packers:
                # torch says that the tensors of the 8-bit layers will go; the kernels have no other door yet
                warnings.simplefilter("ignore", UserWarning)
                _fill(model, "", source, packers)
    except (OSError, SafetensorError) as error:
        msg = f"the file {path.name} of the model cannot be read ({error})"
        raise BundleError(msg) from error


def _check(path: Path, expected: dict[str, tuple[int, ...]]) -> None:
    with safe_open(path, "pt") as file:
        stored = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    if stored != expected:
        names = stored.keys() | expected.keys()
        wrong = sorted(name for name in names if stored.get(name) != expected.get(name))
        msg = f"the file {path.name} of the model lacks tensors or has others: {', '.join(wrong[:3])}"
        raise BundleError(msg)


class _Source:
    """Tensors of a file; pages that were read count as this process's memory until they are given back."""

    def __init__(self, path: Path, dtype: torch.dtype, device: str, *, mapped: bool) -> None:
        self._path, self._dtype, self._device, self._mapped = path, dtype, device, mapped
        self.beginnings = PARTS[path.name]
        self._open()

    def _open(self) -> None:
        self._file = safe_open(self._path, "pt").__enter__()
        self._read = 0

    def has(self, prefix: str) -> bool:
        """Whether there may be tensors under this prefix."""
        return prefix.startswith(self.beginnings) or any(b.startswith(prefix) for b in self.beginnings)

    def get(self, name: str, *, keep: bool) -> Tensor:
        """One tensor; keep: it goes into the model as it is, otherwise its type does not matter."""
        if self._read > _TOGETHER and not self._mapped:
            self._open()
        tensor: Tensor = self._file.get_tensor(name)
        self._read += tensor.nbytes
        if not keep:
            return tensor.to(self._device)
        converted = tensor.to(self._device, self._dtype)
        return converted.clone() if converted is tensor and not self._mapped else converted


class _Packers:
    """Threads that pack layers, each one layer with one thread, while the next are read."""

    def __init__(self, make: LinearFactory) -> None:
        self._make = make
        self._threads = torch.get_num_threads()

    def __enter__(self) -> _Packers:
        # what packs a layer in torch uses one thread, mostly
        self._pool = ThreadPoolExecutor(self._threads, initializer=torch.set_num_threads, initargs=(1,))
        self._waiting: deque[tuple[nn.Module, str, Future[nn.Module]]] = deque()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            while self._waiting and kind is None:
                self._take()
        finally:
            self._pool.shutdown(cancel_futures=True)
            torch.set_num_threads(self._threads)  # of threads to come, too

    def add(self, parent: nn.Module, name: str, child: nn.Module) -> None:
        """Let the child of a module be replaced by what it is packed into."""
        self._waiting.append((parent, name, self._pool.submit(replace_linear, child, self._make)))
        while len(self._waiting) > 2 * self._threads:
            self._take()

    def _take(self) -> None:
        parent, name, packed = self._waiting.popleft()
        setattr(parent, name, packed.result())


def _fill(module: nn.Module, prefix: str, source: _Source, packers: _Packers | None) -> None:
    """Fill a module and all below it; with packers its linear layers are replaced, its own tensors kept."""
    for name, _ in module.named_parameters(recurse=False):
        if (prefix + name).startswith(source.beginnings):
            tensor = source.get(prefix + name, keep=not isinstance(module, nn.Linear) or packers is None)
            setattr(module, name, nn.Parameter(tensor, requires_grad=False))
    for name, child in module.named_children():
        if not source.has(f"{prefix}{name}."):
            continue
        _fill(child, f"{prefix}{name}.", source, packers)
        if packers is not None and isinstance(child, nn.Linear | Mlp) and not isinstance(module, Mlp):
            packers.add(module, name, child)
