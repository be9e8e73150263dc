"""Samples of every loaded model for charts: memory, requests in flight and waiting, each SAMPLE_SECONDS.

One worker takes them, whichever holds a lock beside the file; the kernel frees it when that one dies. It
begins with a request, or when somebody looks at a model that is loaded, and ends when none is: an idle router wakes up
for nothing.
"""

from __future__ import annotations

import fcntl
import logging
import os
import sqlite3
import time
from pathlib import Path
from typing import Any

import gevent

from admin.activity import Activity
from admin.latest import Latest
from supervisor.errors import NotRunning, ProtocolError, Refused

log = logging.getLogger("gunicorn.error.admin")

LOCK = "sampling.lock"
SAMPLE_SECONDS = 10.0
SEEN_SECONDS = 1.0  # until the first sample of what somebody looks at
KEPT_SECONDS = 86400
MAX_SAMPLES = 500_000
TRIM_AT_ONCE = 5_000

_INSERT = "INSERT OR REPLACE INTO samples VALUES (?, ?, ?, ?, ?)"
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
        self._look_again = 0.0

    def wake(self) -> None:
        """A model may be loaded. Called with each request, so it does nearly nothing."""
        self._begin(SAMPLE_SECONDS)

    def saw(self, models: list[Json]) -> None:
        """These models are looked at."""
        if any(_is_sampled(model) for model in models):
            self._begin(SEEN_SECONDS)

    def _begin(self, delay: float) -> None:
        if self._running:
            return
        now = time.monotonic()
        if now < self._look_again:
            return
        self._look_again = now + SAMPLE_SECONDS
        if self._holds_lock():
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
            while self._take():
                gevent.sleep(SAMPLE_SECONDS)
        finally:
            self._running = False

    def _take(self) -> bool:
        """One sample of each model; False when there is none to take."""
        try:
            models = self._latest.status()["models"]
        except (NotRunning, ProtocolError, Refused):
            return False
        now = int(time.time())
        taken = samples(models, now)
        if taken:
            try:
                self._activity.change(lambda connection: keep(connection, taken, now))
            except (sqlite3.Error, OSError) as error:
                log.debug("cannot keep samples: %s", error)  # what requests need is told with them
        return bool(taken)


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


def _is_sampled(model: Json) -> bool:
    return model["state"] in ("starting", "ready", "stopping") or bool(model["waiting"])


def _memory(model: Json) -> int | None:
    used = (model.get("memory") or {}).get("used") or {}
    return sum(used.values()) if used else None
