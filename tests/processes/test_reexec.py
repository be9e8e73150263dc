"""A new program takes the place of the supervisor's, and all that there was goes on."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import READY, Supervisor, Systemd
from last_moment import at_the_last_moment
from observed import Process, children

from supervisor.client import Client
from supervisor.protocol import Message

Start = Callable[..., Supervisor]


@pytest.fixture
def running(supervisors: Start) -> Supervisor:
    return supervisors().start("READY=1")


def limits_of(pid: int) -> tuple[str, str]:
    """The open files that a process may have, and the signals that it blocks."""
    files = next(line for line in Path(f"/proc/{pid}/limits").read_text().splitlines() if line.startswith("Max open"))
    blocked = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("SigBlk"))
    return files, blocked


def ask(client: Client, op: str, **fields: object) -> None:
    """Ask, and don't wait for the answer."""
    client._send({"op": op, **fields})


def answer(client: Client) -> Message:
    return client._receive()


def test_models_and_leases_go_on(running: Supervisor) -> None:
    running.load("a")
    before, status = running.model("a"), running.status()
    lease = running.lease("a")
    grant = lease.grant()
    told = running.call("reexec")["reexec"]
    assert told == {"version": status["version"], "before": status["version"]}
    after = running.status()
    assert [after[key] for key in ("pid", "since", "listen")] == [status[key] for key in ("pid", "since", "listen")]
    assert after["revision"] > status["revision"]
    assert after["web"]["pid"] != status["web"]["pid"]
    model = running.model("a")
    assert [model[key] for key in ("pid", "launch", "served")] == [before[key] for key in ("pid", "launch", "served")]
    assert (model["in_flight"], model["file"], model["args"]) == (1, before["file"], before["args"])
    lease.release()
    lease.client._send({"op": "lease", "model": "a"})
    assert lease.grant() == grant
    running.eventually(lambda: not running.status()["web_before"], "the old web tier has nothing to do")
    running.eventually(lambda: len(children(running.pid)) == 3, "there are a guard, a web tier, and the model")


def test_who_waits_goes_on_to_wait(running: Supervisor) -> None:
    running.load("a")
    first, second = running.lease("a"), running.lease("a", timeout=3600.0)
    first.grant()
    third = running.lease("a")
    running.call("reexec")
    assert [each["model"] for each in running.status()["queue"]] == ["a", "a"]
    third.close()
    first.release()
    assert second.grant()["model"] == "a"


def test_hundreds_wait_on(running: Supervisor) -> None:
    running.load("a", max_concurrency=200)
    leases = [running.lease("a") for _ in range(400)]
    for lease in leases[:200]:
        lease.grant()
    running.call("reexec")
    assert (running.model("a")["in_flight"], running.model("a")["waiting"]) == (200, 200)
    for lease in leases[:200]:
        lease.close()
    assert {lease.grant()["model"] for lease in leases[200:]} == {"a"}


@pytest.mark.parametrize("ready", ["notify", "tcp", {"http": "/health"}])
def test_what_starts_goes_on_to_start(running: Supervisor, ready: object) -> None:
    gate = running.gate("g")
    steps = READY if ready == "notify" else ("listen={port}", "health=503,503,503,200", "serve")
    running.add("a", gate.step, *steps, ready=ready)
    asker = running.client()
    ask(asker, "load", model="a", wait=True)
    visitor = gate.visitor()
    running.call("reexec")
    assert running.model("a")["state"] == "starting"
    visitor.go()
    model = answer(asker)["model"]
    assert (model["state"], model["pid"]) == ("ready", visitor.pid)


def test_who_was_being_asked_is_asked_again(running: Supervisor) -> None:
    gate = running.gate("g")
    running.add("a", "listen={port}", "hold", gate.step, "serve", ready={"http": "/health"})
    asker = running.client()
    ask(asker, "load", model="a", wait=True)
    visitor = gate.visitor()
    running.call("reexec")
    visitor.go()
    assert answer(asker)["model"]["state"] == "ready"


def test_no_line_and_no_event_is_missed(running: Supervisor) -> None:
    gate = running.gate("g")
    running.load("a", "say=one", "mutter=ha", *READY[:2], gate.step, "say=lf", "say=three", gate.step, "exit=1")
    visitor = gate.visitor()
    lines, events = running.client(), running.client()
    followed = lines.stream("logs", model="a", lines=10, follow=True)
    happened = events.stream("events", follow=True, since=0)
    first = next(followed)["line"]
    assert first["text"] == "one"
    running.call("reexec")
    visitor.go()
    second, third = next(followed)["line"], next(followed)["line"]
    assert [second["text"], third["text"]] == ["half", "three"]
    assert first["number"] < second["number"]
    assert running.logs("a") == ["one", "half", "three"]
    gate.visitor().go()
    numbers = []
    for message in happened:
        numbers.append(message["event"]["seq"])
        if "exited with code 1" in message["event"]["text"]:
            break
    assert numbers == list(range(1, len(numbers) + 1))


def test_half_a_message_is_read_on(running: Supervisor) -> None:
    running.load("a")
    client = running.client()
    client._socket.sendall(b'{"op": "lease", "mod')
    running.call("reexec")
    client._socket.sendall(b'el": "a"}\n')
    assert answer(client)["lease"]["model"] == "a"


def test_one_that_does_not_read_gets_the_rest(running: Supervisor) -> None:
    running.load("a", "flood=1000:" + "x" * 1000 + "\\n", *READY)
    running.eventually(lambda: len(running.logs("a")) == 1000, "all is read")
    client = running.client()
    ask(client, "logs", model="a", lines=1000)
    running.call("reexec")
    assert answer(client) == {"ok": True}
    assert len(list(iter(lambda: answer(client), {"end": True}))) == 1000


def test_what_starts_afterwards_is_as_before(running: Supervisor) -> None:
    running.add("a", f"dump={running.directory}/a.dump", *READY)
    before = running.load("a")
    as_before, told_before = limits_of(before["pid"]), running.dump("a")
    running.call("reexec")
    after = running.call("restart", model="a", wait=True)["model"]
    told = running.dump("a")
    assert after["pid"] != before["pid"]
    assert limits_of(after["pid"]) == as_before
    assert told["env"].pop("LLAMA_ROUTER_LAUNCH") != told_before["env"].pop("LLAMA_ROUTER_LAUNCH")
    assert told["descriptors"].keys() == told_before["descriptors"].keys()
    assert told["env"] == told_before["env"]


def test_nothing_is_left_when_it_is_killed_afterwards(running: Supervisor) -> None:
    deep = running.gate("deep")
    running.load("a", f"deep={deep.path}", *READY)
    stray = deep.visitor()
    stray.go()
    running.call("reexec")
    running.load("b")
    pids = [running.model("a")["pid"], running.model("b")["pid"], running.status()["web"]["pid"]]
    running.expected = -signal.SIGKILL
    assert running.process is not None
    running.process.kill()
    running.wait()
    stray.gone()
    for pid in pids:
        try:
            with Process(pid) as process:
                process.gone()
        except ProcessLookupError:
            pass


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_on_the_way_is_not_lost(supervisors: Start, number: signal.Signals) -> None:
    running = supervisors(prefix=at_the_last_moment(f"os.kill(os.getpid(), {int(number)})")).start("READY=1")
    asker, watch = running.client(), running.watch()
    ask(asker, "reexec")
    if number == signal.SIGTERM:
        watch.text("stopping")
        assert running.wait() == 0
    else:
        watch.text("configuration reloaded")
        assert "reexec" in answer(asker)


def test_files_that_changed_count_and_broken_ones_do_not(running: Supervisor) -> None:
    running.load("a")
    running.write("b", "models: {b: {nonsense: 1}}")
    watch = running.watch()
    watch.text("cannot reload")
    running.call("reexec")
    assert [model["name"] for model in running.status()["models"]] == ["a"]
    assert running.model("a")["file"] == "presets.d/a.yaml"
    running.add("b", reload=False)
    watch.text("1 untouched")
    assert running.load("b")["state"] == "ready"
    texts = [message["event"]["text"] for message in running.client().stream("events")]
    assert len([text for text in texts if text.startswith("cannot reload")]) == 1, "it was told before"


def test_systemd_hears_of_it(supervisors: Start) -> None:
    running = supervisors()
    with Systemd(running.directory / "systemd.sock") as systemd:
        running.launch(env=systemd.env | {"WATCHDOG_USEC": "20000000"})
        systemd.heard("READY=1", running)
        for _ in range(2):
            asker = running.client()
            ask(asker, "reexec")
            assert "WATCHDOG=1" not in systemd.heard("RELOADING=1\nMONOTONIC_USEC=", running)[-1]
            systemd.heard("READY=1", running)
            systemd.heard("WATCHDOG=1", running)
            answer(asker)


def with_another_web_tier(running: Supervisor, *steps: str) -> Path:
    """Start it, its next programs having a web tier that takes these steps as long as there is the file."""
    file = running.directory / "another"
    running.replace_web_tier(*steps)
    there = f"import os\nif 'LLAMA_ROUTER_HANDOVER' in os.environ and os.path.exists({str(file)!r}):\n "
    running.prefix = there + running.prefix.replace("; ", "\n ")
    running.start("READY=1")
    return file


@pytest.fixture
def failing(supervisors: Start) -> tuple[Supervisor, Path]:
    """A supervisor whose next programs have a web tier that fails, as long as there is a file."""
    running = supervisors()
    return running, with_another_web_tier(running, "exit=1")


def test_a_stop_before_the_new_web_tier_is_ready_is_told_as_one(supervisors: Start) -> None:
    running = supervisors()
    with_another_web_tier(running, "pause").touch()
    running.load("a")
    asker, watch = running.client(), running.watch()
    ask(asker, "reexec")
    watch.text("goes on in the place of")
    assert running.process is not None
    running.process.terminate()
    told = answer(asker)["error"]["message"]
    assert "was asked to stop before its web tier was ready" in told
    watch.text("a: stopped: llama-router stopped")
    assert running.wait() == 0
    assert "; starting again" not in running.log.read_text()


def test_a_web_tier_that_fails_leaves_the_one_before(failing: tuple[Supervisor, Path]) -> None:
    running, fails = failing
    fails.touch()
    web = running.status()["web"]
    asker = running.client()
    ask(asker, "reexec")
    told = answer(asker)
    assert "its web tier exited with code 1" in told["error"]["message"]
    status = running.status()
    assert [each["pid"] for each in status["web_before"]] == [web["pid"]]
    assert status["web_before"][0]["state"] == "ready"
    assert status["state"] == "running"
    fails.unlink()
    watch = running.watch()
    try_again(running)
    watch.text("@web: ready")
    running.eventually(lambda: not running.status()["web_before"], "those before have ended")


def try_again(running: Supervisor) -> None:
    """Ask until the web tier that is tried again and again is not starting at the moment."""
    told: Message = {"error": {"message": "starting"}}
    while "starting" in told.get("error", {}).get("message", ""):
        asker = running.client()
        ask(asker, "reexec")
        told = answer(asker)
    assert "reexec" in told


def test_a_request_is_served_by_each_program(running: Supervisor) -> None:
    running.load("a")
    with Client(running.runtime) as held:
        for _ in range(3):
            running.call("reexec")
            ask(held, "lease", model="a")
            assert answer(held)["lease"]["model"] == "a"
            held.release({"ended": "complete"})
    running.eventually(lambda: running.model("a")["served"] == 3, "all were given back")
    assert os.path.exists(running.runtime / "control.sock")  # noqa: PTH110
