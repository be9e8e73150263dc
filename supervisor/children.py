"""The running processes: launched, signalled, read, and reaped. Every event about them starts here."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from supervisor import child
from supervisor.child import Child
from supervisor.core.events import Ended, Notified, Spawned
from supervisor.core.reasons import EndReason, Kind
from supervisor.errors import CannotStart
from supervisor.guard import Guard
from supervisor.logs import LogBook, Source
from supervisor.loop import Loop
from supervisor.notify import NotifySocket

KILL_SECONDS = 2.0


@dataclass(frozen=True)
class Running:
    """A launch with a process. `address` is where it answers; `cleanup` removes what was made for it."""

    launch: int
    child: Child
    source: Source
    address: str
    cleanup: Callable[[], None]


class Children:
    """By launch. Registers their descriptors with the loop and delivers Spawned, Notified and Ended to it."""

    def __init__(self, loop: Loop, logbook: LogBook, notify: NotifySocket, guard: Guard) -> None:
        self._loop = loop
        self._logbook = logbook
        self._notify = notify
        self._guard = guard
        self._running: dict[int, Running] = {}
        self._by_group: dict[int, int] = {}
        child.become_subreaper()
        loop.watch(notify, self._notified)

    def address(self, launch: int) -> str | None:
        """Where a launch answers; None if it has no process."""
        running = self._running.get(launch)
        return running.address if running else None

    def start(
        self,
        name: str,
        launch: int,
        argv: Sequence[str],
        env: Mapping[str, str],
        address: str,
        *,
        cleanup: Callable[[], None],
        pass_fd: int | None = None,
    ) -> None:
        """Start a process and watch it. One that can't be executed, for good or right now, ends with CANNOT_START."""
        try:
            own = {"NOTIFY_SOCKET": str(self._notify.path), child.LAUNCH_VARIABLE: str(launch)}
            process = child.spawn(argv, {**env, **own}, pass_fd)
        except (CannotStart, OSError) as error:
            cleanup()
            self._loop.deliver(Ended(launch, not_started(name, error)))
            return
        self._guard.watch(process.pid)
        running = Running(launch, process, Source(name, launch, process.log), address, cleanup)
        self._running[launch] = running
        self._by_group[process.pid] = launch
        self._loop.watch(process.log, lambda: self._read_log(running))
        self._loop.watch(process.pidfd, lambda: self._reap(running))
        self._loop.deliver(Spawned(launch, process.pid))

    def signal(self, launch: int, number: signal.Signals) -> None:
        """Signal the whole process group of a launch."""
        if launch in self._running:
            _signal_group(self._running[launch].child.pid, number)

    def reap_orphans(self) -> None:
        """Reap what was adopted: children of our children, whose parent died, and the guard.

        Children of our own are left to their pidfd, which is ready as well.
        """
        with contextlib.suppress(ChildProcessError):
            while (peek := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
                if peek.si_pid in self._by_group:
                    self._reap(self._running[self._by_group[peek.si_pid]])
                    continue
                os.waitpid(peek.si_pid, 0)
                if peek.si_pid == self._guard.pid:
                    self._guard.died()
        self._kill_strays()

    def kill_all(self) -> None:
        """The last net: nothing of ours may outlive us, what left its process group included."""
        for running in self._running.values():
            _signal_group(running.child.pid, signal.SIGKILL)
            running.cleanup()
        deadline = time.monotonic() + KILL_SECONDS
        while (left := child.adopted() - {self._guard.pid}) and time.monotonic() < deadline:
            for pid in left:  # what each leaves behind is adopted when it dies
                _kill_and_reap(pid, deadline - time.monotonic())

    def _kill_strays(self) -> None:
        """Kill what left the process group of its launch and outlived it: it would keep memory and ports."""
        for pid in child.adopted() - self._by_group.keys() - {self._guard.pid}:
            launch = child.launch_of(pid)
            if launch is not None and launch not in self._running:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def _read_log(self, running: Running) -> None:
        if not self._logbook.read(running.source):
            self._loop.unwatch(running.child.log)

    def _notified(self) -> None:
        for note in self._notify.receive():
            launch = self._by_group.get(note.group)
            if launch is not None:
                self._loop.deliver(Notified(launch, note.ready, note.status, note.progress, note.out_of_memory))

    def _reap(self, running: Running) -> None:
        """The process is dead: hear its last words first, and leave nothing of its group."""
        if self._running.get(running.launch) is not running:
            return
        result = os.waitid(os.P_PIDFD, running.child.pidfd, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if result is None:
            return
        self._notified()
        _signal_group(running.child.pid, signal.SIGKILL)  # before reaping frees the group's number
        os.waitid(os.P_PIDFD, running.child.pidfd, os.WEXITED)
        self._logbook.drain(running.source)
        self._loop.unwatch(running.child.pidfd)
        self._loop.unwatch(running.child.log)
        os.close(running.child.pidfd)
        os.close(running.child.log)
        del self._running[running.launch]
        del self._by_group[running.child.pid]
        self._guard.forget(running.child.pid)
        running.cleanup()
        self._kill_strays()
        lines = self._logbook.last_words(running.source.name, running.launch)
        if result.si_code == os.CLD_EXITED:
            reason = EndReason(Kind.EXITED, code=result.si_status, last_lines=lines)
        else:
            reason = EndReason(Kind.KILLED, signal=result.si_status, last_lines=lines)
        self._loop.deliver(Ended(running.launch, reason))


def not_started(name: str, error: CannotStart | OSError) -> EndReason:
    """Why a launch never got a process. An OSError tells what the machine is short of, and may pass."""
    if isinstance(error, OSError):
        return EndReason(Kind.CANNOT_START, detail=f"cannot start {name}: {error.strerror}", passing=True)
    return EndReason(Kind.CANNOT_START, detail=str(error))


def _kill_and_reap(pid: int, seconds: float) -> None:
    """End a child and wait for that; one stuck in the kernel is given up."""
    with contextlib.suppress(OSError):
        pidfd = os.pidfd_open(pid)
        try:
            os.kill(pid, signal.SIGKILL)
            select.select([pidfd], [], [], max(0.0, seconds))
            os.waitpid(pid, os.WNOHANG)
        finally:
            os.close(pidfd)


def _signal_group(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, number)
