"""Where llama-router does not start without a key or a password, and who gets to see the environment's keys."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from harness import ROOT, Supervisor
from observed import DEADLINE, processes

from supervisor import access, exposure, keys_db
from supervisor.core.config import parse_listen
from supervisor.core.keys import KEYS_FILE, VARIABLE

# TEST-NET-1 (RFC 5737): an address that no machine has, so that what may start ends with 69 instead of listening.
ELSEWHERE = "192.0.2.1:8080"
SECRET = "a-secret-of-the-environment"

Start = Callable[..., Supervisor]


@pytest.fixture
def supervisor() -> Iterator[Supervisor]:
    with Supervisor(listen=ELSEWHERE) as supervisor:
        yield supervisor


def state_of(supervisor: Supervisor) -> Path:
    state = supervisor.directory / "state"
    state.mkdir(mode=0o700, exist_ok=True)
    return state


def set_password(supervisor: Supervisor) -> None:
    access.set_password(state_of(supervisor), "viewer", "a pass phrase", print)


def make_key(supervisor: Supervisor) -> None:
    key(supervisor, "create", "alice")


def revoke_key(supervisor: Supervisor) -> None:
    make_key(supervisor)
    key(supervisor, "revoke", "alice")


def damage_keys(supervisor: Supervisor) -> None:
    (state_of(supervisor) / KEYS_FILE).write_bytes(b"")


def allow_anyone(supervisor: Supervisor) -> None:
    supervisor.config.write_text(supervisor.config.read_text().replace("web: {", "web: {allow_anyone: true, "))


def name_file(supervisor: Supervisor) -> None:
    (supervisor.directory / "keys").write_text("a key\n")
    supervisor.config.write_text(supervisor.config.read_text().replace("web: {", "web: {api_key_file: keys, "))


def set_variable(supervisor: Supervisor) -> None:
    supervisor.env[VARIABLE] = SECRET


def forget_key(supervisor: Supervisor) -> None:
    make_key(supervisor)
    key(supervisor, "revoke", "--forget", "alice")


def empty_variable(supervisor: Supervisor) -> None:
    supervisor.env[VARIABLE] = " ,"


def no_hash(supervisor: Supervisor) -> None:
    access.known(state_of(supervisor), print)


def key(supervisor: Supervisor, *arguments: str) -> str:
    program = [sys.executable, "-m", "supervisor.cli", "--runtime-dir", str(supervisor.runtime), "key", *arguments]
    done = subprocess.run(
        [*program, "--state-dir", f"{supervisor.directory}/state"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=True,
    )
    return done.stdout.strip()


def check(supervisor: Supervisor) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, "-m", "supervisor.cli", "--runtime-dir", str(supervisor.runtime), "check"]
    paths = ("--config", str(supervisor.config), "--state-dir", f"{supervisor.directory}/state")
    environment = {**os.environ, **supervisor.env}
    return subprocess.run(
        [*program, *paths], cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE, check=False, env=environment
    )


@pytest.mark.parametrize("prepare", [None, forget_key, empty_variable, no_hash])
def test_an_address_that_others_reach_is_refused(
    supervisor: Supervisor, prepare: Callable[[Supervisor], None] | None
) -> None:
    if prepare is not None:
        prepare(supervisor)
    state = f"{supervisor.directory}/state"
    for done in (supervisor.run(), check(supervisor)):
        assert done.returncode == 78
        assert (
            f"{supervisor.config}: listen: cannot listen on {ELSEWHERE}, which other machines may reach" in done.stderr
        )
        for way in (f"key create NAME --state-dir {state}", f"passwd --state-dir {state}", "web: {allow_anyone: true}"):
            assert way in done.stderr


@pytest.mark.parametrize(
    "prepare", [set_password, make_key, revoke_key, damage_keys, allow_anyone, name_file, set_variable]
)
def test_what_lets_it_start(supervisor: Supervisor, prepare: Callable[[Supervisor], None]) -> None:
    prepare(supervisor)
    assert check(supervisor).returncode == 0
    done = supervisor.run()
    assert (done.returncode, f"cannot listen on {ELSEWHERE}: Cannot assign" in done.stderr) == (69, True)


@pytest.mark.parametrize("listen", [ELSEWHERE, "0.0.0.0:0", "[::]:0"])
def test_the_command_line_is_no_way_round(listen: str) -> None:
    with Supervisor(listen="127.0.0.1:0") as supervisor:
        assert check(supervisor).returncode == 0
        done = supervisor.run("--listen", listen)
        assert done.returncode == 78
        assert f"cannot listen on {listen}, which other machines may reach" in done.stderr


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "No such file or directory"),
        ("\n# none\n", "there is none in it"),
        ("x" * 2**20 + "x", "more than 1048576"),
    ],
)
def test_a_file_without_keys_is_an_error(supervisor: Supervisor, content: str | None, why: str) -> None:
    name_file(supervisor)
    file = supervisor.directory / "keys"
    file.unlink()
    if content is not None:
        file.write_text(content)
    for done in (supervisor.run(), check(supervisor)):
        assert done.returncode == 78
        assert f"web.api_key_file: cannot take keys from {file}: " in done.stderr
        assert why in done.stderr


@pytest.mark.parametrize(
    ("listen", "private"),
    [
        *(("127.0.0.1:1", True), ("[::1]:1", True), ("unix:/x", True), ("localhost:1", True)),
        *(("0.0.0.0:1", False), ("[::]:1", False), ("does-not-exist.invalid:1", False)),
    ],
)
def test_private_addresses(listen: str, private: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(host: str, port: int, **_: object) -> list[Any]:
        """As a machine does on which names of this kind are what they should be."""
        addresses = {"localhost": "127.0.0.1", "does-not-exist.invalid": None}
        if (found := addresses.get(host, host)) is None:
            raise socket.gaierror
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (found, port))]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    assert exposure.is_private(parse_listen(listen)) == private


def test_a_name_of_two_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    both = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 1)) for address in ("127.0.0.1", "10.0.0.1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: both)
    assert not exposure.is_private(parse_listen("both:1"))


# While it runs


def status_of(supervisor: Supervisor, path: str, secret: str | None = None, method: str = "GET") -> int:
    headers = {} if secret is None else {"Authorization": f"Bearer {secret}"}
    connection = HTTPConnection("localhost", timeout=DEADLINE)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(DEADLINE)
    connection.sock.connect(supervisor.listen.removeprefix("unix:"))
    try:
        connection.request(method, path, headers=headers)
        return connection.getresponse().status
    finally:
        connection.close()


def test_the_commands_reach_what_runs() -> None:
    with Supervisor() as supervisor:
        supervisor.start(until="READY=1")
        assert status_of(supervisor, "/v1/models") == 200
        secret = key(supervisor, "create", "alice")
        assert [status_of(supervisor, "/v1/models"), status_of(supervisor, "/v1/models", secret)] == [401, 200]
        listed = json.loads(key(supervisor, "list", "--json"))
        assert [each["name"] for each in listed["keys"]] == ["alice"]
        assert listed["elsewhere"] == []
        key(supervisor, "revoke", "alice")
        assert status_of(supervisor, "/v1/models", secret) == 401
        key(supervisor, "revoke", "--forget", "alice")
        assert status_of(supervisor, "/v1/models") == 200


def test_nobody_sees_the_environments_keys() -> None:
    with Supervisor(env={VARIABLE: f"{SECRET},other"}) as supervisor:
        supervisor.add("m", reload=False)
        supervisor.start(until="READY=1")
        supervisor.load("m")
        assert status_of(supervisor, "/v1/models") == 401
        assert status_of(supervisor, "/v1/models", SECRET) == status_of(supervisor, "/v1/models", "other") == 200
        running = dict(processes(str(supervisor.directory)))
        assert {supervisor.pid, supervisor.model("m")["pid"]} < running.keys()
        for pid in running:
            with suppress(FileNotFoundError, ProcessLookupError):  # what is forked for a moment
                assert SECRET.encode() not in Path(f"/proc/{pid}/environ").read_bytes()
        assert SECRET not in str(running)
        assert SECRET not in supervisor.log.read_text()


def test_the_list_has_how_many_there_are_elsewhere() -> None:
    with Supervisor(env={VARIABLE: f"{SECRET},other"}) as supervisor:
        name_file(supervisor)
        supervisor.start()
        file = supervisor.directory / "keys"
        words = "for all models and without limits"
        lines = [
            f"there are no keys in {state_of(supervisor)}",
            "",
            f"environment: 2 keys of {VARIABLE}, {words}",
            f"file: 1 key in {file} (web.api_key_file), {words}",
        ]
        assert key(supervisor, "list").splitlines() == lines
        told = json.loads(key(supervisor, "list", "--json"))
        assert told["keys"] == []
        assert [(each["source"], each["count"], each["path"]) for each in told["elsewhere"]] == [
            ("environment", 2, None),
            ("file", 1, str(file)),
        ]
        make_key(supervisor)
        assert key(supervisor, "list").splitlines()[2:] == lines[1:]
        file.unlink()
        assert json.loads(key(supervisor, "list", "--json"))["elsewhere"][1]["problem"] == "No such file or directory"
        assert key(supervisor, "list").endswith("how many is not known: No such file or directory")


def test_a_file_of_keys_is_read_again() -> None:
    with Supervisor() as supervisor:
        name_file(supervisor)
        supervisor.start(until="READY=1")
        assert [status_of(supervisor, "/v1/models", each) for each in (None, "a key", "another")] == [401, 200, 401]
        (supervisor.directory / "keys").write_text("another\n")
        assert [status_of(supervisor, "/v1/models", each) for each in ("a key", "another")] == [401, 200]


def test_taking_keys_leaves_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "one,two")
    assert len(exposure.take_keys()) == 2
    assert VARIABLE not in os.environ
    assert exposure.take_keys() == ()


def test_unreadable_keys_are_no_reason_not_to_start(tmp_path: Path) -> None:
    assert not exposure._may_have_key(tmp_path)
    (tmp_path / KEYS_FILE).symlink_to(tmp_path / "nowhere")
    assert exposure._may_have_key(tmp_path)
    (tmp_path / KEYS_FILE).unlink()
    keys_db.create(tmp_path / KEYS_FILE)
    assert not exposure._may_have_key(tmp_path)
