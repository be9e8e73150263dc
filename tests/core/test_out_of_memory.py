"""A load that dies of memory: what is evicted for another attempt, and when there is none."""

from __future__ import annotations

from supervisor.core.events import Ended, Goal, Notified
from supervisor.core.policy import Policy
from supervisor.core.reasons import EndReason, Kind
from tests.core.budgeted import driver_with, of, serve, states, terminated, use
from tests.core.driver import Driver, preset


def out_of_memory(driver: Driver, name: str) -> None:
    driver.send(Notified(driver.launch(name), out_of_memory=True))
    driver.send(Ended(driver.launch(name), EndReason(Kind.EXITED, code=71)))


def test_a_load_that_dies_of_memory_evicts_one_more_and_is_tried_once_more() -> None:
    driver = driver_with(idle=1, other=1, a=1)
    for name in ("idle", "other"):
        use(driver, name)
    lease = driver.lease("a")
    out_of_memory(driver, "a")
    assert terminated(driver) == ["idle"], "one, not both"
    driver.ends("idle", code=0)
    assert driver.spawned() == ["a"]
    assert states(driver)["other"] == "ready"
    driver.ready("a")
    assert driver.granted() == [lease]


def test_a_second_death_of_memory_is_final() -> None:
    driver = driver_with(idle=1, other=1, a=1)
    for name in ("idle", "other"):
        use(driver, name)
    lease = driver.lease("a")
    out_of_memory(driver, "a")
    driver.ends("idle", code=0)
    out_of_memory(driver, "a")
    assert states(driver) == {"idle": "stopped", "other": "ready", "a": "failed"}
    assert driver.refused() == [(lease, 500)]
    reason = driver.instance("a").reason
    assert reason is not None and "out of memory" in reason.text


def test_a_load_beyond_a_limit_of_its_own_evicts_nobody() -> None:
    driver = driver_with(idle=1, a=1)
    use(driver, "idle")
    lease = driver.lease("a")
    driver.send(Ended(driver.launch("a"), EndReason(Kind.OUT_OF_MEMORY, signal=9, detail="it reached its limit")))
    assert states(driver) == {"idle": "ready", "a": "failed"}
    assert driver.refused() == [(lease, 500)]
    reason = driver.instance("a").reason
    assert reason is not None and reason.text == "out of memory: it reached its limit"


def test_a_load_that_worked_may_be_retried_anew_the_next_time() -> None:
    driver = driver_with(idle=1, other=1, a=1)
    for name in ("idle", "other"):
        use(driver, name)
    driver.lease("a")
    out_of_memory(driver, "a")
    driver.ends("idle", code=0)
    driver.ready("a")
    driver.ends("a", signal=11)
    driver.tick(5)
    driver.lease("a")
    out_of_memory(driver, "a")
    assert terminated(driver) == ["other"]


def test_with_nothing_to_evict_a_death_of_memory_is_final_at_once() -> None:
    driver = driver_with(a=1)
    lease = driver.lease("a")
    out_of_memory(driver, "a")
    assert driver.refused() == [(lease, 500)] and states(driver)["a"] == "failed"


def test_the_retry_waits_for_a_busy_model_and_starts_if_that_leaves_by_itself() -> None:
    driver = driver_with(busy=1, a=1)
    running = serve(driver, "busy")
    lease = driver.lease("a")
    out_of_memory(driver, "a")
    assert not driver.spawned() and states(driver)["a"] == "stopped"
    driver.ask(Goal.UNLOAD, "busy")
    driver.release(running)
    driver.ends("busy", code=0)
    assert driver.spawned() == ["a"]
    driver.ready("a")
    assert driver.granted() == [lease]


def test_a_load_after_a_death_of_memory_starts_afresh() -> None:
    driver = driver_with(a=1)
    driver.lease("a")
    out_of_memory(driver, "a")
    driver.ask(Goal.LOAD, "a")
    assert states(driver)["a"] == "starting"
    driver.ready("a")
    assert states(driver)["a"] == "ready"


def test_a_retry_without_room_stays_within_the_budget() -> None:
    driver = Driver(
        *(preset("p", pinned=True), preset("f"), preset("v")),
        policy=Policy(budget={"host": 100}),
        needs={"p": of(60), "f": of(50), "v": of(10)},
    )
    use(driver, "v")
    lease = driver.lease("f")
    out_of_memory(driver, "f")
    assert terminated(driver) == ["v"]
    driver.release(lease)
    driver.ask(Goal.LOAD, "p")
    driver.ends("v", code=0)
    driver.ready("p")
    driver.tick(1)
    assert states(driver) == {"p": "ready", "f": "stopped", "v": "stopped"}
