"""`check` beside a running llama-router: what it says a reload would change, and that this is what a reload does."""

from __future__ import annotations

import json
import os
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import Result
from fake_control import FakeControl, answer, invoke, model, raw, refuse, status
from harness import MISBEHAVING, READY, Supervisor

from supervisor import protocol
from supervisor.cli import answers, compare
from supervisor.client import SOCKET_NAME
from supervisor.core import reload_words
from supervisor.core.reload_words import Outcome, Told

Start = Callable[..., Supervisor]
NOTHING = {"added": [], "changed": [], "adjusted": [], "removed": [], "unchanged": 1}


def check(supervisor: Supervisor, *options: str) -> Result:
    return invoke(supervisor.runtime, "check", "--config", str(supervisor.config), *options)


@pytest.fixture
def deaf(supervisors: Start) -> Supervisor:
    """A supervisor that waits with changed files until it is told."""
    return supervisors(
        prefix="import supervisor.presets_watch as w; w.QUIET_SECONDS = w.LONGEST_SECONDS = 3600"
    ).start()


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration with one model."""
    (tmp_path / "presets.d").mkdir()
    body = {"backend": "command", "command": [*MISBEHAVING, *READY], "env": {"ADDRESS": "{socket}"}}
    (tmp_path / "presets.d" / "m.yaml").write_text(json.dumps({"models": {"m": body}}))
    (tmp_path / "config.yaml").write_text("# the defaults\n")
    return tmp_path / "config.yaml"


def running(supervisor: Supervisor) -> list[tuple[object, ...]]:
    """What a reload that changes nothing leaves alone."""
    keys = ("name", "description", "state", "draining", "launch", "in_flight")
    return [tuple(model[key] for key in keys) for model in supervisor.status()["models"]]


def test_a_reload_does_what_check_says(deaf: Supervisor) -> None:
    for name in ("busy", "idle", "resting", "adjusted", "removed", "same"):
        deaf.add(name, reload=False)
    deaf.call("reload")
    for name in ("busy", "idle", "same"):
        deaf.load(name)
    deaf.lease("busy").grant()
    for name in ("busy", "idle", "resting"):
        deaf.add(name, reload=False, env={"X": "1"})
    deaf.add("adjusted", reload=False, description="other words")
    deaf.add("added", reload=False)
    (deaf.presets / "removed.yaml").unlink()
    deaf.config.write_text(f"{deaf.config.read_text()}queue_limit: 7\n".replace("web.sock", "other.sock"))
    before = running(deaf)
    result, as_json = check(deaf), check(deaf, "--json")
    assert result.stdout.splitlines() == [
        "6 models in 6 files are fine",
        "a reload would: add added; restart busy (when its request is done), idle; change resting (not running); "
        "adjust adjusted (without a restart); remove removed; change queue_limit in config.yaml; leave 1 untouched",
        "notice: listen changed in config.yaml: takes effect after a restart of llama-router",
    ]
    assert (result.exit_code, result.stderr) == (0, "")
    assert running(deaf) == before
    changes = json.loads(as_json.stdout)["reload"]["changes"]
    assert changes == deaf.call("reload")["changes"]
    assert check(deaf).stdout.splitlines()[1] == "a reload would change nothing"
    deaf.watch("idle").text("preset changed")
    assert deaf.model("busy")["draining"]
    assert deaf.model("adjusted")["description"] == "other words"


def test_a_dry_run_tells_the_problems_and_changes_nothing(deaf: Supervisor) -> None:
    deaf.add("m")
    deaf.write("bad", "models: [\n")
    with deaf.client() as client:
        client._send({"op": "reload", "dry_run": True})
        problems = client._receive()["error"]["problems"]
    assert ["bad.yaml" in problem["file"] for problem in problems] == [True]
    assert "cannot reload" not in deaf.log.read_text()


def test_with_nobody_there(tmp_path: Path, config: Path) -> None:
    result = invoke(tmp_path, "check", "--config", str(config))
    assert (result.exit_code, result.stdout, result.stderr) == (0, "1 model in 1 file is fine\n", "")
    assert json.loads(invoke(tmp_path, "check", "--config", str(config), "--json").stdout)["reload"] is None


def test_a_socket_left_over(tmp_path: Path, config: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / SOCKET_NAME))
    assert invoke(tmp_path, "check", "--config", str(config)).stdout == "1 model in 1 file is fine\n"


def test_errors_are_told_without_asking(tmp_path: Path, config: Path) -> None:
    config.write_text("lisen: 1\n")
    with FakeControl(tmp_path) as fake:
        result = invoke(tmp_path, "check", "--config", str(config), "--json")
    assert (result.exit_code, fake.requests) == (78, [])
    assert json.loads(result.stdout)["reload"] is None


def test_a_daemon_with_another_file(tmp_path: Path, config: Path) -> None:
    with FakeControl(tmp_path, status=status(model(), config="/elsewhere/config.yaml")) as fake:
        result = invoke(tmp_path, "check", "--config", str(config))
    line = "notice: llama-router runs with another configuration, /elsewhere/config.yaml; not compared with it"
    assert (result.exit_code, result.stdout.splitlines()[1:]) == (0, [line])
    assert not fake.asked_for("reload")


def test_the_same_file_by_another_name(tmp_path: Path, config: Path) -> None:
    other = tmp_path / "link.yaml"
    other.symlink_to(config)
    changes = answer(protocol.ok(changes=NOTHING))
    with FakeControl(tmp_path, status=status(model(), config=str(config)), reload=changes) as fake:
        result = invoke(tmp_path, "check", "--config", str(other))
    assert result.stdout.splitlines()[1:] == ["a reload would change nothing"]
    assert fake.asked_for("reload") == [{"op": "reload", "dry_run": True}]


def test_a_daemon_that_hangs(tmp_path: Path, config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert compare.ANSWER_SECONDS <= 5
    monkeypatch.setattr(compare, "ANSWER_SECONDS", 0.2)
    before = time.monotonic()
    with FakeControl(tmp_path, status=raw()):
        result = invoke(tmp_path, "check", "--config", str(config))
    assert time.monotonic() - before < 5
    assert result.exit_code == 0
    assert result.stdout.splitlines()[1].startswith("notice: cannot hear llama-router: no answer within 0.2 s")


@pytest.mark.parametrize("said", [b"garbage\n", b'{"ok":true,"status":7}\n', b'{"ok":true,"status":{"config":3}}\n'])
def test_a_daemon_that_is_none(tmp_path: Path, config: Path, said: bytes) -> None:
    with FakeControl(tmp_path, status=raw(said)):
        result = invoke(tmp_path, "check", "--config", str(config))
    assert result.exit_code == 0
    assert result.stdout.splitlines()[1].startswith("notice: cannot read ")


def test_a_daemon_that_may_read_less(tmp_path: Path, config: Path) -> None:
    problem = {"file": "m.yaml", "line": 1, "field": "models.m", "message": "permission denied"}
    refusal = refuse(400, "cannot reload", problems=[problem])
    with FakeControl(tmp_path, status=status(model(), config=str(config)), reload=refusal):
        text = invoke(tmp_path, "check", "--config", str(config))
        told = json.loads(invoke(tmp_path, "check", "--config", str(config), "--json").stdout)["reload"]
    assert text.exit_code == 0
    assert text.stdout.splitlines()[2] == "  m.yaml:1: models.m: permission denied"
    assert (told["changes"], told["problems"]) == (None, [problem])


@pytest.mark.parametrize("what", ["directory", "socket"])
def test_a_daemon_of_another_user(what: str) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as made, socket.socket(socket.AF_UNIX) as listener:
        directory, config = Path(made) / "run", Path(made) / "config.yaml"
        for path in (directory, config.with_name("presets.d")):
            path.mkdir()
        config.write_text("# the defaults\n")
        listener.bind(str(directory / SOCKET_NAME))
        listener.listen()
        Path(made).chmod(0o755)
        (directory / SOCKET_NAME if what == "socket" else directory).chmod(0)
        with another_user():
            result = invoke(directory, "check", "--config", str(config))
        directory.chmod(0o700)
    line = f"notice: cannot ask llama-router at {directory}: permission denied; not compared with it"
    assert (result.exit_code, result.stdout.splitlines()[1:]) == (0, [line])


@contextmanager
def another_user() -> Iterator[None]:
    """Root may reach into everything, so it is somebody else meanwhile."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_outcomes_of_states() -> None:
    assert reload_words.outcome(None) == Outcome("not_running")
    for state, in_flight, when in [
        ("stopped", 0, "not_running"),
        ("failed", 0, "not_running"),
        ("backoff", 0, "not_running"),
        ("starting", 0, "at_once"),
        ("ready", 0, "at_once"),
        ("ready", 3, "idle"),
        ("stopping", 0, "at_once"),
    ]:
        assert reload_words.outcome(model(state=state, in_flight=in_flight)) == Outcome(when, in_flight)


def test_words_for_very_many_models() -> None:
    names = tuple(f"m{number:03}" for number in range(500))
    text = reload_words.would(Told(added=names, changed=names))
    assert "m019 and 480 more; restart m000" in text
    assert len(text) < 1000


def test_an_older_daemon_tells_less() -> None:
    assert reload_words.did(answers.changes({"changes": NOTHING})) == "reloaded: nothing changed"
