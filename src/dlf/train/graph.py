"""A whole step as one CUDA graph: the GPU is told once what to do, and then only to do it again.

A step of these networks is some thousands of small kernels, and a processor needs longer to launch them one
by one than a GPU to run them.  Recorded and replayed, they follow each other without a gap, and nothing
needs to be compiled.  What changes from step to step must be in the step's inputs, or in tensors that are
changed in place.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from dlf.errors import DlfError
from dlf.extras import first_line
from dlf.train.compiling import is_full
from dlf.train.stage import Inputs

log = logging.getLogger(__name__)

WARM_UP = 3  # steps as they are written before one is recorded: optimisers and libraries set themselves up

Result = tuple[dict[str, Tensor], Tensor]
"""Terms of a step, and whether it was taken: scalars on the device."""

Step = Callable[[Inputs], Result]
Recorder = Callable[[Callable[[], Result]], tuple[Result, Callable[[], None]]]
"""Records a call without carrying it out; returns its results, and what fills them by doing it."""


@dataclass
class _Recording:
    """A step of one shape of inputs."""

    steps: int = 0
    inputs: Inputs = field(default_factory=dict)
    result: Result | None = None
    replay: Callable[[], None] | None = None


class StepGraph:
    """Steps that are recorded after some of each shape; where that fails, they go on as they are written.

    record: does it; `record_cuda` but in tests.
    """

    def __init__(self, step: Step, record: Recorder | None = None) -> None:
        self.active = True
        self._step, self._record = step, record or record_cuda
        self._recordings: dict[tuple[tuple[str, torch.Size], ...], _Recording] = {}

    def __call__(self, inputs: Inputs) -> Result:
        """Take a step; the results are overwritten by the next one of the same shape."""
        if not self.active:
            return self._step(inputs)
        shape = tuple((name, tensor.shape) for name, tensor in inputs.items())
        recording = self._recordings.setdefault(shape, _Recording())
        if recording.replay is None:
            recording.steps += 1
            if recording.steps <= WARM_UP or not self._recorded(recording, inputs):
                return self._step(inputs)
        for name, tensor in inputs.items():
            recording.inputs[name].copy_(tensor)
        assert recording.replay is not None
        assert recording.result is not None
        recording.replay()
        return recording.result

    def _recorded(self, recording: _Recording, inputs: Mapping[str, Tensor]) -> bool:
        recording.inputs = {name: tensor.clone() for name, tensor in inputs.items()}
        try:
            recording.result, recording.replay = self._record(lambda: self._step(recording.inputs))
        except DlfError:
            raise
        except Exception as error:
            if is_full(error):
                raise
            self.active = False
            log.warning("a step cannot be recorded (%s); the run goes on without", first_line(error))
        return self.active


def record_cuda(call: Callable[[], Result]) -> tuple[Result, Callable[[], None]]:
    """Record on the current GPU."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        result = call()
    return result, graph.replay
