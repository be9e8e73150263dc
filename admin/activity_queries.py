"""What is asked of the recorded requests: SQL, each function on an open connection of its own thread."""

from __future__ import annotations

import math
import sqlite3
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

PAGE = 100
EXPORT_PAGE = 1000
SERIES_BUCKETS = 240
SERIES_ROWS = 50_000  # of requests, the newest; more are no better a picture
SAMPLE_SECONDS = 10

# A status class of the filter: a condition.
CLASSES: Mapping[str, str] = {
    "2xx": "status BETWEEN 200 AND 299",
    "3xx": "status BETWEEN 300 AND 399",
    "4xx": "status BETWEEN 400 AND 499",
    "5xx": "status BETWEEN 500 AND 599",
    "broken": "ended <> 'complete'",
}

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
    """Which requests are meant; None and "" for all. `text` is looked for in client, request id and path. `since` and
    `until` are Unix times, the latter not included."""

    model: str = ""
    status: str = ""
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
        if self.status in CLASSES:
            parts.append(CLASSES[self.status])
        if self.text:
            like = "%" + self.text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_") + "%"
            parts.append("(who LIKE ? ESCAPE '\\' OR request_id LIKE ? ESCAPE '\\' OR path LIKE ? ESCAPE '\\')")
            values += [like, like, like]
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
    query = f"SELECT * FROM requests WHERE {condition} AND id > ? AND id < ? ORDER BY id DESC LIMIT ?"  # noqa: S608
    return _rows(connection, query, [*values, after, end, count])


def one(connection: sqlite3.Connection, number: int) -> Json | None:
    """The request with this id, if it is still kept."""
    return next(iter(_rows(connection, "SELECT * FROM requests WHERE id = ?", [number])), None)


def summary(connection: sqlite3.Connection, wanted: Filter) -> Json:
    """Of all requests that are meant: `requests`, `failed` (4xx, 5xx, or broken off), tokens, and mean `rate`."""
    condition, values = wanted.where()
    query = f"""
      SELECT count(*) AS requests, coalesce(sum(status >= 400 OR ended <> 'complete'), 0) AS failed,
        coalesce(sum(tokens_in), 0) AS tokens_in, coalesce(sum(tokens_out), 0) AS tokens_out, avg(rate) AS rate
      FROM requests WHERE {condition}"""  # noqa: S608
    return _rows(connection, query, values)[0]


def models(connection: sqlite3.Connection) -> list[str]:
    """The models that requests are kept of, in the order of their names; found by the index, one step each."""
    names: list[str] = []
    row = connection.execute("SELECT min(model) FROM requests").fetchone()
    while row[0] is not None and len(names) < 1000:
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
