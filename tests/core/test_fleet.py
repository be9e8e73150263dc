"""Policy as tables and short histories: what the fleet decides, without a process or a clock."""

import pytest

from supervisor.core import events
from supervisor.core.commands import Answer, CloseListener, DeclareReady, Exit, Kill, Probe, Reject, Terminate
from supervisor.core.events import Ended, Goal, Notified, PresetsChanged, Probed, Spawned, StopAsked
from supervisor.core.fleet_state import WEB
from supervisor.core.preset import Preset
from supervisor.core.reasons import EndReason, Kind
from supervisor.core.states import State
from tests.core.driver import Driver, preset


def states(driver: Driver) -> dict[str, str]:
    return {name: model.instance.state.value for name, model in driver.fleet.models.items()}


# Loading on demand


def test_only_autostart_models_are_loaded_at_start() -> None:
    driver = Driver(preset("a", autostart=True), preset("b"))
    assert states(driver) == {"a": "starting", "b": "stopped"}


def test_a_request_loads_its_model_and_is_granted_when_it_is_ready() -> None:
    driver = Driver(preset("a"))
    lease = driver.lease("a")
    assert driver.spawned() == ["a"] and not driver.granted()
    driver.ready("a")
    assert driver.granted() == [lease]


def test_requests_for_one_model_share_its_load() -> None:
    driver = Driver(preset("a", max_concurrency=3))
    leases = [driver.lease("a") for _ in range(3)]
    driver.ready("a")
    assert driver.granted() == leases
    assert sum(command.__class__.__name__ == "Spawn" for command in driver.history) == 2  # the web tier and a


def test_leases_are_granted_in_order_and_up_to_the_limit() -> None:
    driver = Driver(preset("a", max_concurrency=2))
    leases = [driver.lease("a") for _ in range(4)]
    driver.ready("a")
    assert driver.granted() == leases[:2]
    driver.release(leases[1])
    assert driver.granted() == [leases[2]]


def test_a_withdrawn_lease_is_skipped() -> None:
    driver = Driver(preset("a"))
    first, second = driver.lease("a"), driver.lease("a")
    driver.release(first)
    driver.ready("a")
    assert driver.granted() == [second]


def test_an_alias_leads_to_its_model() -> None:
    driver = Driver(preset("a", aliases=["gpt-4o-mini"]))
    driver.lease("gpt-4o-mini")
    assert driver.spawned() == ["a"]


@pytest.mark.parametrize(("name", "message"), [(None, "name is missing"), ("", "name is missing"), ("x", "'x' not")])
def test_a_request_for_no_model_is_refused(name: str | None, message: str) -> None:
    driver = Driver(preset("a"))
    driver.lease(name)
    [(_, status)] = driver.refused()
    assert status == 400
    assert message in driver.step[0].refusal.message  # type: ignore[union-attr]


def test_without_autoload_only_what_is_wanted_serves() -> None:
    driver = Driver(preset("a", autostart=True), preset("b"))
    waiting = driver.lease("a", autoload=False)
    driver.lease("b", autoload=False)
    assert [status for _, status in driver.refused()] == [400]
    driver.ready("a")
    assert driver.granted() == [waiting]


def test_a_lease_with_a_deadline_is_refused_when_it_passes() -> None:
    driver = Driver(preset("a"))
    patient, hurried = driver.lease("a"), driver.lease("a", timeout=2.5)
    driver.tick(2.4)
    assert not driver.refused()
    driver.tick(0.2)
    assert driver.refused() == [(hurried, 503)]
    driver.ready("a")
    assert driver.granted() == [patient]


def test_a_launch_that_broke_is_not_granted_again_until_it_has_proved_alive() -> None:
    driver = Driver(preset("a", autostart=True, max_concurrency=2))
    driver.ready("a")
    broken = driver.launch("a")
    retry, other = driver.lease("a", avoid=broken), driver.lease("a")
    assert driver.granted() == [other]
    driver.tick(1.5)
    assert retry in {c.lease for c in driver.history if c.__class__.__name__ == "Grant"}  # type: ignore[union-attr]


def test_a_retry_is_served_by_the_restarted_server() -> None:
    driver = Driver(preset("a", autostart=True))
    driver.ready("a")
    retry = driver.lease("a", avoid=driver.launch("a"))
    driver.ends("a", signal=9)
    driver.tick(0)
    driver.ready("a")
    assert driver.granted() == [retry]


# Ends and restarts


def test_a_server_that_had_been_ready_is_restarted_at_once() -> None:
    driver = Driver(preset("a", autostart=True))
    driver.ready("a")
    driver.ends("a", signal=11)
    assert driver.instance("a").state is State.BACKOFF
    driver.tick(0)
    assert driver.instance("a").state is State.STARTING
    assert driver.instance("a").restarts == 1


def test_failed_loads_back_off_until_the_limit_and_then_refuse_at_once() -> None:
    driver = Driver(preset("a", restart={"delay": 1, "max_delay": 60, "limit": 3, "within": 600}))
    lease = driver.lease("a")
    delays = []
    for _ in range(3):
        driver.ends("a", code=1)
        assert driver.instance("a").state is State.BACKOFF
        deadline = driver.instance("a").deadline
        assert deadline is not None
        delays.append(deadline - driver.now)
        driver.tick(delays[-1])
    driver.ends("a", code=1, last_lines=("boom",))
    assert delays == [1.0, 2.0, 4.0]
    assert driver.instance("a").state is State.FAILED
    assert driver.refused() == [(lease, 500)]
    assert "boom" in driver.last(type(driver.step[-1]))[-1].refusal.message  # type: ignore[union-attr]
    driver.lease("a")
    assert [status for _, status in driver.refused()] == [503]


@pytest.mark.parametrize("goal", [Goal.LOAD, Goal.RESTART])
def test_an_explicit_load_forgives_a_failure(goal: Goal) -> None:
    driver = Driver(preset("a", autostart=True))
    driver.ends("a", code=65)
    assert states(driver) == {"a": "failed"}
    driver.ask(goal, "a", wait=True)
    assert driver.spawned() == ["a"] and driver.instance("a").failures == ()
    driver.ready("a")
    assert driver.last(Answer) == [Answer(9000, "a")]


def test_a_reset_forgives_without_loading() -> None:
    driver = Driver(preset("a", autostart=True))
    driver.ends("a", code=65)
    driver.ask(Goal.RESET, "a", wait=True)
    assert states(driver) == {"a": "stopped"} and driver.last(Answer)


def test_a_server_that_exits_cleanly_at_once_is_not_started_for_ever_by_its_waiters() -> None:
    driver = Driver(preset("a"))
    driver.lease("a")
    for _ in range(20):
        if driver.instance("a").state is State.FAILED:
            break
        driver.ends("a", code=0)
        driver.tick(61)
    assert states(driver) == {"a": "failed"}


def test_start_timeout_is_a_reason_of_its_own() -> None:
    driver = Driver(preset("a", autostart=True, start_timeout=30, stop_timeout=5))
    driver.send(Spawned(driver.launch("a"), 77))
    driver.tick(29)
    assert not driver.last(Terminate)
    driver.tick(1)
    assert driver.last(Terminate)
    driver.tick(5)
    assert driver.last(Kill)
    driver.ends("a", signal=9)
    reason = driver.instance("a").reason
    assert reason is not None and reason.kind is Kind.START_TIMEOUT
    assert reason.text == "not ready within 30s"
    assert driver.instance("a").state is State.BACKOFF


def test_out_of_memory_is_told_apart_from_its_exit_code() -> None:
    driver = Driver(preset("a", autostart=True))
    driver.send(Notified(driver.launch("a"), out_of_memory=True))
    driver.ends("a", code=71)
    reason = driver.instance("a").reason
    assert reason is not None and reason.kind is Kind.OUT_OF_MEMORY


def test_a_program_that_cannot_be_started_fails_at_once() -> None:
    driver = Driver(preset("a", autostart=True))
    driver.send(Ended(driver.launch("a"), EndReason(Kind.CANNOT_START, detail="cannot start x: no such file")))
    assert states(driver) == {"a": "failed"}


def test_messages_of_an_earlier_launch_are_ignored() -> None:
    driver = Driver(preset("a", autostart=True))
    old = driver.launch("a")
    driver.ends("a", code=1)
    driver.tick(1)
    driver.send(Notified(old, ready=True))
    driver.send(Ended(old, EndReason(Kind.EXITED, code=0)))
    assert states(driver) == {"a": "starting"}


def test_programs_that_cannot_notify_are_probed_until_healthy() -> None:
    keys = {"backend": "command", "command": ["x", "{port}"], "ready": {"http": "/up"}, "autostart": True}
    driver = Driver(Preset.model_validate({"name": "a", **keys}))
    launch = driver.launch("a")
    driver.send(Spawned(launch, 5))
    driver.send(Notified(launch, ready=True))
    assert states(driver) == {"a": "starting"}
    gaps = []
    for _ in range(7):
        before = driver.now
        while not driver.last(Probe):
            driver.tick(0.01)
        gaps.append(round(driver.now - before, 2))
        assert driver.last(Probe) == [Probe(launch, "/up")]
        driver.send(Probed(launch, healthy=False))
    assert gaps == sorted(gaps) and gaps[0] <= 0.06 and 0.9 <= gaps[-1] <= 1.01
    driver.send(Probed(launch, healthy=True))
    assert states(driver) == {"a": "ready"}


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
