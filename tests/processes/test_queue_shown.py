"""The queue as the supervisor shows it: in status and in events."""

from __future__ import annotations

import time

import pytest
from harness import READY, Supervisor


@pytest.fixture
def small(supervisors: type[Supervisor]) -> Supervisor:
    """A supervisor with room for one model, that lets a busy one be for 300 ms."""
    return supervisors(config="max_wait: 300ms\n", max_models=1).start()


def queue(supervisor: Supervisor) -> list[tuple[str, str | None, str]]:
    return [(entry["model"], entry["who"], entry["why"]) for entry in supervisor.status()["queue"]]


def test_who_waits_for_what_since_when_and_why(small: Supervisor) -> None:
    gate = small.gate("loading")
    small.add("a", max_concurrency=1)
    small.add("b", gate.step, *READY)
    before = time.time()
    running = small.lease("a")
    running.grant()
    watch = small.watch("b")
    waiting = small.lease("b", who="10.0.0.7")
    watch.text("b: requests wait: max_models is 1, and in use by a")
    assert queue(small) == [("b", "10.0.0.7", "max_models is 1, and in use by a")]
    assert before - 0.1 < small.status()["queue"][0]["since"] < time.time() + 0.1
    watch.text("b: requests wait: a makes room for it")
    running.release()
    watch.text("b: requests wait: it is loading")
    assert queue(small) == [("b", "10.0.0.7", "it is loading")]
    assert small.model("b")["waiting_for"] == "it is loading"
    gate.visitor().go()
    waiting.grant()
    assert queue(small) == [] and small.model("b")["waiting_for"] is None


def test_a_client_that_leaves_is_out_of_the_queue(small: Supervisor) -> None:
    small.add("a", max_concurrency=1)
    small.lease("a").grant()
    waiting = [small.lease("a", who=str(number)) for number in range(3)]
    small.eventually(lambda: len(queue(small)) == 3, "three wait")
    waiting[1].close()
    small.eventually(lambda: len(queue(small)) == 2, "one has left")
    assert [who for _, who, _ in queue(small)] == ["0", "2"]


def test_who_is_what_the_client_says_and_no_more_than_that(small: Supervisor) -> None:
    small.add("a", max_concurrency=1)
    small.lease("a").grant()
    small.lease("a", who="x" * 10_000)
    small.eventually(lambda: len(queue(small)) == 1, "it waits")
    assert queue(small)[0][1] == "x" * 200
