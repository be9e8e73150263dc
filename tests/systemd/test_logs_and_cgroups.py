"""The journal with its fields, and a cgroup for each model server, as the unit gives them to us."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from installed import SERVICE, Installed

from supervisor.core import log_fields

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def machine() -> Iterator[Installed]:
    """One boot, with the service and its model running."""
    with Installed() as machine:
        machine.install()
        machine.run("systemctl", "start", SERVICE)
        assert machine.chat()
        yield machine


def test_the_journal_of_one_model(machine: Installed) -> None:
    machine.run("journalctl", "--sync")
    found = machine.run("journalctl", "-u", "llama-router", "MODEL=smollm2", "--output=json")
    entries = [json.loads(line) for line in found.splitlines()]
    ready = next(entry for entry in entries if entry.get("MESSAGE_ID") == log_fields.READY)
    assert ready["MESSAGE"].startswith("smollm2: ready after")
    assert (ready["MODEL_STATE"], ready["SYSLOG_IDENTIFIER"]) == ("ready", "llama-router")
    assert {entry["MODEL"] for entry in entries} == {"smollm2"}
    assert {entry["_SYSTEMD_UNIT"] for entry in entries} == {SERVICE}
    ours = [entry for entry in entries if entry["MESSAGE"].startswith("smollm2 | ")]
    assert ours and {entry["LAUNCH"] for entry in ours} == {ready["LAUNCH"]}
    assert "serving 1 model" in machine.run("journalctl", "-u", "llama-router"), "and the rest is there too"


def test_each_model_server_has_a_cgroup(machine: Installed) -> None:
    root = machine.root / f"sys/fs/cgroup{machine.show(SERVICE, 'ControlGroup')}"
    launches = [path.name for path in root.glob("launch-*")]
    model = json.loads(machine.run("llama-router", "status", "--json"))["models"][0]
    assert launches == [f"launch-{model['launch']}"]
    assert not processes(root)
    assert len(processes(root / launches[0])) == 1
    assert len(processes(root / "supervisor")) >= 4
    machine.run("llama-router", "unload", "smollm2")
    assert list(root.glob("launch-*")) == []
    machine.run("systemctl", "restart", SERVICE)
    assert machine.chat()
    assert "cannot enforce" not in machine.run("journalctl", "-u", "llama-router")


def processes(cgroup: Path) -> list[str]:
    return (cgroup / "cgroup.procs").read_text().split()
