"""One process or many: what ranks must do together.  Every function also works without a process group.

Gradients are averaged by DistributedDataParallel; what is here keeps the rest of a run the same on all
ranks: code books, stopping, logged means, results of the validation.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from dlf.errors import TrainingError

T = TypeVar("T")

PATIENCE = timedelta(hours=2)  # rank 0 validates and writes alone, which takes long for a large model


def choose_device(name: str) -> torch.device:
    """Return the device of this process: "auto" is the GPU of its local rank where there is one.

    Raises:
        TrainingError: a GPU is asked for and there is none for this process.
    """
    local, count = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if name == "cpu" or (name == "auto" and count == 0):
        return torch.device("cpu")
    if local >= count:
        msg = f"process {local} of this machine needs a GPU of its own, and there are {count}"
        raise TrainingError(msg)
    torch.cuda.set_device(local)
    return torch.device("cuda", local)


@contextmanager
def process_group(device: torch.device) -> Iterator[None]:
    """Join the processes that torchrun started (nccl on GPUs, else gloo); nothing to do for one alone."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    # what the hosts agree on goes from host to host, so that no device waits
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    try:
        yield
    finally:
        dist.destroy_process_group()


def rank() -> int:
    """Return the number of this process, 0 for the one that validates, logs and saves."""
    return dist.get_rank() if dist.is_initialized() else 0


def size() -> int:
    """Return how many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def own_parts(parts: int) -> range:
    """Return which of a step's batches this process computes.

    Raises:
        TrainingError: the processes cannot share them equally.
    """
    if parts % size():
        msg = f"{size()} processes cannot share {parts} batches a step: set `parts` to a multiple of {size()}"
        raise TrainingError(msg)
    return range(rank(), parts, size())


def data_parallel(module: nn.Module, device: torch.device) -> nn.Module:
    """Wrap a module so that gradients are averaged and all ranks start from rank 0's weights."""
    if size() == 1:
        return module
    ids = [device.index] if device.type == "cuda" else None
    return nn.parallel.DistributedDataParallel(module, device_ids=ids, broadcast_buffers=False)


def all_reduce_max(*values: float) -> list[float]:
    """Return the largest of each value over the ranks."""
    if size() == 1:
        return list(values)
    largest = torch.tensor(values, dtype=torch.float64)
    dist.all_reduce(largest, dist.ReduceOp.MAX)
    return largest.tolist()


def all_reduce_any(value: bool) -> bool:
    """Return whether it is true on any rank."""
    return bool(all_reduce_max(value)[0])


def broadcast_tensor(tensor: Tensor) -> None:
    """Overwrite with rank 0's."""
    if size() > 1:
        dist.broadcast(tensor, src=0)


def broadcast(value: T) -> T:
    """Return rank 0's value on every rank."""
    if size() == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def all_reduce_mean(terms: dict[str, float]) -> dict[str, float]:
    """Means over the ranks; all have the same keys."""
    rows = _gather_objects(terms)
    return {key: sum(row[key] for row in rows) / len(rows) for key in terms}


def all_reduce_sum(count: int) -> int:
    """Sum over the ranks."""
    return sum(_gather_objects(count))


def all_gather_rows(tensors: Sequence[Tensor]) -> Tensor:
    """Rows of this rank's tensors, then those of the other ranks: the same (N, ...) on every rank.

    In the order of the step's batches, so that many processes see what one would.  The tensors have one
    shape on all ranks.
    """
    own = torch.stack(list(tensors))
    if size() == 1:
        return own.flatten(0, 1)
    parts = [torch.empty_like(own) for _ in range(size())]
    dist.all_gather(parts, own.contiguous())
    return torch.stack(parts, 1).flatten(0, 2)


@torch.no_grad()
def average_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Average gradients that DistributedDataParallel does not see, such as a discriminator's."""
    if size() > 1:
        for parameter in parameters:
            if parameter.grad is not None:
                dist.all_reduce(parameter.grad)
                parameter.grad /= size()


@contextmanager
def all_reduce_statistics(module: nn.Module) -> Iterator[None]:
    """Add up how far the ranks move running statistics meanwhile, as if they came one after the other."""
    if size() == 1:
        yield
        return
    before = {name: buffer.clone() for name, buffer in module.named_buffers()}
    yield
    for name, buffer in module.named_buffers():
        if buffer.is_floating_point():
            moved = buffer - before[name]
            dist.all_reduce(moved)
            buffer.copy_(before[name] + moved)


def _gather_objects(value: T) -> list[T]:
    if size() == 1:
        return [value]
    values: list[T] = [value] * size()
    dist.all_gather_object(values, value)
    return values
