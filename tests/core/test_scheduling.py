"""Who is loaded, who makes room and who waits: the scheduler's policy as short histories."""

from __future__ import annotations

import pytest

from supervisor.core import events
from supervisor.core.commands import Reject, Terminate
from supervisor.core.events import Goal, PresetsChanged
from supervisor.core.policy import Policy
from supervisor.core.reasons import Kind
from supervisor.core.states import State
from tests.core.driver import Driver, preset

ONE = Policy(max_models=1, max_wait=10.0)


def driver_with(policy: Policy, *names: str, **keys: object) -> Driver:
    return Driver(*(preset(name, **keys) for name in names), policy=policy)


def serve(driver: Driver, name: str) -> int:
    """A request for the model, granted: its server is loaded if need be."""
    lease = driver.lease(name)
    if driver.instance(name).state is State.STARTING:
        driver.ready(name)
    assert driver.granted() == [lease]
    return lease


def use(driver: Driver, name: str) -> None:
    """A request for the model, served at once."""
    driver.release(serve(driver, name))


def terminated(driver: Driver) -> list[str]:
    """Names of the instances that the last step asked to end."""
    return [driver.fleet.lifecycle.launches[command.launch].name for command in driver.last(Terminate)]


def states(driver: Driver) -> dict[str, str]:
    return {name: model.state.value for name, model in driver.fleet.models.items()}


# Eviction


def test_the_least_recently_used_idle_model_makes_room() -> None:
    driver = driver_with(Policy(max_models=2), "a", "b", "c")
    use(driver, "a")
    driver.tick(1)
    use(driver, "b")
    driver.tick(1)
    use(driver, "a")
    waiting = driver.lease("c")
    assert terminated(driver) == ["b"] and not driver.spawned()
    driver.ends("b", code=0)
    assert driver.spawned() == ["c"]
    driver.ready("c")
    assert driver.granted() == [waiting]
    reason = driver.instance("b").reason
    assert reason is not None and (reason.kind, reason.text) == (Kind.EVICTED, "evicted for c")


def test_without_a_limit_nothing_is_evicted() -> None:
    driver = driver_with(Policy(max_models=0), "a", "b", "c")
    for name in ("a", "b", "c"):
        use(driver, name)
    assert set(states(driver).values()) == {"ready"}


def test_a_pinned_model_is_never_evicted() -> None:
    driver = Driver(preset("a", pinned=True), preset("b"), preset("c"), policy=Policy(max_models=2))
    use(driver, "a")
    driver.tick(1)
    use(driver, "b")
    driver.lease("c")
    assert terminated(driver) == ["b"]


def test_what_pinned_models_leave_no_room_for_is_refused_at_once_with_the_numbers() -> None:
    driver = Driver(preset("a", pinned=True), preset("b"), policy=ONE)
    use(driver, "a")
    lease = driver.lease("b")
    assert driver.refused() == [(lease, 503)]
    assert "max_models is 1, and pinned models hold them all: a" in driver.step[0].refusal.message  # type: ignore[union-attr]
    driver.ask(Goal.LOAD, "b", wait=True)
    [reject] = driver.last(Reject)
    assert reject.refusal.status == 503 and states(driver)["b"] == "stopped"


def test_a_model_stays_for_its_min_residency() -> None:
    driver = driver_with(Policy(max_models=1, max_wait=60), "a", "b", min_residency=5)
    use(driver, "a")
    driver.lease("b")
    driver.tick(4.9)
    assert states(driver)["a"] == "ready"
    driver.tick(0.2)
    assert states(driver)["a"] == "stopping"


def test_a_model_that_is_used_is_not_evicted_while_another_idles() -> None:
    driver = driver_with(Policy(max_models=2), "a", "b", "c")
    serve(driver, "a")
    driver.tick(5)
    use(driver, "b")
    driver.lease("c")
    assert terminated(driver) == ["b"]


def test_a_backing_off_model_that_nobody_waits_for_gives_up_its_place() -> None:
    driver = driver_with(ONE, "a", "b")
    driver.ask(Goal.LOAD, "a")
    driver.ends("a", code=1)
    driver.lease("b")
    assert driver.spawned() == ["b"] and states(driver)["a"] == "stopped"


def test_a_load_that_an_operator_waits_for_does_not_lose_its_place_while_it_backs_off() -> None:
    driver = driver_with(ONE, "a", "b")
    driver.ask(Goal.LOAD, "a", wait=True)
    driver.ends("a", code=1)
    driver.lease("b")
    assert not driver.spawned() and states(driver)["a"] == "backoff"


# Waiting for what is busy


def test_a_busy_model_drains_once_the_oldest_waiter_has_waited_max_wait() -> None:
    driver = driver_with(ONE, "a", "b")
    running = serve(driver, "a")
    waiting = driver.lease("b")
    driver.tick(9.9)
    assert not driver.instance("a").draining
    driver.tick(0.2)
    assert driver.instance("a").draining and not driver.last(Terminate)
    driver.lease("a")
    assert not driver.granted(), "a draining model takes nobody who came later"
    driver.release(running)
    driver.ends("a", code=0)
    driver.ready("b")
    assert driver.granted() == [waiting]


def test_under_contention_requests_for_one_model_are_served_together() -> None:
    driver = driver_with(Policy(max_models=1, max_wait=3.0), "a", "b", max_concurrency=4)
    first = serve(driver, "a")
    owner = {driver.lease(name): name for name in "babababa"}
    of_a = [lease for lease, name in owner.items() if name == "a"]
    assert driver.instance("a").leases == {first, *of_a[:3]}
    driver.tick(3.1)
    for lease in (first, *of_a[:3]):
        driver.release(lease)
    driver.ends("a", code=0)
    driver.ready("b")
    assert [owner[lease] for lease in driver.granted()] == ["b"] * 4


def test_of_several_busy_models_the_one_that_has_been_ready_longest_drains() -> None:
    driver = driver_with(Policy(max_models=2, max_wait=10), "a", "b", "c")
    serve(driver, "b")
    driver.tick(1)
    serve(driver, "a")
    driver.lease("c")
    driver.tick(11)
    assert driver.instance("b").draining and not driver.instance("a").draining


def test_a_draining_model_still_serves_those_who_came_before_the_swap_was_due() -> None:
    driver = driver_with(ONE, "a", "b")
    first = serve(driver, "a")
    older = driver.lease("a")
    driver.tick(1)
    other = driver.lease("b")
    driver.tick(1)
    younger = driver.lease("a")
    driver.tick(10)
    assert driver.instance("a").draining
    driver.release(first)
    assert driver.granted() == [older]
    driver.release(older)
    driver.ends("a", code=0)
    assert driver.spawned() == ["b"], "the room is b's, though a's waiter is there as well"
    driver.ready("b")
    assert driver.granted() == [other]
    driver.release(other)
    driver.ends("b", code=0)
    driver.ready("a")
    assert driver.granted() == [younger]


def test_nobody_starves_behind_a_model_that_is_always_busy() -> None:
    driver = driver_with(ONE, "a", "b")
    running, waiting = serve(driver, "a"), driver.lease("b")
    for _ in range(30):
        following = driver.lease("a")
        driver.tick(0.5)
        driver.release(running)
        running = following
        if driver.instance("a").state is State.STOPPING:
            break
    driver.ends("a", code=0)
    driver.ready("b")
    assert driver.granted() == [waiting]
    assert driver.now - 1000.0 <= 10.5


# Races that llama-server's router and llama-swap had


def test_a_queued_model_does_not_evict_the_one_that_just_loaded_for_its_own_request() -> None:
    driver = driver_with(ONE, "a", "b")
    first, second = driver.lease("a"), driver.lease("b")
    driver.ready("a")
    assert driver.granted() == [first] and not driver.last(Terminate)
    driver.release(first)
    assert terminated(driver) == ["a"]
    driver.ends("a", code=0)
    driver.ready("b")
    assert driver.granted() == [second]


def test_a_client_that_leaves_while_queued_costs_nothing() -> None:
    driver = driver_with(ONE, "a", "b")
    running, gone = serve(driver, "a"), driver.lease("b")
    driver.release(gone)
    driver.tick(60)
    assert not driver.instance("a").draining
    driver.release(running)
    assert not driver.last(Terminate) and states(driver) == {"a": "ready", "b": "stopped"}


def test_a_drain_is_called_off_when_the_client_it_is_for_leaves() -> None:
    driver = driver_with(ONE, "a", "b")
    serve(driver, "a")
    gone = driver.lease("b")
    driver.tick(11)
    late = driver.lease("a")
    driver.release(gone)
    assert not driver.instance("a").draining
    assert driver.fleet.models["a"].waiting[0].id == late
    driver.release(1)
    assert driver.granted() == [late]


def test_two_waiters_for_one_victim_are_served_in_the_order_they_came() -> None:
    driver = driver_with(ONE, "a", "b", "c")
    use(driver, "a")
    second, third = driver.lease("b"), driver.lease("c")
    assert not driver.spawned()
    driver.ends("a", code=0)
    assert driver.spawned() == ["b"]
    driver.ready("b")
    assert driver.granted() == [second]
    driver.release(second)
    driver.ends("b", code=0)
    driver.ready("c")
    assert driver.granted() == [third]


def test_a_request_that_arrives_while_its_model_is_being_evicted_gets_it_back() -> None:
    driver = driver_with(ONE, "a", "b")
    use(driver, "a")
    other = driver.lease("b")
    back = driver.lease("a")
    driver.ends("a", code=0)
    driver.ready("b")
    assert driver.granted() == [other]
    driver.release(other)
    driver.ends("b", code=0)
    driver.ready("a")
    assert driver.granted() == [back]


def test_a_victim_that_crashes_instead_of_stopping_makes_room_all_the_same() -> None:
    driver = driver_with(ONE, "a", "b")
    use(driver, "a")
    driver.lease("b")
    driver.ends("a", signal=11)
    assert driver.spawned() == ["b"] and states(driver)["a"] == "stopped"


# The queue


def test_a_full_queue_refuses_with_429_but_not_what_can_be_granted() -> None:
    driver = driver_with(Policy(queue_limit=2), "a", "b")
    serve(driver, "b")
    driver.lease("a")
    driver.lease("b")
    refused = driver.lease("b")
    assert driver.refused() == [(refused, 429)]
    assert driver.step[0].refusal.retry_after is not None  # type: ignore[union-attr]
    driver.ready("a")
    running = 2
    driver.release(running)
    granted = driver.lease("a")
    assert driver.granted() == [granted]


def test_a_full_queue_keeps_nobody_from_a_server_that_is_free() -> None:
    driver = driver_with(Policy(queue_limit=1), "a", "b")
    use(driver, "a")
    serve(driver, "b")
    driver.lease("b")
    granted = driver.lease("a")
    assert driver.granted() == [granted]


def test_refused_and_withdrawn_requests_leave_the_queue() -> None:
    driver = driver_with(Policy(queue_limit=1), "a")
    for _ in range(5):
        lease = driver.lease("a")
        assert not driver.refused()
        driver.release(lease)
    driver.lease("a", timeout=1)
    driver.tick(2)
    assert driver.lease("a") and not driver.refused()


# What is loaded without a request


def test_autostart_beyond_the_limit_evicts_nobody_and_comes_when_there_is_room() -> None:
    driver = driver_with(Policy(max_models=2), "a", "b", "c", autostart=True)
    assert states(driver) == {"a": "starting", "b": "starting", "c": "stopped"}
    driver.ready("a")
    driver.ready("b")
    driver.tick(3600)
    assert states(driver) == {"a": "ready", "b": "ready", "c": "stopped"}
    driver.ask(Goal.UNLOAD, "a")
    driver.ends("a", code=0)
    assert driver.spawned() == ["c"]


def test_an_operators_load_makes_room() -> None:
    driver = driver_with(ONE, "a", "b")
    use(driver, "a")
    driver.ask(Goal.LOAD, "b", wait=True)
    assert terminated(driver) == ["a"]


def test_what_was_used_in_an_earlier_run_does_not_make_a_fresh_server_look_old() -> None:
    driver = driver_with(Policy(max_models=2), "a", "b", "c")
    use(driver, "a")
    driver.ask(Goal.UNLOAD, "a")
    driver.ends("a", code=0)
    driver.tick(10)
    use(driver, "b")
    driver.tick(10)
    driver.ask(Goal.LOAD, "a")
    driver.ready("a")
    driver.lease("c")
    assert terminated(driver) == ["b"]


# Idleness


def test_an_idle_model_is_unloaded_counted_from_ready_or_from_its_last_request() -> None:
    driver = Driver(preset("a", autostart=True, idle_timeout=60), policy=Policy())
    driver.tick(100)
    driver.ready("a")
    driver.tick(59)
    lease = driver.lease("a")
    driver.tick(600)
    assert states(driver)["a"] == "ready", "never while leased"
    driver.release(lease)
    driver.tick(59)
    assert states(driver)["a"] == "ready"
    driver.tick(2)
    assert states(driver)["a"] == "stopping"
    driver.ends("a", code=0)
    reason = driver.instance("a").reason
    assert reason is not None and reason.kind is Kind.IDLE
    assert states(driver)["a"] == "stopped"


def test_a_pinned_model_is_not_unloaded_when_idle() -> None:
    driver = Driver(preset("a", autostart=True, idle_timeout=60, pinned=True))
    driver.ready("a")
    driver.tick(1000)
    assert states(driver)["a"] == "ready"


def test_a_reload_changes_the_idle_timeout_of_a_running_model() -> None:
    driver = Driver(preset("a", autostart=True))
    driver.ready("a")
    driver.tick(30)
    driver.send(PresetsChanged({"a": preset("a", autostart=True, idle_timeout=60)}, {}, driver.policy))
    driver.tick(29)
    assert states(driver)["a"] == "ready"
    driver.tick(2)
    assert states(driver)["a"] == "stopping"


# Policy


@pytest.mark.parametrize("name", [None, ""])
def test_a_request_that_names_no_model_is_served_by_the_fallback(name: str | None) -> None:
    driver = driver_with(Policy(fallback="a"), "a", "b")
    driver.lease(name)
    assert driver.spawned() == ["a"]
    driver.lease("unknown")
    assert [status for _, status in driver.refused()] == [400]


def test_a_reload_changes_the_limit() -> None:
    driver = driver_with(ONE, "a", "b")
    serve(driver, "a")
    driver.lease("b")
    presets = {name: model.preset for name, model in driver.fleet.models.items()}
    driver.send(PresetsChanged(presets, {}, Policy(max_models=2)))
    assert driver.spawned() == ["b"]
    driver.send(events.Tick())
