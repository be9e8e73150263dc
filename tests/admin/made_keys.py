"""Keys made for a test, in the file that llama-router itself uses."""

from __future__ import annotations

import secrets
import sqlite3
import time
from pathlib import Path
from typing import Any

from supervisor import keys_db
from supervisor.core import keys
from supervisor.core.keys import KEYS_FILE, Key
from supervisor.keys_db import Stored


def make(state: Path, name: str = "k", **fields: Any) -> str:
    """A key, and its text."""
    secret = keys.MARK + secrets.token_urlsafe(keys.RANDOM_BYTES)
    keys_db.create(state / KEYS_FILE)
    new = Stored(Key(None, name, **fields), keys.digest(secret.encode()), secret[: keys.SHOWN], time.time(), None)
    with keys_db.opened(state / KEYS_FILE) as connection:
        keys_db.add(connection, new)
    return secret


def revoke(state: Path, name: str = "k") -> None:
    """As `key revoke`."""
    with keys_db.opened(state / KEYS_FILE) as connection:
        assert keys_db.revoke(connection, name, time.time())


def forget_all(state: Path) -> None:
    """As if there had been no key."""
    with keys_db.opened(state / KEYS_FILE) as connection:
        connection.execute("DELETE FROM keys")


def stored(state: Path, name: str = "k") -> Stored:
    """What is known of one."""
    with keys_db.opened(state / KEYS_FILE) as connection:
        return next(each for each in keys_db.stored(connection) if each.key.name == name)


def connection_to(state: Path) -> sqlite3.Connection:
    """For what else a test does to it."""
    return keys_db.connect(state / KEYS_FILE)


def bearer(secret: str) -> dict[str, str]:
    """The header that shows it."""
    return {"Authorization": f"Bearer {secret}"}
