"""The command line as a process of its own: exit codes, signals, pipes and terminals."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from fake_control import FakeControl, answer, failed, model, raw, refuse, replica, status

from supervisor import protocol
from supervisor.cli.terminal import width

DEADLINE = 30.0
UNWANTED = ("NO_COLOR", "COLUMNS", "TERM", "PYTHONUNBUFFERED")
HOSTILE = "\x1b]0;owned\x07\x1b[2J\r\n\u202eevil\u009b31m"


def environment(directory: Path, **more: str) -> dict[str, str]:
    """The environment of a client that looks for its supervisor in `directory`."""
    kept = {name: value for name, value in os.environ.items() if name not in UNWANTED}
    return kept | {"LLAMA_ROUTER_RUNTIME_DIR": str(directory), "TERM": "xterm", "TZ": "UTC"} | more


def command(*arguments: str) -> list[str]:
    """The argv of llama-router."""
    return [sys.executable, "-m", "supervisor.cli", *arguments]


def run(directory: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[bytes]:
    """Run to the end with pipes for output."""
    return subprocess.run(
        command(*arguments), env=environment(directory, **more), capture_output=True, timeout=DEADLINE, check=False
    )


def on_terminal(directory: Path, *arguments: str, cells: int = 80, more: dict[str, str] | None = None) -> str:
    """What the process writes to a terminal `cells` wide, in its raw form."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, cells, 0, 0))
    process = subprocess.Popen(
        command(*arguments), env=environment(directory, **more or {}), stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    chunks = []
    try:
        while chunk := os.read(ours, 65536):
            chunks.append(chunk)
    except OSError:  # EIO: the last writer is gone
        pass
    os.close(ours)
    process.wait(DEADLINE)
    return b"".join(chunks).decode().replace("\r\n", "\n")


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("status",), 0),
        (("status", "bad"), 3),
        (("status", "gone"), 4),
        (("load", "bad"), 1),
        (("reload",), 78),
        (("events",), 76),
        (("unload", "qwen"), 69),
        (("nonsense",), 64),
        (("--version",), 0),
    ],
)
def test_exit_codes(tmp_path: Path, arguments: tuple[str, ...], code: int) -> None:
    problem = {"file": "a.yaml", "line": 1, "field": None, "message": "empty"}
    with FakeControl(
        tmp_path,
        status=status(failed("bad")),
        load=answer(protocol.ok(model=failed("bad"))),
        reload=refuse(400, "the configuration has errors", problems=[problem]),
        events=raw(b"garbage\n"),
        unload=raw(hang_up=True),
    ):
        ended = run(tmp_path, *arguments)
    assert ended.returncode == code
    assert b"Traceback" not in ended.stderr


@pytest.mark.parametrize("arguments", [("status",), ("load", "qwen"), ("events", "-f"), ("logs", "-f", "qwen")])
def test_ctrl_c_leaves_a_supervisor_that_hangs(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    with (
        FakeControl(tmp_path, status=raw(), load=raw(), events=raw(), logs=raw()) as fake,
        subprocess.Popen(command(*arguments), env=environment(tmp_path), stderr=subprocess.PIPE) as process,
    ):
        assert fake.asked.wait(DEADLINE)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=DEADLINE)
    assert (process.returncode, stderr.strip()) == (130, b"")


@pytest.mark.parametrize("arguments", [("status",), ("status", "--json"), ("logs", "qwen"), ("events", "--json")])
@pytest.mark.parametrize("more", [{}, {"PYTHONUNBUFFERED": "1"}])
def test_a_closed_pipe_ends_quietly(tmp_path: Path, arguments: tuple[str, ...], more: dict[str, str]) -> None:
    line = {"line": {"at": 0.0, "launch": 1, "text": "x" * 1000}}
    event = {"event": {"seq": 1, "at": 0.0, "text": "x" * 1000}}
    with (
        FakeControl(
            tmp_path,
            status=status(*(model(f"model-{number}") for number in range(2000))),
            logs=answer(protocol.ok(), *[line] * 1000, {"end": True}),
            events=answer(protocol.ok(), *[event] * 1000, {"end": True}),
        ),
        subprocess.Popen(
            command(*arguments), env=environment(tmp_path, **more), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process,
    ):
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(DEADLINE) == 141


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    with FakeControl(tmp_path, status=status(model())), Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            command("status"), env=environment(tmp_path), stdout=full, stderr=subprocess.PIPE, check=False
        )
    assert ended.returncode == 74
    assert ended.stderr == b"llama-router: cannot write to standard output: No space left on device\n"


def test_closed_standard_streams_are_no_bug(tmp_path: Path) -> None:
    with FakeControl(tmp_path, status=status(model())):
        shell = ["sh", "-c", 'exec "$@" >&- 2>&-', "sh", *command("status", "gone")]
        assert subprocess.run(shell, env=environment(tmp_path), timeout=DEADLINE, check=False).returncode == 4


def test_a_locale_without_the_characters_is_no_bug(tmp_path: Path) -> None:
    with FakeControl(tmp_path, status=status(model("模型"))):
        ended = run(tmp_path, "status", PYTHONIOENCODING="ascii:strict")
    assert (ended.returncode, rb"\u6a21\u578b" in ended.stdout) == (0, True)


def test_unforeseen_exceptions_are_told_as_bugs(tmp_path: Path) -> None:
    program = "import supervisor.cli as c, supervisor.cli.status as s; s._ask = lambda: 1 // 0; c.main()"
    for debug in ("", "1"):
        ended = subprocess.run(
            [sys.executable, "-c", program, "status"],
            env=environment(tmp_path, LLAMA_ROUTER_DEBUG=debug),
            capture_output=True,
            timeout=DEADLINE,
            check=False,
        )
        assert ended.returncode == 70
        assert b"llama-router: cannot go on because of a bug: ZeroDivisionError" in ended.stderr
        assert (b"Traceback" in ended.stderr) == (debug == "1")


@pytest.mark.parametrize(
    "arguments",
    [
        ("status",),
        ("status", "--json"),
        ("status", HOSTILE),
        ("status", "gone"),
        ("queue",),
        ("queue", "--json"),
        ("load", HOSTILE),
        ("unload", "refused"),
        ("reset-failed",),
        ("reload",),
        ("events",),
        ("logs", "qwen"),
    ],
)
def test_hostile_text_reaches_no_terminal(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    broken = failed(HOSTILE, HOSTILE, text=HOSTILE) | {"aliases": [HOSTILE], "description": HOSTILE, "file": HOSTILE}
    broken |= {"waiting": 2, "waiting_since": 0.0, "waiting_for": HOSTILE, "replicas": [replica(HOSTILE)] * 2}
    broken |= {"memory": {"need": {HOSTILE: 1}, "source": HOSTILE, "parts": HOSTILE, "used": {HOSTILE: 1}}}
    room = {"budget": {HOSTILE: 1}, "planned": {HOSTILE: 1}}
    queue = [{"model": HOSTILE, "who": HOSTILE, "since": 0.0, "why": HOSTILE}]
    changes = {"added": [HOSTILE], "changed": [], "removed": [], "unchanged": 0}
    with FakeControl(
        tmp_path,
        status=status(broken, listen=HOSTILE, web=broken | {"name": "@web"}, memory=room, queue=queue),
        load=answer(protocol.ok(model=broken)),
        unload=refuse(500, HOSTILE),
        reset=answer(protocol.ok(model=broken)),
        reload=answer(protocol.ok(changes=changes)),
        events=answer(protocol.ok(), {"event": {"seq": 1, "at": 0.0, "text": HOSTILE}}, {"end": True}),
        logs=answer(protocol.ok(), {"line": {"at": 0.0, "launch": 1, "text": HOSTILE}}, {"end": True}),
    ):
        shown = on_terminal(tmp_path, *arguments, more={"NO_COLOR": "1"})
    assert shown
    assert not set(shown) & {"\x1b", "\x07", "\r", "\u202e", "\u009b"}


def test_a_pipe_gets_log_lines_as_a_terminal_does_and_json_has_them_as_they_are(tmp_path: Path) -> None:
    line = {"line": {"at": 0.0, "launch": 1, "text": "\x1b[31mred\x07\t\ud800"}}
    with FakeControl(tmp_path, logs=raw(b'{"ok":true}\n', json.dumps(line).encode() + b'\n{"end":true}\n')):
        as_text, as_json = run(tmp_path, "logs", "qwen"), run(tmp_path, "logs", "qwen", "--json")
    assert as_text.stdout == b"Jan 01 00:00:00 \\x1b[31mred\\x07\t\\ud800\n"
    assert json.loads(as_json.stdout) == line["line"]


@pytest.mark.parametrize(("more", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)])
def test_colours_on_a_terminal_only(tmp_path: Path, more: dict[str, str], coloured: bool) -> None:
    with FakeControl(tmp_path, status=status(model())):
        assert ("\x1b[32mready" in on_terminal(tmp_path, "status", more=more)) is coloured
        assert b"\x1b" not in run(tmp_path, "status", **more).stdout


@pytest.mark.parametrize("cells", [10, 40, 79, 200])
def test_rows_fit_the_terminal(tmp_path: Path, cells: int) -> None:
    models = [failed(f"模型🦙-{number}" * 3, text="exited " * 20) for number in range(1000)]
    with FakeControl(tmp_path, status=status(*models)):
        shown = on_terminal(tmp_path, "status", cells=cells, more={"NO_COLOR": "1"})
    rows = shown.split("\n\n", 1)[1].splitlines()
    assert len(rows) == 1001
    assert max(map(width, rows)) <= cells
    if cells == 200:
        assert len({width(row[: row.rindex("  ")]) for row in rows[1:]}) == 1


@pytest.mark.parametrize("cells", [10, 40, 79])
def test_the_queue_and_replicas_fit_the_terminal(tmp_path: Path, cells: int) -> None:
    many = [replica(f"qwen#{number}", message="loading " * 20, state="starting") for number in range(100)]
    queue = [{"model": "模型🦙" * 9, "who": "x" * 200, "since": 0.0, "why": "it is loading " * 9}] * 200
    with FakeControl(tmp_path, status=status(model(waiting=200, replicas=many), queue=queue)):
        waiters = on_terminal(tmp_path, "queue", cells=cells).splitlines()
        shown = on_terminal(tmp_path, "status", "qwen", cells=cells, more={"NO_COLOR": "1"}).splitlines()
    replicas = shown[-101:]
    assert (len(waiters), max(map(width, waiters)) <= cells) == (201, True)
    assert (len(replicas), max(map(width, replicas)) <= cells) == (101, True)
    assert cells < 40 or "WHY" in waiters[0]
