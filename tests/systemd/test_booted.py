"""The bed of the other tests: a tree boots as it should, and when it is gone nothing is left of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import booted
import pytest
from booted import Machine
from debian_tree import debian_tree
from observed import Process


def left() -> tuple[list[str], list[str], list[Path]]:
    """The mounts, the control groups and the directories of this machine that booting could leave."""
    groups = booted._cgroup2()
    assert groups is not None
    mounts = Path("/proc/self/mounts").read_text().splitlines()
    return mounts, sorted(path.name for path in groups.glob("lr-systemd-*")), sorted(Path("/tmp").glob("lr-systemd-*"))


@pytest.mark.timeout(900)  # the tree may have to be made
def test_it_boots_and_leaves_nothing() -> None:
    booted._sweep()
    before = left()
    with ExitStack() as stack:
        with Machine() as machine:
            first = stack.enter_context(Process(machine.pid))
            assert machine.run("systemctl", "is-system-running", "--wait").strip() == "running"
            assert left() != before
            (machine.root / "etc/written").write_text("in memory")
            assert machine.run("cat", "/etc/written") == "in memory"
        assert not first.alive
    assert left() == before
    assert not (debian_tree() / "etc/written").exists()


def test_it_goes_with_those_who_booted_it() -> None:
    script = "import sys; from booted import Machine\nwith Machine() as m: print(m.pid, flush=True); sys.stdin.read()"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    pipe = subprocess.PIPE
    with subprocess.Popen(
        (sys.executable, "-c", script), env=environment, stdin=pipe, stdout=pipe, text=True
    ) as program:
        assert program.stdout is not None
        with Process(int(program.stdout.readline())) as first:
            program.send_signal(signal.SIGKILL)
            first.gone()
    booted._sweep()
    assert not [path for paths in left()[1:] for path in paths if f"-{program.pid}-" in str(path)]


def test_what_is_seen_of_this_machine_is_read_only(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("from outside")
    with Machine({"/srv/some/directory": tmp_path, "/srv/file": tmp_path / "file"}) as machine:
        assert machine.run("cat", "/srv/file", "/srv/some/directory/file") == "from outside" * 2
        for target in ("/srv/file", "/srv/some/directory/other"):
            assert "Read-only" in machine.attempt("sh", "-c", f": >{target}").stderr


def test_the_journal_is_heard() -> None:
    with Machine() as machine:
        since = machine.cursor()
        assert machine.journal(since) == []
        machine.run("systemd-run", "--unit=says", "echo", "a word")
        heard = machine.heard(since, what=lambda entry: True, _SYSTEMD_UNIT="says.service")
        assert heard["MESSAGE"] == "a word"
        assert heard in machine.journal(since)


def test_the_sandbox_of_a_unit_is_real() -> None:
    with Machine() as machine:
        sandbox = (
            "DynamicUser=yes",
            "PrivateTmp=yes",
            "ProtectSystem=strict",
            "SystemCallFilter=~mount",
            "PrivateUsers=yes",
        )
        options = [f"--property={each}" for each in sandbox]
        tried = machine.attempt("systemd-run", "--wait", "--pipe", *options, "sh", "-c", "id -u; : >/etc/written")
        assert tried.returncode != 0
        assert int(tried.stdout) >= 61184  # a dynamic user's, see systemd.exec(5)
        assert "Read-only" in tried.stderr
