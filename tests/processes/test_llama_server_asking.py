"""What llama-servers are is asked of all together, and nothing else waits: not a request, not systemd."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from changing import told
from fake_llama_server import ANSWERS, HELP, script
from harness import Supervisor, Systemd, refused
from made_gguf import make
from observed import Gate, processes

from supervisor.backends import Place, llama_server_asking, plan
from supervisor.backends.llama_server_asking import Answer, Question, ask
from supervisor.backends.llama_server_binary import Programs
from supervisor.core.preset import Preset
from supervisor.errors import CannotStart
from supervisor.memory import Memory

Start = Callable[..., Supervisor]
GATED = """\
import os, socket, sys
if sys.argv[1:] == ["--version"]:
    with socket.socket(socket.AF_UNIX) as gate:
        gate.connect({path!r})
        gate.sendall(b"%d" % os.getpid())
        gate.recv(1)
"""
HANGS = "#!/bin/sh\nsleep 1000\n"
IMPATIENT = "\nfrom supervisor.backends import llama_server_asking\nllama_server_asking.PATIENCE = 0.5"


def gated(path: Path, gate: Gate, serves: str = "") -> Path:
    """An llama-server that waits at the gate before it tells its version, and otherwise does what it `serves`."""
    return script(path, GATED.format(path=str(gate.path)) + ANSWERS + serves)


def body(supervisor: Supervisor, program: Path | str, **keys: Any) -> dict[str, Any]:
    model = supervisor.directory / "tiny.gguf"
    if not model.exists():
        make(model)
    return {"backend": "llama-server", "binary": str(program), "model": str(model), **keys}


def write(supervisor: Supervisor, programs: Iterable[Path | str], **keys: Any) -> None:
    """A file of presets, one for each program."""
    presets = {f"m{number}": body(supervisor, program, **keys) for number, program in enumerate(programs)}
    supervisor.write("asked", {"models": presets})


@pytest.fixture
def prepared(supervisors: Start) -> Supervisor:
    made = supervisors()
    made.replace_web_tier("notify=READY=1", "pause")
    return made


def answers(paths: Iterable[Path]) -> dict[str, Answer]:
    questions = [Question(str(path), (), ()) for path in paths]
    return {Path(question.path).name: answer for question, answer in ask(questions)}


# Many at once


def test_many_that_hang_take_no_longer_than_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llama_server_asking, "PATIENCE", 1.0)
    monkeypatch.setattr(llama_server_asking, "MOST_AT_ONCE", 3)
    hanging = [script(tmp_path / f"h{number}", HANGS, python=False) for number in range(9)]
    started = time.monotonic()
    found = answers(hanging)
    assert time.monotonic() - started < 3, "one after another, or three at a time"
    assert found == {path.name: Answer(why="--version did not end within 1s", may_pass=True) for path in hanging}
    assert not list(processes(str(tmp_path)))


def test_more_than_are_asked_at_once_are_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llama_server_asking, "MOST_AT_ONCE", 2)
    made = [script(tmp_path / f"s{number}", ANSWERS) for number in range(5)]
    made.append(script(tmp_path / "bad", "\x7fELF garbage", python=False))
    found = answers(made)
    assert found.pop("bad") == Answer(why="it can't be run: Exec format error")
    assert [(answer.version, answer.help.strip()) for answer in found.values()] == [
        ("version: 5000 (abcdef)", HELP.strip())
    ] * 5


def test_one_that_hangs_costs_the_others_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llama_server_asking, "PATIENCE", 8.0)
    found = answers([script(tmp_path / "hangs", HANGS, python=False), script(tmp_path / "fine", ANSWERS)])
    assert {name: bool(answer.why) for name, answer in found.items()} == {"hangs": True, "fine": False}


# What is known


def preset(program: Path | str) -> Preset:
    return Preset(name="tiny", backend="llama-server", model="/models/tiny.gguf", binary=str(program))


def test_a_file_that_never_rests_is_asked_once(tmp_path: Path) -> None:
    programs, asked = Programs(), preset(script(tmp_path / "s", ANSWERS))
    programs.asks_later = True
    assert programs.of(asked) is None
    [question] = programs.unasked()
    os.utime(question.path, ns=(1, 1))
    programs.take(question, Answer("version", HELP))
    assert programs.of(asked) is not None
    assert programs.unasked() == []
    programs.settle()
    assert programs.of(asked) is None


def test_nobody_asks_when_a_server_is_started(tmp_path: Path) -> None:
    memory = Memory(None)
    memory.serve(pytest.fail)
    place = Place(tmp_path / "1.sock", tmp_path / "1.json", lambda: 1)
    with pytest.raises(CannotStart, match="as llama-server: nobody asked it yet what it is; run: llama-router reload"):
        plan(preset(script(tmp_path / "s", ANSWERS)), place, memory)


# While it serves


def test_requests_are_answered_and_the_watchdog_beats_while_they_are_asked(prepared: Supervisor) -> None:
    with Systemd(prepared.directory / "systemd.sock") as systemd:
        prepared.launch(env={**systemd.env, "WATCHDOG_USEC": "2000000"})
        systemd.heard("READY=1", prepared)
        watch, gate = prepared.watch(), prepared.gate("asked")
        write(prepared, [gated(prepared.directory / f"s{number}", gate) for number in range(8)])
        visitors = [gate.visitor() for _ in range(8)]  # nobody has answered, and all are asked
        prepared.kill(prepared.pid, signal.SIGHUP)
        systemd.heard("RELOADING=1", prepared)  # what beat before is heard, and each that follows is a later one
        for _ in range(2):
            systemd.heard("WATCHDOG=1", prepared)
            assert prepared.status()["models"] == []
    for visitor in visitors:
        visitor.go()
    told(watch, "m0, m1, m2, m3, m4, m5, m6, m7 added")
    assert prepared.log.read_text().count("and 8 more") == 1  # the last of them is the header of their model


def test_a_reload_tells_what_hangs_and_asks_again_the_next_time(prepared: Supervisor) -> None:
    prepared.prefix += IMPATIENT
    prepared.start()
    flag = prepared.directory / "flag"
    hangs = f"import os, signal\nif not os.path.exists({str(flag)!r}): signal.pause()\n"
    moody = script(prepared.directory / "moody", hangs + ANSWERS)
    prepared.write("asked", {"models": {"m": body(prepared, moody)}})
    for _ in range(2):
        with refused() as refusals:
            prepared.call("reload")
        assert "as llama-server: --version did not end within 500ms" in refusals[0].problems[0].message
    flag.touch()
    prepared.call("reload")
    assert [model["name"] for model in prepared.status()["models"]] == ["m"]


def test_a_save_waits_for_what_it_needs_to_know_and_nobody_else_does(prepared: Supervisor) -> None:
    text = prepared.config.read_text()
    prepared.config.write_text(text.replace("workers: 1", "workers: 1, edit_commands: true"))
    prepared.start()
    gate = prepared.gate("asked")
    program = gated(prepared.directory / "s", gate)
    text = json.dumps({"models": {"m": body(prepared, program, options={"flash-atn": "on"})}})
    client = prepared.client()
    client._send({"op": "save", "file": "asked.yaml", "text": text, "base": None})
    visitor = gate.visitor()
    assert prepared.status()["models"] == []
    visitor.go()
    answer = client._receive()
    assert (answer["outcome"], answer["problems"][0]["field"]) == ("refused", "models.m.options.flash-atn")


def test_who_kills_the_asking_process_refuses_the_program(prepared: Supervisor) -> None:
    prepared.start()
    gate = prepared.gate("asked")
    write(prepared, [gated(prepared.directory / "s", gate)])
    client = prepared.client()
    client._send({"op": "reload"})
    visitor = gate.visitor()
    os.kill(int(Path(f"/proc/{visitor.pid}/stat").read_text().rpartition(")")[2].split()[1]), signal.SIGKILL)
    visitor.gone()
    answer = client._receive()
    assert "as llama-server: the process that did it was killed" in json.dumps(answer)
    assert prepared.status()["models"] == []


def test_one_that_was_replaced_since_the_start_is_asked_at_the_first_reload(prepared: Supervisor) -> None:
    program = script(prepared.directory / "s", ANSWERS)
    write(prepared, [program], options={"metrics": True})
    prepared.start()
    script(prepared.directory / "new", ANSWERS.replace("--metrics", "--metered")).rename(program)
    with refused() as refusals:
        prepared.call("reload")
    assert refusals[0].problems[0].field == "models.m0.options.metrics"


def test_without_another_process_nobody_waits_for_a_program(prepared: Supervisor) -> None:
    prepared.prefix += (
        "\nfrom supervisor import reading\ndef refused(self): raise BlockingIOError\nreading.Reading._fork = refused"
    )
    prepared.start()
    write(prepared, [gated(prepared.directory / "s", prepared.gate("asked"))])
    with refused() as refusals:
        prepared.call("reload")
    assert "there is no process to be had for it" in refusals[0].problems[0].message


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=str)
def test_what_is_asked_does_not_outlive_the_supervisor(prepared: Supervisor, number: signal.Signals) -> None:
    prepared.start()
    gate = prepared.gate("asked")
    child = "import subprocess\nsubprocess.Popen(['sleep', '1000'])\n"
    program = script(prepared.directory / "s", child + GATED.format(path=str(gate.path)))
    write(prepared, [program], env={"MARK": str(prepared.directory)})
    visitor = gate.visitor()
    prepared.expected = 0 if number == signal.SIGTERM else -number
    prepared.kill(prepared.pid, number)
    assert prepared.wait() == prepared.expected
    visitor.gone()


def test_a_program_that_was_replaced_is_started_without_being_asked(prepared: Supervisor) -> None:
    serves = '\nstate(\'{"state":"ready"}\')\nserve()'
    program = script(prepared.directory / "s", ANSWERS + serves)
    write(prepared, [program])
    prepared.start()
    prepared.call("reload")
    gate = prepared.gate("asked")
    gated(prepared.directory / "new", gate, serves).rename(program)
    assert prepared.call("load", model="m0", wait=True)["model"]["state"] == "ready"
    assert not gate.visited


# At the start


def test_a_start_asks_all_at_once_and_tells_systemd(prepared: Supervisor) -> None:
    gate = prepared.gate("asked")
    write(prepared, [gated(prepared.directory / f"s{number}", gate) for number in range(4)])
    with Systemd(prepared.directory / "systemd.sock") as systemd:
        prepared.launch(env=systemd.env)
        visitors = [gate.visitor() for _ in range(4)]
        assert systemd.heard("EXTEND_TIMEOUT_USEC=70000000", prepared) == ["EXTEND_TIMEOUT_USEC=70000000"]
        for visitor in visitors:
            visitor.go()
        systemd.heard("READY=1", prepared)
    assert len(prepared.status()["models"]) == 4


def test_check_asks_all_at_once(prepared: Supervisor) -> None:
    gate = prepared.gate("asked")
    write(prepared, [gated(prepared.directory / f"s{number}", gate) for number in range(4)])
    with ThreadPoolExecutor(1) as pool:
        checked = pool.submit(prepared.check)
        for visitor in [gate.visitor() for _ in range(4)]:
            visitor.go()
        assert "4 models in 1 file are fine" in checked.result().stdout


def test_presets_that_differ_in_their_devices_ask_once(prepared: Supervisor) -> None:
    count = prepared.directory / "count"
    counted = script(prepared.directory / "s", f"open({str(count)!r}, 'a').write('x')\n{ANSWERS}")
    each = {f"m{number}": body(prepared, counted, env={"CUDA_VISIBLE_DEVICES": str(number)}) for number in range(3)}
    prepared.write("asked", {"models": each})
    prepared.start()
    prepared.call("reload")
    assert count.read_text() == "xx"  # --version and --help


@pytest.mark.parametrize(
    ("text", "keys", "code"),
    [
        (HANGS, {}, 75),
        ("#!/bin/sh\nexit 1\n", {}, 78),
        (f"#!{sys.executable} -IS\n{ANSWERS}", {"options": {"nothing": 1}}, 78),
    ],
    ids=["hangs", "fails", "unknown option"],
)
def test_a_start_that_fails_is_tried_again_only_if_time_may_help(
    prepared: Supervisor, text: str, keys: dict[str, Any], code: int
) -> None:
    prepared.prefix += IMPATIENT
    write(prepared, [script(prepared.directory / "s", text, python=False)], **keys)
    assert prepared.run().returncode == code
