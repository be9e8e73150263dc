"""The running processes: launched, signalled, read, and reaped. Every event about them starts here."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from functools import partial
from io import FileIO
from pathlib import Path
from typing import Any

import msgspec

from supervisor import child
from supervisor.backends import Dialect
from supervisor.cgroups import Cgroups
from supervisor.child import Child
from supervisor.core import cgroups
from supervisor.core.events import Ended, Spawned
from supervisor.core.preset import Limits
from supervisor.core.reasons import EndReason, Kind
from supervisor.errors import CannotStart
from supervisor.guard import Guard
from supervisor.keepers import Keepers
from supervisor.logs import LogBook, Source
from supervisor.loop import Loop
from supervisor.notify import NotifySocket

KILL_SECONDS = 2.0


@dataclass(frozen=True)
class Launch:
    """A process to be started for the instance `name` of `model`. `address` is where it will answer, "" if nowhere;
    `cleanup` removes what was made for it. `pass_fd` becomes its descriptor 3; `fork` is what the forkserver may be
    given instead of running `argv` in `directory`. `dialect` is how it talks, if not by sd_notify(3). With `limits`, be
    they none, it has a cgroup of its own where there are any."""

    number: int
    model: str
    name: str
    argv: Sequence[str]
    env: Mapping[str, str]
    address: str = ""
    cleanup: Callable[[], None] = lambda: None
    pass_fd: int | None = None
    fork: Mapping[str, Any] | None = None
    dialect: Dialect | None = None
    limits: Limits | None = None
    directory: str | None = None


class Process(msgspec.Struct, frozen=True):
    """A launch with a process that one program hands over to another: of Launch, Child, Source and Running what counts
    from then on. `partial` is the line of the log that is not whole yet."""

    launch: int
    model: str
    name: str
    argv: tuple[str, ...]
    address: str
    pid: int
    pidfd: int
    log: int
    stdin: int | None
    partial: bytes
    oom_kills: int


@dataclass(frozen=True)
class Running:
    """A launch with a process. `oom_kills` is how many the kernel had counted when it was started."""

    launch: Launch
    child: Child
    source: Source
    oom_kills: int


class Children:
    """By launch. Registers their descriptors with the loop and delivers Spawned, Notified and Ended to it."""

    def __init__(
        self,
        loop: Loop,
        logbook: LogBook,
        notify: NotifySocket,
        guard: Guard,
        keepers: Keepers,
        cgroups: Cgroups,
    ) -> None:
        self._loop = loop
        self._logbook = logbook
        self._notify = notify
        self._guard = guard
        self._keepers = keepers
        self._cgroups = cgroups
        self._forking: dict[int, Launch] = {}
        self._running: dict[int, Running] = {}
        self._by_group: dict[int, int] = {}
        self.reaped_by: dict[int, Callable[[], None]] = {}  # processes that are no launches: who waits for their ends
        child.become_subreaper()
        loop.watch(notify, self._notified)

    def handed_over(self) -> list[Process]:
        """All that run, for another program to go on with. None may be about to be forked."""
        return [_handed_over(running) for running in self._running.values()]

    def take_over(self, launch: Launch, process: Process) -> None:
        """Go on with a launch that another program started, and whose group the guard knows."""
        stdin = None if process.stdin is None else FileIO(process.stdin, "w")
        running = self._attend(launch, Child(process.pid, process.pidfd, process.log, stdin), process.oom_kills)
        running.source.partial += process.partial

    @property
    def launches(self) -> set[int]:
        """Those that have a process."""
        return set(self._running)

    def address(self, launch: int) -> str | None:
        """Where a launch answers; None if it has no process."""
        running = self._running.get(launch)
        return running.launch.address if running else None

    def argv(self, launch: int) -> Sequence[str] | None:
        """The command line of a launch; None if it has no process."""
        running = self._running.get(launch)
        return running.launch.argv if running else None

    def group(self, launch: int) -> int | None:
        """The process group of a launch; None if it has no process."""
        running = self._running.get(launch)
        return running.child.pid if running else None

    def start(self, launch: Launch) -> None:
        """Start a process and watch it. One that can't be executed, for good or right now, ends with CANNOT_START."""
        own = {"NOTIFY_SOCKET": str(self._notify.path), child.LAUNCH_VARIABLE: str(launch.number)}
        launch = replace(launch, env={**launch.env, **own})
        fork = launch.fork
        if fork is not None and self._keepers.fork(self, launch.number, launch.name, launch.env, fork):
            self._forking[launch.number] = launch
        else:
            self._spawn(launch)

    def forked(self, launch: int, process: Child) -> None:
        """What was forked has done nothing yet, and does not before it is watched."""
        self._adopt(self._forking.pop(launch), process)

    def refused(self, launch: int) -> None:
        """What can't be forked is executed."""
        self._spawn(self._forking.pop(launch))

    def signal(self, launch: int, number: signal.Signals) -> None:
        """Signal the whole process group of a launch. One that is yet to be forked ends as if it had been signalled
        before it did anything."""
        if launch in self._running:
            running = self._running[launch]
            if number == signal.SIGTERM:
                _say_farewell(running)
            elif number == signal.SIGKILL:
                self._cgroups.kill(launch)
            _signal_group(running.child.pid, number)
        elif launch in self._forking:
            self._keepers.call_off(launch)
            self._forking.pop(launch).cleanup()
            self._loop.deliver(Ended(launch, EndReason(Kind.KILLED, signal=number)))

    def reap_orphans(self) -> None:
        """Reap what was adopted: children of our children, whose parent died, the guard, the forkserver and keepers.

        Children of our own are left to their pidfd, which is ready as well.
        """
        with contextlib.suppress(ChildProcessError):
            while (peek := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
                if peek.si_pid in self._by_group:
                    self._reap(self._running[self._by_group[peek.si_pid]])
                    continue
                if self._keepers.reap(peek.si_pid):
                    continue
                if (reap := self.reaped_by.get(peek.si_pid)) is not None:
                    reap()
                    continue
                os.waitpid(peek.si_pid, 0)
                if peek.si_pid == self._guard.pid:
                    self._guard.died()
        self._kill_strays()
        self._cgroups.sweep()

    def kill_all(self, spared: Set[int] = frozenset()) -> None:
        """The last net: nothing of ours may outlive us, what left its process group included. Those that are `spared`
        end by themselves."""
        self._keepers.close()
        for launch in self._forking.values():
            launch.cleanup()
        for running in self._running.values():
            self._cgroups.end(running.launch.number)
            _signal_group(running.child.pid, signal.SIGKILL)
            running.launch.cleanup()
        deadline = time.monotonic() + KILL_SECONDS
        while (left := child.adopted() - {self._guard.pid} - spared) and time.monotonic() < deadline:
            for pid in left:  # what each leaves behind is adopted when it dies
                _kill_and_reap(pid, deadline - time.monotonic())
        self._cgroups.sweep()

    def _kill_strays(self) -> None:
        """Kill what left the process group of its launch and outlived it: it would keep memory and ports."""
        for pid in child.adopted() - self._by_group.keys() - {self._guard.pid} - self._keepers.pids:
            launch = child.launch_of(pid)
            if launch is not None and launch not in self._running and launch not in self._forking:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def _adopt(self, launch: Launch, process: Child) -> None:
        if launch.limits is not None and self._cgroups.make(launch.number, launch.limits):
            self._cgroups.add(launch.number, process.pid)
        self._watch(launch, process)

    def _spawn(self, launch: Launch) -> None:
        enter = None if launch.limits is None else self._cgroups.make(launch.number, launch.limits)
        listens = launch.dialect is not None
        try:
            process = child.spawn(
                launch.argv, launch.env, launch.pass_fd, listens=listens, enter=enter, directory=launch.directory
            )
        except (CannotStart, OSError) as error:
            self._cgroups.end(launch.number)
            launch.cleanup()
            self._loop.deliver(Ended(launch.number, not_started(launch.name, error)))
        else:
            self._watch(launch, process)

    def _watch(self, launch: Launch, process: Child) -> None:
        self._guard.watch(process.pid)
        self._attend(launch, process, _oom_kills())
        self._loop.deliver(Spawned(launch.number, process.pid))

    def _attend(self, launch: Launch, process: Child, oom_kills: int) -> Running:
        took = partial(self._heard, launch)
        source = Source(launch.model, launch.number, process.pid, process.log, launch.name, took=took)
        running = Running(launch, process, source, oom_kills)
        self._running[launch.number] = running
        self._by_group[process.pid] = launch.number
        self._loop.watch(process.log, lambda: self._read_log(running))
        self._loop.watch(process.pidfd, lambda: self._reap(running))
        return running

    def _read_log(self, running: Running) -> None:
        if not self._logbook.read(running.source):
            self._loop.unwatch(running.child.log)

    def _heard(self, launch: Launch, line: str) -> bool:
        """True for a line that is no log but tells something by the dialect of the launch."""
        notice = launch.dialect.notice(launch.number, line) if launch.dialect else None
        if notice is not None:
            self._loop.deliver(notice)
        return notice is not None

    def _notified(self) -> None:
        for note in self._notify.receive():
            launch = self._by_group.get(note.group)
            if launch is not None:
                self._loop.deliver(note.of(launch))

    def _reap(self, running: Running) -> None:
        """The process is dead: hear its last words first, and leave nothing of its group."""
        if self._running.get(running.launch.number) is not running:
            return
        result = os.waitid(os.P_PIDFD, running.child.pidfd, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if result is None:
            return
        self._notified()
        events = self._cgroups.memory_events(running.launch.number)
        self._cgroups.end(running.launch.number)
        _signal_group(running.child.pid, signal.SIGKILL)  # before reaping frees the group's number
        os.waitid(os.P_PIDFD, running.child.pidfd, os.WEXITED)
        self._logbook.drain(running.source)
        self._loop.unwatch(running.child.pidfd)
        self._loop.unwatch(running.child.log)
        os.close(running.child.pidfd)
        os.close(running.child.log)
        if running.child.stdin is not None:
            running.child.stdin.close()
        del self._running[running.launch.number]
        del self._by_group[running.child.pid]
        self._guard.forget(running.child.pid)
        running.launch.cleanup()
        self._kill_strays()
        self._cgroups.sweep()
        lines = self._logbook.last_words(running.launch.model, running.launch.number)
        if result.si_code == os.CLD_EXITED:
            reason = EndReason(Kind.EXITED, code=result.si_status, last_lines=lines)
        else:
            reason = _killed(running, result.si_status, events, lines)
        if running.launch.dialect is not None:
            reason = running.launch.dialect.explained(reason)
        self._loop.deliver(Ended(running.launch.number, reason))


def _handed_over(running: Running) -> Process:
    launch, process = running.launch, running.child
    stdin = process.stdin
    return Process(
        launch.number,
        launch.model,
        launch.name,
        tuple(launch.argv),
        launch.address,
        process.pid,
        process.pidfd,
        process.log,
        None if stdin is None or stdin.closed else stdin.fileno(),
        bytes(running.source.partial),
        running.oom_kills,
    )


def _killed(running: Running, number: int, events: str | None, lines: tuple[str, ...]) -> EndReason:
    """A SIGKILL that nobody here sent is the kernel's, if it counted one meanwhile; `events` are its counts for this
    launch alone, else those of the whole machine have to do."""
    counted = _oom_kills() > running.oom_kills if events is None else cgroups.was_starved(events)
    if number != signal.SIGKILL or not counted:
        return EndReason(Kind.KILLED, signal=number, last_lines=lines)
    limit = cgroups.over_limit(events or "", running.launch.limits or Limits())
    return EndReason(Kind.OUT_OF_MEMORY, signal=number, detail=limit, last_lines=lines)


def not_started(name: str, error: CannotStart | OSError) -> EndReason:
    """Why a launch never got a process. An OSError tells what the machine is short of, and may pass."""
    if isinstance(error, OSError):
        return EndReason(Kind.CANNOT_START, detail=f"cannot start {name}: {error.strerror}", passing=True)
    return EndReason(Kind.CANNOT_START, detail=str(error))


def _say_farewell(running: Running) -> None:
    """Tell it to end by its own words. To one that does not understand them the end of its stdin says the same."""
    if running.launch.dialect is not None and running.child.stdin is not None and not running.child.stdin.closed:
        with contextlib.suppress(OSError):
            running.child.stdin.write(running.launch.dialect.farewell)
        running.child.stdin.close()


def _kill_and_reap(pid: int, seconds: float) -> None:
    """End a child and wait for that; one stuck in the kernel is given up."""
    with contextlib.suppress(OSError):
        pidfd = os.pidfd_open(pid)
        try:
            os.kill(pid, signal.SIGKILL)
            ended = select.poll()  # select(2) knows no descriptors above 1023
            ended.register(pidfd, select.POLLIN)
            ended.poll(max(0.0, seconds) * 1000)
            os.waitpid(pid, os.WNOHANG)
        finally:
            os.close(pidfd)


def _oom_kills() -> int:
    """How many processes the kernel has killed for want of memory, of a cgroup's or its own (/proc/vmstat, since Linux
    4.13); 0 where it does not tell."""
    try:
        counts = dict(line.split() for line in Path("/proc/vmstat").read_text().splitlines())
    except OSError:
        return 0
    return int(counts.get("oom_kill", 0))


def _signal_group(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, number)
