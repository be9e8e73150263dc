"""The log in systemd's journal: as datagrams to a socket of the test's own, and in a real journal if there is one."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import ROOT, Supervisor
from observed import DEADLINE, Timeout

from supervisor.core import log_fields

JOURNALD = "/usr/lib/systemd/systemd-journald"
# A journal of its own: private mounts, an empty /run and /var/log, and journald with nobody around it.
WITH_JOURNAL = f"""
set -e
mount --make-rprivate /
mount -t tmpfs none /run
mount -t tmpfs none /var/log
mkdir -p /run/systemd/journal /run/log/journal
cat /proc/sys/kernel/random/uuid | tr -d - > /run/machine-id
[ -e /etc/machine-id ] && mount --bind /run/machine-id /etc/machine-id
{JOURNALD} & trap "kill $!" EXIT
while ! [ -S /run/systemd/journal/socket ]; do sleep 0.05; done
"$@"
journalctl --sync
"""


class Journal:
    """The socket of a journal that the test reads, one datagram at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.settimeout(DEADLINE)
        self._socket.bind(str(path))

    def next(self, **wanted: str) -> dict[str, str]:
        """The next entry with these fields."""
        while True:
            try:
                lines = self._socket.recv(1 << 16).decode().splitlines()
            except TimeoutError:
                raise Timeout(f"no {wanted}") from None
            entry = dict(line.split("=", 1) for line in lines)
            if wanted.items() <= entry.items():
                return entry

    def close(self) -> None:
        """Leave; the path leads nowhere then."""
        self._socket.close()
        self.path.unlink(missing_ok=True)


@pytest.fixture
def journalled(supervisors: type[Supervisor]) -> Iterator[tuple[Supervisor, Journal]]:
    """A supervisor that is yet to be started, with its log file as what systemd would have connected to its stderr."""
    supervisor = supervisors()
    journal = Journal(supervisor.directory / "journal.sock")
    supervisor.prefix = f"import supervisor.journald; supervisor.journald.SOCKET = {str(journal.path)!r}"
    supervisor.log.touch()
    found = supervisor.log.stat()
    supervisor.env["JOURNAL_STREAM"] = f"{found.st_dev}:{found.st_ino}"
    yield supervisor, journal
    journal.close()


def test_lines_and_events_have_fields(journalled: tuple[Supervisor, Journal]) -> None:
    supervisor, journal = journalled
    supervisor.start()
    supervisor.add("qwén 8b", "say=<0>hello\x1b[31m", "exit=65")
    supervisor.call("load", model="qwén 8b")
    line = journal.next(MESSAGE="qwén 8b | <0>hello\ufffd[31m")
    launch = line["LAUNCH"]
    about = {"MODEL": "qwén 8b", "INSTANCE": "qwén 8b", "LAUNCH": launch}
    assert line == {"MESSAGE": line["MESSAGE"], "PRIORITY": "6", "SYSLOG_IDENTIFIER": "llama-router", **about}
    failed = journal.next(MODEL_STATE="failed", MESSAGE_ID=log_fields.FAILED)
    assert failed["MESSAGE"].startswith("qwén 8b: failed: exited with code 65")
    assert failed.items() >= {**about, "PRIORITY": "3", "REASON": "exited"}.items()
    last = journal.next(PRIORITY="3", MODEL="qwén 8b")
    assert last["MESSAGE"].endswith("| <0>hello\ufffd[31m") and "MESSAGE_ID" not in last
    supervisor.load("m")
    assert journal.next(MODEL="m", MODEL_STATE="ready")["MESSAGE_ID"] == log_fields.READY
    assert supervisor.log.read_text() == "", "the journal is told once"


def test_a_journal_that_is_away_costs_no_line(journalled: tuple[Supervisor, Journal]) -> None:
    supervisor, journal = journalled
    journal.close()
    supervisor.start()
    supervisor.add("m", "say=<0>not mine to say", "exit=65")
    supervisor.call("load", model="m")
    supervisor.watch("m").state("failed")
    supervisor.status()
    lines = supervisor.log.read_text().splitlines()
    assert "<6>m | <0>not mine to say" in lines
    assert any(line.startswith("<3>m: failed: exited with code 65") for line in lines)


def test_a_journal_that_takes_ten_lines_at_once_gets_all_in_order(journalled: tuple[Supervisor, Journal]) -> None:
    supervisor, journal = journalled
    supervisor.start()
    supervisor.add("m", *(f"say=line {number}" for number in range(500)), "exit=65")
    supervisor.call("load", model="m")
    supervisor.watch("m").state("failed")
    assert journal.next(MODEL="m")["MESSAGE"] == "m: starting"
    assert [journal.next()["MESSAGE"] for _ in range(500)] == [f"m | line {number}" for number in range(500)]


def test_a_stuck_journal_holds_up_nothing(journalled: tuple[Supervisor, Journal]) -> None:
    """Lines are lost, told as such once it reads again, and models are not."""
    supervisor, journal = journalled
    supervisor.start()
    gate = supervisor.gate("enough")
    flood = r"flood=30000:a line like any other, of a model that says much\n"
    supervisor.add("m", flood, "listen={socket}", "notify=READY=1", gate.step, "serve")
    supervisor.call("load", model="m")
    gate.visitor()
    supervisor.load("n")
    supervisor.call("unload", model="n", wait=True)
    lost = journal.next(PRIORITY="4")["MESSAGE"]
    assert lost.endswith("log lines are lost: the journal did not take them")
    assert int(lost.split()[0]) > 10000


def test_stderr_that_is_not_the_journal_is_no_journal(supervisors: type[Supervisor]) -> None:
    """A shell may redirect what systemd connected: the variable is inherited all the same."""
    supervisor = supervisors(env={"JOURNAL_STREAM": "8:1"}).start()
    supervisor.add("m", "say=hello", "exit=65")
    supervisor.call("load", model="m")
    supervisor.watch("m").state("failed")
    assert "m | hello" in supervisor.log.read_text().splitlines()


def test_the_journal_can_be_wanted_and_not_wanted(journalled: tuple[Supervisor, Journal]) -> None:
    supervisor, journal = journalled
    daemon = supervisor.config.read_text()
    supervisor.config.write_text(daemon + "log: {journal: no}\n")
    supervisor.start()
    supervisor.load("m", "say=hello", "listen={socket}", "notify=READY=1", "serve")
    assert "hello" not in supervisor.log.read_text()
    assert "<6>m: ready" in supervisor.log.read_text()
    supervisor.config.write_text(daemon + "log: {journal: yes}\n")
    supervisor.call("reload")
    supervisor.call("restart", model="m", wait=True)
    journal.next(MODEL="m", MESSAGE="m | hello")


@pytest.mark.parametrize(
    ("command", "lines"),
    [
        (
            ("run", "--config", "nosuch.yaml"),
            [
                "llama-router: cannot use the configuration:",
                "nosuch.yaml: cannot read the file: No such file or directory",
            ],
        ),
        (("reload",), ["llama-router: cannot reach llama-router at "]),
        (("run", "--nosuch"), ["Usage: ", "Try ", "", "Error: No such option"]),
    ],
)
@pytest.mark.parametrize("is_journal", [True, False])
def test_why_a_command_failed_is_an_error_in_the_journal_alone(
    tmp_path: Path, command: tuple[str, ...], lines: list[str], is_journal: bool
) -> None:
    argv = [sys.executable, "-m", "supervisor.cli", "--runtime-dir", str(tmp_path / "none"), *command]
    with (tmp_path / "stderr").open("w") as stderr:
        found = os.fstat(stderr.fileno())
        stream = f"{found.st_dev}:{found.st_ino if is_journal else found.st_ino + 1}"
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "JOURNAL_STREAM": stream, "HOME": str(tmp_path)}
        assert subprocess.run(argv, cwd=tmp_path, env=environment, stderr=stderr, timeout=DEADLINE).returncode != 0
    told = (tmp_path / "stderr").read_text().splitlines()
    assert len(told) == len(lines)
    for line, beginning in zip(told, lines, strict=True):
        beginning = beginning.replace("nosuch.yaml", f"{tmp_path}/nosuch.yaml")
        assert line.startswith(f"<3>{beginning}" if is_journal else beginning)


def journalctl(where: Path, *options: str) -> str:
    ran = subprocess.run(
        ["journalctl", f"--directory={where}", "--no-pager", *options],
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=True,
    )
    return ran.stdout


def test_a_real_journal(tmp_path: Path) -> None:
    if os.geteuid() != 0 or not shutil.which("unshare") or not Path(JOURNALD).exists():
        pytest.skip("a journal of the test's own takes root, unshare(1) and systemd-journald")
    program = f"""
import sys; sys.path[:0] = [{str(ROOT)!r}]
import time
from supervisor.core.commands import Announce
from supervisor.core.log_fields import Entry, of_event
from supervisor.core.states import State
from supervisor.journald import Journald

ready = of_event(Announce("state", "qwen", "", "qwen#2", before=State.STARTING, state=State.READY, launch=7))
journal = Journald(lambda entries: sys.exit("not taken"))
journal.write([Entry("llama-router: qwen: ready", 0.0, fields=ready)])
lines = ["one\\ntwo", "\\x1b[2Jred\\x07", "x" * 100000, *(f"line {{n}}" for n in range(300))]
journal.write([Entry(f"qwen | {{line}}", 0.0, fields={{"MODEL": "qwen"}}) for line in lines])
journal.close()
"""
    keep = f"cp -r /run/log/journal {tmp_path}"
    ran = subprocess.run(
        ["unshare", "--mount", "sh", "-c", WITH_JOURNAL + keep, "sh", sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    if "ermission" in ran.stderr or "not permitted" in ran.stderr:
        pytest.skip(f"no journal can be run here: {ran.stderr.strip()}")
    assert ran.returncode == 0, ran.stderr
    entries: list[Any] = [
        json.loads(line) for line in journalctl(tmp_path / "journal", "-o", "json", "--all", "MODEL=qwen").splitlines()
    ]
    assert entries[0]["MESSAGE"] == "qwen: ready"
    assert (entries[0]["MESSAGE_ID"], entries[0]["INSTANCE"], entries[0]["LAUNCH"]) == (log_fields.READY, "qwen#2", "7")
    messages = [entry["MESSAGE"] for entry in entries[1:]]
    assert messages[:2] == ["qwen | one\ntwo", "qwen | \ufffd[2Jred\ufffd"]
    assert messages[2].startswith("qwen | xxx")
    assert messages[3:] == [f"qwen | line {n}" for n in range(300)]
    for form in ("short", "cat", "verbose", "export"):
        assert "\x1b" not in journalctl(tmp_path / "journal", "-o", form, "-a", "MODEL=qwen")
    assert "red" in journalctl(tmp_path / "journal", "MODEL=qwen"), "and it is no blob"
    assert "qwen: ready" in journalctl(tmp_path / "journal", f"MESSAGE_ID={log_fields.READY}")
