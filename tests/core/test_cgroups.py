"""cgroups as text: where one is, what it is told, what it tells."""

from __future__ import annotations

import pytest

from supervisor.core import cgroups
from supervisor.core.preset import Limits, Preset

HYBRID = "9:name=systemd:/\n4:memory:/x\n0::{}\n"
MOUNTS = """\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
41 31 0:38 {} {} rw,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate
"""


@pytest.mark.parametrize(
    ("own", "root", "point", "found"),
    [
        ("/", "/", "/sys/fs/cgroup", "/sys/fs/cgroup"),
        ("/system.slice/a.service", "/", "/sys/fs/cgroup", "/sys/fs/cgroup/system.slice/a.service"),
        ("/a", "/", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/unified/a"),
        ("/docker/1/a", "/docker/1", "/cg", "/cg/a"),
        ("/docker/1", "/docker/1", "/cg", "/cg"),
        ("/docker/12", "/docker/1", "/cg", None),
        ("/other", "/docker/1", "/cg", None),
        ("/a b:c", "/", "/my\\040mount", "/my mount/a b:c"),
        ("/gone (deleted)", "/", "/cg", None),
        ("/../outside", "/", "/cg", None),
    ],
)
def test_where_the_own_cgroup_is(own: str, root: str, point: str, found: str | None) -> None:
    assert cgroups.directory(HYBRID.format(own), MOUNTS.format(root, point)) == found


@pytest.mark.parametrize(("cgroup", "mounts"), [("", ""), ("4:memory:/x\n", MOUNTS), (HYBRID.format("/a"), "")])
def test_where_there_is_none(cgroup: str, mounts: str) -> None:
    assert cgroups.directory(cgroup, mounts.format("/", "/cg") if mounts else "") is None


def test_names() -> None:
    assert cgroups.is_launch(cgroups.launch_name(7))
    assert not any(map(cgroups.is_launch, ("supervisor", "launch-", "launch-x", "launch-7.control", ".control")))


@pytest.mark.parametrize(
    ("limits", "offered", "files"),
    [
        ({}, set(), {}),
        ({}, {"memory", "cpu"}, {"memory.oom.group": "1"}),
        ({"memory": "1G"}, {"memory"}, {"memory.oom.group": "1", "memory.max": str(2**30)}),
        ({"memory": "1G", "cpu_weight": 50}, {"cpu", "pids"}, {"cpu.weight": "50"}),
        ({"memory": "1G", "cpu_weight": 50}, set(), {}),
    ],
)
def test_what_is_written(limits: dict[str, object], offered: set[str], files: dict[str, str]) -> None:
    assert cgroups.files(Limits.model_validate(limits), offered) == files


@pytest.mark.parametrize(
    ("limits", "offered", "told"),
    [
        ({}, None, None),
        ({"memory": "1G"}, {"memory"}, None),
        ({"memory": "1G", "cpu_weight": 1}, {"memory", "cpu"}, None),
        (
            {"memory": "1G", "cpu_weight": 1},
            None,
            "limits.memory and limits.cpu_weight: llama-router was given no cgroups",
        ),
        ({"memory": "1G", "cpu_weight": 1}, {"memory"}, "limits.cpu_weight: the cgroup controller cpu was not given"),
        ({"memory": "1G", "cpu_weight": 1}, set(), "the cgroup controllers memory and cpu were not given"),
    ],
)
def test_what_cannot_be_enforced_is_told(limits: dict[str, object], offered: set[str] | None, told: str | None) -> None:
    preset = Preset.model_validate({"name": "m", "model": "/m.gguf", "limits": limits})
    found = cgroups.unenforced(preset, offered)
    assert found is None if told is None else found is not None and told in found


@pytest.mark.parametrize(
    ("events", "starved", "limit"),
    [
        ("low 0\nhigh 0\nmax 9\noom 0\noom_kill 0\noom_group_kill 0\n", False, None),
        ("max 9\noom 1\noom_kill 2\n", True, "it reached its limits.memory of 12GiB"),
        ("max 9\noom 0\noom_kill 1\n", True, None),  # the machine's memory, not the limit's
        ("", False, None),
        ("oom_kill\nx y z\noom_kill many\n", False, None),
    ],
)
def test_what_memory_events_say(events: str, starved: bool, limit: str | None) -> None:
    assert cgroups.was_starved(events) is starved
    assert cgroups.over_limit(events, Limits(memory=12 * 2**30)) == limit
    assert cgroups.over_limit(events, Limits()) is None
