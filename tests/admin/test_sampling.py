"""Samples for the charts: of what is loaded, by one worker, bounded."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from fake_supervisor import FakeSupervisor, model, reason
from web_tier import DEADLINE, WebTier

from admin import sampling
from admin.activity import Activity
from admin.latest import Latest
from admin.sampling import Sampling, gaps, keep, samples

USED = {"memory": {"used": {"host": 3, "gpu0": 4}}}


def test_what_is_loaded_or_waited_for_is_sampled() -> None:
    models = [
        model("ready", state="ready", in_flight=2, **USED),
        model("waited for", waiting=3),
        model("stopped"),
        model("failed", state="failed"),
    ]
    assert samples(models, 9) == [("ready", 9, 7, 2, 0), ("waited for", 9, None, 0, 3)]


def test_samples_are_bounded_in_time_and_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "MAX_SAMPLES", 5)
    activity = Activity(tmp_path)
    now = 1_000_000
    activity.ask(lambda connection: keep(connection, [("m", now - sampling.KEPT_SECONDS - 1, 1, 0, 0)], now))
    for second in range(9):
        activity.ask(lambda connection: keep(connection, [("m", now + second, 1, 0, 0)], now + second))  # noqa: B023
    found = activity.ask(
        lambda connection: connection.execute("SELECT at - 1000000 FROM samples ORDER BY at").fetchall()
    )
    assert found == [(4,), (5,), (6,), (7,), (8,)]
    activity.close()


def test_one_of_two_takes_them_and_the_other_when_that_one_is_gone(tmp_path: Path) -> None:
    activity = Activity(tmp_path)
    one, other = (Sampling(Latest(tmp_path / "no runtime", DEADLINE), tmp_path, activity) for _ in range(2))
    assert one._holds_lock() and one._holds_lock()
    assert not other._holds_lock()
    one.close()
    assert other._holds_lock()
    other.close()
    activity.close()


@pytest.fixture
def quick(supervisor: FakeSupervisor, tmp_path: Path) -> Iterator[WebTier]:
    constants = {"admin.sampling.SAMPLE_SECONDS": 0.05, "admin.sampling.SEEN_SECONDS": 0.05}
    (tmp_path / "control.sock").symlink_to(supervisor.path)
    tier = WebTier(tmp_path, constants=constants)
    tier.start()
    yield tier
    tier.close()


def test_it_begins_with_a_request(quick: WebTier, supervisor: FakeSupervisor) -> None:
    assert supervisor.of("status") == []
    supervisor.models = [model("m", state="ready", in_flight=1, **USED)]
    quick.post("/v1/chat/completions", {"model": "m"})
    supervisor.wait_for("status", 3)
    series = quick.request("GET", "/ui/activity/series?model=m&hours=0.1").json
    assert {value for value in series["memory"] if value is not None} == {7}
    assert {value for value in series["in_flight"] if value is not None} == {1}


def test_it_begins_with_a_look_at_what_is_loaded(quick: WebTier, supervisor: FakeSupervisor) -> None:
    supervisor.models = [model("m")]
    quick.request("GET", "/ui/models")
    supervisor.models = [model("m", state="ready", **USED)]
    quick.request("GET", "/ui/models")
    supervisor.wait_for("status", 3)
    wait_for_a_sample(quick)
    series = quick.request("GET", "/ui/activity/series?model=m&hours=0.1").json
    assert {value for value in series["memory"] if value is not None} == {7}
    assert series["requests"] == [0] * len(series["requests"])


def test_it_ends_with_the_last_use_or_the_supervisor(supervisor: FakeSupervisor, tmp_path: Path) -> None:
    activity = Activity(tmp_path)
    taking = Sampling(Latest(supervisor.path.parent, DEADLINE), tmp_path, activity)
    for in_use in ({"in_flight": 1}, {"waiting": 1}, {"state": "starting"}, {"state": "stopping"}):
        supervisor.models = [model("idle", state="ready"), model("m", **{"state": "ready"} | in_use)]
        assert taking._take()
    for at_rest in ("ready", "stopped", "failed", "backoff"):
        supervisor.models = [model("m", state=at_rest)]
        assert not taking._take()
    assert not Sampling(Latest(tmp_path, DEADLINE), tmp_path, activity)._take()
    activity.close()


def test_who_ends_leaves_it_to_another(tmp_path: Path) -> None:
    activity = Activity(tmp_path)
    one, other = (Sampling(Latest(tmp_path / "no runtime", DEADLINE), tmp_path, activity) for _ in range(2))
    one._run()
    assert other._holds_lock()
    other.close()
    activity.close()


NOW = 2_000_000_000
LAST = NOW - 100
READY = {"state": "ready", "since": LAST - 50.0}


def filled(
    folder: Path, of: dict[str, Any], last: tuple[int, int] = (0, 0), at: int = LAST, started: float = 0.0
) -> list[tuple[int, int | None]]:
    """When gaps are filled in, and with what memory: of a model `of`, last sampled `at` with `last` requests."""
    activity = Activity(folder)
    activity.ask(lambda connection: keep(connection, [("m", at, 1, *last)], NOW))
    status = {"since": started, "models": [model("never sampled", **READY), model("m", **of)]}
    found = activity.ask(lambda connection: gaps(connection, status, {"m": 7}, NOW))
    activity.close()
    assert {each[0] for each in found} <= {"m"}
    assert all(each[3:] == (0, 0) for each in found)
    return [(each[1], each[2]) for each in found]


def test_what_was_idle_since_is_filled_in(tmp_path: Path) -> None:
    assert filled(tmp_path, READY | USED) == [(LAST + 10 * number, 7) for number in range(1, 10)]


@pytest.mark.parametrize("use", [{"in_flight": 1}, {"waiting": 1}])
def test_until_it_is_used(tmp_path: Path, use: dict[str, int]) -> None:
    """Since when, nobody knows."""
    assert filled(tmp_path, READY | use)[-1][0] == NOW - 20


@pytest.mark.parametrize("state", ["stopped", "failed", "starting", "ready", "stopping"])
def test_until_it_was_unloaded(tmp_path: Path, state: str) -> None:
    """Whatever became of it, its memory was that of the last sample."""
    ended = reason("idle", "was idle", at=LAST + 25.0, launch=7)
    of = {"state": state, "since": LAST + 25.0, "reason": ended, **USED}
    assert filled(tmp_path, of) == [(LAST + 10, 1), (LAST + 20, 1)]


@pytest.mark.parametrize(
    "case",
    [
        {"of": {"state": "stopped"}},
        {"of": {"state": "stopped", "reason": reason("idle", "was idle", at=LAST - 1.0, launch=7)}},
        {"of": {"state": "stopped", "reason": reason("idle", "was idle", at=LAST + 25.0, launch=8)}},
        {"of": READY | {"since": LAST + 1.0}},
        {"of": READY, "last": (1, 0)},
        {"of": READY, "last": (0, 1)},
        {"of": READY, "started": LAST + 1.0},
        {"of": READY, "at": NOW - 5},
        {"of": READY, "at": NOW},
    ],
)
def test_nothing_is_made_up(tmp_path: Path, case: dict[str, Any]) -> None:
    """It never ran; it ended before; the run that ended is another one; it was started anew; it was in use; so was
    llama-router; there is no gap."""
    assert filled(tmp_path, **case) == []


def test_a_long_time_is_filled_in_as_charts_show_it(tmp_path: Path) -> None:
    at = NOW - 20 * 3600
    moments = [when for when, _ in filled(tmp_path, READY | {"since": at - 1.0}, at=at)]
    assert moments == sorted(set(moments))
    assert len(moments) < 2000
    assert moments[0] == at + 60
    assert moments[-1] == NOW - 10
    recent = [when for when in moments if when > NOW - 3600]
    assert {second - first for first, second in pairwise(recent)} == {10}
    older = [when for when in moments if when <= NOW - 3600]
    assert {second - first for first, second in pairwise(older)} == {60}


def test_a_chart_has_what_was_idle(quick: WebTier, supervisor: FakeSupervisor) -> None:
    began = int(time.time()) - 300
    activity = Activity(quick.state_dir)
    activity.ask(lambda connection: keep(connection, [("m", began, 7, 0, 0)], began))
    activity.close()
    supervisor.models = [model("m", state="ready", since=began - 9.0, **USED)]
    supervisor.facts = {"since": began - 10.0}
    series = quick.request("GET", "/ui/activity/series?model=m&hours=0.05").json
    assert set(series["memory"][:-1]) == {7}
    assert set(series["in_flight"][:-1]) == {0}


def wait_for_a_sample(web: WebTier) -> None:
    """Ask until there is one."""
    deadline = time.monotonic() + DEADLINE
    while time.monotonic() < deadline:
        if set(web.request("GET", "/ui/activity/series?model=m&hours=0.1").json["memory"]) != {None}:
            return
    raise AssertionError("there is no sample")
