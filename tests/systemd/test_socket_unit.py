"""llama-router.socket: systemd listens, and nobody is refused while the service is away."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from installed import SERVICE, Installed

SOCKET = "llama-router.socket"

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def machine() -> Iterator[Installed]:
    """Listening."""
    with Installed() as machine:
        machine.install()
        machine.run("systemctl", "enable", "--now", SOCKET)
        yield machine


def test_the_first_connection_starts_it(machine: Installed) -> None:
    machine.run("systemctl", "stop", SERVICE)
    assert machine.chat()
    assert machine.show(SERVICE, "ActiveState") == "active"


def test_no_connection_is_refused_while_it_restarts(machine: Installed) -> None:
    machine.run("systemctl", "start", SERVICE)
    with machine.start("/usr/bin/python3", f"{machine.inside}/keep_asking.py") as asking:
        assert asking.stdout is not None and asking.stdout.readline() == "asking\n"
        for _ in range(3):
            machine.run("systemctl", "restart", SERVICE)
        happened = json.loads(asking.communicate()[0])
    assert happened.pop("HTTP/1.1 200 OK") > 0
    assert happened == {}


def test_an_address_in_config_yaml_that_differs_is_told(machine: Installed) -> None:
    since = machine.cursor()
    machine.write("/etc/llama-router/config.yaml", "listen: 127.0.0.1:9999\nweb: {workers: 1}\n")
    machine.run("systemctl", "restart", SERVICE)
    told = "127.0.0.1:9999 is not used: systemd listens on 127.0.0.1:8080"
    assert [entry for entry in machine.journal(since, PRIORITY="4") if told in entry["MESSAGE"]]
    assert machine.chat()


def test_a_unix_socket_for_a_proxy(machine: Installed) -> None:
    machine.run("systemctl", "stop", SERVICE, SOCKET)
    with machine.drop_in(SOCKET, "Socket", ListenStream="\nListenStream=/run/llama-router.sock", SocketGroup="daemon"):
        machine.run("systemctl", "start", SOCKET)
        assert machine.run("stat", "--format=%G %a", "/run/llama-router.sock").split() == ["daemon", "660"]
        assert json.loads(machine.curl("--unix-socket", "/run/llama-router.sock", "/v1/models"))["data"]
        machine.run("systemctl", "restart", SERVICE)
        assert json.loads(machine.curl("--unix-socket", "/run/llama-router.sock", "/v1/models"))["data"]
        machine.run("systemctl", "stop", SERVICE, SOCKET)


def test_two_addresses_are_an_error(machine: Installed) -> None:
    with machine.drop_in(SOCKET, "Socket", ListenStream="127.0.0.1:8081"):
        machine.run("systemctl", "restart", SOCKET)
        since = machine.cursor()
        with machine.drop_in(SERVICE, "Service", Restart="no"):
            assert machine.attempt("systemctl", "start", SERVICE).returncode != 0
        machine.heard(since, lambda entry: "cannot listen on 2 sockets that systemd passed" in entry["MESSAGE"])
        machine.run("systemctl", "stop", SOCKET)
