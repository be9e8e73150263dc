"""What is asked of the recorded requests."""

from __future__ import annotations

import time
from typing import Any

import pytest
from recorded_rows import NOW, put, recorded

from admin import activity, activity_queries
from admin.activity import Activity, store
from admin.activity_queries import Filter

FILTERS = {
    "all": (Filter(), [5, 4, 3, 2, 1]),
    "model": (Filter(model="quux"), [2]),
    "served": (Filter(outcome="served"), [5, 2, 1]),
    "refused": (Filter(outcome="refused"), [3]),
    "stopped": (Filter(outcome="stopped"), [4]),
    "failed": (Filter(outcome="failed"), []),
    "an unknown outcome is none": (Filter(outcome="1 OR 1"), [5, 4, 3, 2, 1]),
    "client": (Filter(text="curl"), [1]),
    "id": (Filter(text="ABC"), [2]),
    "path": (Filter(text="/embed"), [3]),
    "model's name": (Filter(text="QUU"), [2]),
    "reason": (Filter(text="no such"), [3]),
    "% is a character": (Filter(text="%"), [5]),
    "_ is one as well": (Filter(text="a_b"), [5]),
    "since": (Filter(since=30.0), [5, 4, 3]),
    "until": (Filter(until=30.0), [2, 1]),
    "both": (Filter(outcome="served", since=20.0), [5, 2]),
    "'": (Filter(text="'; --", model="'"), []),
}


@pytest.fixture
def five(kept: Activity, monkeypatch: pytest.MonkeyPatch) -> Activity:
    monkeypatch.setattr(activity, "MAX_AGE_SECONDS", 1e12)
    rows = [
        recorded(at=10.0, who="::1 curl", tokens_in=1, tokens_out=10, rate=20.0),
        recorded("quux", at=20.0, request_id="abc", who="x", rate=40.0),
        recorded(at=30.0, status=404, path="/embeddings", who="x", queue=None, reason="no such model"),
        recorded(at=40.0, status=None, ended="client_gone", who="x"),
        recorded(at=50.0, who="a_b 100%"),
    ]
    put(kept, *rows)
    return kept


@pytest.mark.parametrize("name", FILTERS)
def test_filters(five: Activity, name: str) -> None:
    wanted, ids = FILTERS[name]
    found = five.ask(lambda connection: activity_queries.page(connection, wanted))
    assert [row["id"] for row in found] == ids
    assert five.ask(lambda connection: activity_queries.summary(connection, wanted))["requests"] == len(ids)


def test_pages_follow_one_another(five: Activity) -> None:
    def ids(**place: Any) -> list[int]:
        return [row["id"] for row in five.ask(lambda c: activity_queries.page(c, Filter(), **place))]

    assert ids(count=2) == [5, 4]
    assert ids(count=2, before=4) == [3, 2]
    assert ids(count=2, before=2) == [1]
    assert ids(after=3) == [5, 4]


def test_sums_of_what_is_meant(five: Activity) -> None:
    sums = five.ask(lambda connection: activity_queries.summary(connection, Filter()))
    outcomes = {"served": 3, "refused": 1, "failed": 0, "stopped": 1}
    assert sums == {"requests": 5, **outcomes, "tokens_in": 1, "tokens_out": 10, "rate": 30.0}
    nothing = dict.fromkeys(["requests", *outcomes, "tokens_in", "tokens_out"], 0) | {"rate": None}
    assert five.ask(lambda connection: activity_queries.summary(connection, Filter(model="none"))) == nothing


OUTCOMES = [
    ({"status": 200}, "served"),
    ({"status": 307}, "served"),
    *(({"status": status}, "refused") for status in (400, 404, 422, 429)),
    *(({"status": status}, "failed") for status in (500, 502, 503)),
    *(({"status": status, "ended": "upstream_died"}, "failed") for status in (200, 502)),
    *(({"status": status, "ended": "cut_short"}, "failed") for status in (200, None)),
    *(({"status": status, "ended": "client_gone"}, "stopped") for status in (200, 500, None)),
]


@pytest.mark.parametrize("fields, outcome", OUTCOMES)
def test_an_outcome_is_the_same_wherever_it_is_told(kept: Activity, fields: dict[str, Any], outcome: str) -> None:
    put(kept, recorded(**fields))
    (row,) = kept.ask(lambda connection: activity_queries.page(connection, Filter(outcome=outcome)))
    assert row["outcome"] == outcome
    assert kept.ask(lambda connection: activity_queries.one(connection, row["id"])) == row
    assert kept.ask(lambda connection: activity_queries.summary(connection, Filter()))[outcome] == 1


def test_strange_names(kept: Activity) -> None:
    put(kept, *(recorded(f"x{number:03}") for number in range(99)), recorded("a"), recorded("z"), recorded("m"))
    found = kept.ask(lambda connection: activity_queries.strange(connection, {"a", "m", "unused"}))
    assert found == [f"x{number:03}" for number in range(activity_queries.MOST_STRANGE)]


def test_the_newest_request_is_found_without_a_look_at_the_others(kept: Activity) -> None:
    """Pages ask for it all the time."""
    assert kept.ask(activity_queries.newest) == 0
    put(kept, recorded(), recorded())
    assert kept.ask(activity_queries.newest) == 2
    plan = kept.ask(lambda c: c.execute("EXPLAIN QUERY PLAN SELECT coalesce(max(id), 0) FROM requests").fetchall())
    assert [row[3] for row in plan] == ["SEARCH requests"]


def test_what_models_did_lately(five: Activity) -> None:
    assert five.ask(lambda connection: activity_queries.recent(connection, 15.0)) == {
        "quux": {"requests": 1, "tokens_out": 0, "rate": 40.0},
        "m": {"requests": 2, "tokens_out": 0, "rate": None},
    }


def test_a_series(five: Activity) -> None:
    samples = [("m", 10, 100, 1, 0), ("m", 15, 300, 0, 4), ("m", 35, None, 0, 0), ("quux", 10, 9, 9, 9)]
    five.ask(lambda connection: connection.executemany("INSERT INTO samples VALUES (?, ?, ?, ?, ?)", samples))
    series = five.ask(lambda connection: activity_queries.series(connection, "m", 10.0, 55.0))
    assert series["step"] == 10
    assert series["at"] == [10.0, 20.0, 30.0, 40.0, 50.0]
    assert series["memory"] == [300, None, None, None, None]
    assert series["in_flight"] == [1, None, 0, None, None]
    assert series["waiting"] == [4, None, 0, None, None]
    assert series["requests"] == [1, 0, 1, 1, 1]
    assert series["p50"] == [1.5, None, 1.5, 1.5, 1.5]
    assert series["rate"] == [20.0, None, None, None, None]


def test_a_series_of_a_day_has_few_steps(five: Activity) -> None:
    series = five.ask(lambda connection: activity_queries.series(connection, "m", NOW - 86400, NOW))
    assert len(series["at"]) == len(series["p95"]) == 240


@pytest.mark.parametrize("part, value", [(0.5, 50.0), (0.95, 95.0), (0.0, 1.0), (1.0, 100.0)])
def test_percentiles(part: float, value: float) -> None:
    assert activity_queries.percentile([float(each) for each in range(100, 0, -1)], part) == value


def test_a_full_store_answers_soon(kept: Activity) -> None:
    """A hundred thousand requests; the bound is far above what it takes."""
    batch = [recorded(f"m{number % 50}", request_id=str(number)) for number in range(activity.MAX_REQUESTS)]
    kept._write(lambda connection: store(connection, batch, 0))
    began = time.monotonic()
    page = kept.ask(lambda connection: activity_queries.page(connection, Filter(text="no such text")))
    sums = kept.ask(lambda connection: activity_queries.summary(connection, Filter()))
    assert kept.ask(lambda connection: len(activity_queries.strange(connection, {"m0"}))) == 49
    assert (page, sums["requests"]) == ([], activity.MAX_REQUESTS)
    assert time.monotonic() - began < 5
