"""Keeps what passed through the proxy: rows are put by at once and written together, in a thread.

A request never waits for it nor fails with it. What can't be written (a full disk, another writer) waits, bounded; what
does not fit is dropped, counted and told. A damaged file is moved aside, once, and a new one begun.
"""

from __future__ import annotations

import atexit
import logging
import sqlite3
import time
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import TypeVar

import gevent
from gevent.threadpool import ThreadPool
from gevent.util import wrap_errors

from admin import activity_schema as schema
from admin.recording import Recorded, Row
from supervisor.errors import Refused

log = logging.getLogger("gunicorn.error.admin")

WRITE_SECONDS = 0.25  # from the first row put by until they are written
RETRY_SECONDS = 5.0
ASK_RETRY_SECONDS = 1.0
READERS = 3  # threads that answer questions
MAX_ASKING = READERS + 32  # those that wait for one of them counted in
MAX_PENDING = 10_000
MAX_BATCH = 1_000
MAX_REQUESTS = 100_000
MAX_AGE_SECONDS = 30 * 86400.0
TRIM_AT_ONCE = 1_000

# Upper bounds in seconds; the last bucket has none.
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
DROPPED = "dropped"

_INSERT = f"INSERT INTO requests ({', '.join(Row._fields)}) VALUES ({', '.join('?' * len(Row._fields))})"  # noqa: S608
_TOTALS = """
INSERT INTO totals VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET requests = requests + excluded.requests,
  tokens_in = tokens_in + excluded.tokens_in, tokens_out = tokens_out + excluded.tokens_out,
  cached = cached + excluded.cached, bytes = bytes + excluded.bytes"""
_HISTOGRAMS = """
INSERT INTO histograms VALUES (?, ?, ?, ?, ?)
  ON CONFLICT DO UPDATE SET count = count + excluded.count, sum = sum + excluded.sum"""
_COUNTERS = "INSERT INTO counters VALUES (?, ?) ON CONFLICT DO UPDATE SET value = value + excluded.value"
# The oldest alone are looked at: rows come in the order of their ids, and nearly in that of their times.
_TRIM = """
DELETE FROM requests WHERE id IN (SELECT id FROM (SELECT id, at FROM requests ORDER BY id LIMIT ?)
  WHERE at < ? OR id <= (SELECT max(id) FROM requests) - ?)"""

T = TypeVar("T")


class Activity:
    """What one worker writes, and what anybody reads, of `state_dir`."""

    def __init__(self, state_dir: Path) -> None:
        self.path = state_dir / schema.FILE
        self._pending: deque[Recorded] = deque()
        self._dropped = 0
        self._writing = False
        self._readers = ThreadPool(READERS)
        self._asking = 0
        self._connection: sqlite3.Connection | None = None
        self._identity: int | None = None
        self._told: str | None = None
        atexit.register(self.close)

    def files(self) -> list[Path]:
        """The file, and SQLite's log of what is not in it yet."""
        return [path for path in (self.path, Path(f"{self.path}-wal")) if path.exists()]

    def add(self, recorded: Recorded) -> None:
        """Have a request written soon."""
        if len(self._pending) >= MAX_PENDING:
            self._dropped += 1
            return
        self._pending.append(recorded)
        if not self._writing:
            self._writing = True
            gevent.spawn_later(WRITE_SECONDS, self._write_all)

    def ask(self, question: Callable[[sqlite3.Connection], T], *, goes_on: bool = False) -> T:
        """Ask the file, on a connection of its own in one of READERS threads, which nothing else waits for.

        Raises sqlite3.Error or OSError, and Refused (503) when MAX_ASKING ask already; one that `goes_on` with an
        answer that has begun waits all the same.
        """
        if self._asking >= MAX_ASKING and not goes_on:
            message = f"cannot read the recorded requests: {self._asking} others ask already; try again"
            raise Refused(message, status=503, retry_after=ASK_RETRY_SECONDS)
        self._asking += 1
        try:
            return in_a_thread(lambda: self._answer(question), self._readers)
        finally:
            self._asking -= 1

    def change(self, change: Callable[[sqlite3.Connection], T]) -> T:
        """Change the file, on a connection of its own in a thread that no question takes. Raises sqlite3.Error or
        OSError."""
        return in_a_thread(lambda: self._answer(change))

    def _answer(self, question: Callable[[sqlite3.Connection], T]) -> T:
        connection = schema.connect(self.path)
        try:
            return question(connection)
        finally:
            connection.close()

    def _write(self, change: Callable[[sqlite3.Connection], None]) -> None:
        """Change the file, in a transaction and in the thread that calls. Raises sqlite3.Error or OSError."""
        connection = self._connected()
        connection.execute("BEGIN IMMEDIATE")
        try:
            change(connection)
            connection.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            raise

    def close(self) -> None:
        """Write what is left, at the end of the process."""
        atexit.unregister(self.close)
        while self._pending and self._write_some(lambda call: call()):
            pass
        self._disconnect()

    def _write_all(self) -> None:
        """Runs until nothing is left to write."""
        while self._pending or self._dropped:
            if not self._write_some(in_a_thread):
                gevent.sleep(RETRY_SECONDS)
            elif len(self._pending) < MAX_BATCH:
                gevent.sleep(WRITE_SECONDS)
        self._writing = False

    def _write_some(self, run: Callable[[Callable[[], None]], None]) -> bool:
        """Write the oldest rows; False if that was not possible."""
        batch, dropped = list(islice(self._pending, MAX_BATCH)), self._dropped
        try:
            run(lambda: self._write(lambda connection: store(connection, batch, dropped)))
        except (sqlite3.Error, OSError) as error:
            self._failed(error)
            return False
        for _ in batch:
            self._pending.popleft()
        self._dropped -= dropped
        if self._told is not None:
            self._told = None
            log.warning("requests are recorded again in %s; %d are missing", self.path, dropped)
        return True

    def _connected(self) -> sqlite3.Connection:
        """The connection, made anew if the file is another one than it was."""
        if self._connection is not None and schema.inode(self.path) != self._identity:
            self._disconnect()
        if self._connection is None:
            self._connection = schema.connect(self.path)
            self._identity = schema.inode(self.path)
        return self._connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            with suppress(sqlite3.Error):
                self._connection.close()
        self._connection = None

    def _failed(self, error: sqlite3.Error | OSError) -> None:
        """Tell it once, and make the next attempt a better one."""
        identity = schema.inode(self.path) if self._connection is None else self._identity
        self._disconnect()
        try:
            if schema.is_damage(error) and schema.move_aside(self.path, identity):
                log.error("%s is damaged (%s): it is %s.damaged now, and a new one begun", self.path, error, self.path)
                return
        except OSError as why:
            error = why
        if self._told != str(error):
            self._told = str(error)
            log.error("cannot record requests in %s: %s; they are served all the same", self.path, error)


def in_a_thread(call: Callable[[], T], threads: ThreadPool | None = None) -> T:
    """Run what would block all of a worker's requests in one of `threads`, the hub's unless told otherwise."""
    pool = gevent.get_hub().threadpool if threads is None else threads
    result: T | Exception = pool.apply(wrap_errors((Exception,), call))  # gevent prints what a thread raises
    if isinstance(result, Exception):
        raise result
    return result


def store(connection: sqlite3.Connection, batch: list[Recorded], dropped: int) -> None:
    """Write rows and what they add up to, and trim what is too much or too old."""
    connection.executemany(_INSERT, [each.row for each in batch])
    connection.executemany(_TOTALS, totals(batch))
    connection.executemany(_HISTOGRAMS, histograms(batch))
    if dropped:
        connection.execute(_COUNTERS, (DROPPED, dropped))
    connection.execute(_TRIM, (TRIM_AT_ONCE, time.time() - MAX_AGE_SECONDS, MAX_REQUESTS))


def totals(batch: Iterable[Recorded]) -> list[tuple[str | int, ...]]:
    """Rows of `totals`; the code of a request that got no answer is "none"."""
    sums: dict[tuple[str, str, str], Counter[str]] = {}
    for row, model, route in batch:
        added = sums.setdefault((model, route, "none" if row.status is None else str(row.status)), Counter())
        added["requests"] += 1
        added["tokens_in"] += row.tokens_in or 0
        added["tokens_out"] += row.tokens_out or 0
        added["cached"] += row.cached or 0
        added["bytes"] += row.bytes
    names = ("requests", "tokens_in", "tokens_out", "cached", "bytes")
    return [(*key, *(added[name] for name in names)) for key, added in sums.items()]


def histograms(batch: Iterable[Recorded]) -> list[tuple[str, str, int, int, float]]:
    """Rows of `histograms`: how many seconds fell into which bucket, for requests that got a lease."""
    counts: Counter[tuple[str, str, int]] = Counter()
    sums: Counter[tuple[str, str, int]] = Counter()
    for row, model, _ in batch:
        if row.queue is None:
            continue
        for figure, seconds in (("queue", row.queue), ("first", row.first), ("total", row.total)):
            if seconds is not None:
                key = (model, figure, bucket_of(seconds))
                counts[key] += 1
                sums[key] += seconds  # type: ignore[assignment]  # a Counter may hold any number
    return [(*key, count, float(sums[key])) for key, count in counts.items()]


def bucket_of(seconds: float) -> int:
    """The number of the bucket that holds it."""
    return bisect_left(BUCKETS, seconds)
