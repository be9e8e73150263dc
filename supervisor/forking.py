"""The supervisor's side of the forkserver: starts it, asks it for processes, and does without it when it fails."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from supervisor import child, fork_requests
from supervisor.backends import llama_cpp_python
from supervisor.child import Child
from supervisor.core.quantities import format_duration
from supervisor.core.reasons import EndReason, Kind
from supervisor.errors import CannotStart
from supervisor.fork_requests import Asker, ForkRequests
from supervisor.guard import Guard
from supervisor.logs import Journal, LogBook, Source
from supervisor.loop import Loop

NAME = "@forkserver"
FIRST_DELAY = 1.0
MAX_DELAY = 600.0
GOOD_SECONDS = 60.0  # one that lived so long is started again after FIRST_DELAY


class Forkserver:
    """Runs while it is needed. What is asked of it, and when that is given up, is as `ForkRequests` says."""

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
        self._requests: ForkRequests | None = None
        self._source = Source(NAME, 0, 0, -1, NAME)
        self._leaving = False
        self._why: str | None = None  # how it ended, where that is not for its status to tell
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
            self._refuse_all()
        elif self._process is None:
            self._failures = 0
            self._start()

    def fork(self, asker: Asker, launch: int, name: str, env: Mapping[str, str], call: Mapping[str, Any]) -> bool:
        """Ask for a model server; False if it can't be asked at the moment."""
        return self._requests is not None and self._requests.fork(asker, launch, name, env, call)

    def fork_keeper(
        self, asker: Asker, number: int, name: str, settings: Mapping[str, Any], theirs: int, ours: int
    ) -> bool:
        """Ask for a keeper; False if it can't be asked at the moment. The ends of its socket are closed."""
        if self._requests is None:
            _close(theirs, ours)
            return False
        return self._requests.fork_keeper(asker, number, name, settings, theirs, ours)

    def call_off(self, launch: int) -> None:
        """The process of this launch is not wanted any more."""
        if self._requests is not None:
            self._requests.call_off(launch)

    def due(self) -> float | None:
        """When a request is given up, or the next forkserver is started."""
        give_up_at = self._requests.give_up_at if self._requests is not None else None
        return min((at for at in (give_up_at, self._restart_at) if at is not None), default=None)

    def fire(self, now: float) -> None:
        """Start it again, or kill it if it does not answer: it may be stopped or hang."""
        if self._restart_at is not None and self._restart_at <= now:
            self._start()
        if self._requests is not None and self._requests.hangs(now):
            self._why = f"killed, as it did not fork within {format_duration(fork_requests.FORK_SECONDS)}"
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
        requests = self._requests
        if requests is not None:
            requests.receive()
        self._kill()  # whom it was about to fork, before reaping frees the group's number
        os.waitid(os.P_PIDFD, process.pidfd, os.WEXITED)
        self._logbook.drain(self._source)
        self._forget(process)
        if self._needed and self._leaving:
            self._start()
        elif self._needed:
            ended = reason(result)
            self._restart(self._why or ended.text, for_good=ended.permanent)
        if requests is not None:
            requests.refuse_all()

    def close(self) -> None:
        """Kill it, and call off whatever it was asked for."""
        self._needed = False
        self._restart_at = None
        if self._requests is not None:
            self._requests.call_off_all()
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
        self._guard.watch(process.pid)
        self._process, self._source = process, Source(NAME, 0, process.pid, process.log, NAME)
        self._requests = ForkRequests(self._loop, ours, self._is_ready, self._cannot_fork)
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

    def _is_ready(self) -> None:
        took = time.monotonic() - self._started
        self._journal.write(f"llama-router: forkserver ready after {took:.1f} s")

    def _cannot_fork(self, why: str) -> None:
        self._journal.write(f"llama-router: forkserver cannot fork: {why}", "warning")

    def _read_log(self) -> None:
        if not self._logbook.read(self._source):
            self._loop.unwatch(self._source.fd)

    def _refuse_all(self) -> None:
        """It forks no more."""
        if self._requests is not None:
            self._requests.close()
            self._requests.refuse_all()

    def _kill(self) -> None:
        if self._requests is not None:
            self._requests.is_ready = False
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def _forget(self, process: Child) -> None:
        if self._requests is not None:
            self._requests.close()
            self._requests = None
        self._loop.unwatch(process.pidfd)
        self._loop.unwatch(process.log)
        _close(process.pidfd, process.log)
        self._guard.forget(process.pid)
        self._process = None


def reason(result: os.waitid_result) -> EndReason:
    """How a process ended."""
    if result.si_code == os.CLD_EXITED:
        return EndReason(Kind.EXITED, code=result.si_status)
    return EndReason(Kind.KILLED, signal=result.si_status)


def _close(*descriptors: int) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
