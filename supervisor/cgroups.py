"""A cgroup for each model server, where systemd has given us some (Delegate=yes): it dies as a whole, wherever its
processes went, and is held to the limits of its preset.

The rules are those of systemd's "Control Group APIs and Delegation": we stay below our own cgroup, and processes are in
leaves only. So the supervisor goes to one, with all that is no model server. Without delegation, none of this happens.

The system's systemd marks what it delegates, a user's does not. There the unit says so itself, in the environment. All
that the service starts inherits that, so it counts for what the unit itself executes, in the unit's own cgroup.
"""

from __future__ import annotations

import contextlib
import os
import select
import time
from collections.abc import Collection
from pathlib import Path

from supervisor.core import cgroups as core
from supervisor.core.preset import Limits

DELEGATED = ("user.delegate", "trusted.delegate")  # extended attributes that systemd sets
UNIT_VARIABLE = "LLAMA_ROUTER_DELEGATED"  # the name of a user's unit that has Delegate=yes
END_SECONDS = 2.0


class Cgroups:
    """Those of all launches; every method is harmless where there are none.

    `kept` are launches that run already, if this process has taken the place of another one with the same pid.
    """

    def __init__(self, kept: Collection[int] | None = None) -> None:
        self._leaving: set[Path] = set()
        self._offered: set[str] = set()
        self.root = _delegated(_own_directory())
        if self.root is not None and not self._settle(self.root, kept):
            self.root = None

    @property
    def offered(self) -> set[str] | None:
        """The controllers that model servers can be held to; None without cgroups."""
        return None if self.root is None else self._offered

    def make(self, launch: int, limits: Limits) -> Path | None:
        """A cgroup for a launch that is about to start: the file that a process enters it by, writing "0". None if
        there can be none; the launch runs all the same."""
        path = self._path(launch)
        if path is None:
            return None
        self._leaving.discard(path)  # a dead supervisor's, of the same number
        try:
            path.mkdir(exist_ok=True)
        except OSError:  # cgroup.max.descendants, or memory is short
            return None
        for name, value in core.files(limits, self._offered).items():
            with contextlib.suppress(OSError):  # an older kernel's has no memory.oom.group
                _write(path / name, value)
        return path / core.PROCESSES

    def add(self, launch: int, pid: int) -> None:
        """Put a process into the cgroup of its launch, if there is one."""
        path = self._path(launch)
        if path is not None:
            with contextlib.suppress(OSError):
                _write(path / core.PROCESSES, str(pid))

    def kill(self, launch: int) -> None:
        """Kill all that is in the cgroup of a launch, be it of another process group or session."""
        path = self._path(launch)
        if path is not None:
            _kill(path)

    def memory_events(self, launch: int) -> str | None:
        """What the kernel counted for a launch (memory.events); None if nobody counts for this launch alone."""
        path = self._path(launch)
        try:
            return None if path is None else (path / core.MEMORY_EVENTS).read_text()
        except OSError:
            return None

    def end(self, launch: int) -> None:
        """The launch is over: kill what is left in its cgroup, and remove that once nothing is."""
        path = self._path(launch)
        if path is not None:
            _kill(path)
            self._leaving.add(path)
            self.sweep()

    def sweep(self) -> None:
        """Remove what is over and empty. A cgroup empties when a process dies that we adopted."""
        self._leaving = {path for path in self._leaving if not _removed(path)}

    def _path(self, launch: int) -> Path | None:
        return None if self.root is None else self.root / core.launch_name(launch)

    def _settle(self, root: Path, kept: Collection[int] | None) -> bool:
        """Move to our leaf and take what is given to us. False if that can't be, or somebody else is there."""
        own = root / core.OWN
        alive = {core.launch_name(launch) for launch in kept or ()}
        try:
            own.mkdir(exist_ok=True)
            if kept is None and _processes(own) - {os.getpid()}:
                return False
            _write(own / core.PROCESSES, "0")
            for controller in core.CONTROLLERS:
                with contextlib.suppress(OSError):  # it is not given to us
                    _write(root / core.SUBTREE, f"+{controller}")
            self._offered = set((root / core.SUBTREE).read_text().split())
            stale = [path for path in root.iterdir() if core.is_launch(path.name) and path.name not in alive]
        except OSError:
            return False
        for path in stale:
            _kill(path)
        until = time.monotonic() + END_SECONDS
        self._leaving = {path for path in stale if not _emptied(path, until) or not _removed(path)}
        return True


def _own_directory() -> Path | None:
    try:
        found = core.directory(Path("/proc/self/cgroup").read_text(), Path("/proc/self/mountinfo").read_text())
    except OSError:
        return None
    return None if found is None else Path(found)


def _delegated(own: Path | None) -> Path | None:
    """The cgroup that was given to us: our own, or the one above if we are in our leaf already."""
    if own is None:
        return None
    root = own.parent if own.name == core.OWN else own
    is_marked = any(_attribute(root, name) == b"1" for name in DELEGATED)
    return root if is_marked or _is_unit_s(root) else None


def _is_unit_s(root: Path) -> bool:
    """Whether it is the cgroup of the user's unit that says it is delegated, and we are what that unit executes."""
    is_executed = os.environ.get("SYSTEMD_EXEC_PID") == str(os.getpid())  # systemd.exec(5)
    with contextlib.suppress(OSError):
        return is_executed and os.environ.get(UNIT_VARIABLE) == root.name and root.stat().st_uid == os.geteuid()
    return False


def _attribute(path: Path, name: str) -> bytes | None:
    try:
        return os.getxattr(path, name)
    except OSError:
        return None


def _processes(path: Path) -> set[int]:
    return {int(pid) for pid in (path / core.PROCESSES).read_text().split()}


def _kill(path: Path) -> None:
    """Linux 5.14; where it is missing, process groups are killed, which is done in any case."""
    with contextlib.suppress(OSError):
        _write(path / core.KILL, "1")


def _emptied(path: Path, until: float) -> bool:
    """Wait for the last process of a killed cgroup to be gone."""
    with contextlib.suppress(OSError), (path / "cgroup.events").open() as events:
        changed = select.poll()
        changed.register(events, select.POLLPRI)
        while core.counts(events.read()).get("populated"):
            if not changed.poll(max(0.0, until - time.monotonic()) * 1000):
                return False
            events.seek(0)
    return True


def _removed(path: Path) -> bool:
    try:
        path.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _write(path: Path, value: str) -> None:
    """To a file that is there: none can be made in a cgroup."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, value.encode())
    finally:
        os.close(fd)
