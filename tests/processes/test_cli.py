"""The client commands against a scripted supervisor: what they print, as text and as JSON, and how they end."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from fake_control import EACH_CLIENT, FakeControl, answer, failed, invoke, model, raw, refuse, status

from supervisor import errors, protocol
from supervisor.cli import program


def test_status_shows_a_table(tmp_path: Path) -> None:
    loading = model("tiny", state="starting", progress=0.42, since=time.time() - 301)
    with FakeControl(tmp_path, status=status(model(in_flight=2, waiting=1), loading, failed("bad"))):
        result = invoke(tmp_path, "status")
    lines = result.stdout.splitlines()
    assert lines[0].startswith("llama-router 0.1.0: running on 127.0.0.1:8080, pid 4711, for ")
    assert lines[1:3] == ["1 starting, 1 ready, 1 failed", ""]
    assert lines[3].split() == ["MODEL", "STATE", "SINCE", "IN", "FLIGHT", "WAITING", "MEMORY", "RESTARTS", "PID"]
    assert lines[4].startswith("bad    failed: exited with code 65")
    assert lines[5].startswith("qwen   ready")
    assert lines[5].split()[-4:] == ["1", "-", "0", "4712"]
    assert "starting 42%" in lines[6]
    assert " 5min " in lines[6]
    assert (result.exit_code, result.stderr) == (0, "")


def test_status_tells_of_a_web_tier_that_is_not_ready(tmp_path: Path) -> None:
    with FakeControl(tmp_path, status=status(web=failed("@web"))):
        result = invoke(tmp_path, "status")
    assert result.stdout.splitlines()[1:] == ["no models", "web tier: failed: exited with code 65"]


def test_status_tells_what_waits_for_a_reexec_or_a_restart(tmp_path: Path) -> None:
    with FakeControl(tmp_path, status=status(needs_restart=["listen"], needs_reexec=["web.tls", "web.workers"])):
        result = invoke(tmp_path, "status")
    assert result.stdout.splitlines()[2:] == [
        "notice: listen changed in config.yaml: takes effect after a restart of llama-router",
        "notice: web.tls changed in config.yaml: takes effect after llama-router reexec",
        "notice: web.workers changed in config.yaml: takes effect after llama-router reexec",
    ]


def test_status_tells_what_keeps_the_files_from_being_used(tmp_path: Path) -> None:
    left_out = {"file": "presets.d/a.yaml", "line": None, "field": None, "message": "only the first 100 are told"}
    told = {"file": "presets.d/a.yaml", "line": 4, "field": "models.a.contxt", "message": "no such key"}
    with FakeControl(tmp_path, status=status(problems=[left_out, told])):
        result = invoke(tmp_path, "status")
    assert result.stdout.splitlines()[2:] == [
        "notice: what the files of the configuration say by now is not in use: "
        "presets.d/a.yaml:4: models.a.contxt: no such key (and others); see: llama-router check"
    ]


def test_status_json_is_the_status_object(tmp_path: Path) -> None:
    with FakeControl(tmp_path, status=status(model("a"), model("b"))):
        everything = json.loads(invoke(tmp_path, "status", "--json").stdout)
        one = json.loads(invoke(tmp_path, "status", "b", "--json").stdout)
    assert [item["name"] for item in everything["models"]] == ["a", "b"]
    assert everything["listen"] == "127.0.0.1:8080"
    assert [item["name"] for item in one["models"]] == ["b"]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("good",), 0),
        (("alias",), 0),
        (("@web",), 0),
        (("bad",), 3),
        (("good", "bad"), 3),
        (("god",), 4),
        (("bad", "god", "--json"), 4),
    ],
)
def test_status_of_models_ends_like_systemctl(tmp_path: Path, arguments: tuple[str, ...], code: int) -> None:
    with FakeControl(tmp_path, status=status(model("good", aliases=["alias"]), failed("bad"))):
        result = invoke(tmp_path, "status", *arguments)
    assert result.exit_code == code
    assert ("did you mean 'good'?" in result.stderr) == (code == 4)


def test_status_of_a_failed_model_explains_it(tmp_path: Path) -> None:
    with FakeControl(tmp_path, status=status(failed("qwen", "cannot open", "model.gguf"))):
        lines = invoke(tmp_path, "status", "qwen").stdout.splitlines()
    assert lines[0] == "● qwen"
    assert lines[1].startswith("     State: failed: exited with code 65, since ")
    assert "    Preset: presets.d/qwen.yaml:3" in lines
    assert lines[-2:] == ["    cannot open", "    model.gguf"]


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"state": "ready", "draining": True}, "ready, draining"),
        ({"state": "starting", "message": "loading tensors"}, "starting: loading tensors"),
        ({"state": "starting", "progress": 1e308}, "starting 100%"),
        ({"state": "stopping"}, "stopping"),
        ({"state": "stopped"}, "stopped"),
        ({"state": "backoff", "next_start": 0.0, "reason": failed()["reason"]}, "backoff, starts again in 0s: exited"),
    ],
)
def test_status_words_each_state(tmp_path: Path, facts: dict[str, Any], words: str) -> None:
    with FakeControl(tmp_path, status=status(model(**facts))):
        assert f"qwen   {words}" in invoke(tmp_path, "status").stdout


def test_status_of_nobody_is_3(tmp_path: Path) -> None:
    result = invoke(tmp_path, "status")
    assert result.exit_code == 3
    assert result.stderr.startswith(f"llama-router: cannot reach llama-router at {tmp_path}/control.sock: No such file")
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("arguments", EACH_CLIENT)
def test_every_other_client_ends_69_without_a_supervisor(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    result = invoke(tmp_path, *arguments, "--json")
    assert result.exit_code == 69
    assert json.loads(result.stdout)["error"]["type"] == "NotRunning"
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("before", [True, False])
def test_runtime_dir_is_accepted_on_both_sides_of_the_subcommand(tmp_path: Path, before: bool) -> None:
    option = ("--runtime-dir", str(tmp_path))
    with FakeControl(tmp_path, status=status()):
        result = invoke(Path("/nonexistent"), *((*option, "status") if before else ("status", *option)))
    assert result.exit_code == 0


@pytest.mark.parametrize(("op", "state"), [("load", "ready"), ("restart", "ready"), ("unload", "stopped")])
def test_actions_wait_and_tell_how_long_it_took(tmp_path: Path, op: str, state: str) -> None:
    done = answer(protocol.ok(model=model(state=state, since=time.time() + 1)))
    with FakeControl(tmp_path, **{op: done}) as fake:
        result = invoke(tmp_path, op, "qwen")
        as_json = invoke(tmp_path, op, "qwen", "--json")
    assert result.stdout.startswith(f"qwen: {state} after 0.")
    assert fake.requests[0] == {"op": op, "model": "qwen", "wait": True}
    assert json.loads(as_json.stdout)["model"]["state"] == state
    assert (result.exit_code, as_json.exit_code) == (0, 0)


def test_load_of_what_runs_already_says_so(tmp_path: Path) -> None:
    with FakeControl(tmp_path, load=answer(protocol.ok(model=model()))):
        assert invoke(tmp_path, "load", "qwen").stdout == "qwen: ready already\n"


def test_no_wait_shows_the_state_it_is_in(tmp_path: Path) -> None:
    with FakeControl(tmp_path, load=answer(protocol.ok(model=model(state="starting")))) as fake:
        result = invoke(tmp_path, "load", "qwen", "--no-wait")
    assert (result.stdout, result.exit_code) == ("qwen: starting\n", 0)
    assert fake.requests[0]["wait"] is False


def test_a_failed_load_explains_itself_on_stderr(tmp_path: Path) -> None:
    with FakeControl(tmp_path, load=answer(protocol.ok(model=failed("qwen", "no such file")))):
        result = invoke(tmp_path, "load", "qwen")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "llama-router: cannot load 'qwen': failed: exited with code 65\nno such file\n"


def test_a_refused_load_shows_the_log_too(tmp_path: Path) -> None:
    refused = refuse(500, "model name=qwen failed to load: exited with code 65")
    with FakeControl(tmp_path, load=refused, status=status(failed("qwen", "no such file"))):
        result = invoke(tmp_path, "load", "qwen", "--json")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[0].startswith("llama-router: cannot load 'qwen': exited with code 65")
    assert result.stderr.splitlines()[1:] == ["no such file"]
    assert json.loads(result.stdout)["error"]["code"] == 500


def test_a_refusal_of_a_healthy_model_shows_no_log(tmp_path: Path) -> None:
    healthy = model(reason=failed("qwen", "of an earlier launch")["reason"])
    with FakeControl(tmp_path, load=refuse(400, "model is already running"), status=status(healthy)):
        result = invoke(tmp_path, "load", "qwen")
    assert result.stderr == "llama-router: cannot load 'qwen': model is already running\n"


@pytest.mark.parametrize("op", ["load", "unload", "restart", "logs"])
def test_an_unknown_model_is_4_with_a_suggestion(tmp_path: Path, op: str) -> None:
    with FakeControl(tmp_path, **{op: refuse(404, "model is not found: 'qwne'")}, status=status(model())):
        result = invoke(tmp_path, op, "qwne")
    assert result.exit_code == 4
    assert "'qwne': model is not found; did you mean 'qwen'?" in result.stderr


def test_reset_failed_resets_all_that_failed(tmp_path: Path) -> None:
    with FakeControl(tmp_path, status=status(model(), failed("a"), failed("b")), reset=_reset) as fake:
        result = invoke(tmp_path, "reset-failed")
    assert result.stdout == "a: reset\nb: reset\n"
    assert [request["model"] for request in fake.asked_for("reset")] == ["a", "b"]


def test_reset_failed_without_failures_says_so(tmp_path: Path) -> None:
    with FakeControl(tmp_path, status=status(model())):
        assert invoke(tmp_path, "reset-failed").stdout == "no model has failed\n"


def test_reset_failed_goes_on_after_a_refusal(tmp_path: Path) -> None:
    with FakeControl(tmp_path, status=status(failed("a")), reset=_reset):
        text, as_json = (invoke(tmp_path, "reset-failed", "gone", "a", *json_flag) for json_flag in ((), ("--json",)))
    assert (text.exit_code, text.stdout) == (4, "a: reset\n")
    assert "cannot reset 'gone': model is not found" in text.stderr
    told = json.loads(as_json.stdout)
    assert (told["ok"], [item["name"] for item in told["models"]], told["errors"][0]["code"]) == (False, ["a"], 404)


def _reset(request: protocol.Message) -> list[bytes]:
    if request["model"] == "gone":
        return list(refuse(404, "model is not found: 'gone'")(request))
    return [protocol.encode(protocol.ok(model=model(request["model"], state="stopped")))]


def log_line(text: str, launch: int = 1, pid: int | None = None) -> protocol.Message:
    return {"line": {"at": 1760000000.0, "launch": launch, "pid": pid, "text": text}}


def test_logs_prints_lines_and_where_a_launch_begins(tmp_path: Path) -> None:
    lines = [log_line("one"), log_line("two \x1b[31mred\tand raw"), log_line("three", 2, 47)]
    with FakeControl(tmp_path, logs=answer(protocol.ok(), *lines, {"end": True})) as fake:
        result = invoke(tmp_path, "logs", "qwen", "-n", "7")
        as_json = invoke(tmp_path, "logs", "@web", "--json")
    told = [line.split(" ", 3)[3] if line[0] != "-" else line for line in result.stdout.splitlines()]
    assert told == ["one", "two \\x1b[31mred\tand raw", "-- process 47 --", "three"]
    assert fake.requests[0] == {"op": "logs", "model": "qwen", "lines": 7, "follow": False}
    assert [json.loads(line)["launch"] for line in as_json.stdout.splitlines()] == [1, 1, 2]


def test_following_ends_69_when_the_supervisor_does(tmp_path: Path) -> None:
    chunks = [protocol.encode(message) for message in (protocol.ok(), log_line("one"))]
    with FakeControl(tmp_path, logs=raw(*chunks, hang_up=True)) as fake:
        result = invoke(tmp_path, "logs", "-f", "qwen")
    assert fake.requests[0]["follow"] is True
    assert result.stdout.endswith(" one\n")
    assert (result.exit_code, "it closed the connection" in result.stderr) == (69, True)


def test_events_prints_them_with_their_number(tmp_path: Path) -> None:
    event = {"seq": 12, "at": 1760000000.0, "kind": "state", "model": "qwen", "text": "qwen: ready\nafter 0.8 s"}
    with FakeControl(tmp_path, events=answer(protocol.ok(), {"event": event}, {"end": True})) as fake:
        result = invoke(tmp_path, "events", "--since", "11")
        as_json = invoke(tmp_path, "events", "--json")
    assert fake.requests[0] == {"op": "events", "follow": False, "since": 11}
    assert result.stdout.startswith("    12  ")
    assert result.stdout.endswith("  qwen: ready\\nafter 0.8 s\n")
    assert json.loads(as_json.stdout) == event


def test_reload_prints_the_difference(tmp_path: Path) -> None:
    changes = {
        "added": ["a", "b"],
        "changed": ["d", "e", "f"],
        "adjusted": ["g"],
        "removed": ["c"],
        "unchanged": 5,
        "outcomes": {
            "c": {"when": "idle", "in_flight": 1},
            "d": {"when": "idle", "in_flight": 2},
            "e": {"when": "at_once", "in_flight": 0},
            "f": {"when": "not_running", "in_flight": 0},
        },
        "settings": ["max_models"],
        "needs_restart": ["listen"],
        "needs_reexec": ["web.tls"],
    }
    with FakeControl(tmp_path, reload=answer(protocol.ok(changes=changes))):
        result = invoke(tmp_path, "reload")
        as_json = invoke(tmp_path, "reload", "--json")
    assert result.stdout == (
        "reloaded: added a, b; restarts d (when its 2 requests are done), e; changed f (not running); "
        "adjusted g (without a restart); removed c (when its request is done); changed max_models in config.yaml; "
        "left 5 untouched\n"
        "notice: listen changed in config.yaml: takes effect after a restart of llama-router\n"
        "notice: web.tls changed in config.yaml: takes effect after llama-router reexec\n"
    )
    assert json.loads(as_json.stdout)["changes"] == changes


def test_reload_with_errors_prints_all_and_ends_78(tmp_path: Path) -> None:
    problems = [
        vars(errors.Problem("presets.d/a.yaml", 3, "models.a.contxt", "unknown key")),
        vars(errors.Problem("config.yaml", None, None, "empty")),
    ]
    with FakeControl(tmp_path, reload=refuse(400, "the configuration has errors", problems=problems)):
        result = invoke(tmp_path, "reload", "--json")
    assert result.exit_code == 78
    assert result.stderr.splitlines() == [
        "llama-router: cannot reload: the configuration has errors",
        "presets.d/a.yaml:3: models.a.contxt: unknown key",
        "config.yaml: empty",
    ]
    assert json.loads(result.stdout)["error"]["problems"] == problems


@pytest.mark.parametrize(
    "arguments", [("nonsense",), ("load",), ("status", "--nonsense"), ("logs", "-n", "-1", "qwen"), ("--nonsense",), ()]
)
def test_wrong_usage_is_64(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    result = invoke(tmp_path, *arguments)
    assert (result.exit_code, result.stdout) == (64, "")
    assert "Usage: " in result.stderr


@pytest.mark.parametrize("command", [*program.commands, None])
@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_has_an_example_and_fits(tmp_path: Path, command: str | None, flag: str) -> None:
    result = invoke(tmp_path, *([command] if command else []), flag)
    assert result.exit_code == 0
    assert "Example: llama-router " in result.stdout
    assert not [line for line in result.stdout.splitlines()[1:] if line.endswith("...")]
    assert max(map(len, result.stdout.splitlines())) <= 80
