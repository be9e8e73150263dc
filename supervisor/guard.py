"""The guard: a tiny child that outlives the supervisor by a moment and kills what it left behind.

PR_SET_PDEATHSIG reaches a child, but not the child's own children. The guard knows every process group and reads a
pipe whose other end only the supervisor holds: when that closes, however the supervisor died, it kills the groups, and
what has left them, which it knows by its environment. It is a program of its own, guard_program.py, with next to no
modules: a fork of the supervisor would keep a copy of every page that one of the two writes to.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import msgspec

from supervisor.child import SUPERVISOR_VARIABLE

PROGRAM = Path(__file__).with_name("guard_program.py")
HELD_BACK = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)  # they are for the supervisor, whom it outlives
QUICK_SECONDS = 1.0
MOST_QUICK_ENDS = 3


class Guarding(msgspec.Struct, frozen=True):
    """A guard that one program hands over to another: its process (0: it was killed), and the pipe to it."""

    pid: int
    pipe: int


class Guard:
    """Started at once; `pid` is its process. Raises OSError.

    `mark` is a variable, NAME=VALUE, in the environment of all that is to die with the supervisor, and `cgroups` where
    the cgroups of launches are; `whose` says in a list of processes whose guard it is. The guard of another program
    that left `groups` to this one goes once the new one knows them.
    """

    def __init__(
        self,
        mark: str,
        cgroups: Path | None,
        whose: Path,
        groups: Iterable[int] = (),
        inherited: Guarding | None = None,
    ) -> None:
        told = (mark, str(cgroups or ""), str(whose))
        self._argv = (sys.executable, "-I", "-S", str(PROGRAM), *told)
        self._started = 0.0
        self._quick_ends = 0
        self._groups = set(groups)
        self._pipe = -1
        self.pid = 0
        self.start()
        if inherited is not None:
            _dismiss(inherited)

    def handed_over(self) -> Guarding:
        """For another program, which then has it go on guarding."""
        return Guarding(self.pid, self._pipe)

    def start(self) -> None:
        """Start the guard (again, if it was killed) and tell it every group. Raises OSError."""
        read_end, write_end = os.pipe2(os.O_CLOEXEC)
        if self._pipe >= 0:
            os.close(self._pipe)
        self._pipe = write_end
        self._started = time.monotonic()
        env = {name: value for name, value in os.environ.items() if name != SUPERVISOR_VARIABLE}
        stdin = [(os.POSIX_SPAWN_DUP2, read_end, 0)]
        try:
            self.pid = os.posix_spawn(
                self._argv[0], self._argv, env, file_actions=stdin, setsid=True, setsigmask=HELD_BACK
            )
        finally:
            os.close(read_end)
        for group in self._groups:
            self._tell("+", group)

    def died(self) -> None:
        """It was killed: start another. If that fails, or it ends again and again, that is done when the next process
        is to be watched."""
        self.pid = 0
        quick = time.monotonic() - self._started < QUICK_SECONDS
        self._quick_ends = self._quick_ends + 1 if quick else 0
        if self._quick_ends > MOST_QUICK_ENDS:
            return
        with contextlib.suppress(OSError):
            self.start()

    def watch(self, group: int) -> None:
        """Kill this process group when the supervisor is gone."""
        if self.pid == 0:
            with contextlib.suppress(OSError):
                self.start()
        self._groups.add(group)
        self._tell("+", group)

    def forget(self, group: int) -> None:
        """The group is gone; its number may be used again by others."""
        self._groups.discard(group)
        self._tell("-", group)

    def close(self) -> None:
        """Let the guard go (it kills what is still watched) and wait for it."""
        os.close(self._pipe)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)

    def _tell(self, what: str, group: int) -> None:
        with contextlib.suppress(BrokenPipeError):  # it was killed; its death restarts it with all groups
            os.write(self._pipe, f"{what}{group}\n".encode())


def _dismiss(guard: Guarding) -> None:
    """Have a guard do nothing. It is dead before the pipe closes, which would be its sign."""
    if guard.pid:
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(guard.pid, signal.SIGKILL)
            os.waitpid(guard.pid, 0)
    os.close(guard.pipe)
