"""What keys use, counted in keys.db over all workers and restarts, and whether there is some left.

A key without limits costs its request nothing. For any other, a request is let in by a transaction in a thread, and its
tokens are written as soon as it is over; one that has begun is finished, whatever the limit. What needs no haste is
written together. A limit that can't be counted lets nobody in.
"""

from __future__ import annotations

import atexit
import logging
import math
import sqlite3
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import gevent
from gevent.threadpool import ThreadPool

from admin.activity import in_a_thread
from admin.recording import Row
from supervisor import keys_db
from supervisor.core.keys import KEYS_FILE, Key, Limit
from supervisor.errors import Refused

log = logging.getLogger("gunicorn.error.admin")

WRITE_SECONDS = 0.5
RETRY_SECONDS = 5.0
MAX_PENDING = 1000  # and so many more as there are keys: what is beyond counts for no limit, as it is of the past
RATE, TOKENS = "rate", "tokens"

_USED = """
INSERT INTO usage SELECT id, ?, ?, ?, ? FROM keys WHERE id = ? ON CONFLICT DO UPDATE SET
  requests = requests + excluded.requests, tokens_in = tokens_in + excluded.tokens_in,
  tokens_out = tokens_out + excluded.tokens_out, last_used = max(last_used, excluded.last_used)"""
_WINDOW = """
INSERT INTO windows SELECT id, ?, ?, ? FROM keys WHERE id = ? ON CONFLICT DO UPDATE SET
  used = excluded.used + CASE WHEN number = excluded.number THEN used ELSE 0 END, number = excluded.number"""


# By a key's id, and the number of its limit's period.
Pending = dict[tuple[int, int | None], "Used"]
Change = Callable[[sqlite3.Connection], object]


@dataclass
class Used:
    """What a key used since it was last written, within one period of its limit of tokens."""

    requests: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    last_used: float = 0.0


class KeyUsage:
    """One worker's part in it."""

    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir / KEYS_FILE
        self._pending: Pending = {}
        self._thread = ThreadPool(1)  # its connection's
        self._connection: sqlite3.Connection | None = None
        self._identity: int | None = None
        self._writing: gevent.Greenlet[..., None] | None = None
        self._told = ""
        atexit.register(self.close)

    def admit(self, key: Key | None) -> None:
        """Count a request. Raises Refused: 429 when the key has nothing left, 503 when that can't be counted."""
        if key is not None and key.id is not None and not (key.rate is None and key.tokens is None):
            self._admitted(key, lambda connection: _admit(connection, key, time.time()))

    def _admitted(self, key: Key, change: Change) -> None:
        try:
            in_a_thread(lambda: self._write(change), self._thread)
        except (sqlite3.Error, OSError) as error:
            message = f"cannot count what key '{key.name}' uses, in {self._path}: {error}"
            raise Refused(message, status=503, retry_after=RETRY_SECONDS) from None

    def count(self, key: Key | None, row: Row) -> None:
        """Have the request of a key written, if it came to a model."""
        if key is None or key.id is None or row.queue is None:
            return
        now = time.time()
        window = None if key.tokens is None else key.tokens.window(now)
        used = self._pending.setdefault((key.id, window), Used())
        used.requests += 1
        used.tokens_in += row.tokens_in or 0
        used.tokens_out += row.tokens_out or 0
        used.last_used = now
        if window is not None:
            gevent.spawn(self._write_some, in_a_thread)
        elif not self._writing:
            self._writing = gevent.spawn_later(WRITE_SECONDS, self._write_all)

    def close(self) -> None:
        """Write what is left, at the end of the process."""
        atexit.unregister(self.close)
        self._write_some(lambda call, _: call())
        self._disconnect()

    def _write_all(self) -> None:
        """Runs until nothing is left to write, what is counted meanwhile included."""
        while self._pending:
            gevent.sleep(WRITE_SECONDS if self._write_some(in_a_thread) else RETRY_SECONDS)
        self._writing = None

    def _write_some(self, run: Callable[[Callable[[], None], ThreadPool], None]) -> bool:
        pending, self._pending = self._pending, {}
        if not pending:
            return True
        try:
            run(lambda: self._write(lambda connection: _store(connection, pending)), self._thread)
        except FileNotFoundError:  # with the keys
            return True
        except (sqlite3.Error, OSError) as error:
            self._pending = _put_together(pending, self._pending)
            if not self._writing:
                self._writing = gevent.spawn_later(RETRY_SECONDS, self._write_all)
            if self._told != str(error):
                log.error("cannot write what keys use, in %s: %s", self._path, error)
            self._told = str(error)
            return False
        self._told = ""
        return True

    def _write(self, change: Change) -> None:
        """Runs in the thread, or when there is none left. Raises sqlite3.Error, OSError or what `change` does."""
        try:
            identity = self._path.stat().st_ino
            if identity != self._identity:
                self._disconnect()
            if self._connection is None:
                self._connection = keys_db.connect(self._path)
                self._connection.execute("PRAGMA synchronous = NORMAL")
                self._identity = identity
            with keys_db.transaction(self._connection):
                change(self._connection)
        except (sqlite3.Error, OSError):
            self._disconnect()
            raise

    def _disconnect(self) -> None:
        if self._connection is not None:
            with suppress(sqlite3.Error):
                self._connection.close()
        self._connection = self._identity = None


def _admit(connection: sqlite3.Connection, key: Key, now: float) -> None:
    """Raises Refused (429)."""
    counted = dict[str, tuple[int, int]]()
    for kind, number, used in connection.execute("SELECT kind, number, used FROM windows WHERE key = ?", (key.id,)):
        counted[kind] = (number, used)
    for kind, limit, what in ((RATE, key.rate, "requests"), (TOKENS, key.tokens, "tokens")):
        if limit is not None and kind in counted and (wait := limit.wait(*counted[kind], now)) is not None:
            raise _used_up(key, limit, what, wait)
    if key.rate is not None:
        connection.execute(_WINDOW, (RATE, key.rate.window(now), 1, key.id))


def _store(connection: sqlite3.Connection, pending: Pending) -> None:
    # The latest period last: it is the one that counts.
    for (number, window), used in sorted(pending.items(), key=lambda each: each[0][1] or 0):
        connection.execute(_USED, (used.requests, used.tokens_in, used.tokens_out, used.last_used, number))
        if window is not None:
            connection.execute(_WINDOW, (TOKENS, window, used.tokens_in + used.tokens_out, number))


def _put_together(older: Pending, newer: Pending) -> Pending:
    """What is in both, in a bounded number of entries."""
    added: Pending = {}
    for place, used in (*newer.items(), *older.items()):
        sums = added.setdefault(place if len(added) < MAX_PENDING else (place[0], None), Used())
        sums.requests += used.requests
        sums.tokens_in += used.tokens_in
        sums.tokens_out += used.tokens_out
        sums.last_used = max(sums.last_used, used.last_used)
    return added


def _used_up(key: Key, limit: Limit, what: str, wait: float) -> Refused:
    used = f"has used its {limit.most} {what} of this {limit.word}"
    message = f"key '{key.name}' {used}; there is more in {math.ceil(wait)} s"
    return Refused(message, status=429, error_type="rate_limit_error", retry_after=wait)
