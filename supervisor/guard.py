"""The guard: a tiny child that outlives the supervisor by a moment and kills what it left behind.

PR_SET_PDEATHSIG reaches a child, but not the child's own children. The guard knows every process group and reads a
pipe whose other end only the supervisor holds: when that closes, however the supervisor died, it kills the groups, and
what has left them, which it knows by its environment.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterable
from pathlib import Path

import msgspec

from supervisor.cgroups import kill_launches

LAST_FD = 65536


class Guarding(msgspec.Struct, frozen=True):
    """A guard that one program hands over to another: its process (0: it was killed), and the pipe to it."""

    pid: int
    pipe: int


class Guard:
    """Forked at once; `pid` is its process. Fork it before there is much memory to share.

    `mark` is a variable, NAME=VALUE, in the environment of all that is to die with the supervisor, and `cgroups` where
    the cgroups of launches are. The guard of another program that left `groups` to this one goes once the new one knows
    them.
    """

    def __init__(
        self, mark: str, cgroups: Path | None = None, groups: Iterable[int] = (), inherited: Guarding | None = None
    ) -> None:
        self._mark = os.fsencode(mark)
        self._cgroups = cgroups
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
        """Fork the guard (again, if it was killed) and tell it every group."""
        read_end, write_end = os.pipe2(os.O_CLOEXEC)
        if self._pipe >= 0:
            os.close(self._pipe)
        self._pipe = write_end
        self.pid = os.fork()
        if self.pid == 0:
            _guard(read_end, self._mark, self._cgroups)
        os.close(read_end)
        for group in self._groups:
            self._tell("+", group)

    def died(self) -> None:
        """It was killed: start another, now or, if descriptors are short, when the next process is to be watched."""
        self.pid = 0
        with contextlib.suppress(OSError):
            self.start()

    def watch(self, group: int) -> None:
        """Kill this process group when the supervisor is gone."""
        if self.pid == 0:
            self.died()
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


def _guard(pipe: int, mark: bytes, cgroups: Path | None) -> None:
    """The child's whole life. Never returns."""
    try:
        os.setsid()
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        os.closerange(3, pipe)
        os.closerange(pipe + 1, LAST_FD)
        groups: set[int] = set()
        with os.fdopen(pipe) as lines:
            for line in lines:
                change = groups.add if line[0] == "+" else groups.discard
                change(int(line[1:]))
        if cgroups is not None:
            kill_launches(cgroups)
        for group in groups:
            with contextlib.suppress(OSError):
                os.killpg(group, signal.SIGKILL)
        while _kill_marked(mark):  # again, for what was forked meanwhile
            pass
    finally:
        os._exit(0)


def _kill_marked(mark: bytes) -> bool:
    """Kill every process with `mark` in its environment. True if there was one that was not dead already."""
    found = False
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        with contextlib.suppress(OSError):  # gone, or somebody else's
            if mark in (entry / "environ").read_bytes().split(b"\0"):  # a zombie's is empty
                os.kill(int(entry.name), signal.SIGKILL)
                found = True
    return found
