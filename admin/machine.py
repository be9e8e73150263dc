"""What the machine has and does: processors, memory, graphics cards, disks, and llama-router's own processes.

All of it may block for a while: call it in a thread.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import psutil

from supervisor.core.secrets import without_secrets

CARDS_AGAIN_SECONDS = 60.0  # after there was no driver
PSS_SECONDS = 10.0  # the kernel walks page tables for it

Json = dict[str, Any]


@dataclass(frozen=True)
class Ticks:
    """Processor time used until `at` (monotonic): `busy` and `total` seconds of each core, and seconds by process."""

    at: float
    busy: list[float]
    total: list[float]
    processes: dict[int, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Process:
    """One of llama-router's processes. `command` is without secrets, `parent` a process id.

    `pss` is in bytes, None where it was not asked for.
    """

    pid: int
    parent: int
    command: str
    threads: int
    pss: int | None


def ticks(pids: Iterable[int]) -> Ticks:
    """The clocks of all cores and of some processes."""
    busy, total = [], []
    for core in psutil.cpu_times(percpu=True):
        whole = sum(core) - getattr(core, "guest", 0.0) - getattr(core, "guest_nice", 0.0)  # they are in user as well
        total.append(whole)
        busy.append(whole - core.idle - getattr(core, "iowait", 0.0))
    return Ticks(time.monotonic(), busy, total, {pid: used for pid in pids if (used := _cpu_seconds(pid)) is not None})


def _cpu_seconds(pid: int) -> float | None:
    try:
        used = psutil.Process(pid).cpu_times()
    except psutil.Error:
        return None
    return float(used.user + used.system)


def cores(before: Ticks, after: Ticks) -> list[float]:
    """How busy each core was in between, in percent."""
    spans = zip(before.busy, before.total, after.busy, after.total, strict=False)
    return [
        max(0.0, min(100.0, 100 * (busy - was_busy) / (total - was_total))) if total > was_total else 0.0
        for was_busy, was_total, busy, total in spans
    ]


def process_percent(before: Ticks, after: Ticks) -> dict[int, float]:
    """How busy each process was in between; 100 is one core."""
    seconds = after.at - before.at
    if seconds <= 0:
        return {}
    used = after.processes.items()
    return {
        pid: max(0.0, 100 * (now - before.processes[pid]) / seconds) for pid, now in used if pid in before.processes
    }


def memory() -> Json:
    """`total`, `available` and `swap_used`, in bytes; `load` of 1, 5 and 15 minutes."""
    main = psutil.virtual_memory()
    return {
        "total": main.total,
        "available": main.available,
        "swap_used": psutil.swap_memory().used,
        "swap_total": psutil.swap_memory().total,
        "load": os.getloadavg(),
    }


class Processes:
    """Those of llama-router, with what they share counted by its part (Pss), which is not asked every time."""

    def __init__(self) -> None:
        self._pss: dict[int, tuple[float, int | None]] = {}

    def below(self, supervisor: int, known: Iterable[int]) -> list[Process]:
        """The supervisor and all of its descendants; of those `known` the memory is not asked."""
        try:
            first = psutil.Process(supervisor)
            family = [first, *first.children(recursive=True)]
        except psutil.Error:
            return []
        skipped = set(known)
        found = [each for process in family if (each := self._look(process, process.pid in skipped)) is not None]
        self._pss = {each.pid: self._pss[each.pid] for each in found if each.pid in self._pss}
        return found

    def _look(self, process: psutil.Process, skip: bool) -> Process | None:
        try:
            with process.oneshot():
                command = " ".join(without_secrets(process.cmdline())) or process.name()
                parent, threads = process.ppid(), process.num_threads()
            return Process(process.pid, parent, command, threads, None if skip else self._pss_of(process))
        except psutil.Error:
            return None

    def _pss_of(self, process: psutil.Process) -> int | None:
        asked, size = self._pss.get(process.pid, (-PSS_SECONDS, None))
        if time.monotonic() - asked >= PSS_SECONDS:
            size = _pss(process.pid)
            self._pss[process.pid] = (time.monotonic(), size)
        return size


def _pss(pid: int) -> int | None:
    """proc_pid_smaps(5); None if that may not be read."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), None)


class Cards:
    """NVIDIA's graphics cards; none where there is no driver."""

    def __init__(self) -> None:
        self._again = 0.0
        self._ready = False

    def look(self) -> list[Json]:
        """`name`, `used` and `total` bytes, `busy` percent and `celsius` of each; None for what one does not tell."""
        import pynvml as nvml  # 2 MiB, which only those who look at the System page have to spare

        try:
            if not self._start(nvml):
                return []
            return [_card(nvml, nvml.nvmlDeviceGetHandleByIndex(number)) for number in range(nvml.nvmlDeviceGetCount())]
        except nvml.NVMLError:
            self._ready = False
            return []

    def _start(self, nvml: ModuleType) -> bool:
        if not self._ready and time.monotonic() >= self._again:
            self._again = time.monotonic() + CARDS_AGAIN_SECONDS
            nvml.nvmlInit()
            self._ready = True
        return self._ready


def _card(nvml: ModuleType, handle: Any) -> Json:
    def told(what: str, *arguments: Any) -> Any:
        try:
            return getattr(nvml, f"nvmlDeviceGet{what}")(handle, *arguments)
        except nvml.NVMLError:
            return None

    name, memory, rates = told("Name"), told("MemoryInfo"), told("UtilizationRates")
    return {
        "name": name.decode(errors="replace") if isinstance(name, bytes) else name,
        "used": memory and memory.used,
        "total": memory and memory.total,
        "busy": rates and rates.gpu,
        "celsius": told("Temperature", nvml.NVML_TEMPERATURE_GPU),
    }


def disks(folders: Iterable[str], models: Iterable[tuple[str, int | None]]) -> list[Json]:
    """The file systems that hold `folders` and the files of `models` (path and bytes of its weights, None: the file's).

    `mount`, `total` and `free` bytes, `files` how many different ones there are that hold anything, and their `size`.
    """
    found: dict[int, Json] = {}
    seen: set[tuple[int, int]] = set()
    for path, size in [*((folder, 0) for folder in folders), *models]:
        real = os.path.realpath(path)
        try:
            facts = Path(real).stat()
            disk = found.get(facts.st_dev) or _disk(real)
        except OSError:
            continue
        found[facts.st_dev] = disk
        identity = (facts.st_dev, facts.st_ino)
        if stat.S_ISREG(facts.st_mode) and facts.st_size and identity not in seen:
            seen.add(identity)
            disk["files"] += 1
            disk["size"] += size or facts.st_size
    return sorted(found.values(), key=lambda disk: str(disk["mount"]))


def _disk(path: str) -> Json:
    usage = psutil.disk_usage(path)
    mount = Path(path)
    while not mount.is_mount() and mount != mount.parent:
        mount = mount.parent
    return {"mount": str(mount), "total": usage.total, "free": usage.free, "files": 0, "size": 0}
