"""What a process that forks is asked for over its socket, and answers (see `supervisor.forkserver`).

Nobody waits: `ask` sends a request, and the answer comes through the loop. A process that was asked for does nothing
before the supervisor knows it and lets it go, so a request can be given up at any time.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from supervisor.child import Child
from supervisor.forkserver import MAX_MESSAGE, READY
from supervisor.loop import Loop

FORK_SECONDS = 5.0


class Asker(Protocol):
    """Who asks for processes. Each request that was sent, unless called off, ends in one of these two."""

    def forked(self, launch: int, process: Child) -> None:
        """It has done nothing yet, and is let go after this."""

    def refused(self, launch: int) -> None:
        """There is none: whoever was to fork it can't, is gone, or does not answer."""


@dataclass(frozen=True)
class Instead:
    """Asks on behalf of another. If that is refused, `and_then` is called, and then `elsewhere` asks somebody else; it
    returns whether it could."""

    asker: Asker
    elsewhere: Callable[[], bool]
    and_then: Callable[[], None]

    def forked(self, launch: int, process: Child) -> None:
        """As the other is told."""
        self.asker.forked(launch, process)

    def refused(self, launch: int) -> None:
        """Only when there is nobody else."""
        self.and_then()
        if not self.elsewhere():
            self.asker.refused(launch)


@dataclass(frozen=True)
class _Asked:
    """A request under way: the read end of the log pipe, where to write that it may go, when to give up (monotonic)."""

    asker: Asker
    log: int
    go: int
    deadline: float


class ForkRequests:
    """The requests to one process. `control` is the socket to it, which is closed when it ends; `ready` is called once,
    when the process says so, and `failed` with what it says when it can't fork."""

    def __init__(
        self, loop: Loop, control: socket.socket, ready: Callable[[], None], failed: Callable[[str], None]
    ) -> None:
        self.is_ready = False
        self._loop = loop
        self._socket: socket.socket | None = control
        self._told_ready = ready
        self._failed = failed
        self._asked: dict[int, _Asked] = {}
        control.setblocking(False)
        loop.watch(control, self.receive)

    def fork(self, asker: Asker, launch: int, name: str, env: Mapping[str, str], call: Mapping[str, Any]) -> bool:
        """Ask for a server of model `name` with exactly `env`, and what `call` has for it: `settings` and `socket`.
        False if it can't be asked at the moment: it is not ready, its queue is full, the request is too long."""
        if not self.is_ready:
            return False
        try:
            read_end, write_end = os.pipe2(os.O_CLOEXEC)
        except OSError:
            return False
        return self._ask(asker, launch, {"name": name, "env": dict(env), **call}, read_end, write_end)

    def fork_keeper(
        self, asker: Asker, number: int, name: str, settings: Mapping[str, Any], theirs: int, ours: int
    ) -> bool:
        """Ask for a process that keeps what servers of model `name` need; `theirs` and `ours` are the ends of the
        socket for it, which are closed. False if it can't be asked at the moment."""
        return self._ask(asker, number, {"name": name, "settings": dict(settings)}, theirs, ours)

    def _ask(self, asker: Asker, number: int, what: Mapping[str, Any], handed: int, go: int) -> bool:
        opened = [handed, go]
        try:
            data = json.dumps({"launch": number, "parent": os.getpid(), **what}).encode()
            if not self.is_ready or self._socket is None or len(data) > MAX_MESSAGE:
                return False
            log, log_write = os.pipe2(os.O_CLOEXEC)
            opened += log, log_write
            socket.send_fds(self._socket, [data], [log_write, handed])
            os.set_blocking(log, False)
            self._asked[number] = _Asked(asker, log, go, time.monotonic() + FORK_SECONDS)
            opened = [handed, log_write]
        except OSError:
            return False
        finally:
            for descriptor in opened:
                os.close(descriptor)
        return True

    def call_off(self, launch: int) -> None:
        """The process of this launch is not wanted any more; should there be one, it ends before it did anything."""
        asked = self._asked.pop(launch, None)
        if asked is not None:
            os.close(asked.log)
            os.close(asked.go)

    @property
    def give_up_at(self) -> float | None:
        """When the first request is given up; None if none is under way."""
        return min((asked.deadline for asked in self._asked.values()), default=None)

    def hangs(self, now: float) -> bool:
        """Whether an answer is overdue."""
        if any(asked.deadline <= now for asked in self._asked.values()):
            self.receive()
        return any(asked.deadline <= now for asked in self._asked.values())

    def receive(self) -> None:
        """Take in the answers."""
        while self._socket is not None:
            try:
                data = self._socket.recv(MAX_MESSAGE)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self.close()  # the death of the process is reported by its pidfd
                return
            answer = json.loads(data)
            if answer == READY:
                self.is_ready = True
                self._told_ready()
            elif answer["launch"] in self._asked:
                self._answered(answer["launch"], answer.get("pid"), answer.get("error"))

    def _answered(self, number: int, pid: int | None, error: str | None) -> None:
        asked = self._asked.pop(number)
        try:
            pidfd = None if pid is None else _pidfd_of_child(pid)
        except OSError as failure:
            pidfd, error = None, failure.strerror
        if pid is None or pidfd is None:
            os.close(asked.log)
            os.close(asked.go)
            self._failed(error or "it died at once")
            asked.asker.refused(number)
            return
        asked.asker.forked(number, Child(pid, pidfd, asked.log))
        with contextlib.suppress(OSError):
            os.write(asked.go, b"g")
        os.close(asked.go)

    def refuse_all(self) -> None:
        """Nothing that was asked for comes any more."""
        for launch in list(self._asked):
            asker = self._asked[launch].asker
            self.call_off(launch)
            asker.refused(launch)

    def call_off_all(self) -> None:
        """Nothing that was asked for is wanted any more."""
        for launch in list(self._asked):
            self.call_off(launch)

    def close(self) -> None:
        """Close the socket, whereupon the process ends; what was asked for is left as it is."""
        self.is_ready = False
        if self._socket is not None:
            self._loop.unwatch(self._socket)
            self._socket.close()
            self._socket = None


def _pidfd_of_child(pid: int) -> int:
    """Raises OSError if there is no such child; one that died on the way and is reaped could be anybody by now."""
    pidfd = os.pidfd_open(pid)
    try:
        os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except OSError:
        os.close(pidfd)
        raise
    return pidfd
