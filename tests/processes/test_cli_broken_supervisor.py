"""Clients of a supervisor that closes in mid-answer, or is no supervisor of theirs: one line, an exit code, no more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fake_control import EACH_CLIENT, FakeControl, invoke, model, raw, status


@pytest.mark.parametrize("arguments", [("status",), *EACH_CLIENT])
def test_a_supervisor_that_closes_mid_answer(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    scripts = dict.fromkeys(
        ("status", "load", "unload", "restart", "reset", "logs", "events", "reload"), raw(b'{"ok": tr', hang_up=True)
    )
    with FakeControl(tmp_path, **scripts):
        result = invoke(tmp_path, *arguments)
    assert result.exit_code == (3 if arguments[0] == "status" else 69)
    assert result.stderr == "llama-router: cannot hear llama-router: it closed the connection; did it stop?\n"


GARBAGE = [
    b"HTTP/1.1 400 Bad Request\r\n\r\n",
    b"[]\n",
    b"{}\n",
    b'{"ok":true}\n{}\n',
    b'{"ok":true,"status":7,"model":[],"changes":null}\n{"line":3,"event":false}\n',
    b'{"ok":true,"status":{"models":{}},"model":{"name":3},"changes":{"added":"x"}}\n{"line":{},"event":{}}\n',
    b'{"ok":false,"error":"no"}\n',
    b"\xff\xfe\x00\n",
]


@pytest.mark.parametrize("garbage", GARBAGE)
@pytest.mark.parametrize("arguments", [("status",), *EACH_CLIENT])
def test_a_supervisor_that_sends_garbage(tmp_path: Path, arguments: tuple[str, ...], garbage: bytes) -> None:
    scripts = dict.fromkeys(("status", "load", "unload", "restart", "reset", "logs", "events", "reload"), raw(garbage))
    with FakeControl(tmp_path, **scripts):
        result = invoke(tmp_path, *arguments)
    assert result.exit_code == 76
    assert result.stderr.startswith("llama-router: cannot read ")
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "fields",
    [
        {"since": float("nan")},
        {"since": 10**400},
        {"since": "yesterday"},
        {"name": None},
        {"in_flight": True},
        {"reason": {"text": "x"}},
        {"aliases": [1]},
        {"progress": {}},
    ],
)
def test_mistyped_facts_are_the_protocols_fault(tmp_path: Path, fields: dict[str, Any]) -> None:
    with FakeControl(tmp_path, status=status(model() | fields)):
        result = invoke(tmp_path, "status")
    assert (result.exit_code, result.stdout) == (76, "")
