"""Policy as tables and short histories: what the fleet decides, without a process or a clock."""

import pytest

from supervisor.core.commands import Answer, Kill, Probe, Terminate
from supervisor.core.events import Ended, Goal, Notified, Probed, Spawned
from supervisor.core.preset import Preset
from supervisor.core.reasons import EndReason, Kind
from supervisor.core.states import State
from tests.core.driver import Driver, preset


def states(driver: Driver) -> dict[str, str]:
    return {name: model.state.value for name, model in driver.fleet.models.items()}


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
