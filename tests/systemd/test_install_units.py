"""`llama-router install-units`, and what it says to do next: done, the service runs."""

from __future__ import annotations

import pytest
from installed import PROGRAM, SERVICE, Installed

BIN = "/opt/llama-router/bin"

pytestmark = pytest.mark.timeout(300)


def test_what_it_writes_and_says_is_all_there_is_to_do() -> None:
    with Installed() as machine:
        machine.run("mkdir", BIN)
        machine.run("ln", "-s", PROGRAM, f"{BIN}/python")
        machine.provide(f"{BIN}/llama-router", f"{BIN}/python")
        done = machine.attempt(f"{BIN}/llama-router", "install-units")
        assert done.returncode == 0, done.stderr
        machine.write("/etc/llama-router/config.yaml", "web: {workers: 1}\n")
        machine.preset("smollm2", model="/srv/models/smollm2.gguf", context=1024)
        told = done.stderr.partition("next:\n")[2].splitlines()
        assert len(told) == 4
        for command in told:
            machine.run(*command.split())
        assert machine.chat()
        machine.run("systemctl", "reload", SERVICE)
        assert f"{BIN}/llama-router" in machine.show(SERVICE, "ExecStart")
        assert machine.run(f"{BIN}/llama-router", "install-units").count("is up to date") == 4
