"""Servers that hang: found by their silence or by a probe, killed, restarted; those who wait for them are served."""

from __future__ import annotations

import signal

from harness import READY, Supervisor

HEALTH = {"http": "/health"}


def test_a_server_that_stops_beating_is_killed_and_restarted(supervisor: Supervisor) -> None:
    before = supervisor.load("m", watchdog="300ms", max_concurrency=1)
    watch = supervisor.watch("m")
    held, waiting = supervisor.lease("m"), supervisor.lease("m")
    held.grant()
    reason = watch.state("backoff")["reason"]
    assert (reason["kind"], reason["text"]) == ("watchdog", "killed by the watchdog: no sign of life for 300ms")
    held.close()
    assert waiting.grant()["launch"] > before["launch"]
    assert "watchdog" in supervisor.log.read_text()


def test_one_that_beats_lives_until_it_is_stopped_in_its_tracks(supervisor: Supervisor) -> None:
    supervisor.load("m", "dump={dump}".format(dump=supervisor.directory / "m.dump"), "beat=100", *READY, watchdog="1s")
    assert supervisor.dump("m")["env"]["WATCHDOG_USEC"] == "1000000"
    model = supervisor.model("m")
    supervisor.cpu_seconds_in(1.5)
    assert supervisor.model("m")["launch"] == model["launch"]
    watch = supervisor.watch("m")
    supervisor.kill(model["pid"], signal.SIGSTOP)
    assert watch.state("backoff")["reason"]["kind"] == "watchdog"
    watch.state("ready")


def test_one_that_says_it_is_stuck_is_killed_at_once(supervisor: Supervisor) -> None:
    gate = supervisor.gate("stuck")
    supervisor.load("m", "listen={socket}", "notify=READY=1", gate.step, "notify=WATCHDOG=trigger", "pause")
    watch = supervisor.watch("m")
    gate.visitor().go()
    assert watch.state("backoff")["reason"]["kind"] == "watchdog"


def test_a_server_that_cannot_notify_is_asked_for_its_health(supervisor: Supervisor) -> None:
    supervisor.load("m", "listen={socket}", "serve", ready=HEALTH, watchdog="1s")
    launch = supervisor.model("m")["launch"]
    supervisor.cpu_seconds_in(2.0)
    assert supervisor.model("m")["launch"] == launch
    watch = supervisor.watch("m")
    supervisor.kill(supervisor.model("m")["pid"], signal.SIGSTOP)
    assert watch.state("backoff")["reason"]["kind"] == "watchdog"
    watch.state("ready")


def test_one_that_answers_badly_is_unhealthy(supervisor: Supervisor) -> None:
    steps = ("listen={socket}", "health=200,500", "serve")
    supervisor.load("m", *steps, ready=HEALTH, watchdog="300ms")
    reason = supervisor.watch("m").state("backoff")["reason"]
    assert (reason["kind"], reason["text"]) == (
        "unhealthy",
        "killed by the watchdog: GET /health answers 500 for 300ms",
    )


def test_a_port_that_is_closed_is_noticed(supervisor: Supervisor) -> None:
    gate = supervisor.gate("close")
    supervisor.load("m", "listen={port}", gate.step, "hang-up", "pause", ready="tcp", watchdog="300ms")
    watch = supervisor.watch("m")
    gate.visitor().go()
    reason = watch.state("backoff")["reason"]
    assert (reason["kind"], reason["text"]) == (
        "unhealthy",
        "killed by the watchdog: connections are refused for 300ms",
    )


def test_one_that_hangs_every_time_fails(supervisor: Supervisor) -> None:
    supervisor.load("m", watchdog="100ms", restart={"limit": 1, "delay": "10ms", "max_delay": "10ms"})
    failed = supervisor.watch("m").state("failed")
    assert failed["reason"]["kind"] == "watchdog"
    assert supervisor.model("m")["state"] == "failed"


def test_loading_may_take_longer_than_the_watchdog(supervisor: Supervisor) -> None:
    gate = supervisor.gate("slow")
    supervisor.add("m", gate.step, "beat=100", *READY, watchdog="1s")
    waiting = supervisor.lease("m")
    visitor = gate.visitor()
    supervisor.cpu_seconds_in(1.5)
    visitor.go()
    assert waiting.grant()["launch"] == supervisor.model("m")["launch"]
