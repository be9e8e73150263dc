"""How the supervisor starts, what keeps it from starting, how it ends, and what it says to systemd meanwhile."""

from __future__ import annotations

import http.client
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest
from harness import ROOT, Supervisor, Systemd
from observed import DEADLINE, Process

from supervisor import __version__


def http_status(path: Path) -> int:
    """What the web tier answers on its socket."""
    connection = http.client.HTTPConnection("localhost", timeout=DEADLINE)
    connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.sock.settimeout(DEADLINE)
    connection.sock.connect(str(path))
    connection.request("GET", "/health")
    status = connection.getresponse().status
    connection.close()
    return status


def test_systemd_is_told_everything(supervisors: type[Supervisor]) -> None:
    """READY=1 when the web tier answers, a status line, STOPPING=1, and a sign of life twice a timeout."""
    supervisor = supervisors()
    with Systemd(supervisor.directory / "systemd.sock") as systemd:
        supervisor.launch(env={**systemd.env, "WATCHDOG_USEC": "2000000"})
        heard = systemd.heard("READY=1", supervisor)
        assert http_status(supervisor.directory / "web.sock") == 200
        assert "STATUS=0 ready, 0 starting, 0 backoff, 0 failed" in heard
        supervisor.load("m")
        systemd.heard("STATUS=1 ready, 0 starting, 0 backoff, 0 failed", supervisor)
        systemd.heard("WATCHDOG=1", supervisor)
        before = time.monotonic()
        for _ in range(3):
            systemd.heard("WATCHDOG=1", supervisor)
        assert 2.5 < time.monotonic() - before < 3 * 2.0
        supervisor.kill(supervisor.pid, signal.SIGTERM)
        systemd.heard("STOPPING=1", supervisor)
        systemd.heard("STATUS=stopping", supervisor)
        systemd.heard("EXTEND_TIMEOUT_USEC=30000000", supervisor)
    assert supervisor.wait() == 0


def test_no_watchdog_for_others(supervisors: type[Supervisor]) -> None:
    supervisor = supervisors()
    with Systemd(supervisor.directory / "systemd.sock") as systemd:
        supervisor.launch(env={**systemd.env, "WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"})
        heard = systemd.heard("READY=1", supervisor)
    assert "WATCHDOG=1" not in heard


def test_the_status_of_a_supervisor(supervisors: type[Supervisor]) -> None:
    supervisor = supervisors(listen="127.0.0.1:0")
    supervisor.add("m", description="words", aliases=["b", "a"], autostart=True)
    supervisor.start(until="READY=1")
    supervisor.watch("m").state("ready")
    status = supervisor.status()
    assert (status["version"], status["pid"], status["state"]) == (__version__, supervisor.pid, "running")
    assert (status["config"], status["autoload"]) == (f"{supervisor.directory}/config.yaml", True)
    assert status["counts"] == {**dict.fromkeys(status["counts"], 0), "ready": 1}
    assert (status["web"]["name"], status["web"]["state"]) == ("@web", "ready")
    assert time.time() - 60 < status["since"] < status["models"][0]["since"] < time.time()
    model = status["models"][0]
    assert (model["file"], model["line"], model["aliases"]) == ("presets.d/m.yaml", 1, ["b", "a"])
    host, port = status["listen"].split(":")
    with socket.create_connection((host, int(port)), DEADLINE):
        pass


def test_a_web_tier_that_dies_comes_back(supervisors: type[Supervisor]) -> None:
    """And refuses no connection meanwhile: the supervisor listens."""
    supervisor = supervisors().start(until="READY=1")
    supervisor.load("m")
    before = supervisor.status()["web"]["pid"]
    watch = supervisor.watch("@web")
    watch.state("ready")
    supervisor.kill(before, signal.SIGKILL)
    assert watch.state("backoff")["reason"]["signal"] == "SIGKILL"
    assert http_status(supervisor.directory / "web.sock") == 200
    assert supervisor.status()["web"]["pid"] != before
    assert supervisor.model("m")["state"] == "ready"


def test_a_web_tier_that_never_works_ends_the_supervisor(supervisors: type[Supervisor]) -> None:
    supervisor = supervisors()
    supervisor.replace_web_tier("say=no gevent", "exit=3")
    supervisor.expected = 70
    supervisor.add("m", autostart=True, stop_timeout="10s")
    supervisor.launch()
    assert supervisor.wait() == 70
    log = supervisor.log.read_text()
    assert "cannot serve: the web tier exited with code 3 before it was ready" in log
    assert "no gevent" in log


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_leaves_nothing(supervisors: type[Supervisor], number: signal.Signals) -> None:
    supervisor = supervisors().start(until="READY=1")
    supervisor.load("m")
    supervisor.add("loading", supervisor.gate("loading").step)
    supervisor.call("load", model="loading")
    supervisor.gate("loading").visitor()
    supervisor.add("backoff", "exit=1", restart={"delay": "1h", "max_delay": "2h"})
    supervisor.call("load", model="backoff")
    supervisor.watch("backoff").state("backoff")
    supervisor.kill(supervisor.pid, number)
    assert supervisor.wait() == 0
    assert [path.name for path in supervisor.runtime.iterdir()] == ["lock"]
    assert not (supervisor.directory / "web.sock").exists()
    assert supervisor.left_over() == {}


def test_a_supervisor_whose_directory_is_another_ones_removes_nothing_of_it(supervisors: type[Supervisor]) -> None:
    first, second = supervisors().start(), supervisors()
    shutil.rmtree(first.runtime)
    second.runtime.symlink_to(first.runtime)
    second.runtime.unlink()
    second.runtime = first.runtime
    second.start()
    first.kill(first.pid, signal.SIGTERM)
    assert first.wait() == 0
    assert second.status()["state"] in ("starting", "running")


def test_a_configuration_whose_path_is_no_unicode(supervisors: type[Supervisor]) -> None:
    supervisor = supervisors()
    odd = supervisor.directory / "\udcff"
    odd.mkdir()
    for name in ("config.yaml", "presets.d"):
        (supervisor.directory / name).rename(odd / name)
    supervisor.config = odd / "config.yaml"
    supervisor.start()
    assert supervisor.status()["config"].endswith("\N{REPLACEMENT CHARACTER}/config.yaml")


def test_a_stop_leaves_no_strays(supervisors: type[Supervisor]) -> None:
    """Not even processes that left their group, and their children."""
    supervisor = supervisors().start()
    gate = supervisor.gate("stray")
    supervisor.load("m", f"deep={gate.path}", "listen={socket}", "notify=READY=1", "serve")
    with Process(gate.visitor().pid) as stray:
        supervisor.kill(supervisor.pid, signal.SIGTERM)
        assert supervisor.wait() == 0
        stray.gone(2.0)


@pytest.mark.parametrize("listen", [None, "127.0.0.1:0"])
def test_a_stop_waits_for_running_requests(supervisors: type[Supervisor], listen: str | None) -> None:
    supervisor = supervisors(listen=listen).start()
    address = supervisor.status()["listen"]
    model = supervisor.load("m", stop_timeout="1min")
    lease, waiting = supervisor.lease("m"), supervisor.lease("m")
    lease.grant()
    watch = supervisor.watch()
    supervisor.kill(supervisor.pid, signal.SIGTERM)
    watch.text("draining")
    status = supervisor.status()
    assert (status["state"], status["models"][0]["pid"], status["listen"]) == ("stopping", model["pid"], address)
    assert waiting.answered
    late = supervisor.lease("m")
    supervisor.status()
    assert late.answered
    assert not (supervisor.directory / "web.sock").exists()
    lease.release()
    assert supervisor.wait() == 0


def test_a_stop_does_not_wait_for_ever(supervisors: type[Supervisor]) -> None:
    supervisor = supervisors().start()
    supervisor.load("m", "ignore=TERM", "listen={socket}", "notify=READY=1", "serve", stop_timeout="100ms")
    supervisor.lease("m").grant()
    supervisor.kill(supervisor.pid, signal.SIGTERM)
    assert supervisor.wait() == 0


def test_a_second_signal_ends_everything_at_once(supervisors: type[Supervisor]) -> None:
    supervisor = supervisors().start()
    supervisor.load("m", "ignore=TERM", "listen={socket}", "notify=READY=1", "serve", stop_timeout="1h")
    supervisor.lease("m").grant()
    watch = supervisor.watch("m")
    supervisor.kill(supervisor.pid, signal.SIGTERM)
    watch.text("draining")
    supervisor.kill(supervisor.pid, signal.SIGTERM)
    assert supervisor.wait() == 0


def test_a_stop_while_everything_starts(supervisors: type[Supervisor]) -> None:
    supervisor = supervisors()
    for number in range(3):
        supervisor.add(f"m{number}", supervisor.gate("loading").step, autostart=True, stop_timeout="1h")
    supervisor.start()
    supervisor.kill(supervisor.pid, signal.SIGTERM)
    assert supervisor.wait() == 0


def test_a_stop_while_the_web_tier_starts(supervisors: type[Supervisor]) -> None:
    """gunicorn's workers are deaf to SIGTERM while they boot, and have nothing to finish."""
    supervisor = supervisors()
    gate = supervisor.gate("booting")
    supervisor.replace_web_tier("ignore=TERM", gate.step)
    supervisor.start()
    gate.visitor()
    before = time.monotonic()
    supervisor.kill(supervisor.pid, signal.SIGTERM)
    assert supervisor.wait() == 0
    assert time.monotonic() - before < 3.0


def test_a_stop_before_anything_was_started(supervisors: type[Supervisor]) -> None:
    supervisor = supervisors()
    supervisor.expected = -signal.SIGTERM
    supervisor.launch()
    supervisor.kill(supervisor.pid, signal.SIGTERM)
    assert supervisor.wait() in (0, -signal.SIGTERM)


def test_operators_are_told_of_a_stop(supervisors: type[Supervisor]) -> None:
    supervisor = supervisors().start()
    supervisor.load("m", stop_timeout="1min")
    lease = supervisor.lease("m")
    lease.grant()
    watch = supervisor.watch()
    supervisor.kill(supervisor.pid, signal.SIGTERM)
    watch.text("draining")
    client = supervisor.client()
    client._send({"op": "load", "model": "m"})
    assert client._receive()["error"]["message"] == "llama-router is stopping"
    lease.close()
    assert supervisor.wait() == 0


def test_another_one_in_the_same_place(supervisors: type[Supervisor]) -> None:
    supervisor = supervisors().start()
    supervisor.load("m")
    second = supervisor.run("--listen", "127.0.0.1:0")
    assert second.returncode == 75
    assert f"(pid {supervisor.pid}) uses {supervisor.runtime}" in second.stderr
    assert supervisor.model("m")["state"] == "ready"


def test_a_place_is_free_again_after_a_kill(supervisors: type[Supervisor]) -> None:
    supervisor = supervisors().start()
    supervisor.load("m")
    supervisor.expected = -signal.SIGKILL
    supervisor.kill(supervisor.pid, signal.SIGKILL)
    supervisor.wait()
    assert supervisor.left_over(patience=2.0) == {}
    supervisor.expected = 0
    supervisor.start(until="READY=1")
    assert supervisor.load("m")["state"] == "ready"


def test_a_runtime_directory_with_too_long_a_path(supervisors: type[Supervisor]) -> None:
    supervisor = supervisors()
    supervisor.runtime = supervisor.directory / ("x" * 90)
    ended = supervisor.run()
    assert ended.returncode == 73
    assert "choose a shorter --runtime-dir" in ended.stderr


def test_a_runtime_directory_that_is_a_file(supervisors: type[Supervisor]) -> None:
    supervisor = supervisors()
    supervisor.runtime.write_text("")
    ended = supervisor.run()
    assert (ended.returncode, str(supervisor.runtime) in ended.stderr) == (73, True)


def test_an_invalid_configuration_starts_nothing(supervisors: type[Supervisor]) -> None:
    supervisor = supervisors(config="nonsense: 1\n")
    supervisor.write("a", "models: {x: {backend: command}}\n")
    ended = supervisor.run()
    assert ended.returncode == 78
    assert "config.yaml:4: nonsense" in ended.stderr
    assert "a.yaml:1" in ended.stderr
    assert not supervisor.runtime.exists()


def test_a_port_in_use(supervisors: type[Supervisor]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        ended = supervisors(listen=address).run()
    assert ended.returncode == 69
    assert f"cannot listen on {address}: Address already in use" in ended.stderr
    assert "--listen" in ended.stderr


def test_a_socket_in_use_is_left_alone(supervisors: type[Supervisor]) -> None:
    supervisor = supervisors()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as taken:
        taken.bind(f"{supervisor.directory}/web.sock")
        taken.listen(0)
        ended = supervisor.run()
        assert ended.returncode == 69
        assert "Address already in use" in ended.stderr
        # The first one's probe fills the queue of 0, and nobody accepts; the second must not wait for that.
        assert "Address already in use" in supervisor.run().stderr
        assert (supervisor.directory / "web.sock").is_socket()


def test_a_socket_nobody_listens_on_is_replaced(supervisors: type[Supervisor]) -> None:
    supervisor = supervisors()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stale:
        stale.bind(f"{supervisor.directory}/web.sock")
    supervisor.start(until="READY=1")
    assert http_status(supervisor.directory / "web.sock") == 200


def test_a_file_in_place_of_the_socket_is_left_alone(supervisors: type[Supervisor]) -> None:
    supervisor = supervisors()
    precious = supervisor.directory / "web.sock"
    precious.write_text("data")
    assert supervisor.run().returncode == 69
    assert precious.read_text() == "data"


def test_ipv6(supervisors: type[Supervisor]) -> None:
    supervisor = supervisors(listen="'[::1]:0'").start()
    listen = supervisor.status()["listen"]
    assert listen.startswith("[::1]:")
    with socket.create_connection(("::1", int(listen.rpartition(":")[2])), DEADLINE):
        pass


def test_standard_streams_may_be_closed(supervisors: type[Supervisor]) -> None:
    supervisor = supervisors()
    supervisor.add("m")
    with Systemd(supervisor.directory / "systemd.sock") as systemd:
        shell = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *supervisor.argv()]
        supervisor.process = subprocess.Popen(shell, cwd=ROOT, env={**os.environ, **systemd.env})
        systemd.heard("READY=1", supervisor)
    assert supervisor.load("m")["state"] == "ready"
