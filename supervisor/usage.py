"""What processes use of memory, and what the machine has of it: /proc, cgroups and NVIDIA's NVML."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

_PROC = Path("/proc")
_CGROUPS = Path("/sys/fs/cgroup")
_KIB = 1024


@dataclass(frozen=True)
class Usage:
    """Bytes by device ("host", "gpu0", …). `private` is the processes' own; `shared` are pages of files.

    A page that several processes map counts in each of them by its part (Pss of proc_pid_smaps(5)), so the `shared` of
    all replicas of a model add up to what they take together.
    """

    private: Mapping[str, int] = field(default_factory=dict)
    shared: Mapping[str, int] = field(default_factory=dict)


class Gpus(Protocol):
    """The graphics cards, in the order of their numbers. No method raises."""

    def totals(self) -> list[int | None]:
        """Bytes that each of them has; None for one that does not tell."""
        ...

    def used(self) -> list[dict[int, int]]:
        """For each of them the bytes that processes use, by process id, where that is known."""
        ...


def process_usage(groups: Iterable[int], gpus: Gpus) -> dict[int, Usage]:
    """What the processes of each process group use; a group without any that may be looked at is left out.

    Blocks for as long as the kernel walks the processes' page tables: 5 to 30 ms for each GiB that is in memory in
    pages of 4 KiB. Many groups at once cost no more than one after the other.
    """
    members = _members(set(groups))
    on_gpus = [(f"gpu{number}", by_pid) for number, by_pid in enumerate(gpus.used())] if members else []
    found = {}
    for group, pids in members.items():
        private: Counter[str] = Counter()
        shared: Counter[str] = Counter()
        for pid in pids:
            if rollup := _rollup(pid):
                private["host"] += rollup["Pss_Anon"] + rollup["Pss_Shmem"]
                shared["host"] += rollup["Pss_File"]
            for device, by_pid in on_gpus:
                if pid in by_pid:
                    private[device] += by_pid[pid]
        if private or shared:
            found[group] = Usage(dict(private), dict(shared))
    return found


def machine_memory(gpus: Gpus) -> dict[str, int]:
    """What the machine has: "host", as far as this process may use it, and each GPU."""
    limits = [_total(), *_limited_cgroups().values()]
    memory = {"host": min(limit for limit in limits if limit is not None)} if any(limits) else {}
    return memory | {f"gpu{number}": total for number, total in enumerate(gpus.totals()) if total is not None}


def cache_room() -> int:
    """How many bytes of files that nobody maps there can be in memory before they push out what is in use: the least
    of the machine's and of the cgroups' that limit this process. 0 if that can't be told."""
    try:
        machine = _sizes(_PROC / "meminfo")
        room = [(machine["MemAvailable"] - machine["Mapped"]) * _KIB]
        for cgroup, limit in _limited_cgroups().items():
            held = _sizes(cgroup / "memory.stat")
            unmapped = held["file"] - held["shmem"] - held["file_mapped"]
            room.append(limit - int((cgroup / "memory.current").read_text()) + unmapped)
    except (OSError, ValueError, KeyError):
        return 0
    return min(room)


def _sizes(path: Path) -> dict[str, int]:
    """The numbers of /proc/meminfo or of a cgroup's memory.stat, by their names. Raises OSError."""
    words = (line.replace(":", "").split() for line in path.read_text().splitlines())
    return {name: int(number) for name, number, *_unit in words}


def _members(groups: set[int]) -> dict[int, list[int]]:
    """The processes of each of the groups."""
    members: dict[int, list[int]] = {}
    for entry in _PROC.iterdir():
        if entry.name.isdigit() and (group := _group(entry)) in groups:
            members.setdefault(group, []).append(int(entry.name))
    return members


def _group(process: Path) -> int:
    """A process's group from proc_pid_stat(5); 0 if it is gone. Its name may hold anything, parentheses included."""
    try:
        stat = (process / "stat").read_bytes()
        return int(stat[stat.rindex(b")") + 1 :].split()[2])
    except (OSError, ValueError, IndexError):
        return 0


def _rollup(pid: int) -> Counter[str] | None:
    """Bytes by the names of proc_pid_smaps(5); None for a process that is gone or belongs to somebody else."""
    try:
        lines = (_PROC / str(pid) / "smaps_rollup").read_text().splitlines()
    except OSError:
        return None
    return Counter({name: int(rest.split()[0]) * _KIB for name, _, rest in _fields(lines)})


def _fields(lines: Iterable[str]) -> list[tuple[str, str, str]]:
    """Lines such as "Pss_Anon:    12 kB", taken apart at the colon."""
    return [line.partition(":") for line in lines if line.endswith(" kB")]


def _total() -> int | None:
    try:
        lines = (_PROC / "meminfo").read_text().splitlines()
    except OSError:
        return None
    return next((int(rest.split()[0]) * _KIB for name, _, rest in _fields(lines) if name == "MemTotal"), None)


def _limited_cgroups() -> dict[Path, int]:
    """memory.max of this process's cgroup (version 2) and of those above it that have one; cgroups(7)."""
    try:
        lines = (_PROC / "self" / "cgroup").read_text().splitlines()
    except OSError:
        return {}
    path = next((line[3:] for line in lines if line.startswith("0::")), None)
    if path is None:
        return {}
    own = _CGROUPS / path.lstrip("/")
    limits = {}
    for cgroup in [own, *own.parents]:
        with contextlib.suppress(OSError, ValueError):  # "max" is no number
            limits[cgroup] = int((cgroup / "memory.max").read_text())
        if cgroup == _CGROUPS:
            break
    return limits


class Nvidia:
    """The cards that NVIDIA's driver knows; none without it. Asked for the first time, it loads the library."""

    def __init__(self, library: Any = None) -> None:
        """`library` stands in for the module pynvml."""
        self._library = library
        self._cards: list[Any] | None = None

    def totals(self) -> list[int | None]:
        return [self._total_of(card) for card in self._found()]

    def used(self) -> list[dict[int, int]]:
        return [self._used_of(card) for card in self._found()]

    def _total_of(self, card: Any) -> int | None:
        try:
            return int(self._library.nvmlDeviceGetMemoryInfo(card).total)
        except self._library.NVMLError:
            return None

    def _used_of(self, card: Any) -> dict[int, int]:
        used: dict[int, int] = {}
        ask = (self._library.nvmlDeviceGetComputeRunningProcesses, self._library.nvmlDeviceGetGraphicsRunningProcesses)
        for running in ask:
            # Not every card and driver tells; what one of the two says still counts.
            with contextlib.suppress(self._library.NVMLError):
                for process in running(card):
                    if process.usedGpuMemory is not None:
                        used[process.pid] = max(used.get(process.pid, 0), process.usedGpuMemory)
        return used

    def _found(self) -> list[Any]:
        if self._cards is None:
            self._cards = self._find()
        return self._cards

    def _find(self) -> list[Any]:
        if self._library is None:
            try:
                import pynvml
            except ImportError:
                return []
            self._library = pynvml
        try:
            self._library.nvmlInit()
            count = self._library.nvmlDeviceGetCount()
            return [self._library.nvmlDeviceGetHandleByIndex(number) for number in range(count)]
        except self._library.NVMLError:
            return []
