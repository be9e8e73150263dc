"""Processes as /proc shows them, and programs that are started and leave nothing behind."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
PR_SET_CHILD_SUBREAPER = 36  # prctl(2)
PATIENCE = 15.0  # seconds that a router and its models have to end by themselves


def adopt_orphans() -> None:
    """Become the parent of all that loses its own below this process, so that it is found in the end."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat behind the name, the state first: proc_pid_stat(5). Raises OSError."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def descendants(*roots: int) -> set[int]:
    """All processes below these, without them."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                children.setdefault(int(_stat(int(entry.name))[1]), []).append(int(entry.name))
    found: set[int] = set()
    left = list(roots)
    while left:
        below = children.get(left.pop(), [])
        found.update(below)
        left += below
    return found


def cpu_seconds(pids: Iterable[int], *, waited: bool) -> dict[int, float]:
    """User and system time of each that is there. `waited`: with that of children it has waited for."""
    found = {}
    for pid in pids:
        with suppress(OSError):
            fields = _stat(pid)
            found[pid] = sum(map(int, fields[11 : 15 if waited else 13])) / TICKS
    return found


def pss(pids: Iterable[int]) -> int:
    """Bytes that these take, pages that they share with others divided by their number: proc_pid_smaps(5)."""
    total = 0
    for pid in pids:
        with suppress(OSError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
    return total


def wake_ups(pids: Iterable[int]) -> dict[Path, int]:
    """How often each thread of these has given up the processor by itself, which each time ended with a wake-up."""
    return {task: _voluntary(task) for pid in pids for task in _tasks(pid)}


def _tasks(pid: int) -> Iterator[Path]:
    with suppress(OSError):
        yield from Path(f"/proc/{pid}/task").iterdir()


def _voluntary(task: Path) -> int:
    with suppress(OSError):
        for line in (task / "status").read_text().splitlines():
            if line.startswith("voluntary_ctxt_switches:"):
                return int(line.split()[1])
    return 0


class Program:
    """A program that runs, in a session of its own: Ctrl-C is for the benchmark, which ends it then."""

    def __init__(self, argv: Sequence[str | Path], log: Path, env: Mapping[str, str] | None = None) -> None:
        self.log = log
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [str(word) for word in argv],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, **(env or {})},
                start_new_session=True,
            )
        self.pid = self._process.pid

    @property
    def ended(self) -> bool:
        """Whether it is over, by itself or not."""
        return self._process.poll() is not None

    def told(self) -> str:
        """The end of what it wrote."""
        return " / ".join(self.log.read_text(errors="replace").strip().splitlines()[-3:])[-300:]

    def stop(self) -> None:
        """SIGTERM, patience, and SIGKILL."""
        self._process.terminate()
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def end_all() -> None:
    """Kill whatever is left below this process, and wait for its end."""
    deadline = time.monotonic() + PATIENCE
    while (left := descendants(os.getpid())) and time.monotonic() < deadline:
        for pid in left:
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        with suppress(ChildProcessError):
            while os.waitpid(-1, 0)[0]:
                pass
