"""The service under pressure: what hangs, dies, dawdles or comes too often is one request's trouble alone."""

from __future__ import annotations

import io
import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import dlf
from service_run import DIRECT, Reply, Running, ask, serving

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

import uvicorn
from starlette.types import Receive, Scope, Send

from dlf.errors import BundleError
from dlf.service.app import respond
from dlf.service.protocol import PatientProtocol
from dlf.service.tasks import Answer, Encode
from dlf.service.work import Work, WorkerOptions

pytestmark = pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")

PHOTO = Path(__file__).parents[1] / "data" / "astronaut.jpg"
PLACES = 3  # one worker and two that wait


def jpeg(box: tuple[int, int, int, int]) -> bytes:
    file = io.BytesIO()
    with Image.open(PHOTO) as image:
        image.crop(box).save(file, "JPEG", quality=95)
    return file.getvalue()


SMALL = jpeg((150, 20, 310, 180))


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One worker, and little patience."""
    with serving(
        tmp_path_factory.mktemp("service"), workers=1, queue=PLACES - 1, threads=1, timeout=4.0,
        upload_timeout=1.5, idle_timeout=1.0,
    ) as running:  # fmt: skip
        yield running
    assert "Traceback" not in running.said()


@pytest.fixture
def hang(service: Running) -> Iterator[int]:
    """The worker stands still; its process number."""
    service.wait_for_workers(1)
    [pid] = service.workers()
    os.kill(pid, signal.SIGSTOP)
    yield pid
    with suppress(ProcessLookupError):  # it may be replaced
        os.kill(pid, signal.SIGCONT)


@pytest.fixture
def later() -> Iterator[Callable[..., Future[Reply]]]:
    """Ask in another thread."""
    with ThreadPoolExecutor(16) as threads:
        yield lambda *arguments, **headers: threads.submit(ask, *arguments, **headers)


def taken(service: Running) -> int:
    text = ask(f"{service.url}/metrics").body.decode()
    [line] = [line for line in text.splitlines() if line.startswith("dlf_places_taken ")]
    return int(float(line.split()[1]))


def wait_for(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def replaced(service: Running, pid: int) -> bool:
    return bool(service.workers()) and pid not in service.workers()


Later = Callable[..., "Future[Reply]"]


def test_a_full_queue(service: Running, hang: int, later: Later) -> None:
    """Those who have a place wait, the next is told to come again; the rest of the service goes on."""
    waiting = [later(f"{service.url}/encode", SMALL) for _ in range(PLACES)]
    wait_for(lambda: taken(service) == PLACES)
    reply = ask(f"{service.url}/encode", SMALL)
    assert reply.status == 429
    assert 1 <= int(reply.headers["retry-after"]) <= 60
    assert "try again" in json.loads(reply.body)["error"]
    assert ask(f"{service.url}/health").status == 200
    os.kill(hang, signal.SIGCONT)
    assert [each.result().status for each in waiting] == [200] * PLACES
    assert taken(service) == 0


def test_a_worker_that_hangs(service: Running, hang: int, later: Later) -> None:
    slow = later(f"{service.url}/encode", SMALL)
    assert slow.result().status == 504
    assert "more than 4 seconds" in json.loads(slow.result().body)["error"]
    wait_for(lambda: replaced(service, hang))
    assert ask(f"{service.url}/encode", SMALL).status == 200
    assert 'dlf_workers_replaced_total{reason="timeout"}' in ask(f"{service.url}/metrics").body.decode()


def test_a_picture_that_takes_long() -> None:
    """A worker sees by itself that its time is over; it is ended only where it sees nothing any more."""
    options = WorkerOptions(model=None, threads=1, max_pixels=10**6, max_seconds=1e-6, engine="onnxruntime")
    answer = Work(options).answer(Encode(), SMALL)
    assert (answer.status, b"longer than the limit" in answer.body) == (504, True)


def test_a_worker_that_is_killed(service: Running, hang: int, later: Later) -> None:
    lost = later(f"{service.url}/encode", SMALL)
    wait_for(lambda: taken(service) == 1)
    time.sleep(0.3)  # until the worker has it
    waiting = later(f"{service.url}/encode?quality=9", SMALL)
    os.kill(hang, signal.SIGKILL)
    assert lost.result().status == 503
    assert lost.result().headers["retry-after"] == "1"
    # the next gets its answer from the next worker, if that is there in time
    assert waiting.result().status in (200, 503)
    wait_for(lambda: replaced(service, hang))
    assert ask(f"{service.url}/ready").status == 200
    assert ask(f"{service.url}/encode", SMALL).status == 200


def test_an_upload_that_dawdles(service: Running) -> None:
    with socket.create_connection(("127.0.0.1", service.port), 20) as link:
        link.sendall(b"POST /encode HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n")
        start = time.monotonic()
        link.settimeout(0.2)
        reply = b""
        while not reply and time.monotonic() - start < 15:
            with suppress(TimeoutError):
                reply = link.recv(1000)
            if not reply:
                link.sendall(b"x")
        assert reply.startswith(b"HTTP/1.1 408 ")
    assert taken(service) == 0


@pytest.mark.parametrize("sent", [b"", b"POST /enc", b"GET /health HTTP/1.1\r\nHost: x\r\nX-A: "])
def test_a_head_that_never_ends(service: Running, sent: bytes) -> None:
    with socket.create_connection(("127.0.0.1", service.port), 20) as link:
        link.sendall(sent)
        start = time.monotonic()
        assert link.recv(1000) == b""
        assert time.monotonic() - start < 10


@pytest.mark.parametrize("pace", [150_000, 0])
def test_an_answer_that_is_taken_slowly(pace: int) -> None:
    """Whoever takes some of it all the time gets it whole, also where all takes longer than the patience."""
    answer = bytes(12_000_000)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await respond(Answer(answer))(scope, receive, send)

    class Impatient(PatientProtocol):
        idle_timeout = 0.5

    config = uvicorn.Config(app, http=Impatient, ws="none", lifespan="off", port=0, log_config=None)
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listening, socket.socket() as link:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**16)
            link.connect(listening.getsockname())
            link.settimeout(10)
            link.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            time.sleep(0 if pace else 1.5)
            taken = 0
            with suppress(ConnectionResetError):
                while part := link.recv(pace or 2**20):
                    taken += len(part)
                    time.sleep(0.02 if pace else 0)
        finally:
            server.should_exit = True
            thread.join()
    assert (taken > len(answer)) == bool(pace)


def test_a_client_that_goes_away(service: Running, hang: int, later: Later) -> None:
    """What nobody waits for any more is not begun."""
    first = later(f"{service.url}/encode", SMALL)
    wait_for(lambda: taken(service) == 1)
    head = f"POST /encode HTTP/1.1\r\nHost: x\r\nContent-Length: {len(SMALL)}\r\n\r\n".encode()
    with socket.create_connection(("127.0.0.1", service.port), 10) as link:
        link.sendall(head + SMALL)
        wait_for(lambda: taken(service) == 2)
    time.sleep(0.2)
    os.kill(hang, signal.SIGCONT)
    assert first.result().status == 200
    wait_for(lambda: taken(service) == 0)
    assert " 499 " in service.said()


def test_noise_instead_of_http(service: Running) -> None:
    rng = np.random.default_rng(5)
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", service.port), 10) as link:
            try:
                link.sendall(rng.bytes(int(rng.integers(1, 5000))) + b"\r\n\r\n")
                link.recv(1000)
            except OSError:
                pass
    assert ask(f"{service.url}/health").status == 200


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_signal_as_soon_as_the_address_is_told(tmp_path: Path) -> None:
    told = "lambda address: os.kill(os.getpid(), signal.SIGTERM)"
    script = DIRECT.replace("import ast,", "import ast, os, signal,").partition("lambda")[0] + told + ")"
    line = [sys.executable, "-c", script, "{'port': 0, 'workers': 1}"]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stderr.rstrip().endswith("ended")


@pytest.mark.parametrize("graph", ["analysis.onnx", "context.onnx", "prior.onnx", "synthesis.onnx"])
def test_a_worker_looks_at_all_networks_however_short_the_time_limit_is(tmp_path: Path, graph: str) -> None:
    """The limit is one for pictures; a start that takes longer must not count as one that went well."""
    model = shutil.copytree(dlf.models()[0].folder, tmp_path / "model")
    (model / graph).write_bytes(bytes(100))
    options = WorkerOptions(
        model=str(model), threads=1, max_pixels=10**6, max_seconds=1e-6, engine="onnxruntime"
    )
    with pytest.raises(BundleError, match="is damaged: its hash is wrong"):
        Work(options).warm_up()


def test_a_model_that_is_damaged(tmp_path: Path) -> None:
    """A worker says so and ends; it is started again later, for the model may be mended."""
    shutil.copytree(dlf.models()[0].folder, tmp_path / "model")
    (tmp_path / "model" / "synthesis.onnx").write_bytes(bytes(100))
    with serving(tmp_path, "--workers", "1", "--timeout", "1", "--model", str(tmp_path / "model")) as running:
        wait_for(lambda: "is damaged: its hash is wrong" in running.said(), 60)
        assert ask(f"{running.url}/ready").status == 503
        assert ask(f"{running.url}/encode", SMALL).status == 503
        assert ask(f"{running.url}/health").status == 200
        assert "Fatal" not in running.said()
        assert "Traceback" not in running.said()


class TestEnd:
    """These have a service each, for they end it."""

    def test_what_has_begun_is_done(self, tmp_path: Path, later: Later) -> None:
        with serving(tmp_path, "--workers", "1", "--threads", "1") as running:
            running.wait_for_workers(1)
            [pid] = running.workers()
            os.kill(pid, signal.SIGSTOP)
            asked = [later(f"{running.url}/encode?quality={q}", SMALL) for q in (10, 20)]
            wait_for(lambda: taken(running) == 2)
            running.process.send_signal(signal.SIGTERM)
            wait_for(lambda: refuses(running.port))
            os.kill(pid, signal.SIGCONT)
            assert [each.result().status for each in asked] == [200, 200]
            assert running.process.wait(30) == 0
            wait_for(lambda: is_gone(pid))

    @pytest.mark.slow
    def test_workers_end_with_a_service_that_is_killed(self, tmp_path: Path) -> None:
        with serving(tmp_path, "--workers", "1") as running:
            running.wait_for_workers(1)
            [pid] = running.workers()
            running.process.kill()
            wait_for(lambda: is_gone(pid))

    def test_a_port_that_is_taken(self, tmp_path: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken_by:
            port = str(taken_by.getsockname()[1])
            line = [sys.executable, "-m", "dlf", "serve", "--port", port]
            done = subprocess.run(line, capture_output=True, text=True, timeout=60)
        assert done.returncode == 1
        assert done.stderr.splitlines()[-1].startswith(f"dlf: cannot listen on 127.0.0.1, port {port}: ")


def refuses(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return True
    return False


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    # a process that nobody has waited for yet is as good as gone
    return "Z" in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2][:3]


@pytest.mark.slow
def test_a_minute_of_many_clients(tmp_path: Path) -> None:
    """Every answer is right or says to wait; the memory does not grow."""
    psutil = pytest.importorskip("psutil")
    boxes = [(x, y, x + 128, y + 128) for x, y in ((0, 0), (150, 20), (200, 300), (350, 90))]
    pictures = [jpeg(box) for box in boxes]
    codec = dlf.Codec(threads=1, engine=dlf.EngineOptions(engine="onnxruntime"))
    local = [np.asarray(codec.decode(codec.encode(picture, 30))).astype(int) for picture in pictures]
    counts: Counter[int] = Counter()
    wrong: list[str] = []
    memory: list[int] = []
    end = time.monotonic() + 60

    def client(number: int) -> None:
        turn = number
        while time.monotonic() < end:
            turn += 1
            place = turn % len(pictures)
            coded = ask(f"{running.url}/encode?quality=30", pictures[place])
            counts[coded.status] += 1
            if coded.status != 200:
                time.sleep(0.2)
                continue
            painted = ask(f"{running.url}/decode", coded.body)
            counts[painted.status] += 1
            if painted.status == 200:
                with Image.open(io.BytesIO(painted.body)) as image:
                    if abs(np.asarray(image).astype(int) - local[place]).max() > 1:
                        wrong.append(f"picture {place}")

    with serving(tmp_path, "--workers", "2", "--threads", "1", "--queue", "10", "--quiet") as running:
        wait_for(lambda: ask(f"{running.url}/ready").body == b'{"status":"ready","workers":2}', 60)
        family = [psutil.Process(running.process.pid)]
        family += family[0].children()
        threads = [threading.Thread(target=client, args=(number,)) for number in range(16)]
        for thread in threads:
            thread.start()
        while time.monotonic() < end:
            memory.append(sum(process.memory_info().rss for process in family))
            time.sleep(0.5)
        for thread in threads:
            thread.join()
        assert len(family) == 3
        assert all(process.is_running() for process in family)
    third = len(memory) // 3
    before, after = np.median(memory[third : 2 * third]), np.median(memory[2 * third :])
    logging.info("%s, %d MB then %d MB", dict(counts), before / 1e6, after / 1e6)
    assert not wrong
    assert set(counts) <= {200, 429, 503}
    assert counts[200] > 100
    assert counts[429] > 0
    assert after < 1.05 * before
