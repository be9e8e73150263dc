"""Works out answers in a process of their own, one at a time, where the loop would stand still for too long."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable

from supervisor.forked import READ_BYTES, Forked
from supervisor.loop import Loop

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
        self._process: Forked | None = None
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
        """Raises OSError."""
        self._process = process = Forked(lambda answer: answer.write(work()))
        self._due = time.monotonic() + PATIENCE
        self._loop.watch(process.pipe, lambda: self._readable(process.pipe))

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
        if self._process is not None:
            self._loop.unwatch(self._process.pipe)
            self._process.end()
        self._process = self._due = None
        self._answer = b""
