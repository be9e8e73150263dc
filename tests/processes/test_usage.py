"""What processes use and what the machine has, from real processes and a made-up graphics library."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from supervisor import usage
from supervisor.usage import Nvidia, cache_room, machine_memory, process_usage

MIB = 2**20
# Has 64 MiB of its own, and a file of 32 MiB mapped and read.
PROGRAM = """
import mmap, os, sys
own = bytearray(os.urandom(1 << 20) * 64)
with open(sys.argv[1], "rb") as file:
    mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
sum(mapped[::4096])
if len(sys.argv) > 2 and os.fork() == 0:
    more = bytearray(os.urandom(1 << 20) * 32)
    print("child", flush=True)
    sys.stdin.read()
    os._exit(0)
print("ready", flush=True)
sys.stdin.read()
"""

Start = Callable[..., subprocess.Popen[str]]


class NoGpus:
    def totals(self) -> list[int | None]:
        return []

    def used(self) -> list[dict[int, int]]:
        return []


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "weights"
    path.write_bytes(os.urandom(MIB) * 32)
    return path


@pytest.fixture
def start(weights: Path) -> Iterator[Start]:
    """Starts PROGRAM in a group of its own, and waits until it, or its child too, has what it takes."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        argv = [sys.executable, "-c", PROGRAM, str(weights), *arguments]
        process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, process_group=0)
        started.append(process)
        assert process.stdout is not None
        assert {process.stdout.readline() for _ in range(1 + len(arguments))} <= {"ready\n", "child\n"}
        return process

    yield start
    for process in started:
        process.communicate()


def mebibytes(size: int) -> float:
    return size / MIB


# Processes


def test_what_is_its_own_and_what_is_shared(start: Start) -> None:
    pid = start().pid
    found = process_usage([pid], NoGpus())[pid]
    assert 64 <= mebibytes(found.private["host"]) < 64 + 24
    assert 32 <= mebibytes(found.shared["host"]) < 32 + 24
    assert found.private.keys() == found.shared.keys() == {"host"}


def test_replicas_share_their_weights_by_halves(start: Start) -> None:
    first, second = start().pid, start().pid
    found = process_usage([first, second], NoGpus())
    assert all(64 <= mebibytes(found[pid].private["host"]) < 64 + 24 for pid in (first, second))
    assert 32 <= sum(mebibytes(found[pid].shared["host"]) for pid in (first, second)) < 32 + 40
    assert mebibytes(found[first].shared["host"]) < 32


def test_a_whole_group_counts(start: Start) -> None:
    pid = start("child").pid
    found = process_usage([pid], NoGpus())[pid]
    assert 96 <= mebibytes(found.private["host"]) < 96 + 40
    assert 32 <= mebibytes(found.shared["host"]) < 32 + 40


SHARED = """
import mmap, sys
block = mmap.mmap(-1, 16 << 20)
sys.stdin.readline()
block.write(b"x" * (16 << 20))
print("written", flush=True)
sys.stdin.read()
"""


def test_shared_memory_is_a_process_s_own() -> None:
    argv, pipe = [sys.executable, "-c", SHARED], subprocess.PIPE
    with subprocess.Popen(argv, stdin=pipe, stdout=pipe, text=True, process_group=0) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "written\n"
        found = process_usage([process.pid], NoGpus())[process.pid]
        process.stdin.close()
    assert 16 <= mebibytes(found.private["host"]) < 16 + 24


def test_processes_that_are_gone_are_left_out(start: Start) -> None:
    process = start()
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # dead, and not yet reaped
    assert process_usage([process.pid, 2**22 + 1], NoGpus()) == {}
    process.wait()
    assert process_usage([process.pid], NoGpus()) == {}
    assert process_usage([], NoGpus()) == {}


# /proc as it may also be


@pytest.fixture
def proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "proc"
    root.mkdir()
    monkeypatch.setattr(usage, "_PROC", root)
    monkeypatch.setattr(usage, "_CGROUPS", tmp_path / "cgroup")
    return root


def made_process(proc: Path, pid: int, group: int, name: str = "python", rollup: str | None = None) -> None:
    folder = proc / str(pid)
    folder.mkdir()
    (folder / "stat").write_text(f"{pid} ({name}) S 1 {group} {group} 0 -1")
    if rollup is not None:
        (folder / "smaps_rollup").write_text(rollup)


ROLLUP = """\
5581a0-7ffd21 ---p 00000000 00:00 0                          [rollup]
Rss:              900 kB
Pss:              600 kB
Pss_Anon:         100 kB
Pss_File:         400 kB
Pss_Shmem:          5 kB
"""


def test_odd_entries_of_proc(proc: Path) -> None:
    (proc / "self").mkdir()
    (proc / "12").mkdir()  # gone meanwhile
    made_process(proc, 13, 50, name="a) S 1 99 (b", rollup=ROLLUP)
    made_process(proc, 14, 50, rollup="")
    made_process(proc, 15, 50)  # somebody else's
    made_process(proc, 16, 51, rollup=ROLLUP)
    (proc / "17").mkdir()
    (proc / "17" / "stat").write_text("")
    found = process_usage([50, 99], NoGpus())
    assert found == {50: usage.Usage({"host": 105 * 1024}, {"host": 400 * 1024})}


@pytest.mark.parametrize(
    ("cgroup", "limits", "expected"),
    [
        ("0::/a/b\n", {}, 1000),
        ("0::/a/b\n", {"a/b": "max\n"}, 1000),
        ("0::/a/b\n", {"a/b": "512000\n"}, 500),
        ("0::/a/b\n", {"a": "307200\n", "a/b": "512000\n"}, 300),
        ("0::/a/b\n", {"a": "307200\n", "a/b": "max\n"}, 300),
        ("0::/\n", {"": "204800\n"}, 200),
        ("0::/a\n", {"a": str(2**62)}, 1000),
        ("0::/a\n", {"a": ""}, 1000),
        ("4:memory:/v1\n0::/a\n", {"a": "307200"}, 300),
        ("4:memory:/v1\n", {"v1": "307200"}, 1000),
        ("0::/../../x\n", {}, 1000),
        (None, {}, 1000),
    ],
)
def test_the_least_of_what_limits_it(proc: Path, cgroup: str | None, limits: dict[str, str], expected: int) -> None:
    (proc / "meminfo").write_text("MemTotal:           1000 kB\nMemFree:   5 kB\n")
    (proc / "self").mkdir()
    if cgroup is not None:
        (proc / "self" / "cgroup").write_text(cgroup)
    for path, limit in limits.items():
        folder = usage._CGROUPS / path
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "memory.max").write_text(limit)
    assert machine_memory(NoGpus()) == {"host": expected * 1024}


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({}, 600 * 1024),
        ({"a": "max", "a/b": "max"}, 600 * 1024),
        ({"a": "800000", "a/b": "max"}, 800_000 - 700_000 + 500_000 - 1_000 - 40_000),
        ({"a": "900000000", "a/b": "800000"}, 800_000 - 700_000 + 500_000 - 1_000 - 40_000),
        ({"a": "900000000"}, 600 * 1024),
    ],
)
def test_the_room_for_files(proc: Path, limits: dict[str, str], expected: int) -> None:
    (proc / "meminfo").write_text("MemTotal: 9000 kB\nMemAvailable: 1000 kB\nMapped: 400 kB\nHugePages_Total: 0\n")
    (proc / "self").mkdir()
    (proc / "self" / "cgroup").write_text("0::/a/b\n")
    for path, limit in limits.items():
        folder = usage._CGROUPS / path
        folder.mkdir(parents=True)
        (folder / "memory.max").write_text(limit)
        (folder / "memory.current").write_text("700000\n")
        (folder / "memory.stat").write_text("anon 150000\nfile 500000\nshmem 1000\nfile_mapped 40000\n")
    assert cache_room() == expected


def test_without_proc_nothing_is_known(proc: Path) -> None:
    assert machine_memory(NoGpus()) == {}
    assert cache_room() == 0


def test_this_machine() -> None:
    assert 0 < machine_memory(Nvidia())["host"] <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


# Graphics cards


class NVMLError(Exception):
    """As pynvml raises it."""


class Library:
    """Stands in for pynvml: cards by what they have and by the processes on them."""

    NVMLError = NVMLError

    def __init__(self, *cards: dict[int, int | None], broken: frozenset[str] = frozenset()) -> None:
        self.cards = cards
        self.broken = broken
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("nvml"):
            raise AttributeError(name)

        def call(*arguments: Any) -> Any:
            self.calls.append(name)
            if name in self.broken:
                raise NVMLError(name)
            return getattr(self, "answer_" + name.removeprefix("nvml"))(*arguments)

        return call

    def answer_Init(self) -> None: ...

    def answer_DeviceGetCount(self) -> int:
        return len(self.cards)

    def answer_DeviceGetHandleByIndex(self, number: int) -> int:
        return number

    def answer_DeviceGetMemoryInfo(self, card: int) -> Any:
        return SimpleNamespace(total=(card + 1) * 1000)

    def answer_DeviceGetComputeRunningProcesses(self, card: int) -> list[Any]:
        return [SimpleNamespace(pid=pid, usedGpuMemory=size) for pid, size in self.cards[card].items()]

    def answer_DeviceGetGraphicsRunningProcesses(self, card: int) -> list[Any]:
        return [SimpleNamespace(pid=pid, usedGpuMemory=1) for pid in self.cards[card]]


def test_what_processes_use_of_each_card(proc: Path) -> None:
    made_process(proc, 13, 50, rollup=ROLLUP)
    made_process(proc, 14, 50, rollup=ROLLUP)
    library = Library({13: 700, 14: 20, 99: 5}, {13: None, 99: 5}, {})
    found = process_usage([50, 51], Nvidia(library))[50]
    assert found.private == {"host": 210 * 1024, "gpu0": 720, "gpu1": 1}
    assert machine_memory(Nvidia(library)) == {"gpu0": 1000, "gpu1": 2000, "gpu2": 3000}


def test_the_library_is_asked_only_when_it_has_to_be() -> None:
    library = Library({})
    gpus = Nvidia(library)
    assert library.calls == []
    process_usage([2**22 + 1], gpus)
    assert library.calls == []
    for _ in range(3):
        gpus.totals()
    assert library.calls.count("nvmlInit") == 1


@pytest.mark.parametrize(
    ("broken", "totals", "used"),
    [
        ("nvmlInit", [], []),
        ("nvmlDeviceGetCount", [], []),
        ("nvmlDeviceGetHandleByIndex", [], []),
        ("nvmlDeviceGetMemoryInfo", [None], [{13: 700}]),
        ("nvmlDeviceGetComputeRunningProcesses", [1000], [{13: 1}]),
        ("nvmlDeviceGetGraphicsRunningProcesses", [1000], [{13: 700}]),
    ],
)
def test_a_library_that_fails_costs_a_figure(broken: str, totals: list[int], used: list[dict[int, int]]) -> None:
    gpus = Nvidia(Library({13: 700}, broken=frozenset({broken})))
    assert gpus.totals() == totals
    assert gpus.used() == used


def test_a_card_that_does_not_tell_has_no_budget() -> None:
    library = Library({}, {}, broken=frozenset({"nvmlDeviceGetMemoryInfo"}))
    assert machine_memory(Nvidia(library)).keys() == {"host"}
