"""Models whose program is not there: they fail by themselves, and nobody makes room for them."""

from __future__ import annotations

import pytest

from supervisor.core.commands import Spawn, Terminate
from supervisor.core.events import Asked, Ended, Goal, LeaseAsked
from supervisor.core.policy import Policy
from supervisor.core.reasons import EndReason, Kind
from tests.core.driver import Driver, preset

ONE = Policy(max_models=1)
MISSING = EndReason(Kind.CANNOT_START, detail="cannot run 'x': it is not on PATH")


@pytest.mark.parametrize("asked", [LeaseAsked(77, "b", futile=True), Asked(77, Goal.LOAD, "b", futile=True)])
def test_no_room_is_made_for_it(asked: LeaseAsked | Asked) -> None:
    driver = Driver(preset("a"), preset("b"), policy=ONE)
    driver.ask(Goal.LOAD, "a")
    driver.ready("a")
    driver.send(asked)
    assert driver.last(Spawn) and not driver.last(Terminate)
    driver.send(Ended(driver.launch("b"), MISSING))
    assert (driver.model("a").state.value, driver.model("b").state.value) == ("ready", "failed")
    assert not driver.last(Terminate)


def test_nor_while_all_others_are_busy() -> None:
    driver = Driver(preset("a"), preset("b"), policy=ONE)
    driver.lease("a")
    driver.ready("a")
    driver.send(LeaseAsked(77, "b", futile=True))
    driver.send(Ended(driver.launch("b"), MISSING))
    assert driver.model("b").state.value == "failed" and not driver.instance("a").draining


def test_once_it_is_there_room_is_made() -> None:
    driver = Driver(preset("a"), preset("b"), policy=ONE)
    driver.ask(Goal.LOAD, "a")
    driver.ready("a")
    driver.send(LeaseAsked(77, "b", futile=True))
    driver.send(Ended(driver.launch("b"), MISSING))
    driver.send(Asked(78, Goal.LOAD, "b"))
    assert driver.last(Terminate) == [Terminate(driver.launch("a"))]
