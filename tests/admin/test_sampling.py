"""Samples for the charts: of what is loaded, by one worker, bounded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_supervisor import FakeSupervisor, model
from web_tier import DEADLINE, WebTier

from admin import sampling
from admin.activity import Activity
from admin.latest import Latest
from admin.sampling import Sampling, keep, samples

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
    supervisor.wait_for("status", 4)
    series = quick.request("GET", "/ui/activity/series?model=m&hours=0.1").json
    assert {value for value in series["memory"] if value is not None} == {7}
    assert series["requests"] == [0] * len(series["requests"])


def test_it_ends_with_the_last_model_or_the_supervisor(supervisor: FakeSupervisor, tmp_path: Path) -> None:
    activity = Activity(tmp_path)
    taking = Sampling(Latest(supervisor.path.parent, DEADLINE), tmp_path, activity)
    supervisor.models = [model("m", state="ready")]
    assert taking._take()
    supervisor.models = [model("m")]
    assert not taking._take()
    assert not Sampling(Latest(tmp_path, DEADLINE), tmp_path, activity)._take()
    activity.close()
