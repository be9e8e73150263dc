"""`llama-router passwd`, and the link that is printed at start."""

from __future__ import annotations

import http.client
import json
import os
import pty
import re
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlencode

import pytest
from damaging import damage
from harness import ROOT, Supervisor
from observed import DEADLINE

from supervisor import access
from supervisor.core.access import ACCESS_FILE, TOKEN_FILE, Access, hash_of, parse
from supervisor.errors import CannotCreate

Start = Callable[..., Supervisor]
LINK = re.compile(r"\bopen http://(127\.0\.0\.1:\d+)/ui/login\?token=([\w-]{43})\n")
PASSWORD = "a pass phrase"
OTHER = "another phrase"


def argv(runtime: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "supervisor.cli", "--runtime-dir", str(runtime), "passwd", *options]


def passwd(runtime: Path, *options: str, stdin: bytes = b"") -> subprocess.CompletedProcess[str]:
    """The command, where nothing runs unless `runtime` says so."""
    done = subprocess.run(
        argv(runtime, *options), cwd=ROOT, input=stdin, capture_output=True, timeout=DEADLINE, start_new_session=True
    )
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def give(tmp_path: Path, state: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """give(line, *options): --stdin."""
    return lambda line, *options: passwd(
        tmp_path / "run", "--state-dir", str(state), "--stdin", *options, stdin=line.encode()
    )


def kept(state: Path) -> Access:
    return parse((state / ACCESS_FILE).read_bytes())


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


Give = Callable[..., subprocess.CompletedProcess[str]]


def test_a_line_of_standard_input(state: Path, give: Give) -> None:
    done = give(f"{PASSWORD}\r\nand more\n")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"admin: password set in {state}; who was signed in is signed out\n"
    found = kept(state)
    assert found.role_of(hash_of(PASSWORD, found.salt)) == "admin"
    assert stat.S_IMODE((state / ACCESS_FILE).stat().st_mode) == 0o600
    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    assert names(state) == [ACCESS_FILE]
    assert PASSWORD.encode() not in (state / ACCESS_FILE).read_bytes()


def test_viewers_have_their_own(state: Path, give: Give) -> None:
    assert give(PASSWORD).returncode == 0
    before = kept(state)
    refused = give(PASSWORD, "--viewer")
    assert refused.returncode == 65
    assert "told apart by their passwords alone; choose another one" in refused.stderr
    assert give(OTHER, "--viewer").returncode == 0
    found = kept(state)
    assert found.role_of(hash_of(OTHER, found.salt)) == "viewer"
    assert (found.secret, found.admin) == (before.secret, before.admin)


def test_removing(state: Path, give: Give, tmp_path: Path) -> None:
    remove = (tmp_path / "run", "--state-dir", str(state), "--remove")
    assert passwd(*remove).stdout == "admin: there is no password\n"
    assert not state.exists()
    give(PASSWORD)
    give(OTHER, "--viewer")
    before = kept(state)
    done = passwd(*remove)
    assert done.stdout == "admin: password removed; who was signed in is signed out\n"
    assert done.stderr == "To sign in as admin, run: llama-router passwd --link\n"
    found = kept(state)
    assert (found.admin.hash, found.viewer) == (None, before.viewer)
    assert found.admin.era != before.admin.era
    assert passwd(*remove, "--viewer").stderr == ""
    assert kept(state).viewer.hash is None


@pytest.mark.parametrize(
    "line, why",
    [
        ("", "it has 0 characters; choose one of 8 or more"),
        ("seven c\n", "it has 7 characters"),
        ("x" * 1025 + "\n", "it is longer than 1024 bytes"),
        ("x" * 10**6, "it is longer than 1024 bytes"),
        ("with a\ttab\n", "such as a tab"),
        ("with a\0nul\n", "such as a tab"),
    ],
)
def test_a_password_that_cannot_be_set(state: Path, give: Give, line: str, why: str) -> None:
    done = give(line)
    assert (done.returncode, done.stdout) == (65, "")
    assert done.stderr.startswith("llama-router: cannot set this password: ") and why in done.stderr
    assert "xxxx" not in done.stderr
    assert not (state / ACCESS_FILE).exists()


def test_a_line_that_is_not_utf8(tmp_path: Path, state: Path) -> None:
    done = passwd(tmp_path / "run", "--state-dir", str(state), "--stdin", stdin=b"password \xff\n")
    assert (done.returncode, "it is not UTF-8" in done.stderr) == (65, True)


@pytest.mark.parametrize(
    "options",
    [("--link", "--viewer"), ("--link", "--remove"), ("--stdin", "--remove"), ("--stdin", "--link"), ("secret",)],
)
def test_wrong_usage(tmp_path: Path, options: tuple[str, ...]) -> None:
    assert passwd(tmp_path, *options).returncode == 64


def test_no_terminal(tmp_path: Path, state: Path) -> None:
    done = passwd(tmp_path / "run", "--state-dir", str(state), stdin=b"not asked for\n")
    assert done.returncode == 64
    assert "there is no terminal to ask on; give the password as a line of standard input, with --stdin" in done.stderr
    assert not state.exists()


@contextmanager
def terminal(*command: str) -> Iterator[Callable[[str, str], str]]:
    """talk(until, answer): what a terminal shows until then; it types the answer."""
    pid, fd = pty.fork()
    if pid == 0:
        os.chdir(ROOT)
        os.execv(command[0], command)
    shown = ""

    def talk(until: str, answer: str) -> str:
        nonlocal shown
        while until not in shown:
            try:
                shown += os.read(fd, 4096).decode()
            except OSError:  # its end
                break
        if answer:
            os.write(fd, answer.encode())
        seen, _, shown = shown.partition(until) if until in shown else (shown, "", "")
        return seen

    try:
        yield talk
    finally:
        os.close(fd)
        with suppress(ChildProcessError):
            os.waitpid(pid, 0)


@pytest.mark.parametrize("again, outcome", [(PASSWORD, "admin: password set"), (OTHER, "the two differ; try again")])
def test_it_asks_twice(tmp_path: Path, state: Path, again: str, outcome: str) -> None:
    with terminal(*argv(tmp_path / "run", "--state-dir", str(state))) as talk:
        shown = talk("New password of admin: ", f"{PASSWORD}\n")
        shown += talk("Once more: ", f"{again}\n")
        shown += talk(outcome, "")
    assert PASSWORD not in shown and OTHER not in shown
    assert (state / ACCESS_FILE).exists() == (again == PASSWORD)


def test_two_at_once(state: Path, give: Give) -> None:
    give(PASSWORD)
    secret = kept(state).secret
    with ThreadPoolExecutor(4) as pool:
        lines = [(f"the password {number}", *(["--viewer"] if number % 2 else [])) for number in range(4)]
        assert [done.returncode for done in pool.map(lambda line: give(*line), lines)] == [0] * 4
    found = kept(state)
    assert found.secret == secret
    assert {found.role_of(hash_of(f"the password {number}", found.salt)) for number in range(4)} == {
        "admin",
        "viewer",
        None,
    }
    assert names(state) == [ACCESS_FILE]


@pytest.mark.parametrize("how", ["cut off", "a FIFO", "a link", "a directory"])
def test_a_damaged_file_is_kept_beside_a_new_one(state: Path, give: Give, how: str) -> None:
    give(PASSWORD)
    secret = kept(state).secret
    damage(state / ACCESS_FILE, how)
    done = give(OTHER)
    assert done.returncode == 0, done.stderr
    assert f"cannot use {state}/access.json: it" in done.stderr
    assert "it is access.json.damaged now, and all passwords and sessions are gone" in done.stderr
    assert kept(state).secret != secret
    assert names(state) == [ACCESS_FILE, f"{ACCESS_FILE}.damaged"]


def test_a_directory_that_cannot_be_written(tmp_path: Path, give: Give, state: Path) -> None:
    state.write_text("no directory")
    done = give(PASSWORD)
    assert done.returncode == 73
    assert f"cannot use directory {state}: Not a directory" in done.stderr


def test_somebody_who_holds_the_lock_is_not_waited_for_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access, "LOCK_SECONDS", 0.1)
    with access.locked(tmp_path), pytest.raises(CannotCreate, match="another llama-router has been at it"):
        access.known(tmp_path, print)


def test_a_full_disk_leaves_the_last_file(state: Path, give: Give, monkeypatch: pytest.MonkeyPatch) -> None:
    give(PASSWORD)
    before = (state / ACCESS_FILE).read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CannotCreate, match="No space left on device"):
        access.set_password(state, "admin", OTHER, print)
    assert (state / ACCESS_FILE).read_bytes() == before
    assert names(state) == [ACCESS_FILE]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root writes into the directories of others")
def test_what_root_writes_is_the_services(state: Path, give: Give) -> None:
    state.mkdir(mode=0o700)
    os.chown(state, 1000, 1001)
    assert give(PASSWORD).returncode == 0
    found = (state / ACCESS_FILE).stat()
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (1000, 1001, 0o600)


# With a llama-router that runs


def request(
    address: str, method: str, path: str, fields: dict[str, str] | None = None, cookie: str = ""
) -> tuple[int, str]:
    """(status, the value of Set-Cookie)."""
    connection = http.client.HTTPConnection(address, timeout=DEADLINE)
    headers = {"Content-Type": "application/x-www-form-urlencoded", "Cookie": cookie, "Accept": "application/json"}
    connection.request(method, path, urlencode(fields or {}), headers)
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer.status, (answer.getheader("Set-Cookie") or "").partition(";")[0]


def printed(supervisor: Supervisor) -> list[tuple[str, str]]:
    return LINK.findall(supervisor.log.read_text())


def test_from_the_first_link_to_a_forgotten_password(supervisors: Start) -> None:
    supervisor = supervisors(listen="127.0.0.1:0").start(until="READY=1")
    supervisor.eventually(lambda: printed(supervisor), "the link is printed")
    [(address, token)] = printed(supervisor)
    assert token not in (supervisor.runtime / TOKEN_FILE).read_text()
    assert stat.S_IMODE((supervisor.runtime / TOKEN_FILE).stat().st_mode) == 0o600
    assert request(address, "GET", "/ui/session")[0] == 401
    status, first = request(address, "POST", "/ui/login", {"token": token})
    assert (status, request(address, "GET", "/ui/session", cookie=first)[0]) == (303, 200)
    assert request(address, "POST", "/ui/login", {"token": token})[0] == 403

    # The state directory is not named: it is the running one's.
    assert passwd(supervisor.runtime, "--stdin", stdin=PASSWORD.encode()).returncode == 0
    assert kept(supervisor.directory / "state").admin.hash is not None
    assert request(address, "GET", "/ui/session", cookie=first)[0] == 401
    status, second = request(address, "POST", "/ui/login", {"password": PASSWORD})
    assert (status, request(address, "GET", "/ui/session", cookie=second)[0]) == (303, 200)

    done = passwd(supervisor.runtime, "--link")
    assert (done.returncode, done.stderr) == (0, "")
    [(again, token)] = LINK.findall(done.stdout)
    assert again == address
    assert request(address, "POST", "/ui/login", {"token": token})[0] == 303
    assert request(address, "GET", "/ui/session", cookie=second)[0] == 200

    for secret in (PASSWORD, token, kept(supervisor.directory / "state").secret.hex(), second.partition("=")[2]):
        assert secret not in supervisor.log.read_text()


def test_with_a_password_no_link_is_printed_and_an_older_one_is_worth_nothing(supervisors: Start) -> None:
    supervisor = supervisors(listen="127.0.0.1:0")
    state = supervisor.directory / "state"
    state.mkdir()
    supervisor.runtime.mkdir()
    access.new_link(state, supervisor.runtime, print)
    access.set_password(state, "admin", PASSWORD, print)
    supervisor.start(until="READY=1")
    supervisor.eventually(lambda: "serving 0 models on http://" in supervisor.log.read_text(), "it serves")
    assert "token=" not in supervisor.log.read_text()
    assert not (supervisor.runtime / TOKEN_FILE).exists()


def test_a_unix_socket_has_no_host(supervisors: Start) -> None:
    supervisor = supervisors().start(until="READY=1")
    line = re.compile(rf"open /ui/login\?token=[\w-]{{43}} at what forwards to unix:{supervisor.directory}/web\.sock\n")
    supervisor.eventually(lambda: line.search(supervisor.log.read_text()), "the link is printed")
    assert line.fullmatch(passwd(supervisor.runtime, "--link").stdout)


def test_a_damaged_file_at_start_is_told_and_a_link_is_printed(supervisors: Start) -> None:
    supervisor = supervisors(listen="127.0.0.1:0")
    state = supervisor.directory / "state"
    state.mkdir()
    access.set_password(state, "admin", PASSWORD, print)
    damage(state / ACCESS_FILE, "cut off")
    supervisor.start(until="READY=1")
    supervisor.eventually(lambda: printed(supervisor), "the link is printed")
    assert supervisor.log.read_text().count("access.json: it is not JSON; it is access.json.damaged now") == 1


def test_models_are_served_where_nobody_can_sign_in(supervisors: Start) -> None:
    supervisor = supervisors(listen="127.0.0.1:0")
    state = supervisor.directory / "state"
    (state / ACCESS_FILE / "in the way").mkdir(parents=True)
    (state / f"{ACCESS_FILE}.damaged" / "too").mkdir(parents=True)
    supervisor.start(until="READY=1")
    assert "nobody can sign in to the dashboard: cannot change files in" in supervisor.log.read_text()
    address = supervisor.status()["listen"]
    assert request(address, "GET", "/health")[0] == 200
    assert request(address, "GET", "/ui/session")[0] == 401


def test_a_link_needs_one_that_runs(tmp_path: Path) -> None:
    done = passwd(tmp_path, "--link")
    assert (done.returncode, "is it running" in done.stderr) == (69, True)


def test_what_runs_tells_where(supervisors: Start) -> None:
    supervisor = supervisors(listen="127.0.0.1:0").start()
    status = supervisor.status()
    assert status["state_dir"] == f"{supervisor.directory}/state"
    assert status["url"] == f"http://{status['listen']}"
    assert json.dumps(status)


def test_a_password_for_nobody_in_sight_says_so(tmp_path: Path) -> None:
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "XDG_STATE_HOME": str(tmp_path / "state")}
    command = argv(tmp_path / "run", "--stdin")
    done = subprocess.run(
        command, cwd=ROOT, env=environment, input=PASSWORD, text=True, capture_output=True, timeout=DEADLINE
    )
    assert done.stdout.startswith(f"admin: password set in {tmp_path}/state/llama-router; ")
    assert done.stderr.startswith("No llama-router answers here.")
