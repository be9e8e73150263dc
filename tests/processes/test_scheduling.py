"""Room for one model: real servers are evicted, drained, swapped and unloaded when idle, and nobody is lost."""

from __future__ import annotations

import pytest
from harness import Supervisor, refused


@pytest.fixture
def small(supervisors: type[Supervisor]) -> Supervisor:
    """A supervisor with room for one model, that lets a busy one be for 300 ms, and where two may wait."""
    config = "max_wait: 300ms\nqueue_limit: 2\nfallback: a\n"
    supervisor = supervisors(config=config, max_models=1)
    for name in ("a", "b"):
        supervisor.add(name, max_concurrency=1)
    return supervisor.start()


def loaded(supervisor: Supervisor) -> list[str]:
    return [model["name"] for model in supervisor.status()["models"] if model["pid"] is not None]


def test_an_idle_model_is_evicted_for_another(small: Supervisor) -> None:
    watch = small.watch("a")
    first = small.lease("a")
    first.grant()
    first.release()
    second = small.lease("b")
    second.grant()
    assert loaded(small) == ["b"]
    assert watch.state("stopped")["reason"]["text"] == "evicted for b"
    assert small.model("a")["reason"]["kind"] == "evicted"


def test_a_busy_model_drains_after_max_wait_and_nobody_is_cut_off(small: Supervisor) -> None:
    running = small.lease("a")
    running.grant()
    watch = small.watch("a")
    waiting = small.lease("b")
    watch.text("draining: evicted for b")
    later = small.lease("a")
    assert not waiting.answered and not later.answered
    assert small.model("a")["in_flight"] == 1
    running.release()
    waiting.grant()
    assert loaded(small) == ["b"]
    waiting.release()
    later.grant()


def test_a_drain_is_called_off_when_its_client_leaves(small: Supervisor) -> None:
    running = small.lease("a")
    launch = running.grant()["launch"]
    watch = small.watch("a")
    waiting = small.lease("b")
    watch.text("draining")
    waiting.close()
    watch.text("keeps running")
    running.release()
    assert small.lease("a").grant()["launch"] == launch


def test_a_full_queue_answers_429(small: Supervisor) -> None:
    small.lease("a").grant()
    waiting = [small.lease("a"), small.lease("b")]
    small.eventually(lambda: sum(model["waiting"] for model in small.status()["models"]) == 2, "two wait")
    with refused() as caught:
        small.lease("b").grant()
    assert (caught[0].status, str(caught[0])) == (429, "2 requests wait already (queue_limit)")
    assert not any(lease.answered for lease in waiting)


def test_a_request_without_a_model_is_served_by_the_fallback(small: Supervisor) -> None:
    assert small.lease(None).grant()["model"] == "a"


def test_an_idle_model_is_unloaded_and_comes_back(supervisor: Supervisor) -> None:
    watch = supervisor.watch("m")
    supervisor.add("m", idle_timeout="50ms")
    lease = supervisor.lease("m")
    lease.grant()
    lease.release()
    assert watch.state("stopping")["text"] == "m: stopping: unloaded when idle"
    assert watch.state("stopped")["reason"]["kind"] == "idle"
    supervisor.lease("m").grant()


def test_two_models_under_contention_are_all_served(small: Supervisor) -> None:
    served = []
    for name in "abab" * 3:
        lease = small.lease(name)
        served.append(lease.grant()["model"])
        lease.release()
    assert served == list("abab" * 3)
    assert small.model("a")["restarts"] == small.model("b")["restarts"] == 0
