"""Another program's web tier takes the place of the one that runs; and what a record of the fleet must not be."""

from __future__ import annotations

import json
from typing import Any

import pytest

from supervisor.core import handover
from supervisor.core.commands import DeclareReady, Exit, Kill, Spawn, Terminate, WebRenewed
from supervisor.core.events import Ended, Notified, StopAsked, TakenOver
from supervisor.core.reasons import EndReason, Kind
from supervisor.core.states import State
from tests.core.driver import Driver, preset

CRASH = EndReason(Kind.EXITED, code=1)
HOPELESS = EndReason(Kind.EXITED, code=78)


@pytest.fixture
def taken_over() -> Driver:
    """A fleet whose web tier is launch 1, READY, and a new one is launch 2."""
    driver = Driver(preset("a"))
    assert driver.fleet.web.launch == 1
    driver.send(TakenOver())
    return driver


def test_the_one_before_serves_until_the_new_one_can(taken_over: Driver) -> None:
    assert [spawn.launch for spawn in taken_over.last(Spawn)] == [2]
    assert not taken_over.last(Terminate)
    taken_over.send(Notified(2, ready=True))
    assert taken_over.last(Terminate) == [Terminate(1)]
    assert taken_over.last(DeclareReady)
    assert taken_over.last(WebRenewed) == [WebRenewed(None)]


def test_the_one_before_may_take_all_the_time_it_needs(taken_over: Driver) -> None:
    taken_over.send(Notified(2, ready=True))
    taken_over.tick(24 * 3600)
    assert not any(isinstance(command, Kill) for command in taken_over.history)
    taken_over.send(Ended(1, EndReason(Kind.EXITED, code=0)))
    assert taken_over.fleet.web_tiers.earlier == []


def test_a_new_one_that_crashes_is_told_and_tried_again_while_the_one_before_serves(taken_over: Driver) -> None:
    taken_over.send(Ended(2, CRASH))
    (renewed,) = taken_over.last(WebRenewed)
    assert renewed.why is not None
    assert renewed.why.code == 1
    taken_over.tick(10)
    assert taken_over.fleet.web.launch == 3
    assert not any(isinstance(command, Terminate) for command in taken_over.history)
    taken_over.send(Notified(3, ready=True))
    assert taken_over.last(Terminate) == [Terminate(1)]
    assert not taken_over.last(WebRenewed), "it was told already"


def test_a_hopeless_new_one_ends_nothing_as_long_as_the_one_before_serves(taken_over: Driver) -> None:
    taken_over.send(Ended(2, HOPELESS))
    assert taken_over.fleet.web.state is State.FAILED
    assert not taken_over.fleet.stopping
    taken_over.send(Ended(1, CRASH))
    assert taken_over.fleet.stopping
    assert [command.code for command in taken_over.last(Exit)] == [70]


def test_one_before_that_dies_is_not_started_again(taken_over: Driver) -> None:
    taken_over.send(Ended(1, CRASH))
    taken_over.tick(60)
    assert not taken_over.last(Spawn)
    assert len([command for command in taken_over.history if isinstance(command, Spawn)]) == 2
    assert taken_over.fleet.web_tiers.earlier == []


def test_one_that_was_starting_ends_at_once(taken_over: Driver) -> None:
    taken_over.send(TakenOver())
    assert taken_over.last(Kill) == [Kill(2)]
    assert [spawn.launch for spawn in taken_over.last(Spawn)] == [3]
    taken_over.send(Notified(3, ready=True))
    assert taken_over.last(Terminate) == [Terminate(1)]


def test_all_of_them_end_with_the_supervisor(taken_over: Driver) -> None:
    taken_over.send(Notified(2, ready=True))
    taken_over.send(StopAsked())
    assert taken_over.last(Terminate) == [Terminate(2)]
    killed = [command for command in taken_over.tick(6) if isinstance(command, Kill)]
    assert set(killed) == {Kill(1), Kill(2)}
    taken_over.send(Ended(2, EndReason(Kind.KILLED, signal=9)))
    assert not taken_over.last(Exit)
    taken_over.send(Ended(1, EndReason(Kind.KILLED, signal=9)))
    assert taken_over.last(Exit) == [Exit(0)]


def _with(told: Any, *path: Any, value: Any) -> Any:
    inner = told
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = value
    return told


def test_a_stop_before_the_new_one_is_ready_is_no_failure_of_it(taken_over: Driver) -> None:
    taken_over.send(StopAsked())
    assert (taken_over.last(Terminate), taken_over.last(Kill)) == ([Terminate(2), Terminate(1)], [Kill(2)])
    taken_over.send(Ended(2, EndReason(Kind.KILLED, signal=9)))
    (renewed,) = taken_over.last(WebRenewed)
    assert renewed.why is not None
    assert renewed.why.kind is Kind.SHUTDOWN
    taken_over.send(Ended(1, EndReason(Kind.EXITED, code=0)))
    assert taken_over.last(Exit) == [Exit(0)]


@pytest.mark.parametrize(
    "path",
    [("future",), ("policy", "future"), ("models", 0, "future"), ("web", "future"), ("models", 0, "need", "future")],
)
def test_a_record_that_tells_of_more_is_refused(path: tuple[Any, ...]) -> None:
    told = json.loads(json.dumps(handover.record(Driver(preset("a")).fleet)))
    handover.restored(told)
    with pytest.raises(ValueError):  # pydantic's, or our own
        handover.restored(_with(told, *path, value=1))


@pytest.mark.parametrize("path", [("policy",), ("models", 0, "told"), ("web", "sleeping"), ("last_launch",)])
def test_a_record_that_tells_of_less_is_refused(path: tuple[Any, ...]) -> None:
    told = json.loads(json.dumps(handover.record(Driver(preset("a")).fleet)))
    inner = told
    for step in path[:-1]:
        inner = inner[step]
    del inner[path[-1]]
    with pytest.raises(ValueError):
        handover.restored(told)


@pytest.mark.parametrize("key", ["timed", "claims"])
def test_a_record_with_names_of_nobody_is_refused(key: str) -> None:
    told = json.loads(json.dumps(handover.record(Driver(preset("a")).fleet)))
    with pytest.raises(ValueError):
        handover.restored(_with(told, key, value=["b"] if key == "timed" else [["b", "b", False]]))
