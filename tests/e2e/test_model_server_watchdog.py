"""The watchdog of a model server: it beats while it idles or computes, and stops when its model makes no step."""

from __future__ import annotations

import os
import signal
import socket as sockets
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import pytest
from alone import ASK, DEADLINE, LONG_ANSWER, Notices, Server, finish, launch, read_answer

BEAT = "WATCHDOG=1"
STUCK = "WATCHDOG=trigger"
Start = Callable[..., Server]
# A model server whose llama_decode first reads from the descriptor given, and so hangs until its other end is closed.
HANGING = """
import os, runpy, sys
from llama_cpp import llama_cpp as bindings

decode, pipe = bindings.llama_decode, int(sys.argv.pop(1))

def hanging(*arguments):
    os.read(pipe, 1)
    return decode(*arguments)

bindings.llama_decode = hanging
runpy.run_module("supervisor.model_server", run_name="__main__", alter_sys=True)
"""


class Pipe:
    """Of which the reading end is inherited, and waits until the writing end is closed."""

    def __enter__(self) -> Self:
        self.reader, writer = os.pipe()
        self._writer = os.fdopen(writer, "wb")
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.reader)
        self.release()

    def release(self) -> None:
        """Let everybody go on."""
        self._writer.close()


@pytest.fixture
def start(room: Path, gguf: Path) -> Iterator[Start]:
    """Starts model servers, each with a watchdog of so many seconds, and waits until they are ready."""
    with ExitStack() as stack:

        def start(watchdog: float, settings: dict[str, Any] | None = None, **options: Any) -> Server:
            fields = {"model": str(gguf), "logits_all": False, "n_ctx": 4096, **(settings or {})}
            env = {"WATCHDOG_USEC": f"{watchdog * 1e6:.0f}"}
            server = launch(room, fields, env=env, **options)
            stack.callback(finish, server)
            server.notices.wait_for("READY=1")
            return server

        yield start


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    """A pipe from which a hanging model server reads."""
    with Pipe() as pipe:
        yield pipe


def beats(notices: Notices, count: int) -> float:
    """Wait for so many beats with nothing else between them. Returns how many seconds that took."""
    begin = time.monotonic()
    assert [notices.next() for _ in range(count)] == [BEAT] * count
    return time.monotonic() - begin


def test_an_idle_server_beats_twice_per_watchdog_time_after_it_is_ready(start: Start) -> None:
    server = start(2.0)
    beats(server.notices, 1)
    [ready] = [number for number, notice in enumerate(server.notices) if "READY=1" in notice]
    assert next(number for number, notice in enumerate(server.notices) if "WATCHDOG" in notice) > ready
    assert 2.5 <= beats(server.notices, 3) < 6.0


def test_it_beats_amid_a_long_answer(start: Start) -> None:
    server = start(0.4)
    with server.send({**LONG_ANSWER, "stream": True}) as answer:
        assert answer.recv(1)
        beats(server.notices, 6)
        answer.settimeout(0)
        with pytest.raises(BlockingIOError):  # the end has not come, for after it there would be b"" for ever
            while data := answer.recv(65536):
                assert b"[DONE]" not in data


def test_it_beats_amid_one_long_batch_which_ends_when_its_client_leaves(start: Start) -> None:
    """On a CPU the steps within a batch count, or slow machines would never get through one."""
    server = start(1.0, {"n_ctx": 8192, "n_batch": 8192})
    with server.send({"prompt": "word " * 7000, "max_tokens": 1}) as answer:
        beats(server.notices, 4)
        answer.settimeout(0)
        with pytest.raises(BlockingIOError):
            answer.recv(1)
    begin = time.monotonic()
    assert server.text(ASK)
    assert time.monotonic() - begin < 3


def test_a_decode_that_never_returns_is_told_and_one_that_does_is_forgiven(start: Start, pipe: Pipe) -> None:
    server = start(0.4, program=("-c", HANGING, str(pipe.reader)), pass_fds=(pipe.reader,))
    beats(server.notices, 2)
    with server.send(ASK) as answer:
        server.notices.wait_for(STUCK)
        assert [server.notices.next() for _ in range(3)] == [STUCK] * 3
        assert server.request({}, "/health", "GET")[0] == 200
        pipe.release()
        assert read_answer(answer)[0] == 200
    server.notices.wait_for(BEAT)
    beats(server.notices, 5)
    log = (server.socket.parent / "log").read_text()
    assert log.count("the model is in use and has made no step for 0.4 s") == 1


def test_a_client_that_leaves_a_stuck_model_does_not_hide_it(start: Start, pipe: Pipe) -> None:
    server = start(0.4, program=("-c", HANGING, str(pipe.reader)), pass_fds=(pipe.reader,))
    with server.send(ASK):
        server.notices.wait_for(STUCK)
    assert server.request({}, "/health", "GET")[0] == 200
    assert [server.notices.next() for _ in range(3)] == [STUCK] * 3


def test_a_process_that_was_stopped_beats_again_and_finds_nothing_stuck(start: Start) -> None:
    server = start(0.4)
    with server.send({**LONG_ANSWER, "stream": True}) as answer:
        assert answer.recv(1)
        server.process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, server.process.pid, os.WSTOPPED | os.WNOWAIT)
        server.notices.silent_for(1.2)
        server.process.send_signal(signal.SIGCONT)
        beats(server.notices, 4)


def test_no_beat_is_lost_and_nobody_waits_while_the_listener_is_behind(room: Path, gguf: Path) -> None:
    with sockets.socket(sockets.AF_UNIX, sockets.SOCK_DGRAM) as listener:
        listener.bind(str(room / "slow"))
        env = {"WATCHDOG_USEC": "2000000", "NOTIFY_SOCKET": str(room / "slow")}
        server = launch(room, {"model": str(gguf), "n_ctx": 512, "logits_all": False}, env=env)
        try:
            listener.settimeout(DEADLINE)
            while b"READY=1" not in listener.recv(4096):
                pass
            fill(listener)
            with pytest.raises(subprocess.TimeoutExpired):
                server.process.wait(1.3)
            assert server.request({}, "/health", "GET")[0] == 200
            listener.settimeout(0.4)  # the next beat would come later
            while (word := listener.recv(4096)) == b"filler":
                pass
            assert word == BEAT.encode()
        finally:
            finish(server)


def fill(listener: sockets.socket) -> None:
    """Send to a socket until nobody can."""
    with sockets.socket(sockets.AF_UNIX, sockets.SOCK_DGRAM) as sender:
        sender.setblocking(False)
        with pytest.raises(BlockingIOError):
            while True:
                sender.sendto(b"filler", listener.getsockname())


@pytest.mark.parametrize(
    "env",
    [
        {},
        {"WATCHDOG_USEC": "0"},
        {"WATCHDOG_USEC": "-1"},
        {"WATCHDOG_USEC": "soon"},
        {"WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"},
    ],
    ids=str,
)
def test_without_a_watchdog_of_its_own_it_does_not_beat(room: Path, gguf: Path, env: dict[str, str]) -> None:
    server = launch(room, {"model": str(gguf), "n_ctx": 512, "logits_all": False}, env=env)
    try:
        server.notices.wait_for("READY=1")
        assert server.text(ASK)
        assert server.stop() == 0
    finally:
        finish(server)
    assert not any("WATCHDOG" in notice for notice in server.notices)


def test_an_idle_server_sleeps_between_its_beats(start: Start) -> None:
    server = start(2.0)
    assert server.events(ASK)
    beats(server.notices, 1)
    before = wake_ups(server.process.pid)
    beats(server.notices, 4)
    assert wake_ups(server.process.pid) - before <= 8


def wake_ups(pid: int) -> int:
    """How often the threads of a process have gone to sleep so far."""
    count = 0
    for status in Path(f"/proc/{pid}/task").glob("*/status"):
        fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
        count += int(fields["voluntary_ctxt_switches"])
    return count
