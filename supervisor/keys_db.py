"""keys.db: the keys that `llama-router key` makes, and what each has used. Several programs at once read and write it.

The file appears whole or not at all, so that an empty one is a damaged one and never means that there are no keys. It
is never moved aside, as a new one would open what was closed. `changes` counts what is done to `keys`, by triggers:
whoever holds keys in memory compares it.
"""

from __future__ import annotations

import json
import os
import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

from supervisor.core import keys
from supervisor.core.keys import KEYS_FILE, Key, Limit

VERSION = 1
BUSY_SECONDS = 5.0
OWNER_ONLY = 0o600
ID_BITS = 62  # at random, so that what a worker still has to write of a key that is gone is not taken for another's
SIDE_FILES = ("-wal", "-shm", "-journal")

TABLES = """
CREATE TABLE keys (
  id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, hash BLOB NOT NULL UNIQUE, prefix TEXT NOT NULL,
  models TEXT NOT NULL, rate TEXT, tokens TEXT, created REAL NOT NULL, expires REAL, revoked REAL);
CREATE TABLE usage (
  key INTEGER PRIMARY KEY, requests INTEGER NOT NULL, tokens_in INTEGER NOT NULL, tokens_out INTEGER NOT NULL,
  last_used REAL NOT NULL);
CREATE TABLE windows (
  key INTEGER NOT NULL, kind TEXT NOT NULL, number INTEGER NOT NULL, used INTEGER NOT NULL,
  PRIMARY KEY (key, kind)) WITHOUT ROWID;
CREATE TABLE changes (number INTEGER NOT NULL);
INSERT INTO changes VALUES (0);
CREATE TRIGGER keys_added AFTER INSERT ON keys BEGIN UPDATE changes SET number = number + 1; END;
CREATE TRIGGER keys_changed AFTER UPDATE ON keys BEGIN UPDATE changes SET number = number + 1; END;
CREATE TRIGGER keys_removed AFTER DELETE ON keys BEGIN
  DELETE FROM usage WHERE key = old.id; DELETE FROM windows WHERE key = old.id;
  UPDATE changes SET number = number + 1; END;
"""
Error = sqlite3.Error
T = TypeVar("T")

_ALL = """
SELECT id, name, models, rate, tokens, expires, revoked, hash, prefix, created,
  coalesce(requests, 0), coalesce(tokens_in, 0), coalesce(tokens_out, 0), last_used
  FROM keys LEFT JOIN usage ON usage.key = keys.id ORDER BY name"""


class Unknown(sqlite3.DatabaseError):
    """The file is no database of keys of this version: it is cut off, or another llama-router's."""


@dataclass(frozen=True)
class Stored:
    """A key and what is known of it. Times are Unix seconds; `hash` is core.keys.digest's, `prefix` what the key begins
    with."""

    key: Key
    hash: bytes
    prefix: str
    created: float
    revoked: float | None
    requests: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    last_used: float | None = None


def connect(path: Path, busy_seconds: float | None = None) -> sqlite3.Connection:
    """Open the file, which must be there; for one thread at a time. Others are waited for as long as `busy_seconds`, or
    BUSY_SECONDS. Raises sqlite3.Error or OSError."""
    if path.stat().st_size == 0:  # SQLite would take it for a new one, and throw away what is in its log
        raise Unknown("it is empty")
    patience = BUSY_SECONDS if busy_seconds is None else busy_seconds
    address = f"file:{quote(os.fsencode(path))}?mode=rw"
    connection = sqlite3.connect(address, uri=True, timeout=patience, isolation_level=None, check_same_thread=False)
    try:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version != VERSION:
            raise Unknown(f"its version is {version}, and this llama-router knows {VERSION}")
    except BaseException:
        connection.close()
        raise
    return connection


@contextmanager
def opened(path: Path) -> Iterator[sqlite3.Connection]:
    """The same within a block."""
    connection = connect(path)
    try:
        yield connection
    finally:
        connection.close()


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """The only writer within a block, whose changes count together or not at all. Raises sqlite3.Error."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise


def settle(connection: sqlite3.Connection) -> None:
    """Have what was changed in the file itself, as far as nobody reads what was before; whoever copies it has it all.
    Raises sqlite3.Error."""
    connection.execute("PRAGMA wal_checkpoint(PASSIVE)")


def create(path: Path) -> None:
    """Make the file if it is missing, of its directory's owner. The caller holds the directory's lock.

    Raises sqlite3.Error or OSError; then nothing is left.
    """
    if path.exists():
        return
    for suffix in SIDE_FILES:  # of a file that was removed: SQLite would take them for the new one's
        Path(f"{path}{suffix}").unlink(missing_ok=True)
    new = path.with_name(f".{KEYS_FILE}.{secrets.token_hex(8)}")
    descriptor = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, OWNER_ONLY)
    try:
        owner = path.parent.stat()
        if os.geteuid() == 0 != owner.st_uid:
            os.fchown(descriptor, owner.st_uid, owner.st_gid)
        os.close(descriptor)
        connection = sqlite3.connect(new, isolation_level=None)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.executescript(f"BEGIN; {TABLES} PRAGMA user_version = {VERSION}; COMMIT;")
        finally:
            connection.close()
        new.rename(path)
    finally:
        for suffix in ("", *SIDE_FILES):
            Path(f"{new}{suffix}").unlink(missing_ok=True)


def changes(connection: sqlite3.Connection) -> int:
    """A number that is another one after each change of a key. Raises sqlite3.Error."""
    row = connection.execute("SELECT number FROM changes").fetchone()
    if row is None:
        raise Unknown("a part of it is missing")
    return int(row[0])


def stored(connection: sqlite3.Connection) -> list[Stored]:
    """All keys, by name. Raises sqlite3.Error, also for what no llama-router has written."""
    try:
        return [_stored(*row) for row in connection.execute(_ALL)]
    except (ValueError, TypeError, RecursionError) as error:
        raise Unknown(f"a key in it is damaged ({error})") from None


def has_any(path: Path) -> bool:
    """Whether there is a key in the file, good or not. Raises sqlite3.Error or OSError."""
    with opened(path) as connection:
        return bool(connection.execute("SELECT count(*) FROM keys").fetchone()[0])


def add(connection: sqlite3.Connection, new: Stored) -> None:
    """Store a key. Raises sqlite3.IntegrityError if its name is taken, and other sqlite3.Errors."""
    key = new.key
    limits = [None if limit is None else str(limit) for limit in (key.rate, key.tokens)]
    connection.execute(
        "INSERT INTO keys (id, name, hash, prefix, models, rate, tokens, created, expires) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            secrets.randbits(ID_BITS),
            key.name,
            new.hash,
            new.prefix,
            json.dumps(key.models),
            *limits,
            new.created,
            key.expires,
        ),
    )


def revoke(connection: sqlite3.Connection, name: str, at: float) -> bool:
    """Let a key open nothing any more. False if there is none of that name. Raises sqlite3.Error."""
    statement = "UPDATE keys SET revoked = coalesce(revoked, ?) WHERE name = ?"
    return connection.execute(statement, (at, name)).rowcount > 0


def forget(connection: sqlite3.Connection, name: str) -> bool:
    """Remove a key with what it used. False if there is none of that name. Raises sqlite3.Error."""
    return connection.execute("DELETE FROM keys WHERE name = ?", (name,)).rowcount > 0


def _stored(*row: object) -> Stored:
    number, name, models, rate, tokens, expires, revoked, hashed, prefix, created, *usage = row
    known = json.loads(_of(str, models))
    if not isinstance(known, list) or not known or not all(isinstance(glob, str) for glob in known):
        raise ValueError("its models are no list of patterns")
    if len(_of(bytes, hashed)) != len(keys.digest(b"")):
        raise ValueError("its hash is cut off")
    requests, tokens_in, tokens_out, last_used = usage
    return Stored(
        Key(
            _of(int, number),
            _of(str, name),
            tuple(known),
            _limit(rate),
            _limit(tokens),
            _or_none(expires),
            revoked is not None,
        ),
        _of(bytes, hashed),
        _of(str, prefix),
        _of(float, created),
        _or_none(revoked),
        _of(int, requests),
        _of(int, tokens_in),
        _of(int, tokens_out),
        _or_none(last_used),
    )


def _of(kind: type[T], value: object) -> T:
    if not isinstance(value, kind):
        raise TypeError(f"{value!r:.40} is no {kind.__name__}")
    return value


def _limit(value: object) -> Limit | None:
    return None if value is None else keys.limit(_of(str, value))


def _or_none(value: object) -> float | None:
    return None if value is None else _of(float, value)
