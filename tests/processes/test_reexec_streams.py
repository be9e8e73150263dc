"""Many re-execs while answers stream and requests come: no byte is lost, and no request is refused."""

from __future__ import annotations

import http.client
import json
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from counting_server import event
from harness import Supervisor
from observed import DEADLINE, Process, children

Start = Callable[..., Supervisor]
COUNTING = (sys.executable, "-IS", str(Path(__file__).with_name("counting_server.py")))
STREAMS = 3


class Unix(http.client.HTTPConnection):
    """HTTP to the web tier's socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=3 * DEADLINE)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class Load:
    """Clients of a supervisor's model `count`: streams that last until `end`, and short requests one after the other,
    each on a connection of its own."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._socket = supervisor.directory / "web.sock"
        self._end = supervisor.directory / "end"
        self._over = threading.Event()
        self.wrong: list[str] = []
        self.short = 0
        self.begun = [threading.Event() for _ in range(STREAMS)]
        self._threads = [threading.Thread(target=self._stream, args=(begun,)) for begun in self.begun]
        self._threads.append(threading.Thread(target=self._ask))
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        """Let the streams end, and wait for that."""
        self._over.set()
        self._end.touch()
        for thread in self._threads:
            thread.join(3 * DEADLINE)
            assert not thread.is_alive(), "a client still waits"

    @contextmanager
    def _request(self, **body: Any) -> Iterator[http.client.HTTPResponse]:
        with closing(Unix(self._socket)) as connection:
            connection.request("POST", "/v1/chat/completions", json.dumps({"model": "count", **body}))
            with connection.getresponse() as response:
                yield response

    def _stream(self, begun: threading.Event) -> None:
        try:
            with self._request(stream=True) as response:
                received = bytearray(response.read(1))
                begun.set()
                received += response.read()
            number = int(received.rpartition(b"data: end ")[2])
            whole = b"".join(event(each) for each in range(1, number + 1)) + b"data: end %d\n\n" % number
            if bytes(received) != whole:
                self.wrong.append(f"{len(received)} bytes came of {len(whole)}: … {bytes(received[-200:])!r}")
        except Exception as error:
            self.wrong.append(f"a stream: {error!r}")

    def _ask(self) -> None:
        while not self._over.is_set():
            try:
                with self._request() as response:
                    body = response.read()
                if (response.status, body) != (200, b"1"):
                    self.wrong.append(f"{response.status} {body!r}")
                self.short += 1
            except Exception as error:
                self.wrong.append(f"a request: {error!r}")


def test_streams_without_an_end_move_to_the_new_web_tier(supervisors: Start) -> None:
    supervisor = supervisors().start("READY=1")
    socket_path = supervisor.directory / "web.sock"
    with closing(Unix(socket_path)) as connection:
        connection.request("GET", "/models/sse")
        with connection.getresponse() as response:
            assert response.status == 200
            supervisor.call("reexec")
            response.read()
    supervisor.eventually(lambda: not supervisor.status()["web_before"], "nobody keeps the old one")
    with closing(Unix(socket_path)) as connection:
        connection.request("GET", "/models/sse")
        with connection.getresponse() as response:
            assert response.status == 200


def open_descriptors(supervisor: Supervisor) -> int:
    return len(list(Path(f"/proc/{supervisor.pid}/fd").iterdir()))


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("times", [8, pytest.param(100, marks=pytest.mark.slow)])
def test_no_byte_is_lost_and_no_request_refused(supervisors: Start, times: int) -> None:
    supervisor = supervisors()
    command = [*COUNTING, "{socket}", str(supervisor.directory / "end")]
    supervisor.add("count", command=command, max_concurrency=100)
    supervisor.start("READY=1")
    model = supervisor.load("count")
    load = Load(supervisor)
    try:
        for begun in load.begun:
            assert begun.wait(DEADLINE)
        descriptors = open_descriptors(supervisor)
        for _ in range(times):
            supervisor.call("reexec")
        assert supervisor.model("count")["pid"] == model["pid"]
        assert not load.wrong
        first_web = next(line for line in supervisor.status()["web_before"] if line["launch"] == 1)
        with Process(first_web["pid"]) as web:
            load.end()
            web.gone()
    finally:
        load.end()
    assert load.wrong == []
    assert load.short > times
    supervisor.eventually(lambda: not supervisor.status()["web_before"], "the web tiers before have ended")
    supervisor.eventually(lambda: "Z" not in children(supervisor.pid).values(), "all are reaped")
    supervisor.eventually(lambda: open_descriptors(supervisor) <= descriptors, "no descriptor is left open")
