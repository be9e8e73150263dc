"""What a reexec keeps beside processes and connections: cgroups, the log in files, a socket of systemd, keys."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from harness import READY, Supervisor
from test_cgroups import Delegated, delegated  # noqa: F401  # a fixture
from test_log_files import wait_for
from test_reexec_streams import Unix
from test_socket_activation import answers, passing


@pytest.fixture
def held(delegated: Delegated, supervisors: Any) -> Iterator[Supervisor]:  # noqa: F811
    """Its first program moves there; the next ones are there."""
    prefix = f"import os\nif 'LLAMA_ROUTER_HANDOVER' not in os.environ: {delegated.prefix}"
    yield supervisors(prefix=prefix).start("READY=1")


def test_cgroups_go_on(held: Supervisor, delegated: Delegated) -> None:  # noqa: F811
    model = held.load("a", *READY, limits={"cpu_weight": 50})
    (own,) = delegated.launches().items()
    held.call("reexec")
    assert dict([own]) == delegated.launches() == {f"launch-{model['launch']}": {model["pid"]}}
    assert {held.pid, held.status()["web"]["pid"]} <= delegated.own()
    second = held.load("b")
    assert delegated.launches()[f"launch-{second['launch']}"] == {second["pid"]}
    held.call("unload", model="a", wait=True)
    assert list(delegated.launches()) == [f"launch-{second['launch']}"]


def test_cgroups_end_with_a_killed_supervisor(held: Supervisor, delegated: Delegated) -> None:  # noqa: F811
    gate = held.gate("escaped")
    held.load("a", f"escape={gate.path}", *READY)
    daemon = gate.visitor()
    held.call("reexec")
    held.expected = -signal.SIGKILL
    held.kill(held.pid, signal.SIGKILL)
    daemon.gone()


def test_log_files_go_on(supervisors: Any) -> None:
    supervisor: Supervisor = supervisors(config="log: {directory: logs}\n").start("READY=1")
    gate = supervisor.gate("g")
    supervisor.load("a", "say=one", "mutter=tw", "listen={socket}", "notify=READY=1", gate.step, "say=o", "serve")
    visitor = gate.visitor()
    supervisor.call("reexec")
    visitor.go()
    text = wait_for(supervisor, supervisor.directory / "logs" / "llama-router.a.log", "a | two\n")
    assert [line.partition(" ")[2] for line in text.splitlines()] == ["a | one", "a | two"]


def test_a_socket_of_systemd_stays_one(supervisors: Any) -> None:
    supervisor: Supervisor = supervisors()
    path = supervisor.directory / "passed.sock"
    given = passing(f"socket.create_server({str(path)!r}, family=socket.AF_UNIX)").replace("\n", "\n    ")
    supervisor.prefix = f"import os\nif 'LLAMA_ROUTER_HANDOVER' not in os.environ:{given}"
    supervisor.start("READY=1")
    supervisor.call("reexec")
    assert supervisor.status()["listen"] == f"unix:{path}"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(path))
        assert answers(sock)
    supervisor.config.write_text("listen: 127.0.0.1:2\nweb: {workers: 1}\nmax_models: 0\n")
    assert supervisor.call("reload")["changes"]["needs_restart"] == []
    assert supervisor.stop() == 0
    assert path.is_socket()


def test_what_needs_a_reexec_and_what_a_restart(supervisors: Any) -> None:
    supervisor: Supervisor = supervisors().start("READY=1")
    new = supervisor.config.read_text().replace("web.sock", "other.sock").replace("workers: 1", "workers: 2")
    supervisor.config.write_text(new.replace("workers: 2", "workers: 2, edit_commands: true"))
    changes, watch = supervisor.call("reload")["changes"], supervisor.watch()
    assert (changes["needs_restart"], changes["needs_reexec"]) == (["listen"], ["web.workers"])
    watch.text("changed in config.yaml: web.edit_commands")
    watch.text("listen changed in config.yaml: takes effect after a restart of llama-router")
    watch.text("web.workers changed in config.yaml: takes effect after llama-router reexec")
    status = supervisor.status()
    assert (status["needs_restart"], status["needs_reexec"]) == (["listen"], ["web.workers"])
    supervisor.call("reexec")
    status = supervisor.status()
    assert (status["needs_restart"], status["needs_reexec"]) == (["listen"], [])
    assert b"LLAMA_ROUTER_WORKERS=2" in Path(f"/proc/{status['web']['pid']}/environ").read_bytes().split(b"\0")


def test_keys_of_the_environment_stay_known(supervisors: Any) -> None:
    supervisor: Supervisor = supervisors(env={"LLAMA_ROUTER_API_KEY": "sk-of-the-environment"}).start("READY=1")

    def status(key: str) -> int:
        with closing(Unix(supervisor.directory / "web.sock")) as connection:
            connection.request("GET", "/v1/models", headers={"Authorization": f"Bearer {key}"})
            with connection.getresponse() as response:
                return response.status

    assert (status("sk-of-the-environment"), status("another")) == (200, 401)
    supervisor.call("reexec")
    supervisor.eventually(lambda: not supervisor.status()["web_before"], "the new web tier serves")
    assert (status("sk-of-the-environment"), status("another")) == (200, 401)
    assert b"sk-of-the-environment" not in Path(f"/proc/{supervisor.pid}/environ").read_bytes()
