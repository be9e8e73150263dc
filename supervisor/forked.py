"""A process that works out what the loop would stand still for: forked, and heard over a pipe."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable
from typing import IO, NoReturn

from supervisor.child import die_with_parent
from supervisor.descriptors import ENOUGH

READ_BYTES = 65536  # what a pipe takes at once, pipe(7)

Work = Callable[[IO[bytes]], object]


class Forked:
    """Runs `work`, which writes its answer; `pipe` is where to read it, and ends when the process does.

    Whatever else `work` changes stays in its process, which holds nothing of this one's open, dies with it, and is
    reaped like any other orphan. Raises OSError, and nothing is left behind.
    """

    def __init__(self, work: Work) -> None:
        parent = os.getpid()
        self.pipe, write_end = os.pipe2(os.O_CLOEXEC)
        try:
            if (pid := os.fork()) == 0:
                _run(work, parent, write_end)
            self._pidfd = os.pidfd_open(pid)
        except OSError:
            os.close(self.pipe)  # which ends a process that was forked
            raise
        finally:
            os.close(write_end)

    def end(self) -> None:
        """Hear no more of it; it is killed if it still runs, and nobody waits for that."""
        os.close(self.pipe)
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        os.close(self._pidfd)


def _run(work: Work, parent: int, pipe: int) -> NoReturn:
    """The process's whole life."""
    try:
        signal.set_wakeup_fd(-1)
        die_with_parent(parent)
        os.closerange(3, pipe)
        os.closerange(pipe + 1, ENOUGH)
        with os.fdopen(pipe, "wb") as answer:
            work(answer)
    finally:
        os._exit(0)
