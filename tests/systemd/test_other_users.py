"""The service as other users than the unit's: one that systemd makes for it, and somebody's own."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from booted import Machine
from installed import MODEL, ROOT, SERVICE, Installed

USER = "somebody"
STATE = "/var/lib/llama-router"

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def machine() -> Iterator[Installed]:
    """With everything installed and nothing started."""
    with Installed() as machine:
        machine.install()
        yield machine


def test_a_dynamic_user(machine: Installed) -> None:
    """Its state directory is a symbolic link, and its presets are below that."""
    machine.write("/etc/llama-router/config.yaml", f"web: {{workers: 1}}\npresets: {STATE}/presets\n")
    made = {"ExecStartPre": f"mkdir -p {STATE}/presets"}
    with machine.drop_in(SERVICE, "Service", DynamicUser="yes", User="llama-router-dynamic", **made):
        machine.run("systemctl", "start", SERVICE)
        assert (machine.root / STATE.lstrip("/")).is_symlink()
        preset = f"models: {{smollm2: {{model: {MODEL}}}}}\n"
        machine.write("/var/lib/private/llama-router/presets/a.yaml", preset)
        machine.run("systemctl", "reload", SERVICE)
        assert machine.chat()
        uid = machine.run("ps", "--no-headers", "-o", "uid", "-p", machine.show(SERVICE, "MainPID"))
        assert int(uid) >= 61184, "systemd.exec(5) has the range of such users"
        machine.run("systemctl", "restart", SERVICE)
        assert machine.chat()
        machine.run("systemctl", "stop", SERVICE)


def as_somebody(machine: Machine, *command: str) -> str:
    """Run as that user, whose own systemd runs."""
    uid = machine.run("id", "-u", USER).strip()
    session = (f"XDG_RUNTIME_DIR=/run/user/{uid}", f"HOME=/home/{USER}", "PATH=/usr/bin:/bin")
    become = ("setpriv", f"--reuid={USER}", f"--regid={USER}", "--init-groups", "env", "-i")
    return machine.run(*become, *session, *command)


def test_somebody_s_own_systemd(machine: Installed) -> None:
    machine.run("useradd", "--create-home", USER)
    machine.run("loginctl", "enable-linger", USER)
    uid = machine.run("id", "-u", USER).strip()
    machine.run("systemctl", "start", f"user@{uid}.service")
    home = f"/home/{USER}/.config"
    machine.write(f"{home}/systemd/user/{SERVICE}", (ROOT / "units/user" / SERVICE).read_text())
    machine.write(f"{home}/llama-router/config.yaml", "web: {workers: 1}\n")
    preset = json.dumps({"models": {"smollm2": {"model": MODEL}}})
    machine.write(f"{home}/llama-router/presets.d/a.yaml", preset)
    machine.run("chown", "-R", f"{USER}:{USER}", home)
    as_somebody(machine, "systemctl", "--user", "daemon-reload")
    as_somebody(machine, "systemctl", "--user", "start", SERVICE)
    assert machine.chat()
    assert "1 ready" in as_somebody(machine, "systemctl", "--user", "status", SERVICE)
    as_somebody(machine, "systemctl", "--user", "reload", SERVICE)
    as_somebody(machine, "systemctl", "--user", "stop", SERVICE)
    assert not machine.attempt("pgrep", "--uid", USER, "--full", "llama-router").stdout
    assert not (machine.root / f"run/user/{uid}/llama-router").exists()
