"""Which directories are chosen, and which are refused as private ones."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from harness import ROOT, Supervisor
from hypothesis import given
from hypothesis import strategies as st

from supervisor import directories
from supervisor.directories import check_socket_length, config_file, for_client, for_daemon, make_private, unwritten
from supervisor.errors import CannotCreate

USER = 1000


@pytest.mark.parametrize(
    ("environment", "uid", "expected"),
    [
        ({"RUNTIME_DIRECTORY": "/run/a:/run/b", "LLAMA_ROUTER_RUNTIME_DIR": "/x"}, USER, "/run/a"),
        ({"LLAMA_ROUTER_RUNTIME_DIR": "/x", "XDG_RUNTIME_DIR": "/run/user/1000"}, USER, "/x"),
        ({"RUNTIME_DIRECTORY": "", "XDG_RUNTIME_DIR": "/run/user/1000"}, USER, "/run/user/1000/llama-router"),
        ({"XDG_RUNTIME_DIR": "relative"}, 0, "/run/llama-router"),
        ({"TMPDIR": "/var/tmp"}, USER, "/var/tmp/llama-router-1000"),
    ],
)
def test_runtime_of_the_daemon(environment: dict[str, str], uid: int, expected: str) -> None:
    assert for_daemon({"HOME": "/home/u"} | environment, uid=uid).runtime == Path(expected)


@pytest.mark.parametrize(
    ("environment", "uid", "expected"),
    [
        ({"STATE_DIRECTORY": "/var/lib/a:/var/lib/b", "XDG_STATE_HOME": "/s"}, USER, "/var/lib/a"),
        ({"XDG_STATE_HOME": "/s", "HOME": "/home/u"}, USER, "/s/llama-router"),
        ({"HOME": "/home/u"}, USER, "/home/u/.local/state/llama-router"),
        ({"HOME": "/root"}, 0, "/var/lib/llama-router"),
    ],
)
def test_state_of_the_daemon(environment: dict[str, str], uid: int, expected: str) -> None:
    assert for_daemon(environment, uid=uid).state == Path(expected)


def test_options_win_and_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    environment = {"RUNTIME_DIRECTORY": "/r", "STATE_DIRECTORY": "/s", "CONFIGURATION_DIRECTORY": "/c"}
    chosen = for_daemon(environment, runtime=Path("r"), state=Path("s"), config=Path("c.yaml"))
    assert chosen == directories.Directories(tmp_path / "r", tmp_path / "s", tmp_path / "c.yaml")


def test_no_home_and_no_state_is_told() -> None:
    with pytest.raises(CannotCreate, match="HOME is not set; name one with --state-dir"):
        for_daemon({}, uid=USER)


def test_configuration(tmp_path: Path) -> None:
    home = {"HOME": str(tmp_path)}
    own = tmp_path / ".config/llama-router/config.yaml"
    assert config_file(home) == Path("/etc/llama-router/config.yaml")
    own.parent.mkdir(parents=True)
    own.touch()
    assert config_file(home) == own
    assert config_file(home | {"XDG_CONFIG_HOME": "/elsewhere"}) == Path("/etc/llama-router/config.yaml")
    assert config_file(home | {"LLAMA_ROUTER_CONFIG": "/x.yaml"}) == Path("/x.yaml")
    systemd = {"CONFIGURATION_DIRECTORY": "/etc/a:/etc/b", "LLAMA_ROUTER_CONFIG": "/x.yaml"}
    assert config_file(systemd) == Path("/etc/a/config.yaml")


def test_where_no_configuration_is_both_places_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directories, "SYSTEM_CONFIG", tmp_path / "etc")
    home = {"HOME": str(tmp_path)}
    own = tmp_path / ".config/llama-router/config.yaml"
    assert [problem.file for problem in unwritten(home)] == [str(own)]
    for named in (unwritten(home, Path("/x")), unwritten(home | {"LLAMA_ROUTER_CONFIG": "/x"}), unwritten({})):
        assert named == []
    for there in (own, tmp_path / "etc/config.yaml"):
        there.parent.mkdir(parents=True)
        there.touch()
        assert unwritten(home) == []
        there.unlink()


@pytest.mark.parametrize("command", ["run", "check"])
def test_a_user_without_a_configuration_is_told_of_the_home(tmp_path: Path, command: str) -> None:
    if Path("/etc/llama-router/config.yaml").exists():
        pytest.skip("this machine has a configuration in /etc")
    argv = [sys.executable, "-m", "supervisor.cli", "--runtime-dir", str(tmp_path), command]
    environment = {"HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    done = subprocess.run(argv, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 78
    assert done.stderr.splitlines() == [
        "llama-router: cannot use the configuration:",
        "/etc/llama-router/config.yaml: cannot read the file: No such file or directory",
        f"{tmp_path}/.config/llama-router/config.yaml: it is not there either: write one of the two, "
        "or name one with --config",
    ]


def test_clients_look_where_a_socket_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    system, session = tmp_path / "system", tmp_path / "session"
    monkeypatch.setattr(directories, "SYSTEM_RUNTIME", system)
    environment = {"XDG_RUNTIME_DIR": str(session)}
    own = session / "llama-router"
    for directory in (system, own):
        directory.mkdir(parents=True)
    assert for_client(environment) == own
    (system / "control.sock").touch()
    assert for_client(environment) == system
    (own / "control.sock").touch()
    assert for_client(environment) == own
    assert for_client(environment | {"LLAMA_ROUTER_RUNTIME_DIR": "/x", "RUNTIME_DIRECTORY": "/y"}) == Path("/x")
    assert for_client(environment, Path("/z")) == Path("/z")


NAMES = st.sampled_from(
    [
        "HOME",
        "TMPDIR",
        "XDG_RUNTIME_DIR",
        "XDG_STATE_HOME",
        "RUNTIME_DIRECTORY",
        "STATE_DIRECTORY",
        "LLAMA_ROUTER_CONFIG",
    ]
)


@given(st.dictionaries(NAMES, st.text(alphabet="/a:. ", max_size=6)), st.sampled_from([0, USER]))
def test_every_choice_is_absolute(environment: dict[str, str], uid: int) -> None:
    try:
        chosen = for_daemon(environment, uid=uid)
    except CannotCreate:
        assert uid == USER
        assert not environment.get("STATE_DIRECTORY", "").split(":")[0]
    else:
        assert all(path.is_absolute() for path in (chosen.runtime, chosen.state, chosen.config))


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o7777


@pytest.mark.parametrize("umask", [0o000, 0o277])
def test_a_new_private_directory_is_0700_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        make_private(tmp_path / "new")
    finally:
        os.umask(before)
    assert mode(tmp_path / "new") == 0o700


def test_parents_are_made_and_twice_is_fine(tmp_path: Path) -> None:
    make_private(tmp_path / "a/b/c")
    make_private(tmp_path / "a/b/c")
    assert mode(tmp_path / "a/b/c") == 0o700


def test_an_existing_directory_is_tightened_unless_told_not_to(tmp_path: Path) -> None:
    tmp_path.joinpath("own").mkdir(mode=0o755)
    make_private(tmp_path / "own", tighten=False)
    assert mode(tmp_path / "own") == 0o755
    make_private(tmp_path / "own")
    assert mode(tmp_path / "own") == 0o700


@pytest.mark.parametrize("writable", [0o1777, 0o775, 0o757])
def test_a_symbolic_link_that_others_can_have_put_there_is_refused(tmp_path: Path, writable: int) -> None:
    (tmp_path / "real").mkdir(mode=0o755)
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(writable)
    (tmp_path / "shared" / "link").symlink_to(tmp_path / "real")
    with pytest.raises(CannotCreate, match="it is a symbolic link; remove it"):
        make_private(tmp_path / "shared" / "link")
    assert mode(tmp_path / "real") == 0o755


@pytest.mark.skipif(os.geteuid() != 0, reason="root alone can give a link away")
def test_a_symbolic_link_of_somebody_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o755)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    os.chown(tmp_path / "link", 65533, 65533, follow_symlinks=False)
    with pytest.raises(CannotCreate, match="it is a symbolic link; remove it"):
        make_private(tmp_path / "link")
    os.chown(tmp_path / "link", 0, 0, follow_symlinks=False)
    os.chown(tmp_path, 65533, 65533)
    with pytest.raises(CannotCreate, match="it is a symbolic link; remove it"):
        make_private(tmp_path / "link")


def test_a_symbolic_link_of_ones_own_is_followed(tmp_path: Path) -> None:
    """systemd's DynamicUser= has one from /var/lib/NAME to /var/lib/private/NAME."""
    (tmp_path / "link").symlink_to("private/real")
    make_private(tmp_path / "link")
    assert mode(tmp_path / "private" / "real") == 0o700
    (tmp_path / "private" / "real").chmod(0o755)
    make_private(tmp_path / "link")
    assert mode(tmp_path / "private" / "real") == 0o700


def test_where_a_symbolic_link_leads_is_checked_all_the_same(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    (shared / "real").mkdir(parents=True)
    shared.chmod(0o1777)
    (shared / "real").chmod(0o755)
    (tmp_path / "link").symlink_to(shared / "real")
    with pytest.raises(CannotCreate, match=r"shared/real: others may reach into it \(mode 0755\)"):
        make_private(tmp_path / "link")


def test_what_is_no_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CannotCreate, match="Not a directory"):
        make_private(tmp_path / "file")
    with pytest.raises(CannotCreate, match=r"cannot use directory .*below: Not a directory"):
        make_private(tmp_path / "file" / "below")


@pytest.mark.parametrize("exposed", [0o755, 0o770, 0o701])
def test_an_exposed_directory_where_everybody_writes_is_refused(tmp_path: Path, exposed: int) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    (shared / "own").mkdir()
    (shared / "own").chmod(exposed)
    with pytest.raises(CannotCreate, match=rf"mode {exposed:04o}\) and everybody may write to .*chmod 700"):
        make_private(shared / "own")
    (shared / "own").chmod(0o700)
    make_private(shared / "own")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_a_directory_of_another_user_is_refused(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir(mode=0o700)
    os.chown(tmp_path / "theirs", USER, USER)
    with pytest.raises(CannotCreate, match="it belongs to user 1000, and this is user 0"):
        make_private(tmp_path / "theirs")


def test_the_longest_socket_path_can_be_bound_and_a_longer_one_is_refused(tmp_path: Path) -> None:
    longest = tmp_path / ("x" * (107 - len(os.fsencode(tmp_path)) - 1))
    check_socket_length(longest)
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(longest))
    with pytest.raises(CannotCreate, match="has 108 bytes and a UNIX socket's may have 107; choose a shorter"):
        check_socket_length(Path(f"{longest}x"))
    with pytest.raises(CannotCreate):
        check_socket_length(Path("/" + "é" * 54))


def test_no_module_from_where_it_is_started_gets_into_the_web_tier(tmp_path: Path) -> None:
    """Django projects have an `admin`; and what lies in a stranger's directory is not to be executed."""
    (tmp_path / "admin").mkdir()
    for name in ("admin/__init__.py", "flask.py", "gunicorn.py"):
        (tmp_path / name).write_text("raise SystemExit('the wrong one')\n")
    with Supervisor() as supervisor:
        supervisor.cwd = tmp_path
        supervisor.start(until="READY=1")
