"""Parts of the service without a service: what is accepted, what workers are told, settings."""

from __future__ import annotations

import asyncio
import errno
import io
import json
import os
import time

import numpy as np
import pytest

import dlf

pytest.importorskip("starlette")

from dlf.service import bodies, frames, pool
from dlf.service.media import accepted
from dlf.service.metrics import Metrics
from dlf.service.settings import Settings
from dlf.service.tasks import Encode, Refused, pack_task, unpack_task


class TestPieces:
    """What no client of a sound service brings about."""

    def test_forms_of_all_kinds(self) -> None:
        """A form gives its file or is refused, whatever it is made of."""
        head = b'--b\r\nContent-Disposition: form-data; name="f"; filename="x"\r\n\r\n'
        whole = head + bytes(range(256)) + b"\r\n--b--\r\n"
        form = "multipart/form-data; boundary=b"
        assert bodies.first_file(whole, form) == bytes(range(256))
        rng = np.random.default_rng(3)
        outcomes = set()
        for _ in range(500):
            damaged = bytearray(whole[: rng.integers(len(whole) + 1)] if rng.random() < 0.5 else whole)
            for place in rng.integers(0, max(1, len(damaged)), 2):
                damaged[place : place + 1] = rng.bytes(int(rng.integers(3)))
            try:
                bodies.first_file(bytes(damaged), form)
                outcomes.add(200)
            except Refused as error:
                outcomes.add(error.status)
        assert outcomes == {200, 422}

    def test_forms_that_are_refused(self) -> None:
        form = "multipart/form-data; boundary=b"
        many = b"--b\r\nA: b\r\n\r\n\r\n" * 200_000
        file = b'--b\r\nContent-Disposition: form-data; name="f"; filename="x"\r\n\r\nbytes'
        start = time.process_time()
        for body, says in ((many, "parts"), (file, "cut off"), (b"--b\r\n\r\nx\r\n--b--\r\n", "no file")):
            with pytest.raises(Refused, match=says) as refused:
                bodies.first_file(body, form)
            assert refused.value.status == 422
        assert time.process_time() - start < 0.5  # reading all of `many` takes seconds

    def test_what_a_worker_may_send(self) -> None:
        """Pickles it cannot, nor more than we would hold."""
        assert frames.parse(b'{"status":200}') == {"status": 200}
        for text in (b"[]", b"1", b"\x80\x04.", b""):
            with pytest.raises(frames.BrokenFrame):
                frames.parse(text)
        with pytest.raises(frames.BrokenFrame):
            frames.lengths(b"\xff" * 8)
        head = frames.head({"task": "Spending"}, 3)
        found = frames.read_blocking(io.BytesIO(head + b"abc"))
        assert found == ({"task": "Spending"}, b"abc")
        assert frames.read_blocking(io.BytesIO(head + b"ab")) is None

    def test_a_task_travels(self) -> None:
        task = Encode(model="models/own", max_bytes=900, best=True)
        assert unpack_task(json.loads(json.dumps(pack_task(task)))) == task

    @pytest.mark.parametrize(("accept", "name"), [
        ("", "png"), ("*/*", "png"), ("image/*;q=0.5, image/jpeg", "jpeg"), ("text/html", None),
        ("image/avif;q=0, image/webp;q=0.1", "webp"), ("image/png;q=x", None), (";;,,q=", None),
    ])  # fmt: skip
    def test_what_is_accepted(self, accept: str, name: str | None) -> None:
        assert accepted(accept) == name


def test_settings_that_cannot_be() -> None:
    for wrong in (
        {"workers": 0},
        {"queue": -1},
        {"timeout": float("nan")},
        {"port": 70000},
        {"max_bytes": 0},
        {"max_bytes": 2**30 + 1},  # more than goes through the pipe to a worker
    ):
        with pytest.raises(dlf.InvalidArgument):
            Settings(**wrong)  # type: ignore[arg-type]


def test_a_worker_that_cannot_be_started_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    tries = 0

    async def start(options: object) -> pool.Worker:
        nonlocal tries
        tries += 1
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    async def keep() -> bool:
        workers = pool.Pool(Settings(workers=1), Metrics())
        workers.open()
        while tries < 3:
            await asyncio.sleep(0.001)
        kept = not any(task.done() for task in workers._keepers)
        await workers.close()
        return kept

    monkeypatch.setattr(pool.Worker, "start", start)
    monkeypatch.setattr(pool, "FIRST_PAUSE", 0.0)
    assert asyncio.run(asyncio.wait_for(keep(), 20))
