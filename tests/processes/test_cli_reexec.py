"""`llama-router reexec`: what it says, and how it ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import ROOT, Supervisor, refused
from observed import DEADLINE

Start = Callable[..., Supervisor]


def reexec(runtime: Path, *options: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "supervisor.cli", "--runtime-dir", str(runtime), "reexec", *options]
    return subprocess.run(argv, capture_output=True, text=True, timeout=3 * DEADLINE, check=False)


@pytest.fixture
def upgraded(supervisors: Start) -> Supervisor:
    """A supervisor whose next program is another version, if there is a file `works`."""
    running = supervisors()
    works = str(running.directory / "works")
    running.prefix = (
        "import os, supervisor\nif 'LLAMA_ROUTER_HANDOVER' in os.environ:\n"
        f" assert os.path.exists({works!r}), 'half installed'\n supervisor.__version__ = '9.1'"
    )
    return running.start("READY=1")


def test_it_tells_the_versions(upgraded: Supervisor) -> None:
    Path(upgraded.directory / "works").touch()
    told = reexec(upgraded.runtime)
    assert (told.returncode, told.stdout, told.stderr) == (0, "llama-router 9.1 runs in place of 0.1.0\n", "")
    assert upgraded.status()["version"] == "9.1"
    told = reexec(upgraded.runtime, "--json")
    assert json.loads(told.stdout)["reexec"] == {"version": "9.1", "before": "9.1"}
    told = reexec(upgraded.runtime)
    assert told.stdout == "llama-router 9.1 was started anew in its place\n"


def test_it_tells_why_not(upgraded: Supervisor) -> None:
    told = reexec(upgraded.runtime)
    assert (told.returncode, told.stdout) == (1, "")
    assert told.stderr.startswith("llama-router: cannot reexec: the new program ended with 1: ")
    assert told.stderr.endswith("AssertionError: half installed\n")
    assert upgraded.status()["version"] == "0.1.0"


def test_a_script_is_found_anew(supervisors: Start) -> None:
    """As pip and packages replace it: another file, and another first line."""
    running = supervisors(env={"PYTHONPATH": str(ROOT)})
    script = running.directory / "llama-router"
    start = "from supervisor.cli import main; main()"
    script.write_text(f"#!{sys.executable}\n{start}\n")
    script.chmod(0o755)
    options = running.argv()[3:]
    running.argv = lambda *_: [str(script), *options]  # type: ignore[method-assign]
    running.start("READY=1")
    script.unlink()
    with refused() as caught:
        running.call("reexec")
    assert "No such file or directory" in str(caught[0])
    script.write_text(f"#!{sys.executable} -B\nimport supervisor; supervisor.__version__ = '9.1'; {start}\n")
    script.chmod(0o755)
    running.call("reexec")
    assert running.status()["version"] == "9.1"
    assert Path(f"/proc/{running.pid}/cmdline").read_bytes().split(b"\0")[1:3] == [b"-B", bytes(script)]


def test_nothing_runs(tmp_path: Path) -> None:
    assert reexec(tmp_path).returncode == os.EX_UNAVAILABLE
