"""What a model server is given, and that nothing of it is left: nor of its children, nor when we are killed."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from harness import READY, ROOT, Supervisor, refused
from observed import Process, Visitor, children, command_lines, still_there


def guard_of(supervisor: Supervisor) -> int:
    """The guard's process."""
    return next(pid for pid, line in command_lines(supervisor.pid).items() if b"guard_program" in line)


def test_what_a_child_is_given(supervisors: type[Supervisor]) -> None:
    """Exactly three descriptors, a session of its own, and nothing that systemd said to the parent."""
    watchdog = {"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "1"}
    supervisor = supervisors(env={**watchdog, "INHERITED": "yes", "OVERRIDDEN": "no"}).start()
    steps = (f"dump={supervisor.directory}/m.dump", "listen={socket}", "notify=READY=1", "serve")
    model = supervisor.load("m", *steps, env={"OVERRIDDEN": "yes", "NUMBER": 1, "AT": "{socket}"})
    given = supervisor.dump("m")
    assert given["pid"] == given["group"] == given["session"] == model["pid"]
    assert given["cwd"] == str(ROOT)
    env = given["env"]
    assert (env["INHERITED"], env["OVERRIDDEN"], env["NUMBER"]) == ("yes", "yes", "1")
    assert env["AT"] == f"{supervisor.runtime}/{model['launch']}.sock"
    assert env["NOTIFY_SOCKET"] == f"{supervisor.runtime}/notify.sock"
    assert not watchdog.keys() & env.keys()
    assert sorted(given["descriptors"]) == [0, 1, 2]
    assert given["descriptors"][0] == "/dev/null"
    assert given["descriptors"][1] == given["descriptors"][2]
    assert given["descriptors"][1].startswith("pipe:")


def test_a_child_has_the_usual_signals(supervisor: Supervisor) -> None:
    """Python ignores some, which a program it executes would inherit; and a shell starts no other than it was."""
    show = "grep -E 'Sig(Ign|Blk)' /proc/self/status; exit 65"
    supervisor.add("m", command=["sh", "-c", show, "{socket}"])
    with refused():
        supervisor.load("m")
    masks = [int(line.split()[1], 16) for line in supervisor.model("m")["reason"]["last_lines"]]
    of_the_c_library = 1 << 31 | 1 << 32  # nptl(7): 32 and 33, which no program can set, as this test was started
    assert [mask & ~of_the_c_library for mask in masks] == [0, 0]


def test_no_descriptors_leak(supervisor: Supervisor) -> None:
    supervisor.load("m")
    supervisor.watch("m")
    supervisor.lease("m").grant()
    supervisor.load("n", f"dump={supervisor.directory}/n.dump", "listen={socket}", "notify=READY=1", "serve")
    assert sorted(supervisor.dump("n")["descriptors"]) == [0, 1, 2]


def test_launches_leave_no_descriptors_behind(supervisor: Supervisor) -> None:
    def held() -> int:
        return len(list(Path(f"/proc/{supervisor.pid}/fd").iterdir()))

    supervisor.load("m")
    supervisor.add("none", command=["no-such-program", "{socket}"])
    before = held()
    for _ in range(20):
        supervisor.call("restart", model="m", wait=True)
        supervisor.call("load", model="none")
    assert held() < before + 10


def test_sigterm_ignored_means_sigkill(supervisor: Supervisor) -> None:
    supervisor.load("m", "ignore=TERM", "listen={socket}", "notify=READY=1", "serve", stop_timeout="100ms")
    watch = supervisor.watch("m")
    model = supervisor.call("unload", model="m", wait=True)["model"]
    assert (model["state"], model["reason"]["kind"]) == ("stopped", "requested")
    asked, killed = watch.state("stopping"), watch.text("sending SIGKILL")
    assert killed["at"] - asked["at"] >= 0.1


def test_a_slow_end_is_waited_for(supervisor: Supervisor) -> None:
    gate = supervisor.gate("cleaning up")
    steps = (f"on-term={gate.step},say=all clean,exit=0", "listen={socket}", "notify=READY=1", "serve")
    supervisor.load("m", *steps, stop_timeout="1min")
    supervisor.call("unload", model="m")
    visitor = gate.visitor()
    assert supervisor.model("m")["state"] == "stopping"
    visitor.go()
    watch = supervisor.watch("m")
    watch.state("stopped")
    assert not [event for event in watch.seen if "SIGKILL" in event["text"]]
    assert supervisor.logs("m") == ["all clean"]


def test_sigterm_before_readiness(supervisor: Supervisor) -> None:
    supervisor.add("m", "ignore=TERM", supervisor.gate("loading").step, stop_timeout="50ms")
    supervisor.call("load", model="m")
    visitor = supervisor.gate("loading").visitor()
    assert supervisor.call("unload", model="m", wait=True)["model"]["state"] == "stopped"
    visitor.gone()


@pytest.mark.parametrize("end", ["exit=1", "kill=KILL", "pause"])
def test_children_of_a_child_die_with_it(supervisor: Supervisor, end: str) -> None:
    gate = supervisor.gate("grandchild")
    supervisor.add("m", f"fork=ignore=TERM,{gate.step},pause", gate.step, end, restart={"policy": "no"})
    supervisor.call("load", model="m")
    leader, grandchild = by_role(supervisor, [gate.visitor(), gate.visitor()])
    grandchild.go()
    leader.go()
    if end == "pause":
        supervisor.call("unload", model="m")
    grandchild.gone()
    leader.gone()


def test_what_left_the_process_group_ends_with_its_model(supervisor: Supervisor) -> None:
    """It would keep the model's memory or port, and one more with each load."""
    gate = supervisor.gate("stray")
    supervisor.load("m", f"deep={gate.path}", "listen={socket}", "notify=READY=1", "serve")
    stray = gate.visitor()
    supervisor.call("unload", model="m", wait=True)
    stray.gone()


def test_what_left_the_process_group_of_a_running_model_is_let_be(supervisor: Supervisor) -> None:
    gate = supervisor.gate("worker")
    for name in ("m", "other"):
        steps = (f"deep={gate.path}",) if name == "m" else ()
        supervisor.load(name, *steps, "listen={socket}", "notify=READY=1", "serve")
    worker = gate.visitor()
    supervisor.call("unload", model="other", wait=True)
    assert worker.alive


def test_an_end_does_not_wait_for_who_holds_the_log(supervisor: Supervisor) -> None:
    """A process of another session has the pipe open, and even writes to it."""
    gate = supervisor.gate("away")
    supervisor.add("m", f"fork=setsid,{gate.step},flood-for-ever=x", gate.step, "say=last", "exit=65")
    supervisor.call("load", model="m")
    leader, stray = by_role(supervisor, [gate.visitor(), gate.visitor()])
    stray.go()
    leader.go()
    supervisor.watch("m").state("failed")
    stray.gone()


def test_the_last_half_line_counts_even_if_the_log_stays_open(supervisor: Supervisor) -> None:
    gate = supervisor.gate("away")
    supervisor.add("m", f"fork=setsid,{gate.step}", gate.step, "mutter=last words", "exit=65")
    supervisor.call("load", model="m")
    leader, _ = by_role(supervisor, [gate.visitor(), gate.visitor()])
    leader.go()
    assert supervisor.watch("m").state("failed")["reason"]["last_lines"] == ["last words"]


def test_orphans_are_adopted_and_reaped(supervisor: Supervisor) -> None:
    gate = supervisor.gate("orphan")
    supervisor.load(
        "m", f"fork=fork={gate.step}", *("fork=fork=say=x",) * 20, "listen={socket}", "notify=READY=1", "serve"
    )
    orphan = gate.visitor()
    supervisor.eventually(lambda: children(supervisor.pid).get(orphan.pid) in ("S", "R"), "it is adopted")
    orphan.go()
    orphan.gone()
    supervisor.eventually(lambda: "Z" not in children(supervisor.pid).values(), "there are no zombies")
    assert orphan.pid not in children(supervisor.pid)
    assert supervisor.model("m")["state"] == "ready"


def test_nothing_outlives_a_killed_supervisor(supervisors: type[Supervisor]) -> None:
    supervisor = supervisors().start(until="READY=1")
    supervisor.expected = -signal.SIGKILL
    gate = supervisor.gate("here")
    fork = f"fork=ignore=TERM,ignore=HUP,{gate.step},pause"
    supervisor.load("m", "ignore=TERM", fork, "listen={socket}", "notify=READY=1", gate.step, "pause")
    supervisor.add("loading", fork, gate.step)
    supervisor.call("load", model="loading")
    visitors = [gate.visitor() for _ in range(4)]
    everyone = still_there(supervisor.left_over())
    assert len(everyone) >= 1 + 1 + 2 + len(visitors)
    supervisor.kill(supervisor.pid, signal.SIGKILL)
    for process in everyone:
        with process:
            process.gone(2.0)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL])
def test_the_guard_comes_back_and_knows_everybody(supervisors: type[Supervisor], number: signal.Signals) -> None:
    supervisor = supervisors().start()
    supervisor.expected = -signal.SIGKILL
    gate = supervisor.gate("here")
    supervisor.load("m", f"fork={gate.step},pause", "listen={socket}", "notify=READY=1", "serve")
    first = guard_of(supervisor)
    supervisor.kill(first, number)
    if number == signal.SIGKILL:
        supervisor.eventually(lambda: first not in children(supervisor.pid), "its end is noticed")
    supervisor.load("n", f"fork={gate.step},pause", "listen={socket}", "notify=READY=1", "serve")
    assert (guard_of(supervisor) == first) == (number != signal.SIGKILL)
    grandchildren = [Process(gate.visitor().pid), Process(gate.visitor().pid)]
    supervisor.kill(supervisor.pid, signal.SIGKILL)
    for process in grandchildren:
        with process:
            process.gone(2.0)


def test_an_idle_supervisor_sleeps(supervisors: type[Supervisor]) -> None:
    supervisor = supervisors().start(until="READY=1")
    supervisor.load("ready")
    supervisor.lease("ready").grant()
    supervisor.lease("ready", timeout=1e9)
    for name, steps in {"failed": ["exit=65"], "waiting": ["exit=1"], "loading": ["pause"]}.items():
        supervisor.add(name, *steps, restart={"delay": "1h", "max_delay": "1h"})
        supervisor.call("load", model=name)
    supervisor.watch("failed").state("failed")
    supervisor.watch("waiting").state("backoff")
    assert supervisor.cpu_seconds_in(0.5) < 0.02


def test_a_stop_of_many_at_once(supervisors: type[Supervisor]) -> None:
    supervisor = supervisors().start()
    names = [f"m{number}" for number in range(20)]
    for name in names:
        supervisor.add(name, reload=name == names[-1], stop_timeout="10s")
    watch = supervisor.watch()
    for name in names:
        supervisor.call("load", model=name)
    watch.state_of_each("ready", names)
    assert supervisor.stop() == 0


def by_role(supervisor: Supervisor, visitors: list[Visitor]) -> list[Visitor]:
    """The leader of its group first."""
    return sorted(visitors, key=lambda visitor: os.getpgid(visitor.pid) != visitor.pid or is_stray(supervisor, visitor))


def is_stray(supervisor: Supervisor, visitor: Visitor) -> bool:
    """True for who is no model server."""
    return visitor.pid not in [model["pid"] for model in supervisor.status()["models"]]


def test_what_left_its_group_and_session_dies_with_a_supervisor_that_is_killed(supervisors: type[Supervisor]) -> None:
    supervisor = supervisors().start()
    supervisor.expected = -signal.SIGKILL
    gate = supervisor.gate("away")
    supervisor.load("m", f"fork=setsid,ignore=TERM,{gate.step},pause", *READY)
    visitor = gate.visitor()
    supervisor.kill(supervisor.pid, signal.SIGKILL)
    supervisor.wait()
    visitor.gone()
