"""What operators, a reload and a stop do to the fleet, as short histories."""

import pytest

from supervisor.core import events
from supervisor.core.commands import Answer, CloseListener, DeclareReady, Exit, Kill, Reject, Terminate
from supervisor.core.events import Goal, PresetsChanged, StopAsked
from supervisor.core.fleet_state import WEB
from supervisor.core.preset import Preset
from supervisor.core.reasons import CALLED_OFF, RESET, Kind, at_rest
from supervisor.core.status import model_status
from tests.core.driver import Driver, preset


def test_an_operator_who_waits_is_told_when_the_preset_is_removed() -> None:
    driver = Driver(preset("a"))
    driver.ask(Goal.LOAD, "a", number=7, wait=True)
    driver.send(PresetsChanged({}, {}, driver.policy))
    assert [command.ask for command in driver.last(Reject)] == [7]


def states(driver: Driver) -> dict[str, str]:
    return {name: model.state.value for name, model in driver.fleet.models.items()}


# Operators


def test_unload_lets_running_requests_finish_and_new_ones_load_it_again() -> None:
    driver = Driver(preset("a", autostart=True))
    driver.ready("a")
    running = driver.lease("a")
    driver.ask(Goal.UNLOAD, "a", wait=True)
    assert not driver.last(Terminate) and driver.instance("a").draining
    late = driver.lease("a")
    assert not driver.granted()
    driver.release(running)
    assert driver.last(Terminate)
    driver.ends("a", code=0)
    assert driver.spawned() == ["a"]
    driver.ready("a")
    assert driver.granted() == [late]


def test_unload_does_not_wait_longer_than_stop_timeout() -> None:
    driver = Driver(preset("a", autostart=True, stop_timeout=3))
    driver.ready("a")
    driver.lease("a")
    driver.ask(Goal.UNLOAD, "a")
    driver.tick(2.9)
    assert not driver.last(Terminate)
    driver.tick(0.2)
    assert driver.last(Terminate)
    driver.tick(3)
    assert driver.last(Kill)
    driver.tick(5)
    assert driver.last(Kill), "SIGKILL is repeated while the process is there"


def test_unloading_a_loading_model_ends_it_and_refuses_its_waiters() -> None:
    driver = Driver(preset("a"))
    lease = driver.lease("a")
    driver.ask(Goal.UNLOAD, "a")
    assert driver.refused() == [(lease, 503)] and driver.last(Terminate)
    driver.ends("a", signal=15)
    assert states(driver) == {"a": "stopped"}
    reason = driver.instance("a").reason
    assert reason is not None and reason.kind is Kind.REQUESTED


def test_unload_calls_off_a_planned_restart() -> None:
    driver = Driver(preset("a", autostart=True))
    driver.ends("a", code=1)
    driver.ask(Goal.UNLOAD, "a")
    driver.tick(100)
    assert states(driver) == {"a": "stopped"}
    assert driver.instance("a").stopped_by == CALLED_OFF


def test_a_model_that_was_reset_says_so_until_it_is_started() -> None:
    driver = Driver(preset("a", autostart=True))
    driver.ends("a", code=65, last_lines=("error: no such file", "bye"))
    shown = model_status(driver.fleet, driver.model("a"), 0.0)
    assert (shown["stopped_by"], shown["reason"]["telling"]) == (None, "error: no such file")
    driver.ask(Goal.RESET, "a")
    shown = model_status(driver.fleet, driver.model("a"), 0.0)
    assert (shown["state"], shown["stopped_by"]) == ("stopped", RESET)
    assert at_rest(RESET, shown["reason"]["text"]) == "reset; its last end: exited with code 65 before it was ready"
    driver.ask(Goal.LOAD, "a")
    driver.ready("a")
    driver.ask(Goal.UNLOAD, "a")
    driver.ends("a", signal=15)
    assert driver.instance("a").stopped_by is None


def test_load_does_not_wait_for_a_back_off() -> None:
    driver = Driver(preset("a", autostart=True))
    driver.ends("a", code=1)
    driver.ask(Goal.LOAD, "a")
    assert driver.spawned() == ["a"]


@pytest.mark.parametrize(
    ("goal", "prepare", "status"),
    [(Goal.LOAD, True, 400), (Goal.UNLOAD, False, 400)],
)
def test_strict_asks_are_refused_where_llama_server_refuses_them(goal: Goal, prepare: bool, status: int) -> None:
    driver = Driver(preset("a", autostart=prepare))
    driver.ask(goal, "a", strict=True)
    [reject] = driver.last(Reject)
    assert reject.refusal.status == status


def test_operators_are_told_of_unknown_models_and_failed_loads() -> None:
    driver = Driver(preset("a"))
    driver.ask(Goal.LOAD, "nope")
    [reject] = driver.last(Reject)
    assert reject.refusal.status == 404
    driver.ask(Goal.LOAD, "a", number=1, wait=True)
    driver.ends("a", code=65, last_lines=("bad magic",))
    [reject] = driver.last(Reject)
    assert "bad magic" in reject.refusal.message


def test_a_waiting_load_is_told_when_somebody_unloads_the_model() -> None:
    driver = Driver(preset("a"))
    driver.ask(Goal.LOAD, "a", number=1, wait=True)
    driver.ask(Goal.UNLOAD, "a", number=2, wait=True)
    driver.ends("a", signal=15)
    assert [reject.ask for reject in driver.last(Reject)] == [1]
    assert [answer.ask for answer in driver.last(Answer)] == [2]


# Reload


def reload(driver: Driver, *presets: Preset) -> None:
    driver.send(PresetsChanged({p.name: p for p in presets}, {}, driver.policy))


def test_untouched_models_keep_serving_through_a_reload() -> None:
    driver = Driver(preset("a", autostart=True), preset("b", autostart=True))
    driver.ready("a")
    driver.ready("b")
    launch = driver.launch("a")
    reload(driver, preset("a", autostart=True), preset("b", autostart=True, context=1))
    assert driver.launch("a") == launch and states(driver) == {"a": "ready", "b": "stopping"}


def test_a_changed_model_serves_its_leases_out_and_comes_back_with_the_new_preset() -> None:
    driver = Driver(preset("a", autostart=True))
    driver.ready("a")
    lease = driver.lease("a")
    reload(driver, preset("a", autostart=True, context=99))
    driver.tick(3600)
    assert not driver.last(Terminate)
    driver.release(lease)
    driver.ends("a", code=0)
    [spawn] = [command for command in driver.step if command.__class__.__name__ == "Spawn"]
    assert spawn.preset.context == 99  # type: ignore[union-attr]


def test_a_description_changes_without_a_restart() -> None:
    driver = Driver(preset("a", autostart=True))
    driver.ready("a")
    reload(driver, preset("a", description="new", max_concurrency=2))
    assert states(driver) == {"a": "ready"}
    driver.lease("a")
    driver.lease("a")
    assert driver.granted()


def test_a_removed_model_drains_and_disappears_and_may_come_back() -> None:
    driver = Driver(preset("a", autostart=True))
    driver.ready("a")
    lease, waiting = driver.lease("a"), driver.lease("a")
    reload(driver)
    assert driver.refused() == [(waiting, 400)]
    driver.lease("a")
    assert [status for _, status in driver.refused()] == [400]
    driver.release(lease)
    driver.ends("a", code=0)
    assert states(driver) == {}
    reload(driver, preset("a"))
    driver.lease("a")
    assert driver.spawned() == ["a"]


def test_a_changed_preset_forgives_a_failure() -> None:
    driver = Driver(preset("a", autostart=True))
    driver.ends("a", code=65)
    reload(driver, preset("a", autostart=True, context=1))
    assert states(driver) == {"a": "stopped"}


def test_a_reload_during_a_load_restarts_it_with_the_new_preset() -> None:
    driver = Driver(preset("a"))
    lease = driver.lease("a")
    reload(driver, preset("a", context=7))
    assert driver.last(Terminate)
    driver.ends("a", signal=15)
    driver.ready("a")
    assert driver.granted() == [lease]


def test_a_model_that_newly_asks_for_autostart_is_loaded() -> None:
    driver = Driver(preset("a"))
    reload(driver, preset("a", autostart=True), preset("b", autostart=True))
    assert states(driver) == {"a": "starting", "b": "starting"}


# The supervisor's own life


def test_it_is_ready_when_the_web_tier_answers() -> None:
    driver = Driver()
    assert driver.last(DeclareReady)
    driver.ends(WEB, signal=9)
    driver.tick(0)
    driver.ready(WEB)
    assert driver.last(DeclareReady)


def test_a_web_tier_that_never_answered_ends_the_supervisor() -> None:
    driver = Driver(preset("a", autostart=True))
    driver.fleet.web.ever_ready = False
    driver.ends(WEB, code=1)
    assert driver.last(CloseListener) and not driver.last(Exit)
    driver.ends("a", signal=15)
    [end] = driver.last(Exit)
    assert end.code == 70 and end.why is not None


def test_stop_refuses_waiters_lets_requests_finish_and_takes_the_web_tier_last() -> None:
    driver = Driver(preset("a", autostart=True, stop_timeout=10), preset("b"))
    driver.ready("a")
    running, waiting = driver.lease("a"), driver.lease("b")
    driver.send(StopAsked())
    assert driver.refused() == [(waiting, 503)]
    assert {c.launch for c in driver.last(Terminate)} == {driver.launch("b"), driver.launch(WEB)}
    driver.lease("a")
    assert [status for _, status in driver.refused()] == [503]
    driver.ends("b", signal=15)
    driver.release(running)
    driver.ends("a", code=0)
    assert not driver.last(Exit)
    driver.ends(WEB, code=0)
    assert driver.last(Exit) == [Exit(0)]


def test_a_web_tier_that_does_not_leave_is_killed_once_the_models_are_gone() -> None:
    driver = Driver()
    web = driver.launch(WEB)
    driver.send(StopAsked())
    driver.tick(6)
    assert Kill(web) in driver.history


def test_a_second_stop_waits_for_nobody() -> None:
    driver = Driver(preset("a", autostart=True))
    driver.ready("a")
    driver.lease("a")
    driver.send(StopAsked())
    driver.send(StopAsked())
    assert {c.launch for c in driver.last(Kill)} == {driver.launch("a"), driver.launch(WEB)}


def test_ticks_without_a_deadline_do_nothing() -> None:
    driver = Driver(preset("a", autostart=True))
    driver.ready("a")
    assert driver.fleet.next_deadline() is None
    assert driver.send(events.Tick()) == []
