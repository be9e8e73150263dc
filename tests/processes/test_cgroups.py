"""Model servers in cgroups of their own, in a real hierarchy of version 2 where the test may make some."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from forking_supervisor import is_forked, load, makes_forking, ready
from harness import READY, ROOT, Supervisor, refused
from observed import DEADLINE, Process, Visitor

from supervisor import cgroups
from supervisor.cgroups import Cgroups


class Delegated:
    """A cgroup of the test's own, marked as systemd marks what it delegates."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()
        os.setxattr(path, "user.delegate", b"1")

    @property
    def prefix(self) -> str:
        """Python that puts its process there."""
        return f"import pathlib; pathlib.Path({str(self.path)!r}, 'cgroup.procs').write_text('0')"

    def launches(self) -> dict[str, set[int]]:
        """The processes in each child that is no leaf of the supervisor's."""
        found = {path.name: cgroups._processes(path) for path in self.path.glob("launch-*")}
        return dict(sorted(found.items()))

    def own(self) -> set[int]:
        """The processes in the supervisor's."""
        return cgroups._processes(self.path / "supervisor")

    def close(self) -> None:
        """Remove it with all that is in it."""
        with suppress(OSError):
            (self.path / "cgroup.kill").write_text("1")
        for path in [*self.path.glob("*/"), self.path]:
            cgroups._emptied(path, time.monotonic() + DEADLINE)
            path.rmdir()


@pytest.fixture
def delegated() -> Iterator[Delegated]:
    own = cgroups._own_directory()
    if own is None:
        pytest.skip("there is no cgroup hierarchy of version 2")
    try:
        made = Delegated(own / f"llama-router-test-{os.getpid()}-{time.monotonic_ns()}")
    except PermissionError as error:
        pytest.skip(f"no cgroup can be made in {own}: {error.strerror}")
    if not (made.path / "cgroup.kill").exists():
        made.path.rmdir()
        pytest.skip("the kernel has no cgroup.kill, which is in Linux 5.14")
    yield made
    made.close()


@pytest.fixture
def supervisor(delegated: Delegated, supervisors: type[Supervisor]) -> Supervisor:
    supervisor = supervisors()
    supervisor.prefix = delegated.prefix
    return supervisor.start()


def escaped(supervisor: Supervisor, name: str = "m") -> Visitor:
    """A daemon of a model that is ready."""
    gate = supervisor.gate("escaped")
    supervisor.load(name, f"escape={gate.path}", *READY)
    return gate.visitor()


def test_each_launch_has_a_cgroup_and_the_rest_is_in_one_leaf(supervisor: Supervisor, delegated: Delegated) -> None:
    first, second = supervisor.load("a"), supervisor.load("b")
    launches = delegated.launches()
    assert launches == {
        f"launch-{first['launch']}": {first["pid"]},
        f"launch-{second['launch']}": {second["pid"]},
    }
    web = supervisor.status()["web"]["pid"]
    assert {supervisor.pid, web} <= delegated.own()
    assert cgroups._processes(delegated.path) == set()
    supervisor.call("unload", model="a", wait=True)
    assert list(delegated.launches()) == [f"launch-{second['launch']}"]
    supervisor.stop()
    assert delegated.launches() == {}


def test_a_forked_server_does_nothing_outside_of_its_cgroup(
    delegated: Delegated, supervisors: type[Supervisor]
) -> None:
    supervisor = makes_forking(supervisors)(prefix=delegated.prefix)
    ready(supervisor)
    pid = load(supervisor, "m", f"describe={supervisor.directory}/told", *READY)
    assert is_forked(pid)
    launch = supervisor.model("m")["launch"]
    told = ast.literal_eval((supervisor.directory / "told").read_text())
    assert told["cgroup"].rstrip().endswith(f"{delegated.path.name}/launch-{launch}")
    supervisor.call("unload", model="m", wait=True)
    assert delegated.launches() == {}


@pytest.mark.parametrize("end", ["unload", "crash", "hang"])
def test_a_daemon_that_escaped_ends_with_its_model(supervisor: Supervisor, delegated: Delegated, end: str) -> None:
    """Of another session, adopted, and with nothing in its environment."""
    gate = supervisor.gate("leader")
    if end == "hang":
        steps = (f"escape={supervisor.gate('escaped').path}", "ignore=TERM", *READY)
    else:
        steps = (
            f"escape={supervisor.gate('escaped').path}",
            "listen={socket}",
            "notify=READY=1",
            gate.step,
            "exit=65",
        )
    model = supervisor.load("m", *steps, stop_timeout="100ms")
    daemon = supervisor.gate("escaped").visitor()
    assert os.getsid(daemon.pid) != model["pid"]
    assert b"LLAMA_ROUTER" not in Path(f"/proc/{daemon.pid}/environ").read_bytes()
    if end == "crash":
        gate.visitor().go()
    else:
        supervisor.call("unload", model="m", wait=True)
    daemon.gone()
    supervisor.eventually(lambda: delegated.launches() == {}, "the cgroup is removed")


def test_a_daemon_that_escaped_ends_with_the_supervisor(supervisor: Supervisor, delegated: Delegated) -> None:
    with Process(escaped(supervisor).pid) as daemon:
        supervisor.stop()
        daemon.gone()
    assert delegated.launches() == {}


def test_a_daemon_that_escaped_ends_with_a_supervisor_that_is_killed(supervisor: Supervisor) -> None:
    supervisor.expected = -signal.SIGKILL
    daemon = escaped(supervisor)
    supervisor.kill(supervisor.pid, signal.SIGKILL)
    supervisor.wait()
    daemon.gone()


def test_what_a_dead_supervisor_left_is_killed_and_removed(delegated: Delegated, supervisors: type[Supervisor]) -> None:
    reading, writing = os.pipe()
    stale = delegated.path / "launch-2"
    stale.mkdir()
    (delegated.path / "launch-77").mkdir()
    (delegated.path / "of-somebody-else").mkdir()
    if (pid := os.fork()) == 0:
        os.close(reading)
        (stale / "cgroup.procs").write_text("0")
        os.write(writing, b"x")
        signal.pause()
    os.close(writing)
    assert os.read(reading, 1) == b"x"
    supervisor = supervisors()
    supervisor.prefix = delegated.prefix
    supervisor.start()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    os.close(reading)
    assert delegated.launches() == {}
    assert (delegated.path / "of-somebody-else").is_dir()
    model = supervisor.load("m")
    assert delegated.launches() == {f"launch-{model['launch']}": {model["pid"]}}


def test_a_program_that_is_not_there_leaves_no_cgroup(supervisor: Supervisor, delegated: Delegated) -> None:
    supervisor.add("m", command=["no-such-program", "{socket}"])
    with refused():
        supervisor.load("m")
    assert delegated.launches() == {}


def test_many_launches_leave_nothing(supervisor: Supervisor, delegated: Delegated) -> None:
    supervisor.add("m", "exit=0", restart={"policy": "no"})
    for _ in range(20):
        supervisor.call("load", model="m")
        supervisor.eventually(lambda: supervisor.model("m")["state"] in ("stopped", "failed"), "it has ended")
        supervisor.call("reset", model="m")
    assert delegated.launches() == {}


def test_what_is_not_delegated_is_left_alone(delegated: Delegated, supervisors: type[Supervisor]) -> None:
    """As for root in a terminal, who may write everywhere."""
    os.removexattr(delegated.path, "user.delegate")
    supervisor = supervisors()
    supervisor.prefix = delegated.prefix
    supervisor.start()
    model = supervisor.load("m")
    assert list(delegated.path.glob("*/")) == []
    assert {supervisor.pid, model["pid"]} <= cgroups._processes(delegated.path)
    assert "cgroup" not in supervisor.log.read_text()
    supervisor.stop()


def as_unit(unit: str, pid: str = "os.getpid()") -> str:
    """Python that makes its process what a user's systemd executes for a unit."""
    return f"\nimport os; os.environ.update(LLAMA_ROUTER_DELEGATED={unit!r}, SYSTEMD_EXEC_PID=str({pid}))"


def test_a_user_s_unit_says_itself_that_it_is_delegated(delegated: Delegated, supervisors: type[Supervisor]) -> None:
    os.removexattr(delegated.path, "user.delegate")
    supervisor = supervisors()
    supervisor.prefix = delegated.prefix + as_unit(delegated.path.name)
    supervisor.start()
    model = supervisor.load("m")
    assert delegated.launches() == {f"launch-{model['launch']}": {model["pid"]}}
    assert supervisor.pid in delegated.own()
    supervisor.stop()


@pytest.mark.parametrize(
    ("unit", "pid", "owner"),
    [("terminal.service", "os.getpid()", 0), (None, "os.getppid()", 0), (None, "os.getpid()", 1)],
    ids=["in another unit", "started by what the unit executes", "of another user"],
)
def test_what_no_unit_delegated_is_left_alone(
    delegated: Delegated, supervisors: type[Supervisor], unit: str | None, pid: str, owner: int
) -> None:
    os.removexattr(delegated.path, "user.delegate")
    os.chown(delegated.path, os.geteuid() + owner, -1)
    supervisor = supervisors()
    supervisor.prefix = delegated.prefix + as_unit(unit or delegated.path.name, pid)
    supervisor.start()
    assert list(delegated.path.glob("*/")) == []
    supervisor.stop()


def test_two_supervisors_do_not_share_one(
    delegated: Delegated, supervisor: Supervisor, supervisors: type[Supervisor]
) -> None:
    """The second one would take the first one's launches for those of a dead one."""
    model = supervisor.load("m")
    second = supervisors()
    second.prefix = delegated.prefix
    second.start()
    second.load("n")
    assert delegated.launches() == {f"launch-{model['launch']}": {model["pid"]}}
    second.stop()
    assert supervisor.model("m")["pid"] == model["pid"]


def test_the_place_of_another_is_taken_with_what_runs(delegated: Delegated) -> None:
    """As after exec: we are in the leaf already, and others with us."""
    answers = []
    for kept in (None, [7]):
        reading, writing = os.pipe()
        if (pid := os.fork()) == 0:
            (delegated.path / "cgroup.procs").write_text("0")
            for name in ("launch-7", "launch-8"):
                (delegated.path / name).mkdir(exist_ok=True)
            Cgroups()
            (delegated.path / "launch-7").mkdir(exist_ok=True)
            taken = Cgroups(kept)
            left = sorted(path.name for path in delegated.path.glob("launch-*"))
            os.write(writing, repr((taken.root == delegated.path, left)).encode())
            os._exit(0)
        os.close(writing)
        with os.fdopen(reading) as answer:
            answers.append(answer.read())
        os.waitpid(pid, 0)
    assert answers == ["(True, [])", "(True, ['launch-7'])"]


def printed(supervisor: Supervisor, *command: str) -> str:
    argv = [sys.executable, "-m", "supervisor.cli", "--runtime-dir", str(supervisor.runtime), *command]
    return subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE, check=True).stdout


def test_limits_that_nobody_enforces_are_told_once(supervisors: type[Supervisor]) -> None:
    supervisor = supervisors()
    supervisor.add("m", *READY, limits={"memory": "1GiB", "cpu_weight": 50})
    supervisor.start()
    supervisor.call("reload")
    model = supervisor.load("m")
    text = "cannot enforce limits.memory and limits.cpu_weight: llama-router was given no cgroups"
    assert model["state"] == "ready"
    assert supervisor.log.read_text().count(f"llama-router: m: {text}") == 1
    assert supervisor.model("m")["unenforced"].startswith(text)
    assert f"presets.d/m.yaml:1: models.m.limits: {text}" in printed(supervisor, "check")
    assert text in printed(supervisor, "status", "m")
    supervisor.add("m", *READY)
    assert supervisor.model("m")["unenforced"] is None


def test_limits_on_plain_files(supervisors: type[Supervisor], tmp_path: Path) -> None:
    """The controllers of memory and processors are rarely both of version 2 where tests run, so this directory, whose
    files are plain ones, only shows what is written, and what is made of what the kernel would say."""
    own = tmp_path / "own"
    for path in (own, own / "supervisor", *(own / f"launch-{number}" for number in range(1, 9))):
        path.mkdir()
        for name in ("cgroup.procs", "cgroup.subtree_control", "memory.max", "cpu.weight", "memory.oom.group"):
            (path / name).touch()
    (own / "cgroup.subtree_control").write_text("xxxxxxx memory cpu")  # "+memory" is written over it, and "+cpu"
    os.setxattr(own, "user.delegate", b"1")
    supervisor = supervisors()
    supervisor.prefix = (
        f"import os, pathlib, supervisor.cgroups as c; c._own_directory = lambda: pathlib.Path({str(own)!r})\n"
        "c._removed = lambda path: True"
    )
    supervisor.start()
    gate = supervisor.gate("die")
    limits = {"memory": "512MiB", "cpu_weight": 50}
    model = supervisor.load("m", "listen={socket}", "notify=READY=1", gate.step, "kill=KILL", limits=limits)
    cgroup = own / f"launch-{model['launch']}"
    assert [(cgroup / name).read_text() for name in ("memory.max", "cpu.weight", "memory.oom.group")] == [
        str(512 * 2**20),
        "50",
        "1",
    ]
    assert (cgroup / "cgroup.procs").read_text() == "0"
    assert supervisor.model("m")["unenforced"] is None
    (cgroup / "memory.events").write_text("max 3\noom 1\noom_kill 1\n")
    watch = supervisor.watch("m")
    gate.visitor().go()
    reason = watch.state("backoff")["reason"]
    assert (reason["kind"], reason["text"]) == (
        "out_of_memory",
        "out of memory: it reached its limits.memory of 512MiB",
    )
