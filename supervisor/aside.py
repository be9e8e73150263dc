"""Works out answers in a process of their own, one at a time, where the loop would stand still for too long."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections import deque
from collections.abc import Callable
from typing import NoReturn

from supervisor.child import die_with_parent
from supervisor.guard import LAST_FD
from supervisor.loop import Loop

READ_BYTES = 65536  # what a pipe takes at once, pipe(7)
PATIENCE = 60.0

Work = Callable[[], bytes]
Then = Callable[[bytes | None], None]


class Aside:
    """Whatever `work` changes stays in its process; only what it returns comes back."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._waiting: deque[tuple[Work, Then]] = deque()
        self._then: Then | None = None
        self._answer = b""
        self._due: float | None = None
        self._process: tuple[int, int] | None = None  # its pidfd, and the pipe it writes to
        loop.timed.append(self)

    def start(self, work: Work, then: Then) -> None:
        """Call `then` with what `work` returns; with None if that failed, or took more than PATIENCE."""
        self._waiting.append((work, then))
        if self._process is None:
            self._next()

    def close(self) -> None:
        """Work out no more."""
        self._waiting.clear()
        self._end()

    def due(self) -> float | None:
        """When the one under way has had its time."""
        return self._due

    def fire(self, now: float) -> None:
        """Give it up if it is time."""
        if self._due is not None and self._due <= now:
            self._over(None)

    def _next(self) -> None:
        while self._waiting and self._process is None:
            work, self._then = self._waiting.popleft()
            try:
                self._fork(work)
            except OSError:  # no processes or descriptors at the moment
                self._then(None)

    def _fork(self, work: Work) -> None:
        """Raises OSError, and nothing is left behind."""
        parent = os.getpid()
        pipe, write_end = os.pipe2(os.O_CLOEXEC)
        try:
            if (pid := os.fork()) == 0:
                _work(work, parent, write_end)
            self._process = os.pidfd_open(pid), pipe
        except OSError:
            os.close(pipe)  # which ends a process that was forked
            raise
        finally:
            os.close(write_end)
        self._due = time.monotonic() + PATIENCE
        self._loop.watch(pipe, lambda: self._readable(pipe))

    def _readable(self, pipe: int) -> None:
        if data := os.read(pipe, READ_BYTES):
            self._answer += data
        else:
            self._over(self._answer or None)

    def _over(self, answer: bytes | None) -> None:
        self._end()
        if self._then is not None:
            self._then(answer)
        self._next()

    def _end(self) -> None:
        """Kill the process, and wait for nothing: it is reaped like any other orphan."""
        if self._process is None:
            return
        pidfd, pipe = self._process
        self._process = self._due = None
        self._answer = b""
        self._loop.unwatch(pipe)
        os.close(pipe)
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        os.close(pidfd)


def _work(work: Work, parent: int, pipe: int) -> NoReturn:
    """The child's whole life."""
    try:
        signal.set_wakeup_fd(-1)
        die_with_parent(parent)
        os.closerange(3, pipe)
        os.closerange(pipe + 1, LAST_FD)
        answer = work()
        with os.fdopen(pipe, "wb") as answers:
            answers.write(answer)
    finally:
        os._exit(0)
