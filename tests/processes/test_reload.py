"""A new configuration for a running supervisor: what changes, what stays, and that a wrong one changes nothing."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from harness import Supervisor, Systemd, refused

DEAF = "import supervisor.presets_watch as w; w.QUIET_SECONDS = w.LONGEST_SECONDS = 3600"


def test_a_difference_is_told_and_applied(supervisors: type[Supervisor]) -> None:
    supervisor = supervisors(prefix=DEAF).start()
    for name in ("same", "adjusted", "changed", "removed"):
        supervisor.add(name, reload=False)
    supervisor.call("reload")
    before = {name: supervisor.load(name)["pid"] for name in ("same", "adjusted", "changed", "removed")}
    supervisor.add("adjusted", reload=False, description="other words", max_concurrency=7, aliases=["new name"])
    supervisor.add("changed", reload=False, env={"X": "1"})
    supervisor.add("added", reload=False)
    (supervisor.presets / "removed.yaml").unlink()
    changes = supervisor.call("reload")["changes"]
    assert changes == {
        "added": ["added"],
        "changed": ["changed"],
        "adjusted": ["adjusted"],
        "removed": ["removed"],
        "unchanged": 1,
        "outcomes": {name: {"when": "at_once", "in_flight": 0} for name in ("changed", "removed")},
        "settings": [],
        "needs_restart": [],
        "needs_reexec": [],
    }
    supervisor.watch("changed").state("stopped")
    supervisor.eventually(lambda: len(supervisor.status()["models"]) == 4, "the removed model is gone")
    models = {model["name"]: model for model in supervisor.status()["models"]}
    assert sorted(models) == ["added", "adjusted", "changed", "same"]
    assert models["same"]["pid"] == before["same"]
    assert models["adjusted"]["pid"] == before["adjusted"]
    assert models["adjusted"]["description"] == "other words"
    assert models["added"]["state"] == "stopped"
    assert supervisor.lease("new name").grant()["model"] == "adjusted"
    with refused() as errors:
        supervisor.lease("removed").grant()
    assert errors[0].status == 400


def test_a_changed_model_is_loaded_again_if_it_was_loaded(supervisor: Supervisor) -> None:
    before = supervisor.load("m")
    watch = supervisor.watch("m")
    watch.state("ready")
    supervisor.add("m", env={"X": "1"})
    assert watch.state("stopping")["reason"]["kind"] == "preset_changed"
    watch.state("ready")
    after = supervisor.model("m")
    assert (after["pid"] != before["pid"], after["restarts"]) == (True, 0)


def test_running_requests_are_served_out(supervisor: Supervisor) -> None:
    before = supervisor.load("m", stop_timeout="10ms")
    lease = supervisor.lease("m")
    lease.grant()
    supervisor.add("m", stop_timeout="10ms", env={"X": "1"})
    late = supervisor.lease("m")
    model = supervisor.model("m")
    assert (model["pid"], model["draining"], model["in_flight"]) == (before["pid"], True, 1)
    assert not late.answered
    lease.release()
    assert late.grant()["launch"] > before["launch"]


def test_a_removed_model_serves_out_its_requests(supervisor: Supervisor) -> None:
    supervisor.load("m")
    lease, waiting = supervisor.lease("m"), supervisor.lease("m")
    lease.grant()
    supervisor.remove("m")
    with refused() as errors:
        waiting.grant()
    assert "its preset was removed" in str(errors[0])
    model = supervisor.model("m")
    assert (model["removed"], model["in_flight"], model["state"]) == (True, 1, "ready")
    lease.release()
    supervisor.eventually(lambda: not supervisor.status()["models"], "it is gone")


def test_a_removed_model_that_comes_back(supervisor: Supervisor) -> None:
    before = supervisor.load("m")
    lease = supervisor.lease("m")
    lease.grant()
    supervisor.remove("m")
    supervisor.add("m")
    waiting = supervisor.lease("m")
    lease.release()
    assert waiting.grant()["model"] == "m"
    assert supervisor.model("m")["removed"] is False
    assert supervisor.model("m")["launch"] >= before["launch"]


def test_a_changed_preset_forgives_a_failure(supervisor: Supervisor) -> None:
    supervisor.add("m", "exit=65")
    with refused():
        supervisor.load("m")
    supervisor.add("m")
    assert supervisor.model("m")["state"] == "stopped"
    supervisor.lease("m").grant()


def test_a_change_during_a_load(supervisor: Supervisor) -> None:
    gate = supervisor.gate("loading")
    supervisor.add("m", gate.step, "serve")
    waiting = supervisor.lease("m")
    visitor = gate.visitor()
    supervisor.add("m")
    visitor.gone()
    assert waiting.grant()["model"] == "m"


def test_autostart_of_what_is_new(supervisor: Supervisor) -> None:
    supervisor.add("m", autostart=True)
    supervisor.watch("m").state("ready")


@pytest.mark.parametrize("by", ["request", "signal"])
def test_an_invalid_configuration_changes_nothing(supervisor: Supervisor, by: str) -> None:
    before = supervisor.load("m")["pid"]
    supervisor.add("m", reload=False, env={"X": "1"})
    supervisor.write("a", "models:\n  x: {backend: command, command: [y], stop_timeout: soon}\n")
    supervisor.write("b", "models: [\n")
    if by == "request":
        with refused() as errors:
            supervisor.call("reload")
        problems = {(problem.file, problem.line) for problem in errors[0].problems}
        assert {Path(file).name for file, _ in problems} == {"a.yaml", "b.yaml"}
        assert all(line for _, line in problems)
        assert errors[0].status == 400
    else:
        supervisor.kill(supervisor.pid, signal.SIGHUP)
        supervisor.eventually(lambda: "cannot reload" in supervisor.log.read_text(), "it is told")
        supervisor.status()
        log = supervisor.log.read_text().split("cannot reload")[1]
        assert "presets.d/a.yaml:2" in log
        assert "presets.d/b.yaml:" in log
    models = supervisor.status()["models"]
    assert [(model["name"], model["pid"], model["state"]) for model in models] == [("m", before, "ready")]


def test_a_configuration_that_is_gone_changes_nothing(supervisors: type[Supervisor]) -> None:
    supervisor = supervisors().start()
    supervisor.load("m")
    (supervisor.directory / "config.yaml").unlink()
    with refused() as errors:
        supervisor.call("reload")
    assert "config.yaml" in errors[0].problems[0].file
    assert supervisor.model("m")["state"] == "ready"


def test_sighup_reloads_and_tells_systemd(supervisors: type[Supervisor]) -> None:
    supervisor = supervisors()
    with Systemd(supervisor.directory / "systemd.sock") as systemd:
        supervisor.launch(env=systemd.env)
        systemd.heard("READY=1", supervisor)
        supervisor.add("m", reload=False)
        supervisor.kill(supervisor.pid, signal.SIGHUP)
        assert systemd.heard("RELOADING=1", supervisor)[-1].partition("MONOTONIC_USEC=")[2].isdecimal()
        systemd.heard("READY=1", supervisor)
        assert supervisor.model("m")["state"] == "stopped"


def test_many_reloads(supervisor: Supervisor) -> None:
    supervisor.load("m")
    pid = supervisor.model("m")["pid"]
    for number in range(30):
        supervisor.add(f"m{number}", description=str(number))
    for _ in range(10):
        supervisor.kill(supervisor.pid, signal.SIGHUP)
    assert supervisor.model("m")["pid"] == pid
    assert len(supervisor.status()["models"]) == 31


def test_sighup_before_it_is_ready_does_not_make_it_ready(supervisors: type[Supervisor]) -> None:
    supervisor = supervisors()
    gate = supervisor.gate("starting")
    supervisor.replace_web_tier(gate.step, "notify=READY=1", "pause")
    with Systemd(supervisor.directory / "systemd.sock") as systemd:
        supervisor.launch(env=systemd.env)
        visitor = gate.visitor()
        supervisor.kill(supervisor.pid, signal.SIGHUP)
        supervisor.watch().text("configuration reloaded")
        visitor.go()
        assert not [text for text in systemd.heard("READY=1", supervisor) if text.startswith("RELOADING")]
