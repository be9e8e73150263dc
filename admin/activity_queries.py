"""What is asked of the recorded requests: SQL, each function on an open connection of its own thread."""

from __future__ import annotations

import math
import sqlite3
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from admin.recording import CLIENT_GONE, COMPLETE

PAGE = 100
EXPORT_PAGE = 1000
SERIES_BUCKETS = 240
SERIES_ROWS = 50_000  # of requests, the newest; more are no better a picture
SAMPLE_SECONDS = 10

# How a request went: the first condition that is true. Who hung up, or asked for what can't be, met no failure.
OUTCOMES: Mapping[str, str] = {
    "stopped": f"ended = '{CLIENT_GONE}'",
    "failed": f"ended <> '{COMPLETE}' OR status >= 500",
    "refused": "status >= 400",
    "served": "1",
}
_OUTCOME = f"CASE {' '.join(f'WHEN {condition} THEN {name!r}' for name, condition in OUTCOMES.items())} END"
_SELECT = f"SELECT *, {_OUTCOME} AS outcome FROM requests"  # noqa: S608
SEARCHED = ("who", "request_id", "path", "model", "reason")
_MATCHES = "({})".format(" OR ".join(f"{name} LIKE ? ESCAPE '\\'" for name in SEARCHED))
MOST_STRANGE = 50

Json = dict[str, Any]


@dataclass(frozen=True)
class Sums:
    """All rows of `totals` and `histograms`, and how many requests could not be recorded."""

    totals: list[tuple[str, str, str, int, int, int, int, int]]
    histograms: list[tuple[str, str, int, int, float]]
    dropped: int


Where = tuple[str, list[Any]]


@dataclass(frozen=True)
class Filter:
    """Which requests are meant; None and "" for all. `outcome` is one of OUTCOMES, `text` is looked for in SEARCHED.
    `since` and `until` are Unix times, the latter not included."""

    model: str = ""
    outcome: str = ""
    text: str = ""
    since: float | None = None
    until: float | None = None

    def where(self) -> Where:
        """A condition and its values."""
        parts = ["1"]
        values: list[Any] = []
        if self.model:
            parts.append("model = ?")
            values.append(self.model)
        if self.outcome in OUTCOMES:
            parts.append(f"{_OUTCOME} = ?")
            values.append(self.outcome)
        if self.text:
            like = "%" + self.text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_") + "%"
            parts.append(_MATCHES)
            values += [like] * len(SEARCHED)
        if self.since is not None:
            parts.append("at >= ?")
            values.append(self.since)
        if self.until is not None:
            parts.append("at < ?")
            values.append(self.until)
        return " AND ".join(parts), values


def page(
    connection: sqlite3.Connection, wanted: Filter, *, before: int | None = None, after: int = 0, count: int = PAGE
) -> list[Json]:
    """The newest `count` requests with an id above `after` and below `before`, newest first."""
    condition, values = wanted.where()
    end = 2**62 if before is None else before
    query = f"{_SELECT} WHERE {condition} AND id > ? AND id < ? ORDER BY id DESC LIMIT ?"
    return _rows(connection, query, [*values, after, end, count])


def one(connection: sqlite3.Connection, number: int) -> Json | None:
    """The request with this id, if it is still kept."""
    return next(iter(_rows(connection, f"{_SELECT} WHERE id = ?", [number])), None)


def summary(connection: sqlite3.Connection, wanted: Filter) -> Json:
    """Of all requests that are meant: `requests`, those of each of OUTCOMES, tokens, and mean `rate`."""
    condition, values = wanted.where()
    query = f"""
      SELECT {_OUTCOME} AS outcome, count(*), coalesce(sum(tokens_in), 0), coalesce(sum(tokens_out), 0),
        coalesce(sum(rate), 0.0), count(rate) FROM requests WHERE {condition} GROUP BY outcome"""  # noqa: S608
    found = {outcome: numbers for outcome, *numbers in connection.execute(query, values)}
    requests, taken_in, given_out, rates, rated = (sum(column) for column in zip([0] * 5, *found.values(), strict=True))
    return {
        "requests": requests,
        **{name: found[name][0] if name in found else 0 for name in OUTCOMES},
        "tokens_in": taken_in,
        "tokens_out": given_out,
        "rate": rates / rated if rated else None,
    }


def newest(connection: sqlite3.Connection) -> int:
    """The id of the last request that was recorded, 0 for none."""
    (number,) = connection.execute("SELECT coalesce(max(id), 0) FROM requests").fetchone()
    return int(number)


def strange(connection: sqlite3.Connection, known: Collection[str]) -> list[str]:
    """The first MOST_STRANGE names that requests asked for and that are not `known`, in their order; found by the
    index, one step for each name."""
    names: list[str] = []
    row = connection.execute("SELECT min(model) FROM requests").fetchone()
    while row[0] is not None and len(names) < MOST_STRANGE:
        if row[0] not in known:
            names.append(row[0])
        row = connection.execute("SELECT min(model) FROM requests WHERE model > ?", row).fetchone()
    return names


def recent(connection: sqlite3.Connection, since: float) -> Json:
    """By model: `requests`, `tokens_out` and mean `rate` (tokens a second, None if unknown) since a Unix time."""
    query = """
      SELECT model, count(*) AS requests, coalesce(sum(tokens_out), 0) AS tokens_out, avg(rate) AS rate
      FROM requests WHERE at >= ? AND model IS NOT NULL AND queue IS NOT NULL GROUP BY model"""
    return {row.pop("model"): row for row in _rows(connection, query, [since])}


def dropped(connection: sqlite3.Connection) -> int:
    """How many requests could not be recorded."""
    row = connection.execute("SELECT value FROM counters WHERE name = 'dropped'").fetchone()
    return int(row[0]) if row else 0


def kept(connection: sqlite3.Connection) -> int:
    """How many requests are kept."""
    (count,) = connection.execute("SELECT count(*) FROM requests").fetchone()
    return int(count)


def series(connection: sqlite3.Connection, model: str, begin: float, end: float) -> Json:
    """What a model did from `begin` to `end` (Unix times) in at most SERIES_BUCKETS steps of `step` seconds.

    Lists, a value for each step: `at`; the largest `memory` (bytes), `in_flight` and `waiting`; `requests`; `p50` and
    `p95` of the seconds that requests took; their mean `rate` (tokens a second). None where nothing is known.
    """
    step = max(SAMPLE_SECONDS, math.ceil((end - begin) / SERIES_BUCKETS))
    count = math.ceil((end - begin) / step)
    seconds: dict[int, list[float]] = defaultdict(list)
    rates: dict[int, list[float]] = defaultdict(list)
    query = "SELECT at, total, rate FROM requests WHERE model = ? AND at >= ? AND at < ? ORDER BY id DESC LIMIT ?"
    for at, total, rate in connection.execute(query, (model, begin, end, SERIES_ROWS)):
        number = int((at - begin) // step)
        seconds[number].append(total)
        if rate is not None:
            rates[number].append(rate)
    query = """
      SELECT CAST((at - ?) / ? AS INTEGER) AS number, max(memory), max(in_flight), max(waiting) FROM samples
      WHERE model = ? AND at >= ? AND at < ? GROUP BY number"""
    sampled = {row[0]: row[1:] for row in connection.execute(query, (begin, step, model, begin, end))}
    steps = range(count)
    return {
        "model": model,
        "from": begin,
        "until": end,
        "step": step,
        "at": [begin + number * step for number in steps],
        **{
            name: [sampled[number][place] if number in sampled else None for number in steps]
            for place, name in enumerate(("memory", "in_flight", "waiting"))
        },
        "requests": [len(seconds.get(number, ())) for number in steps],
        "p50": [percentile(seconds.get(number), 0.5) for number in steps],
        "p95": [percentile(seconds.get(number), 0.95) for number in steps],
        "rate": [sum(found) / len(found) if (found := rates.get(number)) else None for number in steps],
    }


def percentile(values: list[float] | None, part: float) -> float | None:
    """The smallest value that at least `part` of all do not exceed."""
    if not values:
        return None
    return sorted(values)[max(0, math.ceil(part * len(values)) - 1)]


def sums(connection: sqlite3.Connection) -> Sums:
    """All sums, for Prometheus."""
    return Sums(
        totals=connection.execute("SELECT * FROM totals").fetchall(),
        histograms=connection.execute("SELECT * FROM histograms").fetchall(),
        dropped=dropped(connection),
    )


def _rows(connection: sqlite3.Connection, query: str, values: list[Any]) -> list[Json]:
    cursor = connection.execute(query, values)
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor]
