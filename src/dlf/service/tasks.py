"""What a worker can be asked to do, and what it answers."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any, TypeAlias

JSON = "application/json"
DLF = "image/x-dlf"


@dataclass(frozen=True)
class Encode:
    """A picture to a ``.dlf`` file; see `dlf.Codec.encode`.  model: folder, None is the service's own."""

    model: str | None = None
    quality: int | None = None
    max_bytes: int | None = None
    bpp: float | None = None
    best: bool = False
    metadata: bool = False


@dataclass(frozen=True)
class Decode:
    """A ``.dlf`` file to a picture.

    format: of `dlf.imageio`.  quality: of that format, None is its default.
    """

    format: str
    quality: int | None = None


@dataclass(frozen=True)
class Describe:
    """What a ``.dlf`` file says of itself; symbols: with the bits of tokens and details."""

    symbols: bool = False


@dataclass(frozen=True)
class Spending:
    """Where the bits of a ``.dlf`` file went."""


@dataclass(frozen=True)
class Rival:
    """A picture to an AVIF file of at most so many bytes, scaled down first where that pays.

    best: where no file is so small, take the smallest.
    """

    max_bytes: int
    best: bool = False


Task: TypeAlias = Encode | Decode | Describe | Spending | Rival

TASKS: dict[str, type[Task]] = {kind.__name__: kind for kind in (Encode, Decode, Describe, Spending, Rival)}


@dataclass(frozen=True)
class Answer:
    """What goes back to whoever asked: a status of HTTP, further headers, a body and its type."""

    body: bytes
    media_type: str = JSON
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


def refusal(status: int, sentence: str, **headers: str) -> Answer:
    """Return an answer that says in a sentence why there is no other."""
    return Answer(to_json({"error": sentence}), JSON, status, headers)


class Refused(Exception):
    """A request gets no other answer than a status and a sentence for the client.

    Attributes:
        retry_after: seconds after which it may try again; None says nothing of it.
    """

    def __init__(self, status: int, sentence: str, retry_after: int | None = None) -> None:
        super().__init__(sentence)
        self.status, self.sentence, self.retry_after = status, sentence, retry_after

    def answer(self) -> Answer:
        """Return what the client is told."""
        headers = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        return refusal(self.status, self.sentence, **headers)


def to_json(value: object) -> bytes:
    """Return the bytes of a JSON text."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()


def pack_task(task: Task) -> dict[str, Any]:
    """Return a task as JSON has it; `unpack_task` is the way back."""
    return {"task": type(task).__name__, **asdict(task)}


def unpack_task(fields: dict[str, Any]) -> Task:
    """Return the task that `pack_task` packed."""
    return TASKS[fields.pop("task")](**fields)
