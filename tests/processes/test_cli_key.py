"""`llama-router key`: what it prints, keeps and says when it can't."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from harness import ROOT
from observed import DEADLINE

from supervisor import keys_db
from supervisor.core import keys
from supervisor.core.keys import KEYS_FILE

KEY = re.compile(r"lr-[\w-]{43}\n")

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def key(tmp_path: Path, state: Path) -> Run:
    """key("create", "alice", …): the command, where nothing runs."""

    def run(*arguments: str, **popen: Any) -> subprocess.CompletedProcess[str]:
        program = [sys.executable, "-m", "supervisor.cli", "--runtime-dir", str(tmp_path / "run"), "key", arguments[0]]
        return subprocess.run(
            [*program, "--state-dir", str(state), *arguments[1:]],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
            **popen,
        )

    return run


def rows(state: Path) -> list[keys_db.Stored]:
    with keys_db.opened(state / KEYS_FILE) as connection:
        return keys_db.stored(connection)


def test_a_key_is_shown_once(state: Path, key: Run) -> None:
    done = key("create", "alice", "--models", "qwen-*", "--models", "small", "--rate", "60/min", "--expires", "30d")
    assert done.returncode == 0, done.stderr
    assert KEY.fullmatch(done.stdout)
    assert done.stderr.splitlines() == [
        f"This is the only time that the key is shown; its hash is in {state / KEYS_FILE}.",
        "It is the first one: the API needs a key from now on.",
    ]
    secret = done.stdout.strip()
    (stored,) = rows(state)
    assert stored.hash == keys.digest(secret.encode())
    assert (stored.key.models, str(stored.key.rate), stored.key.tokens) == (("qwen-*", "small"), "60/min", None)
    assert secret.startswith(stored.prefix)
    assert len(stored.prefix) == 9
    for path in state.iterdir():
        assert secret.encode() not in path.read_bytes()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    assert key("create", "bob").stderr.count("\n") == 1


def test_listing(state: Path, key: Run) -> None:
    assert key("list").stdout == f"there are no keys in {state}\n"
    assert json.loads(key("list", "--json").stdout) == {"keys": [], "elsewhere": None}
    assert not state.exists()
    made = json.loads(key("create", "bob", "--tokens", "5/day", "--json").stdout)
    assert KEY.fullmatch(made["key"] + "\n")
    key("create", "alice", "--expires", "2999-01-01")
    alice, bob = json.loads(key("list", "--json").stdout)["keys"]
    assert bob == {name: value for name, value in made.items() if name != "key"}
    assert (alice["name"], alice["expires"], bob["tokens"]) == ("alice", "2999-01-01T00:00:00+00:00", "5/day")
    head, first, second = key("list").stdout.splitlines()
    assert re.sub("  +", "|", head) == "NAME|KEY|MODELS|LIMITS|ENDS|REQUESTS|TOKENS IN|OUT|LAST USED"
    assert re.match(r"alice +lr-\S{6}… +\* +- +in \d+d( \d+h)? +0 +0 +0 +never$", first)
    assert re.match(r"bob +lr-\S{6}… +\* +5 tokens/day +never +0 +0 +0 +never$", second)


def test_revoking_and_forgetting(state: Path, key: Run) -> None:
    key("create", "alice")
    assert key("revoke", "bob").returncode == 1
    done = key("revoke", "alice")
    assert (done.returncode, done.stdout, done.stderr) == (0, "alice: revoked\n", "")
    (before,) = rows(state)
    assert before.key.is_revoked
    assert json.loads(key("revoke", "alice", "--json").stdout) == {"name": "alice", "revoked": True, "forgotten": False}
    assert rows(state) == [before], "the second time changes nothing"
    assert "revoked" in key("list").stdout
    again = key("create", "alice")
    assert again.returncode == 73
    assert "there is one of that name, maybe a revoked one" in again.stderr
    done = key("revoke", "--forget", "alice")
    assert (done.returncode, done.stdout) == (0, "alice: forgotten\n")
    assert "where the API is open without keys, it is open again" in done.stderr
    assert key("create", "alice").returncode == 0


def test_nothing_to_revoke(state: Path, key: Run) -> None:
    done = key("revoke", "alice")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"llama-router: cannot revoke key 'alice': there is none of that name in {state}\n"
    assert not state.exists()


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("a b",), "cannot name a key 'a b'"),
        (("a", "--rate", "60"), "cannot use '60' as a limit"),
        (("a", "--tokens", "x/day"), "cannot use 'x/day' as a limit"),
        (("a", "--expires", "2001-01-01"), "that is over"),
        (("a", "--models", ""), "cannot match models with ''"),
        ((), "Missing argument 'NAME'"),
    ],
)
def test_wrong_usage(state: Path, key: Run, arguments: tuple[str, ...], why: str) -> None:
    done = key("create", *arguments)
    assert (done.returncode, done.stdout) == (64, "")
    assert why in done.stderr
    assert not state.exists()


def test_many_at_once(state: Path, key: Run) -> None:
    """Also the first ones, which make the file."""
    with ThreadPoolExecutor(4) as many:
        done = list(many.map(lambda number: key("create", f"k{number % 6}"), range(8)))
    assert sorted(each.returncode for each in done) == [0] * 6 + [73] * 2
    assert [stored.key.name for stored in rows(state)] == [f"k{number}" for number in range(6)]
    assert {stored.hash for stored in rows(state)} == {
        keys.digest(each.stdout.strip().encode()) for each in done if each.returncode == 0
    }
    assert [path for path in state.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("content", [b"", b"nonsense" * 1000])
def test_a_damaged_file_is_left_alone(state: Path, key: Run, content: bytes) -> None:
    state.mkdir(mode=0o700)
    (state / KEYS_FILE).write_bytes(content)
    for arguments in (("create", "a"), ("list",), ("revoke", "a"), ("list", "--json")):
        done = key(*arguments)
        assert done.returncode == 65
        assert f"cannot use {state / KEYS_FILE}: " in done.stderr
        assert "the API answers 503" in done.stderr
    assert (state / KEYS_FILE).read_bytes() == content


def test_what_a_removed_file_left_is_not_taken_for_the_new_ones(state: Path, key: Run) -> None:
    key("create", "alice")
    connection = keys_db.connect(state / KEYS_FILE)
    keys_db.revoke(connection, "alice", 1.0)
    log = Path(f"{state / KEYS_FILE}-wal")
    assert log.stat().st_size > 0
    (state / KEYS_FILE).unlink()
    assert key("create", "carol").returncode == 0
    connection.close()
    assert [stored.key.name for stored in rows(state)] == ["carol"]
    with keys_db.opened(state / KEYS_FILE) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_one_who_is_at_it_is_not_waited_for_for_ever(state: Path, key: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    key("create", "alice")
    connection = keys_db.connect(state / KEYS_FILE)
    connection.execute("BEGIN IMMEDIATE")
    done = key("revoke", "alice")
    connection.close()
    assert done.returncode == 73
    assert "another program has been at it for 5.0 s; try again" in done.stderr
    assert not rows(state)[0].key.is_revoked


def test_a_place_that_takes_no_more(state: Path, key: Run) -> None:
    """As a full disk: the file may not grow (RLIMIT_FSIZE)."""
    code = (
        "import resource, signal, runpy; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192));"
        "runpy.run_module('supervisor.cli', run_name='__main__')"
    )
    program = [sys.executable, "-c", code, "key", "create", "--state-dir", str(state), "alice"]
    done = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE, check=False)
    assert (done.returncode, done.stdout) == (73, "")
    assert f"cannot use {state / KEYS_FILE}: " in done.stderr
    assert list(state.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root writes for others")
def test_what_root_makes_is_the_owners(state: Path, key: Run) -> None:
    state.mkdir(mode=0o700)
    os.chown(state, 12345, 12345)
    assert key("create", "alice").returncode == 0
    connection = keys_db.connect(state / KEYS_FILE)
    connection.execute("UPDATE keys SET expires = NULL")
    assert {path.stat().st_uid for path in state.iterdir()} == {12345}
    connection.close()


def test_a_file_of_another_version(state: Path, key: Run) -> None:
    key("create", "alice")
    connection = sqlite3.connect(state / KEYS_FILE)
    connection.execute("PRAGMA user_version = 9")
    connection.close()
    assert "its version is 9, and this llama-router knows 1" in key("list").stderr
