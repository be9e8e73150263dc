"""The document that a supervisor leaves to the next program: read whole, or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from harness import Supervisor, refused

from supervisor import handover
from supervisor.child import Child
from supervisor.children import Launch, Process, Running
from supervisor.configuration import Configuration
from supervisor.configured import InUse
from supervisor.errors import CannotTakeOver
from supervisor.logs import Source

Change = Callable[[Any], object]


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """One that was written by a supervisor with a ready model, a lease, a waiter and a follower."""
    path = tmp_path_factory.mktemp("handover") / "document"
    keep = f"open({str(path)!r}, 'wb').write(open('/proc/self/fd/3', 'rb').read())"
    program = f"import os\nif os.environ.get('LLAMA_ROUTER_HANDOVER', '').startswith('check'): {keep}; os._exit(1)"
    with Supervisor(prefix=program) as supervisor:
        supervisor.start("READY=1")
        supervisor.load("a", "mutter=half", "listen={socket}", "notify=READY=1", "serve", env={"SECRET": "é"})
        supervisor.lease("a").grant()
        supervisor.lease("a", timeout=9.5)
        follower = supervisor.client().stream("events", follow=True, since=0)
        next(follower)
        with refused():
            supervisor.call("reexec")
    return path.read_bytes()


def test_it_is_understood_by_who_wrote_it(document: bytes) -> None:
    told = handover.decode(document)
    assert handover.encode(told) == document
    fleet, configuration = told.restored()
    assert list(fleet.models) == list(configuration.presets) == ["a"]
    assert [process.partial for process in told.processes if process.model == "a"] == [b"half"]
    assert len(fleet.scheduler.leases) == 2
    assert len(set(told.descriptors)) == len(list(told.descriptors))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda told: told.update(version=2, program="9.0"), "from llama-router 9.0: it hands over in format 2"),
        (lambda told: told.update(version="1"), "hands over in format 1, and"),
        (lambda told: told.update(version=True), "Expected `int`, got `bool`"),
        (lambda told: told.pop("version"), "no document of llama-router's"),
        (lambda told: told.update(more=1), "more is known to one"),
        (lambda told: told.pop("lock"), "missing required field `lock`"),
        (lambda told: told["connections"][0].update(more=1), r"connections\[0\].more is known to one"),
        (lambda told: told["connections"][0].update(fd="7"), r"Expected `int`, got `str` - at `\$.connections\[0\].fd"),
        (lambda told: told["processes"][0].pop("pid"), "missing required field `pid`"),
        (lambda told: told["in_use"]["origins"]["a"].update(more=1), "in_use.origins.a.more is known to one"),
        (lambda told: told["lines"].update(last=1.5), "Expected `int`, got `float`"),
    ],
)
def test_what_is_not_understood_in_full_is_refused(document: bytes, change: Change, why: str) -> None:
    told = json.loads(document)
    change(told)
    with pytest.raises(CannotTakeOver, match=why):
        handover.decode(json.dumps(told).encode())


@pytest.mark.parametrize(
    "change",
    [
        lambda told: told["fleet"]["models"][0].update(more=1),
        lambda told: told["fleet"]["models"][0]["preset"].update(more=1),
        lambda told: told["fleet"]["models"][0]["preset"].update(backend="other"),
        lambda told: told["fleet"]["models"][0]["replicas"][0].update(state="asleep"),
        lambda told: told["fleet"].pop("granted"),
        lambda told: told["in_use"]["config"].update(more=1),
        lambda told: told["in_use"]["config"].update(max_wait="soon"),
    ],
)
def test_nor_are_models_and_settings_taken_over_in_part(document: bytes, change: Change) -> None:
    told = json.loads(document)
    change(told)
    with pytest.raises(CannotTakeOver, match="cannot take over the models: "):
        handover.decode(json.dumps(told).encode()).restored()


@pytest.mark.parametrize("size", [0, 1, 1000, -1])
def test_half_a_document_is_refused(document: bytes, size: int) -> None:
    with pytest.raises(CannotTakeOver, match="no document of llama-router's"):
        handover.decode(document[:size])


@pytest.mark.parametrize("told", ["", "check", "take x", "erase 3", "check 99999", "take -1"])
def test_a_variable_that_somebody_else_set_is_refused(told: str) -> None:
    environment = {handover.VARIABLE: told}
    with pytest.raises(CannotTakeOver):
        handover.given(environment)
    assert not environment


def test_descriptors_are_not_passed_on(document: bytes, tmp_path: Path) -> None:
    fd = handover.written(handover.decode(document))
    assert not os.get_inheritable(fd)
    assert handover.given({handover.VARIABLE: f"check {fd}"}) == ("check", handover.decode(document))
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def test_the_whole_configuration_is_told() -> None:
    """All but what the fleet has, and the files as they were read and parsed."""
    known = {field.name for field in fields(Configuration)} - {"presets", "aliases", "sources", "files"}
    assert set(InUse.__struct_fields__) - {"listen", "wrong"} == known


def test_whatever_is_known_of_a_process_is_told_or_made_anew() -> None:
    """A field that is added belongs into Process, or here."""
    known = {field.name for kind in (Launch, Child, Source, Running) for field in fields(kind)}
    of_the_same = {"number": "launch", "fd": "log", "instance": "name"}
    made_anew = {"env", "directory", "cleanup", "pass_fd", "fork", "dialect", "limits", "took", "child", "source"}
    told = {of_the_same.get(name, name) for name in known - made_anew}
    assert told == set(Process.__struct_fields__)
