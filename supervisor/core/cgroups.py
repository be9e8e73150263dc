"""cgroups (version 2) as text: where one is, what its files say, and what is written to them; cgroups(7)."""

from __future__ import annotations

import re
from collections.abc import Container, Iterator

from supervisor.core.preset import Limits, Preset
from supervisor.core.quantities import format_size

OWN = "supervisor"  # the child cgroup of the supervisor and all that is no model server
CONTROLLERS = ("memory", "cpu")
PROCESSES = "cgroup.procs"
KILL = "cgroup.kill"
SUBTREE = "cgroup.subtree_control"
MEMORY_EVENTS = "memory.events"

_LAUNCH = re.compile("launch-[0-9]+")
_CONTROLLER = {"memory": "memory", "cpu_weight": "cpu"}
_OCTAL = re.compile(r"\\([0-7]{3})")


def launch_name(launch: int) -> str:
    """The name of the cgroup of a launch: of its number, as a model's may hold anything."""
    return f"launch-{launch}"


def is_launch(name: str) -> bool:
    """Whether a child cgroup is of a launch."""
    return _LAUNCH.fullmatch(name) is not None


def directory(cgroup: str, mountinfo: str) -> str | None:
    """The directory of the process whose /proc/PID/cgroup and /proc/PID/mountinfo these are; None if there is none.

    A mount may show a part of the hierarchy only, and with a cgroup namespace the paths begin at its root.
    """
    own = next((line[3:] for line in cgroup.splitlines() if line.startswith("0::/")), None)
    if own is None or own.endswith(" (deleted)") or ".." in own.split("/"):
        return None
    for root, point in _mounts(mountinfo):
        below = own.removeprefix(root.rstrip("/"))
        if own == root or (own.startswith(root.rstrip("/")) and below.startswith("/")):
            return f"{point}{below}".rstrip("/") if own != root else point
    return None


def _mounts(mountinfo: str) -> Iterator[tuple[str, str]]:
    """Root and mount point of each mount of cgroup2, proc_pid_mountinfo(5)."""
    for line in mountinfo.splitlines():
        where, _, what = line.partition(" - ")
        if what.startswith("cgroup2 "):
            root, point = where.split(" ")[3:5]
            yield _plain(root), _plain(point)


def _plain(path: str) -> str:
    return _OCTAL.sub(lambda match: chr(int(match[1], 8)), path)


def counts(events: str) -> dict[str, int]:
    """What a file of "NAME NUMBER" lines says, such as cgroup.events and memory.events."""
    pairs = (line.split() for line in events.splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}


def was_starved(memory_events: str) -> bool:
    """Whether the kernel has killed one of the cgroup's processes for want of memory, be it its limit's or the
    machine's."""
    return counts(memory_events).get("oom_kill", 0) > 0


def over_limit(memory_events: str, limits: Limits) -> str | None:
    """Which limit it was that there was no memory below; None if it was none of the cgroup's own."""
    if limits.memory is None or not counts(memory_events).get("oom", 0):
        return None
    return f"it reached its limits.memory of {format_size(limits.memory)}"


def files(limits: Limits, offered: Container[str]) -> dict[str, str]:
    """What is written to which files of a cgroup, as far as its controllers are `offered`.

    Out of memory, a model server dies as a whole: one that lost a process would hang.
    """
    written = {}
    if "memory" in offered:
        written["memory.oom.group"] = "1"
        if limits.memory is not None:
            written["memory.max"] = str(limits.memory)
    if "cpu" in offered and limits.cpu_weight is not None:
        written["cpu.weight"] = str(limits.cpu_weight)
    return written


def unenforced(preset: Preset, offered: Container[str] | None) -> str | None:
    """What of a preset's limits can't be enforced, and why; None if nothing. `offered` is None without cgroups."""
    missing = [
        key
        for key, controller in _CONTROLLER.items()
        if getattr(preset.limits, key) is not None and (offered is None or controller not in offered)
    ]
    if not missing:
        return None
    keys = " and ".join(f"limits.{key}" for key in missing)
    if offered is None:
        return f"cannot enforce {keys}: llama-router was given no cgroups; run it by systemd, as install-units does"
    controllers = " and ".join(_CONTROLLER[key] for key in missing)
    what = f"controllers {controllers} were" if len(missing) > 1 else f"controller {controllers} was"
    return f"cannot enforce {keys}: the cgroup {what} not given to llama-router"
