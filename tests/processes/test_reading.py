"""Headers that are read while the supervisor serves: what waits for them, what does not, and what if none come."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from changing import told
from harness import Supervisor, Systemd, refused
from made_gguf import WHOLE, make
from observed import Process, children

from supervisor import protocol, reading
from supervisor.core.fleet import Fleet
from supervisor.core.policy import Policy
from supervisor.logs import Journal
from supervisor.loop import Loop
from supervisor.preset_files import MOST_BYTES_AT_ONCE
from supervisor.reading import Reading

Start = Callable[..., Supervisor]
MANY = 300

# The supervisor as it is, but that the header of a file is read once its gate lets that pass, if it has one.
PREFIX = """
import os, signal, socket
from supervisor import gguf_file, needs, reading
read = gguf_file.read
def gated(path):
    with socket.socket(socket.AF_UNIX) as gate:
        try:
            gate.connect(os.environ["GATES"] + "/" + os.path.basename(path) + ".gate")
        except OSError:
            return read(path)
        gate.sendall(b"%d" % os.getpid())
        if gate.recv(1):
            return read(path)
        os.kill(os.getpid(), signal.SIGKILL)
gguf_file.read = gated
"""


def prepared(supervisor: Supervisor) -> Supervisor:
    supervisor.replace_web_tier("notify=READY=1", "pause")
    supervisor.prefix += PREFIX
    supervisor.env["GATES"] = str(supervisor.directory)
    return supervisor


@pytest.fixture
def start(supervisors: Start) -> Start:
    """Starts one with an empty directory of models; `prefix` and `config` are added to its own."""

    def started(prefix: str = "", config: str = "") -> Supervisor:
        supervisor = prepared(supervisors(config=f"models_dir: models\n{config}"))
        supervisor.prefix += prefix
        (supervisor.directory / "models").mkdir()
        return supervisor.start()

    return started


def put(supervisor: Supervisor, *names: str, **changes: Any) -> None:
    """Whole models, there all at once."""
    new = supervisor.directory / "new"
    new.mkdir()
    for name in names:
        make(new / f"{name}.gguf", **changes)
    new.rename(supervisor.directory / "models" / "new")


def put_half(supervisor: Supervisor) -> Path:
    """Two models, of which the first one's file, returned, is not all there."""
    new = supervisor.directory / "new"
    for name in ("a", "b"):
        (new / name).mkdir(parents=True)
        (new / name / f"{name}.gguf").write_bytes(WHOLE if name == "b" else WHOLE[:-1])
    new.rename(supervisor.directory / "models" / "new")
    return supervisor.directory / "models" / "new" / "a" / "a.gguf"


def complete(half: Path) -> None:
    """Write the rest of it."""
    with half.open("ab") as file:
        file.write(WHOLE[-1:])


def known(supervisor: Supervisor) -> dict[str, str]:
    """Where what is known of each model's memory comes from."""
    return {model["name"].removeprefix("new/"): model["memory"]["source"] for model in supervisor.status()["models"]}


def metas(supervisor: Supervisor) -> dict[str, Any]:
    """What the header of each model's file says."""
    facts = [each["facts"] for each in supervisor.client().stream("facts")]
    return {each["model"].removeprefix("new/"): each["meta"] for each in facts}


def test_requests_are_served_while_hundreds_of_headers_are_read(start: Start) -> None:
    supervisor = start()
    supervisor.load("m")
    watch, gate = supervisor.watch(), supervisor.gate("zz.gguf")
    names = [f"{number:04}" for number in range(MANY)]
    put(supervisor, *names, "zz")
    visitor = gate.visitor()
    lease = supervisor.lease("m")
    lease.grant()
    lease.release()
    assert supervisor.call("restart", model="m", wait=True)["model"]["state"] == "ready"
    assert list(known(supervisor)) == ["m"] == list(metas(supervisor))
    asked = supervisor.lease("new/0001")
    with refused() as refusals:
        asked.grant()
    assert "not found" in str(refusals[0])
    visitor.go()  # until now, the last header was not read
    told(watch, "zz added")
    sources = known(supervisor)
    assert sources == dict.fromkeys([*names[1:], "new", "zz"], "estimated") | {"m": sources["m"]}
    assert [name for name, meta in metas(supervisor).items() if meta is None] == ["m"]


def test_a_long_text_is_tried_while_everything_goes_on(start: Start) -> None:
    supervisor = start()
    gate = supervisor.gate("zz.gguf")
    make(supervisor.directory / "zz.gguf")
    model = {"model": str(supervisor.directory / "zz.gguf")}
    padding = "# padding\n" * (MOST_BYTES_AT_ONCE // 10)
    text = padding + json.dumps({"models": {"zz": model, "wrong": {**model, "contxt": 1}}})
    clients = [supervisor.client() for _ in range(3)]
    for client in clients:
        client._send({"op": "try", "file": "a.yaml", "text": text})
    first = gate.visitor()
    assert supervisor.status()["models"] == []
    os.kill(first.pid, signal.SIGKILL)
    with refused() as refusals:
        protocol.raise_refusal(clients[0]._receive())
    assert "cannot try a.yaml" in str(refusals[0])
    gate.visitor().go()
    [problem] = clients[1]._receive()["problems"]
    assert (problem["field"], problem["here"]) == ("models.wrong.contxt", True)
    clients.pop().close()
    gate.visitor().go()
    assert not (supervisor.directory / "state" / "models.json").exists()
    fine = supervisor.client()
    fine._send({"op": "try", "file": "a.yaml", "text": padding + json.dumps({"models": {"zz": model}})})
    gate.visitor().go()
    assert fine._receive()["changes"]["added"] == ["zz"]


def test_who_asks_for_a_reload_waits_for_the_headers_and_nobody_else_does(start: Start) -> None:
    supervisor = start()
    gate = supervisor.gate("a.gguf")
    supervisor.write("b", {"models": {"b": {"model": make(supervisor.directory / "a.gguf")}}})
    clients = [supervisor.client() for _ in range(4)]
    for client, dry in zip(clients, (True, False, True, False), strict=True):
        client._send({"op": "reload", "dry_run": dry})
    visitor = gate.visitor()
    clients.pop().close()
    assert supervisor.status()["models"] == []
    visitor.go()
    changes = [client._receive()["changes"] for client in clients]
    assert [change["added"] for change in changes] == [["b"], ["b"], []]
    assert known(supervisor) == {"b": "estimated"}
    assert clients[0].call("status")["ok"]


def test_what_a_header_makes_wrong_is_told_to_who_asked(start: Start) -> None:
    supervisor = start(config="memory: {host: 1GiB}\n")
    model = make(supervisor.directory / "a.gguf")
    supervisor.write("a", {"models": {"a": {"model": model, "replicas": 64}}})
    with refused() as refusals:
        supervisor.call("reload")
    assert "cannot run 64 replicas: they need" in refusals[0].problems[0].message
    assert supervisor.status()["models"] == []


def test_what_never_fits_is_refused_at_once_with_numbers(start: Start) -> None:
    supervisor = start(config="memory: {host: 1MiB}\n")
    watch = supervisor.watch()
    put(supervisor, "big")
    told(watch, "new added")
    with refused() as refusals:
        supervisor.lease("new").grant()
    assert "memory allows 1.0 MiB" in str(refusals[0])


def test_systemd_hears_of_the_end_of_a_reload(supervisors: Start) -> None:
    supervisor = prepared(supervisors())
    with Systemd(supervisor.directory / "systemd.sock") as systemd:
        supervisor.launch(env=systemd.env)
        systemd.heard("READY=1", supervisor)
        gate = supervisor.gate("a.gguf")
        supervisor.write("a", {"models": {"a": {"model": make(supervisor.directory / "a.gguf")}}})
        supervisor.kill(supervisor.pid, signal.SIGHUP)
        systemd.heard("RELOADING=1", supervisor)
        visitor = gate.visitor()
        assert supervisor.status()["models"] == []
        visitor.go()
        assert not [text for text in systemd.heard("READY=1", supervisor) if "RELOADING" in text]
        assert known(supervisor) == {"a": "estimated"}


# What changes while headers are read


def test_a_file_that_was_read_too_early_is_looked_at_again(start: Start) -> None:
    supervisor = start()
    watch, gate = supervisor.watch(), supervisor.gate("b.gguf")
    half = put_half(supervisor)
    visitor = gate.visitor()  # the half was read
    complete(half)
    with (supervisor.directory / "config.yaml").open("a") as config:
        config.write("autoload: false\n")
    visitor.go()
    told(watch, "new/b added")
    told(watch, "new/a added")


def test_a_file_that_changes_at_the_very_end_is_looked_at_again(start: Start) -> None:
    supervisor = start()
    watch, gate = supervisor.watch(), supervisor.gate("b.gguf")
    half = put_half(supervisor)
    visitor = gate.visitor()
    supervisor.kill(supervisor.pid, signal.SIGSTOP)
    with Process(visitor.pid) as reader:
        visitor.go()
        reader.gone()
    complete(half)  # it hears of the headers first, then of this
    supervisor.kill(supervisor.pid, signal.SIGCONT)
    told(watch, "new/b added")
    told(watch, "new/a added")


def test_who_asks_after_a_file_was_read_too_early_is_told_of_all_of_it(start: Start) -> None:
    supervisor = start()
    gate = supervisor.gate("b.gguf")
    half = put_half(supervisor)
    visitor = gate.visitor()
    complete(half)
    client = supervisor.client()
    client._send({"op": "reload"})
    assert supervisor.status()["models"] == []
    visitor.go()
    assert client._receive()["ok"]
    assert known(supervisor) == {"a": "estimated", "b": "estimated"}


def test_an_empty_directory_that_comes_meanwhile_ends_no_model(start: Start) -> None:
    supervisor = start()
    supervisor.load("m")
    watch, gate = supervisor.watch(), supervisor.gate("a.gguf")
    put(supervisor, "a")
    visitor = gate.visitor()
    supervisor.presets.rename(supervisor.directory / "away")
    supervisor.presets.mkdir()
    visitor.go()
    told(watch, "was replaced by one without presets")
    assert supervisor.model("m")["state"] == "ready"


def test_a_file_that_is_replaced_is_known_to_everybody(start: Start) -> None:
    supervisor = start()
    watch = supervisor.watch()
    put(supervisor, "a")
    told(watch, "new added")
    before = supervisor.model("new")["memory"]["need"]
    shutil.move(
        make(supervisor.directory / "b", llama__context_length=4096), supervisor.directory / "models/new/a.gguf"
    )
    told(watch, "1 untouched")
    assert metas(supervisor)["new"]["n_ctx_train"] == 4096
    assert supervisor.model("new")["memory"]["need"]["host"] > before["host"]


@pytest.mark.parametrize("end", ["takes for ever", "kills who reads it"])
def test_a_file_that_can_not_be_read_costs_only_itself(start: Start, end: str) -> None:
    supervisor = start("reading.PATIENCE = reading.LEAST_PATIENCE = 0.2" if end == "takes for ever" else "")
    watch, gate = supervisor.watch(), supervisor.gate("b.gguf")
    put(supervisor, "a", "b", "c")
    visitor = gate.visitor()
    if end != "takes for ever":
        os.kill(visitor.pid, signal.SIGKILL)
    visitor.gone()
    told(watch, "new, new/b, new/c added")
    assert known(supervisor) == {"new": "estimated", "b": "unknown", "c": "estimated"}
    assert metas(supervisor)["b"] is None
    assert "cannot read the header of" in supervisor.log.read_text()
    gate.close()
    supervisor.call("reload")
    assert known(supervisor)["b"] == "estimated"
    assert metas(supervisor)["b"] is not None


def test_without_another_process_it_is_read_all_the_same(start: Start) -> None:
    supervisor = start("def refused(self): raise BlockingIOError\nreading.Reading._fork = refused")
    watch = supervisor.watch()
    put(supervisor, "a", "b")
    told(watch, "new, new/b added")
    assert known(supervisor) == {"new": "estimated", "b": "estimated"}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=str)
def test_who_reads_does_not_outlive_the_supervisor(start: Start, number: signal.Signals) -> None:
    supervisor = start()
    gate = supervisor.gate("a.gguf")
    put(supervisor, "a")
    visitor = gate.visitor()
    supervisor.expected = 0 if number == signal.SIGTERM else -number
    supervisor.kill(supervisor.pid, number)
    assert supervisor.wait() == supervisor.expected
    visitor.gone()


def test_nobody_reads_once_it_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "read", lambda _path: signal.pause())
    before = children(os.getpid())
    loop = Loop(Fleet({}, {}, Policy()))
    unread = [make(tmp_path / "a.gguf")]
    reader = Reading(loop, unknown=lambda: unread, take=lambda *_: pytest.fail(), journal=Journal())
    assert reader.start(pytest.fail)
    ((pid, _),) = children(os.getpid()).items() - before.items()
    with Process(pid) as process:
        reader.close()
        process.gone()
    os.waitpid(pid, 0)
    assert (reader.busy, reader.due()) == (False, None)
    loop.close()


def test_what_was_read_is_remembered_for_the_next_start(start: Start) -> None:
    supervisor = start()
    watch = supervisor.watch()
    put(supervisor, "a", "b")
    told(watch, "new, new/b added")
    supervisor.stop()
    supervisor.prefix += "gguf_file.read = None"
    supervisor.start()
    assert known(supervisor) == {"new": "estimated", "b": "estimated"}


def test_needs_are_worked_out_once(start: Start) -> None:
    supervisor = start(
        "of = needs.Needs.of\n"
        "def counted(self, presets):\n    print('worked out', flush=True)\n    return of(self, presets)\n"
        "needs.Needs.of = counted"
    )
    assert supervisor.log.read_text().count("worked out") == 1
    supervisor.call("reload")
    assert supervisor.log.read_text().count("worked out") == 2


@pytest.mark.parametrize("make_obstacle", [Path.mkdir, os.mkfifo], ids=["directory", "fifo"])
def test_what_lies_where_headers_are_remembered(start: Start, make_obstacle: Callable[[Path], None]) -> None:
    supervisor = start()
    make_obstacle(supervisor.directory / "state" / ".models.json.new")
    watch = supervisor.watch()
    put(supervisor, "a")
    told(watch, "new added")
    supervisor.call("reload")
    assert known(supervisor) == {"new": "estimated"}
    is_told = f"cannot write {supervisor.directory}/state/models.json" in supervisor.log.read_text()
    assert is_told is (make_obstacle is Path.mkdir)


def test_damaged_measures_are_told(supervisors: Start) -> None:
    supervisor = prepared(supervisors())
    (supervisor.directory / "state").mkdir()
    measures = supervisor.directory / "state" / "measured.json"
    measures.write_text('{"format": 1, "entries": {"x": {"name": "m", "shared": {}, "each": {"host": -1}}}}')
    supervisor.start()
    assert supervisor.log.read_text().count("ignored 1 of 1 entries in") == 1
    supervisor.stop()
    supervisor.start()
    assert supervisor.log.read_text().count("ignored 1 of 1 entries in") == 1
