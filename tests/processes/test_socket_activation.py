"""A listening socket that systemd passes on: which are taken, and what of it children see."""

from __future__ import annotations

import socket
from contextlib import suppress
from pathlib import Path

import pytest
from harness import Supervisor
from observed import DEADLINE, children

TCP = 'socket.create_server(("127.0.0.1", 0))'
VARIABLES = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")


def passing(*sockets: str, pid: str = "os.getpid()") -> str:
    """Python that passes its own process such sockets, made by these expressions, the way of sd_listen_fds(3)."""
    return f"""
import fcntl, os, socket, tempfile
made = [fcntl.fcntl(each.fileno(), fcntl.F_DUPFD_CLOEXEC, 100) for each in ({", ".join(sockets)},)]
for place, descriptor in enumerate(made, 3):
    os.dup2(descriptor, place)
    os.close(descriptor)
os.environ.update(LISTEN_PID=str({pid}), LISTEN_FDS="{len(sockets)}", LISTEN_FDNAMES="web")
"""


def answers(sock: socket.socket) -> bool:
    """Whether the web tier is what listens there."""
    sock.settimeout(DEADLINE)
    sock.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
    return sock.recv(12) == b"HTTP/1.1 200"


def held(pid: int) -> set[Path]:
    """What the descriptors of a process are; nothing of one that is gone by now."""
    found = set()
    with suppress(FileNotFoundError):
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(FileNotFoundError):
                found.add(link.readlink())
    return found


def test_a_socket_that_is_passed_is_where_it_listens(supervisors: type[Supervisor]) -> None:
    supervisor = supervisors(listen="127.0.0.1:1", prefix=passing(TCP)).start(until="READY=1")
    host, port = supervisor.status()["listen"].split(":")
    assert port != "1"
    with socket.create_connection((host, int(port)), DEADLINE) as sock:
        assert answers(sock)
    told = supervisor.log.read_text()
    assert f"127.0.0.1:1 is not used: systemd listens on {host}:{port}, as llama-router.socket says" in told


def test_a_unix_socket_that_is_passed_outlives_it(supervisors: type[Supervisor]) -> None:
    supervisor = supervisors()
    path = supervisor.directory / "passed.sock"
    supervisor.prefix = passing(f"socket.create_server({str(path)!r}, family=socket.AF_UNIX)")
    supervisor.start(until="READY=1")
    assert supervisor.status()["listen"] == f"unix:{path}"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(path))
        assert answers(sock)
    assert supervisor.stop() == 0
    assert path.is_socket(), "it is systemd's"


def test_what_agrees_or_is_not_asked_for_is_not_told(supervisors: type[Supervisor]) -> None:
    supervisor = supervisors()
    path = supervisor.directory / "web.sock"  # where its config.yaml says
    supervisor.prefix = passing(f"socket.create_server({str(path)!r}, family=socket.AF_UNIX)")
    supervisor.start()
    assert "is not used" not in supervisor.log.read_text()
    supervisor.stop()
    supervisor.config.write_text("web: {workers: 1}\n")
    supervisor.prefix = passing(TCP)
    supervisor.start()
    assert supervisor.status()["listen"] != "127.0.0.1:8080"
    assert "is not used" not in supervisor.log.read_text()


def test_a_change_of_listen_is_none_then(supervisors: type[Supervisor]) -> None:
    supervisor = supervisors(prefix=passing(TCP)).start()
    supervisor.config.write_text("listen: 127.0.0.1:2\nweb: {workers: 1}\nmax_models: 0\n")
    changes = supervisor.call("reload")["changes"]
    assert (changes["needs_restart"], changes["settings"]) == ([], [])


def test_children_get_no_word_and_no_socket_of_it(supervisors: type[Supervisor]) -> None:
    supervisor = supervisors(prefix=passing(TCP)).start(until="READY=1")
    dump = supervisor.directory / "m.dump"
    supervisor.load("m", f"dump={dump}", "listen={socket}", "notify=READY=1", "serve")
    assert not supervisor.dump("m")["env"].keys() & set(VARIABLES)
    listening = Path(f"/proc/{supervisor.pid}/fd/3").readlink()
    assert str(listening).startswith("socket:")
    web = supervisor.status()["web"]["pid"]

    def holders() -> set[int]:
        return {child for child in children(supervisor.pid) if listening in held(child)}

    # What the loop forks to measure the model holds everything for as long as it takes to close it.
    supervisor.eventually(lambda: holders() == {web}, "the web tier alone holds it")


@pytest.mark.parametrize("variables", [{"pid": "1"}, {}])
def test_what_is_another_process_s_is_not_taken(supervisors: type[Supervisor], variables: dict[str, str]) -> None:
    prefix = passing(TCP, **variables) if variables else "import os; os.environ['LISTEN_PID'] = str(os.getpid())"
    supervisor = supervisors(prefix=prefix).start()
    assert supervisor.status()["listen"] == f"unix:{supervisor.directory}/web.sock"


@pytest.mark.parametrize(
    ("sockets", "why"),
    [
        ((TCP, TCP), "cannot listen on 2 sockets that systemd passed: llama-router takes one"),
        (("socket.socket(type=socket.SOCK_DGRAM)",), "it is no listening stream socket"),
        (("socket.socket()",), "it is no listening stream socket"),
        (('socket.create_server("\\0lr-abstract", family=socket.AF_UNIX)',), "it is no listening stream socket"),
        (("tempfile.TemporaryFile()",), "cannot listen on what systemd passed: "),
    ],
)
def test_what_can_t_be_taken_is_an_error(supervisors: type[Supervisor], sockets: tuple[str, ...], why: str) -> None:
    supervisor = supervisors(prefix=passing(*sockets))
    ended = supervisor.run()
    assert ended.returncode == 69
    assert why in ended.stderr
