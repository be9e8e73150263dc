"""When a model server counts as ready: by its own word, by HTTP, by TCP, and by nobody else's word."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from harness import READY, Supervisor, refused


def test_ready_by_its_own_word(supervisor: Supervisor) -> None:
    gate = supervisor.gate("loading")
    supervisor.add("m", "listen={socket}", gate.step, "notify=READY=1|STATUS=here I am", "serve")
    supervisor.call("load", model="m")
    visitor = gate.visitor()
    model = supervisor.model("m")
    assert (model["state"], model["pid"]) == ("starting", visitor.pid)
    visitor.go()
    supervisor.watch("m").state("ready")
    model = supervisor.model("m")
    assert (model["state"], model["message"], model["reason"]) == ("ready", "here I am", None)


@pytest.mark.parametrize("token", ["{socket}", "{port}"])
def test_ready_by_http(supervisor: Supervisor, token: str) -> None:
    gate = supervisor.gate("up")
    steps = (gate.step, f"listen={token}", "health=503,500,200", "serve")
    supervisor.add("m", *steps, ready={"http": "/health"})
    supervisor.call("load", model="m")
    gate.visitor().go()
    supervisor.watch("m").state("ready")


@pytest.mark.parametrize("answer", ["503", "404", "20"])
def test_no_readiness_by_another_code(supervisor: Supervisor, answer: str) -> None:
    supervisor.add(
        "m", "listen={socket}", f"health={answer}", "serve", ready={"http": "/health"}, start_timeout="300ms"
    )
    supervisor.call("load", model="m")
    watch = supervisor.watch("m")
    assert watch.state("backoff")["reason"]["kind"] == "start_timeout"
    assert "ready" not in [event["to"] for event in watch.seen]


@pytest.mark.parametrize("token", ["{socket}", "{port}"])
def test_ready_by_connection(supervisor: Supervisor, token: str) -> None:
    gate = supervisor.gate("up")
    supervisor.add("m", gate.step, f"listen={token}", "pause", ready="tcp")
    supervisor.call("load", model="m")
    visitor = gate.visitor()
    assert supervisor.model("m")["state"] == "starting"
    visitor.go()
    supervisor.watch("m").state("ready")


def test_a_health_check_that_hangs_holds_up_nothing(supervisor: Supervisor) -> None:
    supervisor.add("m", "listen={socket}", "swallow", ready={"http": "/health"}, start_timeout="1s")
    supervisor.call("load", model="m")
    assert supervisor.load("other")["state"] == "ready"
    assert supervisor.watch("m").state("backoff")["reason"]["kind"] == "start_timeout"


def test_a_child_may_speak_for_its_server(supervisor: Supervisor) -> None:
    supervisor.load("m", "listen={socket}", "fork=notify=READY=1,pause", "serve")


def test_nobody_else_may(supervisor: Supervisor) -> None:
    """Neither a process of another session, nor another model, nor a stranger."""
    gate = supervisor.gate("loading")
    said = supervisor.gate("said")
    stranger = f"fork=setsid,notify=READY=1|STATUS=stranger,{said.step}"
    supervisor.add("m", "listen={socket}", stranger, gate.step, "notify=READY=1", "serve")
    supervisor.call("load", model="m")
    visitor = gate.visitor()
    said.visitor().go()
    supervisor.load("other")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stray:
        stray.sendto(b"READY=1\nSTATUS=stranger", str(supervisor.runtime / "notify.sock"))
    model = supervisor.model("m")
    assert (model["state"], model["message"]) == ("starting", None)
    visitor.go()
    supervisor.watch("m").state("ready")


GARBAGE = {
    "empty": "",
    "zeros": "00" * 100,
    "not UTF-8": "ff52454144593d31fe",
    "almost": b"READY=10\nREADY =1\n READY=1\nX_READY=1\nREADY:1\nready=1".hex(),
    "no newline in much": "41" * 20_000,
    "bad numbers": b"X_PROGRESS=nan\nX_PROGRESS=1e999\nERRNO=x\nMAINPID=1\nWATCHDOG_USEC=-1".hex(),
}


@pytest.mark.parametrize("data", GARBAGE.values(), ids=GARBAGE)
def test_garbage_is_passed_over(supervisor: Supervisor, data: str) -> None:
    gate = supervisor.gate("loading")
    supervisor.add("m", f"notify-hex={data}", gate.step, "notify=READY=1", "listen={socket}", "serve")
    supervisor.call("load", model="m")
    visitor = gate.visitor()
    model = supervisor.model("m")
    assert (model["state"], model["progress"]) == ("starting", None)
    visitor.go()
    supervisor.watch("m").state("ready")


def test_ready_twice_is_ready_once(supervisor: Supervisor) -> None:
    gate = supervisor.gate("said")
    supervisor.add("m", "listen={socket}", "notify=READY=1", "notify=READY=1", gate.step, "serve")
    supervisor.call("load", model="m")
    gate.visitor().go()
    watch = supervisor.watch("m")
    watch.state("ready")
    supervisor.call("unload", model="m", wait=True)
    watch.state("stopped")
    assert [event["to"] for event in watch.seen].count("ready") == 1


def test_progress_and_message_are_shown(supervisor: Supervisor) -> None:
    gate = supervisor.gate("loading")
    supervisor.add("m", "notify=X_PROGRESS=0.25|STATUS=tensors", gate.step, *READY)
    watch = supervisor.watch("m")
    supervisor.call("load", model="m")
    event = watch.next(lambda event: bool(event["kind"] == "progress"))
    assert (event["progress"], event["to"]) == (0.25, "starting")
    model = supervisor.model("m")
    assert (model["progress"], model["message"]) == (0.25, "tensors")
    gate.visitor().go()
    watch.state("ready")
    assert supervisor.model("m")["progress"] is None


def test_descriptors_in_a_datagram_are_not_kept(supervisor: Supervisor) -> None:
    def held() -> int:
        return len(list(Path(f"/proc/{supervisor.pid}/fd").iterdir()))

    supervisor.load("warm up")
    gate = supervisor.gate("sent")
    supervisor.load("m", "listen={socket}", "notify=READY=1", gate.step, "notify-with-descriptors=X=1", gate.step)
    visitor = gate.visitor()
    before = held()
    visitor.go()
    gate.visitor()
    assert supervisor.status()
    assert held() < before + 10


def test_a_flood_of_notifications_starves_nobody(supervisor: Supervisor) -> None:
    senders = ["fork=notify-for-ever=STATUS=spam"] * 4
    supervisor.load("m", "listen={socket}", "notify=READY=1", *senders, "serve")
    assert supervisor.load("other")["state"] == "ready"
    supervisor.call("unload", model="m", wait=True)


def test_a_start_that_takes_too_long(supervisor: Supervisor) -> None:
    gate = supervisor.gate("loading")
    supervisor.add("m", "say=thinking", gate.step, "pause", start_timeout="200ms", restart={"limit": 1, "delay": "1ms"})
    lease = supervisor.lease("m")
    watch = supervisor.watch("m")
    event = watch.state("backoff")
    assert (event["reason"]["kind"], event["reason"]["text"]) == ("start_timeout", "not ready within 200ms")
    assert event["reason"]["last_lines"] == ["thinking"]
    first, second = gate.visitor(), gate.visitor()
    watch.state("failed")
    first.gone()
    second.gone()
    with refused() as errors:
        lease.grant()
    assert errors[0].status == 500
    assert "not ready within 200ms; its log says: thinking" in str(errors[0])
