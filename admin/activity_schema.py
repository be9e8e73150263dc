"""The tables of STATE_DIR/activity.sqlite, and opening it.

`requests` and `samples` are bounded. The others hold sums that only grow, a row for each of few keys, so that what
Prometheus counts goes on over restarts and however much is trimmed; all workers write the one file.
"""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import suppress
from pathlib import Path

FILE = "activity.sqlite"
VERSION = 2
BUSY_SECONDS = 5.0
AGAIN_SECONDS = 0.01
OWNER_ONLY = 0o600

TABLES = """
CREATE TABLE requests (
  id INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, request_id TEXT NOT NULL, who TEXT NOT NULL, key TEXT,
  method TEXT NOT NULL, path TEXT NOT NULL, model TEXT, status INTEGER, ended TEXT NOT NULL, queue REAL, first REAL,
  total REAL NOT NULL, tokens_in INTEGER, tokens_out INTEGER, cached INTEGER, rate REAL, counted INTEGER NOT NULL,
  derived INTEGER NOT NULL, bytes INTEGER NOT NULL, reason TEXT);
CREATE INDEX requests_of_model ON requests (model, id);
CREATE INDEX requests_by_time ON requests (at);
CREATE TABLE totals (
  model TEXT NOT NULL, route TEXT NOT NULL, code TEXT NOT NULL, requests INTEGER NOT NULL, tokens_in INTEGER NOT NULL,
  tokens_out INTEGER NOT NULL, cached INTEGER NOT NULL, bytes INTEGER NOT NULL,
  PRIMARY KEY (model, route, code)) WITHOUT ROWID;
CREATE TABLE histograms (
  model TEXT NOT NULL, figure TEXT NOT NULL, bucket INTEGER NOT NULL, count INTEGER NOT NULL, sum REAL NOT NULL,
  PRIMARY KEY (model, figure, bucket)) WITHOUT ROWID;
CREATE TABLE counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE samples (
  model TEXT NOT NULL, at INTEGER NOT NULL, memory INTEGER, in_flight INTEGER NOT NULL, waiting INTEGER NOT NULL,
  PRIMARY KEY (model, at)) WITHOUT ROWID;
CREATE INDEX samples_by_time ON samples (at);
"""

# By the version of a file that an earlier llama-router has written: what makes the next version of it.
STEPS = {1: "ALTER TABLE requests ADD COLUMN reason TEXT"}

# What SQLite says of a file that is no database, or one no more (sqlite3.h).
_DAMAGED = frozenset([sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB])


class TooNew(sqlite3.OperationalError):
    """Another version of llama-router has written the file; it is left as it is."""


def connect(path: Path) -> sqlite3.Connection:
    """Open the file, made if it is missing; for use by one thread at a time. Raises sqlite3.Error or OSError."""
    # Only a file that was missing is opened here: closing one takes away all locks that this process has on it
    # (fcntl(2)), and SQLite relies on them ("How To Corrupt An SQLite Database File", 2.2).
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, OWNER_ONLY))
    connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        _log_ahead(connection)
        connection.execute("PRAGMA synchronous = NORMAL")
        _create(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _log_ahead(connection: sqlite3.Connection) -> None:
    """Two that do it to a new file at once would wait for each other: SQLite refuses one without any wait."""
    until = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() >= until:
                raise
            time.sleep(AGAIN_SECONDS)


def _create(connection: sqlite3.Connection) -> None:
    """Make the tables in a file that has none, and what an older one lacks; twice at once, one waits for the other."""
    if _version(connection) == VERSION:
        return
    connection.execute("BEGIN IMMEDIATE")
    version = _version(connection)
    if not 0 <= version <= VERSION:
        raise TooNew(f"its version is {version}, and this llama-router knows {VERSION}")
    missing = TABLES.split(";\n") if version == 0 else [STEPS[each] for each in range(version, VERSION)]
    for statement in missing:
        connection.execute(statement)
    connection.execute(f"PRAGMA user_version = {VERSION}")
    connection.execute("COMMIT")


def _version(connection: sqlite3.Connection) -> int:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return int(version)


def is_damage(error: BaseException) -> bool:
    """True for an error that no waiting ends: a file that has to give way to a new one.

    A table that is missing is damage too: nothing of llama-router's takes one away.
    """
    if not isinstance(error, sqlite3.Error) or isinstance(error, TooNew):
        return False
    code = getattr(error, "sqlite_errorcode", None)
    missing = code == sqlite3.SQLITE_ERROR and str(error).startswith(("no such", "table "))
    return missing or (code is not None and code & 0xFF in _DAMAGED)


def move_aside(path: Path, identity: int | None) -> bool:
    """Put a damaged file out of the way, if it still is the one of `identity`; another worker may have done that."""
    if identity is None or inode(path) != identity:
        return False
    for suffix in ("", "-wal", "-shm"):
        with suppress(FileNotFoundError):
            Path(f"{path}{suffix}").replace(f"{path}.damaged{suffix}")
    return True


def inode(path: Path) -> int | None:
    """Which file is there; None for none."""
    try:
        return path.stat().st_ino
    except OSError:
        return None
