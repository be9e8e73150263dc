"""The processes that keep the vocabularies of models that were evicted, and who is asked to fork a model server.

A keeper is a fork of the forkserver that has read one model's vocabulary (see `supervisor.forkserver`). The next server
of that model is forked by it and need not read that again. Nothing depends on keepers: whatever is wrong with one, it
goes, and the forkserver forks instead.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from supervisor import fork_requests, forking
from supervisor.backends import llama_cpp_python
from supervisor.child import Child
from supervisor.core import vocabularies
from supervisor.core.preset import Preset
from supervisor.core.quantities import format_duration, readable_size
from supervisor.fork_requests import Asker, ForkRequests, Instead
from supervisor.forking import NAME, Forkserver
from supervisor.guard import Guard
from supervisor.logs import Journal, LogBook, Source
from supervisor.loop import Loop

READ_SECONDS = 60.0  # in which a vocabulary must be read
RETRY_SECONDS = 600.0  # after which one that could not be read, or took too much, is tried again
_PRIVATE = re.compile(r"^Private_\w+: +(\d+) kB$", re.M)


@dataclass
class _Keeper:
    """Keeps the vocabulary of the model file `path`, first asked for by model `name`. `size` is what it takes, in
    bytes, None until it has read it, which it must `by` (monotonic)."""

    name: str
    path: str
    by: float
    process: Child
    source: Source
    requests: ForkRequests
    size: int | None = None


@dataclass(frozen=True)
class _Wanted:
    """A keeper that was asked for, and our end of its socket."""

    number: int
    name: str
    path: str
    control: socket.socket


class Keepers:
    """Keeps vocabularies in at most `limit` bytes, those used last, and has model servers forked."""

    def __init__(self, loop: Loop, logbook: LogBook, guard: Guard, journal: Journal, forkserver: Forkserver) -> None:
        self._loop = loop
        self._logbook = logbook
        self._guard = guard
        self._journal = journal
        self._forkserver = forkserver
        self._limit = 0
        self._number = 0
        self._wanted: _Wanted | None = None
        self._keepers: dict[str, _Keeper] = {}  # by path, the one used last at the end
        self._ending: dict[int, _Keeper] = {}  # by pid, killed and yet to be reaped
        self._futile: dict[str, float] = {}  # by path, when to try again (monotonic)
        self._next: dict[str, Preset] = {}  # by path, those to be kept once the one that is read has been
        loop.timed.append(self)

    @property
    def pids(self) -> set[int]:
        """Its processes and the forkserver's."""
        return {self._forkserver.pid, *self._ending, *(keeper.process.pid for keeper in self._keepers.values())}

    def use(self, limit: int, presets: Iterable[Preset]) -> None:
        """Keep at most `limit` bytes of vocabularies from now on, and only of models that are in `presets`."""
        self._limit = limit
        self._futile.clear()
        paths = {preset.model for preset in presets}
        self._next = {path: preset for path, preset in self._next.items() if path in paths}
        if self._wanted is not None and self._wanted.path not in paths:
            self._call_off_wanted()
        for path in self._keepers.keys() - paths:
            self._drop(self._keepers[path])
        self._drop_surplus()

    def keep(self, preset: Preset) -> None:
        """Have the vocabulary of this model read and kept, unless it is. One at a time, as each takes a processor."""
        path, settings = preset.model, llama_cpp_python.settings(preset)
        if path is None or not self._limit or not llama_cpp_python.can_be_forked(preset):
            return
        if path in self._keepers or not vocabularies.suits(settings):
            return
        if time.monotonic() < self._futile.get(path, 0.0):
            return
        if self._is_reading:
            self._next[path] = preset
            return
        self._number -= 1
        with contextlib.ExitStack() as unless_asked:
            try:
                ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                unless_asked.callback(ours.close)
                unless_asked.callback(theirs.close)
                go = os.dup(ours.fileno())
            except OSError:
                return
            if self._forkserver.fork_keeper(self, self._number, preset.name, settings, theirs.detach(), go):
                self._wanted = _Wanted(self._number, preset.name, path, ours)
                unless_asked.pop_all()

    def forked(self, launch: int, process: Child) -> None:
        """A keeper is there, and reads from now on."""
        wanted, self._wanted = self._wanted, None
        assert wanted is not None and wanted.number == launch
        source = Source(NAME, 0, process.pid, process.log, NAME)
        requests = ForkRequests(
            self._loop, wanted.control, lambda: self._has_read(keeper), lambda why: self._gives_up(keeper, why)
        )
        by = time.monotonic() + READ_SECONDS
        keeper = _Keeper(wanted.name, wanted.path, by, process, source, requests)
        self._keepers[keeper.path] = keeper
        self._guard.watch(process.pid)
        self._loop.watch(process.log, lambda: self._read_log(keeper))
        self._loop.watch(process.pidfd, lambda: self._reap(keeper))

    def refused(self, launch: int) -> None:
        """The forkserver can't fork a keeper."""
        wanted, self._wanted = self._wanted, None
        assert wanted is not None and wanted.number == launch
        wanted.control.close()
        self._keep_next()

    def fork(self, asker: Asker, launch: int, name: str, env: Mapping[str, str], call: Mapping[str, Any]) -> bool:
        """Ask for a server of model `name`, of whoever has most of it ready; False if nobody can be asked."""

        def by_forkserver() -> bool:
            return self._forkserver.fork(asker, launch, name, env, call)

        keeper = self._keepers.get(call["settings"]["model"])
        if keeper is None or keeper.size is None or not vocabularies.suits(call["settings"]):
            return by_forkserver()
        through = Instead(asker, by_forkserver, lambda: self._drop(keeper))
        if not keeper.requests.fork(through, launch, name, env, call):
            return by_forkserver()
        self._keepers[keeper.path] = self._keepers.pop(keeper.path)
        return True

    def call_off(self, launch: int) -> None:
        """The process of this launch is not wanted any more."""
        self._forkserver.call_off(launch)
        for keeper in self._keepers.values():
            keeper.requests.call_off(launch)

    def due(self) -> float | None:
        """When a keeper is given up."""
        times = (
            keeper.requests.give_up_at if keeper.size is not None else keeper.by for keeper in self._keepers.values()
        )
        return min((at for at in times if at is not None), default=None)

    def fire(self, now: float) -> None:
        """Drop those that do not answer: they may be stopped, or hang in reading a file."""
        for keeper in list(self._keepers.values()):
            if keeper.requests.hangs(now):
                self._gives_up(keeper, f"it did not fork within {format_duration(fork_requests.FORK_SECONDS)}")
                self._drop(keeper)
            elif keeper.size is None and keeper.by <= now:
                self._gives_up(keeper, f"it was not read within {format_duration(READ_SECONDS)}")
                self._drop(keeper)

    def reap(self, pid: int) -> bool:
        """Whether `pid`, which is dead, is one of its own or the forkserver; it is reaped then."""
        if pid == self._forkserver.pid:
            self._forkserver.reap()
            return True
        keeper = next((each for each in self._keepers.values() if each.process.pid == pid), self._ending.get(pid))
        if keeper is not None:
            self._reap(keeper)
        return keeper is not None

    def drop_all(self) -> None:
        """Keep nothing; what a keeper was asked for, the forkserver is, or whoever asked hears that there is none."""
        self._next.clear()
        if self._wanted is not None:
            self._call_off_wanted()
        for keeper in list(self._keepers.values()):
            self._drop(keeper)

    def close(self) -> None:
        """Kill all, and call off whatever was asked for."""
        for keeper in self._keepers.values():
            keeper.requests.call_off_all()
        self.drop_all()
        self._forkserver.close()
        for keeper in list(self._ending.values()):
            self._forget(keeper)

    @property
    def _is_reading(self) -> bool:
        return self._wanted is not None or any(keeper.size is None for keeper in self._keepers.values())

    def _has_read(self, keeper: _Keeper) -> None:
        keeper.size = _private_bytes(keeper.process.pid)
        takes = readable_size(keeper.size)
        if keeper.size > self._limit:
            self._gives_up(keeper, f"it takes {takes}, and keep_vocabularies is {readable_size(self._limit)}")
        else:
            self._tell(keeper, f"the vocabulary of {keeper.name} is kept, {takes}")
        self._drop_surplus()
        self._keep_next()

    def _keep_next(self) -> None:
        if self._next and not self._is_reading:
            self.keep(self._next.pop(next(iter(self._next))))

    def _gives_up(self, keeper: _Keeper, why: str) -> None:
        """Say why it is of no use; one that was never of any is not tried again for a while."""
        if keeper.size is None or keeper.size > self._limit:
            self._futile[keeper.path] = time.monotonic() + RETRY_SECONDS
        self._tell(keeper, f"the vocabulary of {keeper.name} is not kept: {why}")

    def _tell(self, keeper: _Keeper, what: str) -> None:
        self._journal.write(f"llama-router: {what}", fields={"MODEL": keeper.name})

    def _call_off_wanted(self) -> None:
        assert self._wanted is not None
        self._forkserver.call_off(self._wanted.number)
        self.refused(self._wanted.number)

    def _drop_surplus(self) -> None:
        sizes = {path: keeper.size for path, keeper in self._keepers.items() if keeper.size is not None}
        for path in vocabularies.surplus(sizes, self._limit):
            self._drop(self._keepers[path])

    def _drop(self, keeper: _Keeper) -> None:
        """Kill it, with whatever it is about to fork, and have that forked by others."""
        if self._keepers.get(keeper.path) is not keeper:
            return
        del self._keepers[keeper.path]
        self._ending[keeper.process.pid] = keeper
        with contextlib.suppress(ProcessLookupError):
            os.killpg(keeper.process.pid, signal.SIGKILL)
        keeper.requests.close()
        keeper.requests.refuse_all()
        self._keep_next()

    def _reap(self, keeper: _Keeper) -> None:
        """It is dead: of itself, or because it was dropped."""
        result = os.waitid(os.P_PIDFD, keeper.process.pidfd, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if result is None:
            return
        if self._keepers.get(keeper.path) is keeper:
            keeper.requests.receive()
            self._gives_up(keeper, f"its process {forking.reason(result).text}")
            self._drop(keeper)
        os.waitid(os.P_PIDFD, keeper.process.pidfd, os.WEXITED)
        self._logbook.drain(keeper.source)
        self._forget(keeper)

    def _forget(self, keeper: _Keeper) -> None:
        del self._ending[keeper.process.pid]
        self._loop.unwatch(keeper.process.pidfd)
        self._loop.unwatch(keeper.process.log)
        os.close(keeper.process.pidfd)
        os.close(keeper.process.log)
        self._guard.forget(keeper.process.pid)

    def _read_log(self, keeper: _Keeper) -> None:
        if not self._logbook.read(keeper.source):
            self._loop.unwatch(keeper.process.log)


def _private_bytes(pid: int) -> int:
    """What a process shares with no other; 0 where the kernel does not tell."""
    try:
        found = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    return 1024 * sum(int(size) for size in _PRIVATE.findall(found))
