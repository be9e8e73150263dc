"""Samples of every loaded model for charts: memory, requests in flight and waiting, each SAMPLE_SECONDS.

One worker takes them, whichever holds a lock beside the file; the kernel frees it when that one dies. It begins with a
request, or when somebody looks at a model that is loaded, and ends when nothing is in use: an idle router wakes up for
nothing. What was loaded and idle since is filled in when somebody looks at a chart, or when sampling begins anew: it
can be told from the state that a model is in, and since when.
"""

from __future__ import annotations

import fcntl
import logging
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import gevent

from admin.activity import Activity
from admin.latest import Latest
from supervisor.errors import NotRunning, ProtocolError, Refused
from supervisor.protocol import Message

log = logging.getLogger("gunicorn.error.admin")

LOCK = "sampling.lock"
SAMPLE_SECONDS = 10
SEEN_SECONDS = 1.0  # until the first sample of what somebody looks at
KEPT_SECONDS = 86400
MAX_SAMPLES = 500_000
TRIM_AT_ONCE = 5_000
RECENT_SECONDS = 3600
OLD_SECONDS = 60  # between two samples that are filled in from before then

_INSERT = "INSERT OR REPLACE INTO samples VALUES (?, ?, ?, ?, ?)"
_LAST = "SELECT at, memory, in_flight, waiting FROM samples WHERE model = ? ORDER BY at DESC LIMIT 1"
_TRIM = "DELETE FROM samples WHERE (model, at) IN (SELECT model, at FROM samples WHERE at < ? ORDER BY at LIMIT ?)"
_TOO_MANY = """
DELETE FROM samples WHERE (model, at) IN (SELECT model, at FROM samples ORDER BY at
  LIMIT min(?, max(0, (SELECT count(*) FROM samples) - ?)))"""

Sample = tuple[str, int, int | None, int, int]
Json = dict[str, Any]


class Sampling:
    """Takes samples in this worker, if no other one does."""

    def __init__(self, latest: Latest, state_dir: Path, activity: Activity) -> None:
        self._latest = latest
        self._state_dir = state_dir
        self._activity = activity
        self._running = False
        self._lock: int | None = None
        self._seen: dict[str, int] = {}  # the launch of each model at its last sample

    def wake(self) -> None:
        """A model may be loaded. Called with each request, so it does nearly nothing."""
        if not self._running:
            self._begin(SAMPLE_SECONDS)

    def saw(self, models: list[Json]) -> None:
        """These models are looked at."""
        if not self._running and any(_is_sampled(model) for model in models):
            self._begin(SEEN_SECONDS)

    def catch_up(self) -> None:
        """Fill in what charts lack until now. Where that can't be done they go on lacking it."""
        with suppress(NotRunning, ProtocolError, Refused):
            status = self._latest.status()
            self._write(lambda connection, now: keep(connection, gaps(connection, status, self._seen, now), now))

    def _begin(self, delay: float) -> None:
        self._running = True
        gevent.spawn_later(delay, self._run)

    def close(self) -> None:
        """Leave it to another worker."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _holds_lock(self) -> bool:
        if self._lock is not None:
            return True
        try:
            lock = os.open(self._state_dir / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:
            return False
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            return False
        self._lock = lock
        return True

    def _run(self) -> None:
        try:
            while self._holds_lock() and self._take():
                gevent.sleep(SAMPLE_SECONDS)
        finally:
            self.close()
            self._running = False

    def _take(self) -> bool:
        """One sample of each model; False when none is in use."""
        try:
            status = self._latest.status()
        except (NotRunning, ProtocolError, Refused):
            return False
        models = status["models"]
        self._write(
            lambda connection, now: keep(
                connection, gaps(connection, status, self._seen, now) + samples(models, now), now
            )
        )
        self._seen |= {model["name"]: model["launch"] for model in models if _is_sampled(model)}
        return any(_is_in_use(model) for model in models)

    def _write(self, write: Callable[[sqlite3.Connection, int], None]) -> None:
        now = int(time.time())
        try:
            self._activity.change(lambda connection: write(connection, now))
        except (sqlite3.Error, OSError) as error:
            log.debug("cannot keep samples: %s", error)  # what requests need is told with them


def gaps(connection: sqlite3.Connection, status: Message, seen: Mapping[str, int], now: int) -> list[Sample]:
    """What samples would have been of models that were loaded and idle since their last one: as many as charts show.

    `seen` are launches at that time: of one that has ended, the status tells when the last of its runs did.
    """
    found: list[Sample] = []
    for model in status["models"]:
        if model["state"] != "ready" and model["reason"] is None:
            continue  # it never ran
        last = connection.execute(_LAST, (model["name"],)).fetchone()
        if last is None or last[0] < status["since"] or last[2] or last[3]:
            continue
        at, memory = last[0], last[1]
        ended = model["reason"]
        until = ended["at"] if ended and ended["launch"] == seen.get(model["name"], -1) else 0
        if model["state"] == "ready" and model["since"] <= at:
            # What is in use by now is sampled within SAMPLE_SECONDS.
            until, memory = now - SAMPLE_SECONDS * _is_in_use(model), _memory(model)
        found += [(model["name"], when, memory, 0, 0) for when in _moments(at, until, now)]
    return found


def _moments(after: int, until: float, now: int) -> Iterator[int]:
    """When they would have been taken. The chart of the last hour shows more of them than that of a day."""
    when = max(after, now - KEPT_SECONDS)
    while (when := when + max(1, int(SAMPLE_SECONDS if when >= now - RECENT_SECONDS else OLD_SECONDS))) < until:
        yield when


def keep(connection: sqlite3.Connection, taken: list[Sample], now: int) -> None:
    """Write samples, and forget some that are too old or too many."""
    connection.execute("BEGIN IMMEDIATE")
    connection.executemany(_INSERT, taken)
    connection.execute(_TRIM, (now - KEPT_SECONDS, TRIM_AT_ONCE))
    connection.execute(_TOO_MANY, (TRIM_AT_ONCE, MAX_SAMPLES))
    connection.execute("COMMIT")


def samples(models: list[Json], now: int) -> list[Sample]:
    """A row of `samples` for each model that is loaded or waited for; memory is the sum over all devices."""
    return [
        (model["name"], now, _memory(model), model["in_flight"], model["waiting"])
        for model in models
        if _is_sampled(model)
    ]


def _is_in_use(model: Json) -> bool:
    return model["state"] in ("starting", "stopping") or bool(model["in_flight"] or model["waiting"])


def _is_sampled(model: Json) -> bool:
    return model["state"] in ("starting", "ready", "stopping") or bool(model["waiting"])


def _memory(model: Json) -> int | None:
    used = (model.get("memory") or {}).get("used") or {}
    return sum(used.values()) if used else None
