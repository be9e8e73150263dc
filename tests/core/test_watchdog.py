"""The watchdog: a server that gives no sign of life is killed and restarted, and those who wait for it are served."""

from __future__ import annotations

from typing import Any

import pytest

from supervisor.core.commands import Kill, Probe
from supervisor.core.events import Goal, LeaseAsked, Notified, PresetsChanged, Probed
from supervisor.core.preset import Preset
from supervisor.core.reasons import EndReason, Kind
from supervisor.core.reload import changes
from tests.core.driver import Driver, preset


def probed(**keys: Any) -> Preset:
    return Preset.model_validate({"name": "a", "backend": "command", "command": ["x", "{port}"], **keys})


def ready(driver: Driver) -> Driver:
    driver.ask(Goal.LOAD, "a")
    launch = driver.launch("a")
    driver.ready("a")
    driver.send(Probed(launch, healthy=True))
    assert driver.instance("a").state.value == "ready"
    return driver


def reason(driver: Driver) -> EndReason:
    found = driver.instance("a").reason
    assert found is not None
    return found


def test_heartbeats_keep_a_server_alive_and_their_lack_kills_it() -> None:
    driver = ready(Driver(preset("a", watchdog=10)))
    for _ in range(5):
        driver.tick(9)
        driver.send(Notified(driver.launch("a"), alive=True))
    assert not any(isinstance(command, Kill) for command in driver.history)
    driver.tick(9.9)
    assert driver.instance("a").state.value == "ready"
    assert any(isinstance(command, Kill) for command in driver.tick(0.2))
    driver.ends("a", signal=9)
    assert (reason(driver).kind, reason(driver).text) == (
        Kind.WATCHDOG,
        "killed by the watchdog: no sign of life for 10s",
    )
    driver.tick(0)
    assert driver.instance("a").state.value == "starting", "it had been ready: it is restarted at once"


def test_those_who_wait_and_those_who_were_cut_off_are_served_by_the_next_launch() -> None:
    driver = ready(Driver(preset("a", watchdog=10)))
    held = driver.lease("a")
    waiting = driver.lease("a")
    hung = driver.launch("a")
    driver.tick(11)
    driver.ends("a", signal=9)
    driver.release(held)
    driver.send(LeaseAsked(500, "a", avoid=hung))
    driver.tick(0)
    driver.ready("a")
    assert driver.granted() == [waiting]
    driver.release(waiting)
    assert driver.granted() == [500]


def test_a_server_that_knows_it_is_stuck_is_killed_at_once() -> None:
    driver = ready(Driver(preset("a")))
    driver.send(Notified(driver.launch("a"), stuck=True))
    assert driver.last(Kill)
    driver.ends("a", signal=9)
    assert reason(driver).kind is Kind.WATCHDOG


def test_without_a_watchdog_silence_is_fine() -> None:
    driver = ready(Driver(preset("a")))
    driver.tick(1e6)
    assert driver.instance("a").state.value == "ready" and driver.fleet.next_deadline() is None


def test_heartbeats_do_not_count_while_it_starts_and_loading_may_take_longer() -> None:
    driver = Driver(preset("a", watchdog=10))
    driver.ask(Goal.LOAD, "a")
    driver.tick(60)
    driver.ready("a")
    driver.tick(9)
    assert driver.instance("a").state.value == "ready"


def test_a_server_that_cannot_notify_is_probed() -> None:
    driver = ready(Driver(probed(ready={"http": "/health"}, watchdog=10)))
    for _ in range(10):
        assert [type(command) for command in driver.tick(5) if isinstance(command, Probe)] == [Probe]
        driver.send(Probed(driver.launch("a"), healthy=True))
    driver.tick(5)
    driver.tick(4.9)
    assert driver.instance("a").state.value == "ready"
    assert any(isinstance(command, Kill) for command in driver.tick(0.2))
    driver.ends("a", signal=9)
    assert reason(driver).kind is Kind.WATCHDOG


def test_a_probe_that_goes_wrong_is_repeated_and_its_answer_named() -> None:
    driver = ready(Driver(probed(watchdog=10)))
    driver.tick(5)
    for _ in range(4):
        driver.send(Probed(driver.launch("a"), healthy=False, ailment="GET /health answers 500"))
        driver.tick(1)
    driver.send(Probed(driver.launch("a"), healthy=True))
    driver.tick(9.5)
    assert driver.instance("a").state.value == "ready", "it recovered"
    driver.send(Probed(driver.launch("a"), healthy=False, ailment="GET /health answers 500"))
    driver.tick(0.6)
    driver.ends("a", signal=9)
    assert (reason(driver).kind, reason(driver).text) == (
        Kind.UNHEALTHY,
        "killed by the watchdog: GET /health answers 500 for 10s",
    )


def test_after_a_bad_answer_it_asks_again_soon() -> None:
    driver = ready(Driver(probed(watchdog="1h")))
    assert any(isinstance(command, Probe) for command in driver.tick(30)), "and never more rarely than that"
    driver.send(Probed(driver.launch("a"), healthy=False, ailment="GET /health answers 500"))
    assert any(isinstance(command, Probe) for command in driver.tick(1))


def test_a_changed_watchdog_restarts_the_server_that_was_told_of_it() -> None:
    assert changes({"a": preset("a")}, {"a": preset("a", watchdog=10)}).changed == ("a",)


def test_heartbeats_do_not_help_a_server_that_is_probed() -> None:
    driver = ready(Driver(probed(watchdog=10)))
    driver.tick(9)
    driver.send(Notified(driver.launch("a"), alive=True))
    assert any(isinstance(command, Kill) for command in driver.tick(2))


@pytest.mark.parametrize("evicted", [False, True])
def test_a_hung_server_cannot_hold_up_its_drain(evicted: bool) -> None:
    driver = ready(Driver(preset("a", watchdog=10)))
    held = driver.lease("a")
    driver.send(PresetsChanged({} if evicted else {"a": preset("a", context=1)}, {}, driver.policy))
    assert driver.instance("a").draining
    assert any(isinstance(command, Kill) for command in driver.tick(11))
    driver.ends("a", signal=9)
    driver.release(held)
    assert "a" not in driver.fleet.models if evicted else driver.instance("a").state.value == "starting"


def test_one_that_hangs_again_and_again_fails() -> None:
    driver = Driver(preset("a", watchdog=10, restart={"limit": 2, "delay": 1, "within": "1h"}))
    driver.ask(Goal.LOAD, "a")
    for _ in range(3):
        driver.tick(5)
        driver.ready("a")
        driver.tick(11)
        driver.ends("a", signal=9)
    assert driver.instance("a").state.value == "failed"
    assert reason(driver).kind is Kind.WATCHDOG


def test_a_stop_ends_the_watch() -> None:
    driver = ready(Driver(preset("a", watchdog=10, stop_timeout=60)))
    driver.ask(Goal.UNLOAD, "a")
    assert not any(isinstance(command, Kill) for command in driver.tick(30))
