"""`llama-router key`."""

from __future__ import annotations

import os
import secrets
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import click

from supervisor import access, directories, keys_db
from supervisor.cli import state_dir as state_dirs
from supervisor.cli.keys_elsewhere import elsewhere
from supervisor.cli.options import json_option, runtime_dir_option
from supervisor.cli.state_dir import state_dir_option
from supervisor.cli.terminal import Cell, Column, cells_of_stdout, escape, explain, say, say_json, span, table
from supervisor.core import keys
from supervisor.core.keys import KEYS_FILE, Key
from supervisor.errors import EX_DATAERR, CannotCreate, RouterError
from supervisor.keys_db import Stored

COLUMNS = (
    *(Column("NAME", minimum=8), Column("KEY"), Column("MODELS", minimum=8), Column("LIMITS", minimum=8)),
    *(Column("ENDS", minimum=7), Column("REQUESTS", right=True), Column("TOKENS IN", right=True)),
    *(Column("OUT", right=True), Column("LAST USED")),
)
FULL = frozenset([sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR])

T = TypeVar("T")


class UnusableKeys(RouterError):
    """keys.db is damaged; nothing was changed, and llama-router takes no key until it is whole again."""

    exit_code = EX_DATAERR


class NoSuchKey(RouterError):
    """There is no key of that name; `key list` has them all."""

    exit_code = 1


@click.group("key", epilog="Example: llama-router key create alice --models 'qwen-*' --rate 60/min --expires 30d")
def command() -> None:
    """Make, list and revoke the keys of the API.

    As soon as there is one, whoever uses the API needs a key, or is signed in to
    the dashboard. What these commands do counts at once, whether or not a
    llama-router runs.
    """


@command.command("create", epilog="Example: llama-router key create alice --tokens 100000/day")
@click.argument("name")
@click.option(
    "--models",
    "globs",
    metavar="PATTERN",
    multiple=True,
    help="Models that it may use: names or aliases, or such as 'qwen-*'. May be given again; else all.",
)
@click.option("--rate", metavar="N/PERIOD", help="Requests to models, such as 60/min; the period is s, min, h or day.")
@click.option("--tokens", metavar="N/PERIOD", help="Tokens, read and written together, such as 100000/day.")
@click.option("--expires", metavar="WHEN", help="When it ends: after 12h or 30d, or when 2027-01-01 begins in UTC.")
@state_dir_option
@json_option
@runtime_dir_option
def create(
    name: str,
    globs: tuple[str, ...],
    rate: str | None,
    tokens: str | None,
    expires: str | None,
    state_dir: Path | None,
    as_json: bool,
) -> int:
    """Make a key, and print it: this once, as only its hash is kept.

    Standard output has the key alone. Clients send it as their API key.
    """
    now = time.time()
    try:
        key = Key(
            None,
            keys.name(name),
            keys.globs(globs),
            _or_none(keys.limit, rate),
            _or_none(keys.limit, tokens),
            None if expires is None else keys.expiry(expires, now),
        )
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    secret = keys.MARK + secrets.token_urlsafe(keys.RANDOM_BYTES)
    new = Stored(key, keys.digest(secret.encode()), secret[: keys.SHOWN], now, None)
    status = state_dirs.running()
    path = _path(state_dir, status)
    if not path.parent.is_dir():
        directories.make_private(path.parent, tighten=False)
    with _changing(path, makes_it=True) as connection:
        (others,) = connection.execute("SELECT count(*) FROM keys").fetchone()
        try:
            keys_db.add(connection, new)
        except sqlite3.IntegrityError:
            raise CannotCreate(
                f"cannot make a key '{name}': there is one of that name, maybe a revoked one; choose another name, or "
                f"run: llama-router key revoke --forget {name}"
            ) from None
    if as_json:
        say_json({"key": secret, **_as_json(new)})
    else:
        say(secret)
    explain(f"This is the only time that the key is shown; its hash is in {escape(str(path))}.")
    if not others:
        explain("It is the first one: the API needs a key from now on.")
    state_dirs.explain_guess(state_dir, status)
    return 0


@command.command("list", epilog="Example: llama-router key list --json")
@state_dir_option
@json_option
@runtime_dir_option
def list_(state_dir: Path | None, as_json: bool) -> int:
    """Show the keys, what they may do and what they used.

    Requests are those to models. Of LLAMA_ROUTER_API_KEY and web.api_key_file it
    says how many keys they hold for the llama-router that runs; the dashboard's
    Activity has what they did.
    """
    status = state_dirs.running()
    path = _path(state_dir, status)
    known = []
    if os.path.lexists(path):
        with _reading(path) as connection:
            known = keys_db.stored(connection)
    others = elsewhere(status, path.parent)
    if as_json:
        told = None if others is None else [vars(each) for each in others]
        say_json({"keys": [_as_json(each) for each in known], "elsewhere": told})
        return 0
    if known:
        now = time.time()
        say("\n".join(table(COLUMNS, [_row(each, now) for each in known], cells_of_stdout())))
    else:
        say(escape(f"there are no keys in {path.parent}"))
    if others:
        say("\n".join(["", *(escape(str(each)) for each in others)]))
    return 0


@command.command("revoke", epilog="Example: llama-router key revoke alice")
@click.argument("name")
@click.option("--forget", is_flag=True, help="Remove it from the list too, with what it used.")
@state_dir_option
@json_option
@runtime_dir_option
def revoke(name: str, forget: bool, state_dir: Path | None, as_json: bool) -> int:
    """Let a key open nothing any more.

    What it is being answered is finished. It stays in the list, and the API needs
    a key even if this was the last one that is good; when the last one is
    forgotten, the API is open again where it is without keys.
    """
    path = _path(state_dir, state_dirs.running())
    found = left = False
    if os.path.lexists(path):
        with _changing(path) as connection:
            found = keys_db.forget(connection, name) if forget else keys_db.revoke(connection, name, time.time())
            left = bool(connection.execute("SELECT count(*) FROM keys").fetchone()[0])
    if not found:
        raise NoSuchKey(f"cannot revoke key '{escape(name)}': there is none of that name in {escape(str(path.parent))}")
    if as_json:
        say_json({"name": name, "revoked": True, "forgotten": forget})
    else:
        say(f"{escape(name)}: {'forgotten' if forget else 'revoked'}")
    if not left:
        explain("It was the last key in the list: where the API is open without keys, it is open again.")
    return 0


def _path(state_dir: Path | None, status: dict[str, object] | None) -> Path:
    return state_dirs.chosen(state_dir, status) / KEYS_FILE


@contextmanager
def _changing(path: Path, *, makes_it: bool = False) -> Iterator[sqlite3.Connection]:
    """keys.db, nobody else changing it. Raises CannotCreate or UnusableKeys."""
    with access.locked(path.parent), _told(path):
        if makes_it:
            keys_db.create(path)
        with keys_db.opened(path) as connection:
            with keys_db.transaction(connection):
                yield connection
            keys_db.settle(connection)


@contextmanager
def _reading(path: Path) -> Iterator[sqlite3.Connection]:
    with _told(path), keys_db.opened(path) as connection:
        yield connection


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Turns what SQLite says into an error of ours."""
    try:
        yield
    except sqlite3.OperationalError as error:
        code = error.sqlite_errorcode & 0xFF
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise CannotCreate(
                f"cannot use {path}: another program has been at it for {keys_db.BUSY_SECONDS} s; try again"
            ) from None
        if code in FULL:
            raise CannotCreate(f"cannot use {path}: {error}") from None
        raise _damaged(path, error) from None
    except sqlite3.DatabaseError as error:
        raise _damaged(path, error) from None


def _damaged(path: Path, error: sqlite3.Error) -> UnusableKeys:
    return UnusableKeys(
        f"cannot use {path}: {error}; until it is restored or removed, with all its keys, the API answers 503"
    )


def _or_none(take: Callable[[str], T], value: str | None) -> T | None:
    return None if value is None else take(value)


def _row(stored: Stored, now: float) -> tuple[Cell, ...]:
    key, last = stored.key, stored.last_used
    return (
        *(Cell(key.name), Cell(f"{stored.prefix}…"), Cell(" ".join(key.models)), Cell(_limits(key))),
        Cell(_end(stored, now), None if key.is_good(now) else "red"),
        *(Cell(str(count)) for count in (stored.requests, stored.tokens_in, stored.tokens_out)),
        Cell("never" if last is None else f"{span(now - last)} ago"),
    )


def _limits(key: Key) -> str:
    limits = ((key.rate, "requests"), (key.tokens, "tokens"))
    return ", ".join(f"{limit.most} {what}/{limit.period}" for limit, what in limits if limit is not None) or "-"


def _end(stored: Stored, now: float) -> str:
    if stored.revoked is not None:
        return "revoked"
    ends = stored.key.expires
    return "never" if ends is None else "expired" if ends <= now else f"in {span(ends - now)}"


def _as_json(stored: Stored) -> dict[str, object]:
    key = stored.key
    return {
        "name": key.name,
        "prefix": stored.prefix,
        "models": list(key.models),
        "rate": None if key.rate is None else str(key.rate),
        "tokens": None if key.tokens is None else str(key.tokens),
        "created": _iso(stored.created),
        "expires": _iso(key.expires),
        "revoked": _iso(stored.revoked),
        "usage": {
            "requests": stored.requests,
            "tokens_in": stored.tokens_in,
            "tokens_out": stored.tokens_out,
            "last_used": _iso(stored.last_used),
        },
    }


def _iso(at: float | None) -> str | None:
    return None if at is None else datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")
