"""The queue as it is shown: who waits for what, since when, and why."""

from __future__ import annotations

from typing import Any

from supervisor.core.commands import Announce
from supervisor.core.events import Goal, LeaseAsked, PresetsChanged
from supervisor.core.policy import Policy
from supervisor.core.status import fleet_status
from tests.core.driver import Driver, preset

ONE = Policy(max_models=1, max_wait=10.0)


def queue(driver: Driver) -> list[tuple[str, str]]:
    return [(entry["model"], entry["why"]) for entry in picture(driver)["queue"]]


def picture(driver: Driver) -> dict[str, Any]:
    return fleet_status(driver.fleet, 0.0)


def told(driver: Driver) -> list[str]:
    return [command.text for command in driver.history if isinstance(command, Announce) and command.kind == "queue"]


def test_why_from_the_first_wait_to_the_grant() -> None:
    driver = Driver(preset("a"), preset("b"), policy=ONE)
    running = driver.lease("a")
    assert queue(driver) == [("a", "it is loading")]
    driver.ready("a")
    assert queue(driver) == []
    driver.send(LeaseAsked(50, "a", who="10.0.0.7"))
    driver.tick(1)
    driver.send(LeaseAsked(51, "b", who="10.0.0.8"))
    driver.tick(1)
    assert queue(driver) == [("a", "its only slot is in use"), ("b", "max_models is 1, and in use by a")]
    [first, second] = picture(driver)["queue"]
    assert (first["who"], first["since"], second["since"] - first["since"]) == ("10.0.0.7", 1000.0, 1.0)
    driver.tick(10)
    assert queue(driver) == [("a", "it finishes its running requests: evicted for b"), ("b", "a makes room for it")]
    driver.release(running)
    driver.release(50)
    assert queue(driver) == [("b", "a makes room for it")]
    driver.ends("a", code=0)
    assert queue(driver) == [("b", "it is loading")]
    driver.ready("b")
    assert queue(driver) == []
    assert told(driver) == [
        "a: requests wait: it is loading",
        "b: requests wait: max_models is 1, and in use by a",
        "a: requests wait: it finishes its running requests: evicted for b",
        "b: requests wait: a makes room for it",
        "b: requests wait: it is loading",
    ]


def test_others_wait_for_the_model_that_comes_first() -> None:
    driver = Driver(preset("a"), preset("b"), preset("c"), policy=ONE)
    driver.lease("a")
    driver.ready("a")
    driver.lease("b")
    driver.tick(1)
    driver.lease("c")
    driver.tick(10)
    assert queue(driver) == [("b", "a makes room for it"), ("c", "room is made for b first")]


def test_a_restart_a_stop_and_more_replicas() -> None:
    driver = Driver(preset("a", max_concurrency=2, replicas=2, restart={"delay": 5}))
    driver.lease("a")
    driver.ends("a", code=1)
    assert queue(driver) == [("a", "it will be restarted: exited with code 1 before it was ready")]
    driver.tick(5)
    driver.ready("a")
    for _ in range(2):
        driver.lease("a")
    assert queue(driver) == [("a", "its 2 slots are in use; another replica is loading")]


def test_a_changed_preset_is_waited_for() -> None:
    driver = Driver(preset("a"))
    lease = driver.lease("a")
    driver.ready("a")
    driver.send(PresetsChanged({"a": preset("a", context=7)}, {}, driver.policy))
    driver.lease("a")
    assert queue(driver) == [("a", "it finishes its running requests: its preset changed")]
    driver.release(lease)
    assert queue(driver) == [("a", "it is stopping: its preset changed")]


def test_slots_in_use_are_too_common_to_be_announced() -> None:
    driver = Driver(preset("a"))
    driver.ask(Goal.LOAD, "a")
    driver.ready("a")
    before = len(told(driver))
    for _ in range(5):
        driver.lease("a")
    assert len(told(driver)) == before and len(queue(driver)) == 4


def test_a_long_queue_is_shown_by_its_oldest() -> None:
    driver = Driver(preset("a"), preset("b"), policy=Policy(queue_limit=100_000))
    for number in range(1000):
        driver.send(LeaseAsked(10_000 + number, "ab"[number % 2]))
        driver.now += 0.001
    shown = picture(driver)["queue"]
    assert len(shown) == 200
    assert [entry["since"] for entry in shown] == sorted(entry["since"] for entry in shown)
    assert sum(model["waiting"] for model in picture(driver)["models"]) == 1000
