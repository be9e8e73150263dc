"""The supervisor's side of the forkserver: starts it, asks it for processes, and does without it when it fails.

It never waits: `fork` sends a request, and the answer comes through the loop. A process that was asked for does
nothing before the supervisor knows it and lets it go (see `supervisor.forkserver`), so a request can be given up at
any time: by a signal for its launch, after FORK_SECONDS, or when the forkserver dies.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from supervisor import child
from supervisor.backends import llama_cpp_python
from supervisor.child import Child
from supervisor.core.quantities import format_duration
from supervisor.core.reasons import EndReason, Kind
from supervisor.errors import CannotStart
from supervisor.forkserver import MAX_MESSAGE, READY
from supervisor.guard import Guard
from supervisor.logs import Journal, LogBook, Source
from supervisor.loop import Loop

NAME = "@forkserver"
FORK_SECONDS = 5.0
FIRST_DELAY = 1.0
MAX_DELAY = 600.0
GOOD_SECONDS = 60.0  # one that lived so long is started again after FIRST_DELAY


@dataclass(frozen=True)
class _Asked:
    """A request under way: the read end of the log pipe, the write end of `go`, and when to give up (monotonic)."""

    log: int
    go: int
    deadline: float


class Forkserver:
    """Runs while it is needed. Every `fork` that returned True, unless called off, ends in one of two calls:
    `forked(launch, child)`, after which the child is let go, or `refused(launch)`."""

    forked: Callable[[int, Child], None]
    refused: Callable[[int], None]

    def __init__(self, loop: Loop, logbook: LogBook, guard: Guard, journal: Journal, notify: Path) -> None:
        self._loop = loop
        self._logbook = logbook
        self._guard = guard
        self._journal = journal
        self._argv, env = llama_cpp_python.forkserver()
        # Not that it notifies: what others see of its forks' environment is this one.
        own = {"NOTIFY_SOCKET": str(notify), child.LAUNCH_VARIABLE: child.NO_LAUNCH}
        self._env = {**os.environ, **env, **own}
        self._needed = False
        self._process: Child | None = None
        self._socket: socket.socket | None = None
        self._source = Source(NAME, 0, 0, -1, NAME)
        self._ready = False
        self._leaving = False
        self._why: str | None = None  # how it ended, where that is not for its status to tell
        self._asked: dict[int, _Asked] = {}
        self._started = 0.0
        self._failures = 0
        self._restart_at: float | None = None
        loop.timed.append(self)

    @property
    def pid(self) -> int:
        """Its process; 0 if there is none."""
        return self._process.pid if self._process else 0

    def keep(self, needed: bool) -> None:
        """Have it run from now on, or end it: it takes memory. One that had ended for good is started again."""
        self._needed = needed
        if not needed:
            self._restart_at = None
            self._leaving = self._process is not None
            self._kill()  # closing the socket would do, if it does not hang
            self._close_socket()
            self._refuse_all()
        elif self._process is None:
            self._failures = 0
            self._start()

    def fork(self, launch: int, name: str, env: Mapping[str, str], call: Mapping[str, Any]) -> bool:
        """Ask for a process of model `name` with exactly `env`, and what `call` has for the function: `settings` and
        `socket`. False if it can't be asked at the moment: it is not ready, its queue is full, the request is too long.
        """
        if not self._ready or self._socket is None:
            return False
        message = {"launch": launch, "name": name, "parent": os.getpid(), "env": dict(env), **call}
        opened: list[int] = []
        try:
            data = json.dumps(message).encode()
            if len(data) > MAX_MESSAGE:
                return False
            opened += os.pipe2(os.O_CLOEXEC)
            opened += os.pipe2(os.O_CLOEXEC)
            log_read, log_write, go_read, go_write = opened
            socket.send_fds(self._socket, [data], [log_write, go_read])
        except OSError:
            _close(*opened)
            return False
        _close(log_write, go_read)
        os.set_blocking(log_read, False)
        self._asked[launch] = _Asked(log_read, go_write, time.monotonic() + FORK_SECONDS)
        return True

    def call_off(self, launch: int) -> None:
        """The process of this launch is not wanted any more; should there be one, it ends before it did anything."""
        asked = self._asked.pop(launch, None)
        if asked is not None:
            _close(asked.log, asked.go)

    def due(self) -> float | None:
        """When a request is given up, or the next forkserver is started."""
        due = [asked.deadline for asked in self._asked.values()]
        return min([*due, self._restart_at] if self._restart_at is not None else due, default=None)

    def fire(self, now: float) -> None:
        """Start it again, or kill it if it does not answer: it may be stopped or hang."""
        if self._restart_at is not None and self._restart_at <= now:
            self._start()
        if any(asked.deadline <= now for asked in self._asked.values()):
            self._receive()
        if any(asked.deadline <= now for asked in self._asked.values()):
            self._why = f"killed, as it did not fork within {format_duration(FORK_SECONDS)}"
            self._kill()
            self._refuse_all()

    def reap(self) -> None:
        """If it has died: say how, refuse what was asked of it, and start it again after a delay."""
        process = self._process
        if process is None:
            return
        result = os.waitid(os.P_PIDFD, process.pidfd, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if result is None:
            return
        self._receive()
        self._kill()  # whom it was about to fork, before reaping frees the group's number
        os.waitid(os.P_PIDFD, process.pidfd, os.WEXITED)
        self._logbook.drain(self._source)
        self._forget(process)
        if self._needed and self._leaving:
            self._start()
        elif self._needed:
            reason = _reason(result)
            self._restart(self._why or reason.text, for_good=reason.permanent)
        self._refuse_all()

    def close(self) -> None:
        """Kill it, and call off whatever it was asked for."""
        self._needed = False
        self._restart_at = None
        for launch in list(self._asked):
            self.call_off(launch)
        if self._process is not None:
            self._kill()
            self._forget(self._process)

    def _start(self) -> None:
        self._restart_at = None
        self._why = None
        self._leaving = False
        self._started = time.monotonic()
        try:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with theirs, contextlib.ExitStack() as unless_started:
                unless_started.callback(ours.close)
                process = child.spawn(self._argv, self._env, theirs.fileno())
                unless_started.pop_all()
        except (CannotStart, OSError) as error:
            self._restart(f"cannot be started: {error}", for_good=False)
            return
        ours.setblocking(False)
        self._guard.watch(process.pid)
        self._process, self._socket, self._source = process, ours, Source(NAME, 0, process.pid, process.log, NAME)
        self._loop.watch(ours, self._receive)
        self._loop.watch(process.log, self._read_log)
        self._loop.watch(process.pidfd, self.reap)

    def _restart(self, how: str, *, for_good: bool) -> None:
        """Announce its end. Ends that come quickly one after the other double the delay, up to MAX_DELAY."""
        now = time.monotonic()
        self._failures = 1 if now - self._started >= GOOD_SECONDS else self._failures + 1
        delay = min(FIRST_DELAY * 2 ** (self._failures - 1), MAX_DELAY)
        follows = "until the next reload" if for_good else f"until it is back, in {format_duration(delay)}"
        self._restart_at = None if for_good else now + delay
        self._journal.write(f"llama-router: forkserver {how}; models load more slowly {follows}", "warning")

    def _receive(self) -> None:
        """Take in its answers."""
        while self._socket is not None:
            try:
                data = self._socket.recv(MAX_MESSAGE)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self._close_socket()  # its death is reported by the pidfd
                return
            answer = json.loads(data)
            if answer == READY:
                self._ready = True
                took = time.monotonic() - self._started
                self._journal.write(f"llama-router: forkserver ready after {took:.1f} s")
            elif answer["launch"] in self._asked:
                self._answered(answer["launch"], answer.get("pid"), answer.get("error"))

    def _answered(self, launch: int, pid: int | None, error: str | None) -> None:
        asked = self._asked.pop(launch)
        try:
            pidfd = None if pid is None else _pidfd_of_child(pid)
        except OSError as failure:
            pidfd, error = None, failure.strerror
        if pid is None or pidfd is None:
            _close(asked.log, asked.go)
            self._journal.write(f"llama-router: forkserver cannot fork: {error}", "warning")
            self.refused(launch)
            return
        self.forked(launch, Child(pid, pidfd, asked.log))
        with contextlib.suppress(BrokenPipeError):
            os.write(asked.go, b"g")
        _close(asked.go)

    def _read_log(self) -> None:
        if not self._logbook.read(self._source):
            self._loop.unwatch(self._source.fd)

    def _refuse_all(self) -> None:
        for launch in list(self._asked):
            self.call_off(launch)
            self.refused(launch)

    def _kill(self) -> None:
        self._ready = False
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def _close_socket(self) -> None:
        self._ready = False
        if self._socket is not None:
            self._loop.unwatch(self._socket)
            self._socket.close()
            self._socket = None

    def _forget(self, process: Child) -> None:
        self._close_socket()
        self._loop.unwatch(process.pidfd)
        self._loop.unwatch(process.log)
        _close(process.pidfd, process.log)
        self._guard.forget(process.pid)
        self._process = None


def _pidfd_of_child(pid: int) -> int:
    """Raises OSError if there is no such child; one that died on the way and is reaped could be anybody by now."""
    pidfd = os.pidfd_open(pid)
    try:
        os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except OSError:
        os.close(pidfd)
        raise
    return pidfd


def _reason(result: os.waitid_result) -> EndReason:
    if result.si_code == os.CLD_EXITED:
        return EndReason(Kind.EXITED, code=result.si_status)
    return EndReason(Kind.KILLED, signal=result.si_status)


def _close(*descriptors: int) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
