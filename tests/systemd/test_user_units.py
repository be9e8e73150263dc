"""`llama-router install-units --user`: the service of a user's own systemd, and the control groups that it is given."""

from __future__ import annotations

import subprocess

import pytest
from installed import MODEL, PROGRAM, SERVICE, Installed

BIN = "/opt/llama-router/bin"
HOME, UID = "/home/me", "1500"
CONFIG = f"{HOME}/.config/llama-router"

pytestmark = pytest.mark.timeout(300)


class UserInstalled(Installed):
    """With a user `me`, whose systemd runs."""

    def prepare(self) -> None:
        """Make the user, and a program to install units for."""
        self.run("useradd", "--create-home", "--uid", UID, "me")
        self.run("loginctl", "enable-linger", "me")
        self.run("systemctl", "start", f"user@{UID}.service")
        self.run("mkdir", BIN)
        self.run("ln", "-s", PROGRAM, f"{BIN}/python")
        self.provide(f"{BIN}/llama-router", f"{BIN}/python")

    def attempt_as_user(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command as this user, as in a session."""
        session = ("env", f"HOME={HOME}", f"XDG_RUNTIME_DIR=/run/user/{UID}")
        user = ("setpriv", f"--reuid={UID}", f"--regid={UID}", "--init-groups")
        return self.attempt(*user, *session, *command)

    def as_user(self, *command: str) -> str:
        """What a command of this user prints; it must succeed."""
        done = self.attempt_as_user(*command)
        assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
        return done.stdout


def test_models_have_control_groups() -> None:
    with UserInstalled() as machine:
        machine.prepare()
        machine.as_user(f"{BIN}/llama-router", "install-units", "--user")
        machine.as_user("systemctl", "--user", "daemon-reload")
        start = ("systemctl", "--user", "start", SERVICE)
        assert machine.attempt_as_user(*start).returncode != 0
        told = machine.run("journalctl", "-o", "cat", "-p", "err")
        assert f"{CONFIG}/config.yaml: it is not there either" in told

        machine.write(f"{CONFIG}/config.yaml", "web: {workers: 1}\n")
        preset = f"models: {{smollm2: {{model: {MODEL}, context: 1024, limits: {{memory: 4GiB}}}}}}\n"
        machine.write(f"{CONFIG}/presets.d/smollm2.yaml", preset)
        machine.as_user(*start)
        machine.as_user(f"{BIN}/llama-router", "load", "smollm2")
        machine.as_user("systemctl", "--user", "reload", SERVICE)
        assert "was given no cgroups" not in machine.as_user(f"{BIN}/llama-router", "status", "smollm2")
        assert machine.chat()
        own = machine.as_user("systemctl", "--user", "show", "--value", "--property=ControlGroup", SERVICE).strip()
        launches = machine.run("sh", "-c", f"cat /sys/fs/cgroup{own}/launch-*/cgroup.procs").split()
        assert len(launches) == 1
        machine.as_user("systemctl", "--user", "restart", SERVICE)
        assert machine.chat()
        machine.as_user("systemctl", "--user", "stop", SERVICE)
