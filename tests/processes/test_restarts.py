"""What follows when a model server ends, and what is said about it."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from harness import MISBEHAVING, QUICK, READY, Supervisor, refused


@pytest.mark.parametrize("code", [64, 65, 66, 78])
def test_some_exit_codes_are_final(supervisor: Supervisor, code: int) -> None:
    supervisor.add("m", f"exit={code}")
    with refused() as errors:
        supervisor.load("m")
    assert f"exited with code {code} before it was ready" in str(errors[0])
    model = supervisor.model("m")
    assert (model["state"], model["restarts"], model["pid"], model["next_start"]) == ("failed", 0, None, None)
    assert (model["reason"]["kind"], model["reason"]["code"], model["reason"]["signal"]) == ("exited", code, None)


def test_others_lead_to_restarts_with_doubled_delays_up_to_the_limit(supervisor: Supervisor) -> None:
    supervisor.add("m", "exit=1", restart={**QUICK, "delay": "30ms", "max_delay": "100ms", "limit": 4})
    watch = supervisor.watch("m")
    with refused():
        supervisor.load("m")
    watch.state("failed")
    ends = [event for event in watch.seen if event["to"] == "backoff"]
    starts = [event for event in watch.seen if event["to"] == "starting" and event["from"] == "backoff"]
    assert [event["text"].split("again in ")[1].split(" ")[0] for event in ends] == ["30ms", "60ms", "100ms", "100ms"]
    delays = [start["at"] - end["at"] for start, end in zip(starts, ends, strict=True)]
    assert all(delay >= least for delay, least in zip(delays, [0.03, 0.06, 0.1, 0.1], strict=True))
    assert ends[1]["text"].endswith("(failure 2, limit 4)")
    assert supervisor.model("m")["restarts"] == 4


def test_the_next_start_is_told(supervisor: Supervisor) -> None:
    supervisor.add("m", "exit=1", restart={"delay": "1h", "max_delay": "2h"})
    supervisor.call("load", model="m")
    supervisor.watch("m").state("backoff")
    model = supervisor.model("m")
    assert 3600 - 60 < model["next_start"] - model["reason"]["at"] < 3600 + 60


def test_far_deadlines_do_no_harm(supervisor: Supervisor) -> None:
    """epoll_wait(2) can't wait that long."""
    supervisor.add("m", "exit=1", restart={"delay": "500d", "max_delay": "600d"})
    supervisor.call("load", model="m")
    supervisor.watch("m").state("backoff")
    supervisor.add("n", supervisor.gate("loading").step, start_timeout="1000d")
    supervisor.call("load", model="n")
    supervisor.gate("loading").visitor()
    assert supervisor.model("n")["state"] == "starting"


def test_the_first_failure_after_readiness_is_repaired_at_once(supervisor: Supervisor) -> None:
    gate = supervisor.gate("serving")
    steps = ("listen={socket}", "notify=READY=1", gate.step, "exit=1")
    first = supervisor.load("m", *steps, restart={"delay": "1h", "max_delay": "2h"})
    watch = supervisor.watch("m")
    gate.visitor().go()
    assert "starting again at once" in watch.state("backoff")["text"]
    second = gate.visitor()
    watch.state("ready")
    model = supervisor.model("m")
    assert (model["pid"], model["restarts"]) == (second.pid, 1)
    assert model["launch"] > first["launch"]
    second.go()
    assert "starting again in 2h" in watch.state("backoff")["text"]


@pytest.mark.parametrize(("policy", "state"), [("on-failure", "stopped"), ("no", "stopped"), ("always", "backoff")])
def test_a_clean_exit(supervisor: Supervisor, policy: str, state: str) -> None:
    gate = supervisor.gate("serving")
    supervisor.load("m", "listen={socket}", "notify=READY=1", gate.step, restart={**QUICK, "policy": policy})
    gate.visitor().go()
    event = supervisor.watch("m").state(state)
    assert (event["reason"]["kind"], event["reason"]["code"]) == ("exited", 0)
    lease = supervisor.lease("m")
    gate.visitor()
    assert lease.grant()["model"] == "m"


def test_a_clean_exit_before_readiness_is_a_failure(supervisor: Supervisor) -> None:
    supervisor.add("m", "exit=0", restart={**QUICK, "limit": 1})
    with refused() as errors:
        supervisor.lease("m").grant()
    assert "exited with code 0 before it was ready" in str(errors[0])


def test_servers_that_exit_when_asked_to_work_are_not_started_for_ever(supervisor: Supervisor) -> None:
    supervisor.add("m", "listen={socket}", "notify=READY=1", "exit=0", restart={**QUICK, "limit": 2})
    watch = supervisor.watch("m")
    for _ in range(10):
        lease = supervisor.lease("m")
        with refused() as errors:
            while True:
                lease.grant()
                watch.next(lambda event: event["from"] == "ready")
                lease.close()
                lease = supervisor.lease("m")
        if errors[0].status == 503:
            break
    assert supervisor.model("m")["state"] == "failed"
    assert len([event for event in watch.seen if event["to"] == "starting"]) <= 3


def test_no_restart_by_policy(supervisor: Supervisor) -> None:
    supervisor.add("m", "exit=1", restart={"policy": "no"})
    with refused():
        supervisor.load("m")
    assert supervisor.model("m")["restarts"] == 0


@pytest.mark.parametrize(("name", "shown"), [("KILL", "SIGKILL"), ("TERM", "SIGTERM"), ("USR1", "signal 10")])
def test_death_by_signal(supervisor: Supervisor, name: str, shown: str) -> None:
    supervisor.add("m", f"kill={name}", restart={"policy": "no"})
    with refused() as errors:
        supervisor.load("m")
    assert f"killed by {shown} before it was ready" in str(errors[0])
    reason = supervisor.model("m")["reason"]
    assert (reason["kind"], reason["signal"], reason["code"]) == ("killed", shown, None)


def test_out_of_memory_is_told_as_such(supervisor: Supervisor) -> None:
    supervisor.add("m", "notify=ERRNO=12", "exit=1", restart={"policy": "no"})
    with refused() as errors:
        supervisor.load("m")
    assert "out of memory" in str(errors[0])
    assert supervisor.model("m")["reason"]["kind"] == "out_of_memory"


def test_a_program_that_does_not_exist(supervisor: Supervisor) -> None:
    supervisor.add("m", command=["no-such-program", "{socket}"])
    with refused() as errors:
        supervisor.load("m")
    assert "cannot start no-such-program: No such file or directory; is it installed and on PATH?" in str(errors[0])
    model = supervisor.model("m")
    assert (model["state"], model["reason"]["kind"], model["pid"]) == ("failed", "cannot_start", None)


@pytest.mark.parametrize(
    ("mode", "text", "why"), [(0o644, "#!/bin/sh\n", "Permission denied"), (0o755, "x\n", "Exec format error")]
)
def test_a_program_that_is_none(supervisor: Supervisor, tmp_path: Path, mode: int, text: str, why: str) -> None:
    program = tmp_path / "program"
    program.write_text(text)
    program.chmod(mode)
    supervisor.add("m", command=[str(program), "{socket}"])
    with refused() as errors:
        supervisor.load("m")
    assert f"cannot start {program}: {why}" in str(errors[0])
    assert supervisor.model("m")["state"] == "failed"


def test_a_program_found_on_the_path_of_its_preset(supervisor: Supervisor, tmp_path: Path) -> None:
    program = tmp_path / "my-server"
    program.symlink_to(MISBEHAVING[0])
    supervisor.load("m", command=["my-server", *MISBEHAVING[1:], *READY], env={"PATH": str(tmp_path)})


def test_the_reason_keeps_the_last_lines(supervisor: Supervisor) -> None:
    said = [f"say={text}" for text in ("old", "", *(f"line {number}" for number in range(12)), "  ")]
    supervisor.add("m", *said, "mutter=and half a", "exit=65")
    with refused() as errors:
        supervisor.load("m")
    assert str(errors[0]).endswith("its log says: and half a")
    lines = supervisor.model("m")["reason"]["last_lines"]
    assert lines == [*(f"line {number}" for number in range(1, 12)), "and half a"]


def test_the_reason_keeps_the_lines_of_its_own_run(supervisor: Supervisor) -> None:
    gate = supervisor.gate("up")
    supervisor.add("m", gate.step, "say=mine", gate.step, "exit=65")
    supervisor.call("load", model="m")
    gate.visitor().go()
    gate.visitor().go()
    supervisor.watch("m").state("failed")
    supervisor.add("m", "exit=66")
    with refused():
        supervisor.load("m")
    assert supervisor.model("m")["reason"]["last_lines"] == []


def test_a_load_forgives_a_failure(supervisor: Supervisor) -> None:
    gate = supervisor.gate("up")
    supervisor.add("m", gate.step, "exit=65")
    for _ in range(2):
        client = supervisor.client()
        client._send({"op": "load", "model": "m", "wait": True})
        gate.visitor().go()
        assert client._receive()["ok"] is False


def test_a_reset_forgives_a_failure_and_starts_nothing(supervisor: Supervisor) -> None:
    gate = supervisor.gate("up")
    supervisor.add("m", gate.step, "exit=65")
    supervisor.call("load", model="m")
    gate.visitor().go()
    supervisor.watch("m").state("failed")
    with refused() as errors:
        supervisor.lease("m").grant()
    assert errors[0].status == 503
    assert "llama-router load m" in str(errors[0])
    assert supervisor.call("reset", model="m")["model"]["state"] == "stopped"
    assert not gate.visited
    supervisor.lease("m")
    gate.visitor()


def test_a_load_does_not_wait_for_a_back_off(supervisor: Supervisor) -> None:
    gate = supervisor.gate("up")
    supervisor.add("m", gate.step, "exit=1", restart={"delay": "1h", "max_delay": "2h"})
    supervisor.call("load", model="m")
    gate.visitor().go()
    supervisor.watch("m").state("backoff")
    supervisor.call("load", model="m")
    gate.visitor()


def test_an_unload_calls_a_restart_off(supervisor: Supervisor) -> None:
    supervisor.add("m", "exit=1", restart={"delay": "1h", "max_delay": "2h"})
    waiting = supervisor.lease("m")
    supervisor.watch("m").state("backoff")
    assert supervisor.call("unload", model="m", wait=True)["model"]["state"] == "stopped"
    with refused() as errors:
        waiting.grant()
    assert errors[0].status == 503


def test_a_restart_asked_for(supervisor: Supervisor) -> None:
    before = supervisor.load("m")
    after = supervisor.call("restart", model="m", wait=True)["model"]
    assert after["state"] == "ready"
    assert after["pid"] != before["pid"]
    assert (after["reason"]["kind"], after["restarts"]) == ("requested", 0)
    assert after["reason"]["text"] == "restarted on request"


def test_a_killed_server_comes_back(supervisor: Supervisor) -> None:
    supervisor.load("m")
    watch = supervisor.watch("m")
    for _ in range(3):
        watch.state("ready")
        supervisor.kill(supervisor.model("m")["pid"], signal.SIGKILL)
        assert watch.next(lambda event: event["from"] == "ready")["reason"]["signal"] == "SIGKILL"
    watch.state("ready")
