"""Replicas as real processes: one after another, each serving as it becomes ready, crashing alone."""

from __future__ import annotations

import os
import signal

from harness import READY, Supervisor


def states(supervisor: Supervisor, name: str = "m") -> list[str]:
    return [replica["state"] for replica in supervisor.model(name)["replicas"]]


def test_they_load_one_after_another_and_serve_as_each_becomes_ready(supervisor: Supervisor) -> None:
    gate = supervisor.gate("start")
    supervisor.add("m", gate.step, *READY, replicas=3, max_concurrency=1)
    leases = [supervisor.lease("m") for _ in range(3)]
    served = []
    for count in range(3):
        visitor = gate.visitor()
        assert states(supervisor) == ["ready"] * count + ["starting"] + ["stopped"] * (2 - count)
        assert not gate.visited
        visitor.go()
        served.append(leases[count].grant()["instance"])
    assert served == ["m", "m#2", "m#3"]
    pids = {replica["pid"] for replica in supervisor.model("m")["replicas"]}
    assert len(pids) == 3 and all(os.getpgid(pid) == pid for pid in pids)


def test_the_least_busy_one_serves(supervisor: Supervisor) -> None:
    supervisor.load("m", replicas=2, max_concurrency=2)
    supervisor.watch("m").text("m#2: ready")
    leases = [supervisor.lease("m") for _ in range(4)]
    assert [lease.grant()["instance"] for lease in leases] == ["m", "m#2", "m", "m#2"]
    waiting = supervisor.lease("m")
    assert supervisor.model("m")["waiting_for"] == "its 4 slots are in use"
    leases[1].release()
    assert waiting.grant()["instance"] == "m#2"


def test_one_that_is_killed_comes_back_and_the_other_serves_on(supervisor: Supervisor) -> None:
    supervisor.load("m", replicas=2, max_concurrency=1)
    watch = supervisor.watch("m")
    watch.text("m#2: ready")
    first, second = supervisor.model("m")["replicas"]
    supervisor.kill(first["pid"], signal.SIGKILL)
    watch.text("m: killed by SIGKILL")
    watch.text("m: ready")
    after = supervisor.model("m")["replicas"]
    assert after[0]["pid"] != first["pid"] and after[1]["pid"] == second["pid"]
    assert [replica["restarts"] for replica in after] == [1, 0]


def test_the_last_words_of_a_replica_are_its_own(supervisor: Supervisor) -> None:
    gate = supervisor.gate("die")
    supervisor.load("m", *READY[:2], gate.step, "say=farewell", "exit=3", replicas=2)
    watch = supervisor.watch("m")
    gate.visitor()
    gate.visitor().go()
    reason = watch.state("backoff")["reason"]
    assert (reason["code"], reason["last_lines"]) == (3, ["farewell"])
    assert [replica["reason"] is None for replica in supervisor.model("m")["replicas"]] == [True, False]


def test_a_reload_adds_and_takes_away_replicas_and_serves_out_their_requests(supervisor: Supervisor) -> None:
    supervisor.load("m", max_concurrency=1)
    watch = supervisor.watch("m")
    supervisor.add("m", replicas=2, max_concurrency=1)
    watch.text("m#2: ready")
    first, second = supervisor.lease("m"), supervisor.lease("m")
    assert [first.grant()["instance"], second.grant()["instance"]] == ["m", "m#2"]
    supervisor.add("m", max_concurrency=1)
    watch.text("m#2: draining")
    assert states(supervisor) == ["ready", "ready"]
    second.release()
    watch.text("m#2: stopped")
    assert states(supervisor) == ["ready"]


def test_unload_ends_all_of_them(supervisor: Supervisor) -> None:
    supervisor.load("m", replicas=3)
    supervisor.watch("m").text("m#3: ready")
    supervisor.call("unload", model="m", wait=True)
    assert states(supervisor) == ["stopped"] * 3


def test_the_log_of_a_model_is_that_of_all_its_replicas(supervisor: Supervisor) -> None:
    supervisor.load("m", "say=hello", *READY, replicas=2)
    supervisor.watch("m").text("m#2: ready")
    assert supervisor.logs("m") == ["hello", "hello"]
    log = supervisor.log.read_text()
    assert "m | hello" in log and "m#2 | hello" in log


def test_a_crash_of_the_supervisor_leaves_no_replica(supervisors: type[Supervisor]) -> None:
    supervisor = supervisors().start()
    supervisor.expected = -signal.SIGKILL
    supervisor.load("m", replicas=3)
    supervisor.watch("m").text("m#3: ready")
    supervisor.kill(supervisor.pid, signal.SIGKILL)
    supervisor.wait()
