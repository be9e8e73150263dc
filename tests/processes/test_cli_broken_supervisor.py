"""Clients of a supervisor that closes in mid-answer, or is no supervisor of theirs: one line, an exit code, no more."""

from __future__ import annotations

import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from fake_control import EACH_CLIENT, FakeControl, answer, invoke, model, raw, status

from supervisor import protocol
from supervisor.cli import asking
from supervisor.client import SOCKET_NAME, Client
from supervisor.errors import NotRunning

SILENCE = "cannot hear llama-router: no answer within 0.2 s; is it stopped (SIGSTOP) or overloaded?"


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


@pytest.mark.parametrize(
    "arguments",
    [
        ("status",),
        ("status", "qwen"),
        ("reload",),
        ("reset-failed",),
        ("reset-failed", "qwen"),
        ("events",),
        ("logs", "qwen"),
        ("load", "--no-wait", "qwen"),
        ("unload", "--no-wait", "qwen"),
        ("restart", "--no-wait", "qwen"),
    ],
)
def test_a_supervisor_that_is_stopped(
    tmp_path: Path, arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "ANSWER_SECONDS", 0.2)
    scripts = dict.fromkeys(("status", "load", "unload", "restart", "reset", "logs", "events", "reload"), raw())
    with FakeControl(tmp_path, **scripts):
        result = invoke(tmp_path, *arguments)
    assert result.exit_code == (3 if arguments[0] == "status" else 69)
    assert result.stderr == f"llama-router: {SILENCE}\n"


@pytest.mark.parametrize("arguments", [("load", "qwen"), ("events", "-f"), ("logs", "-f", "qwen")])
def test_what_waits_waits_on(tmp_path: Path, arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """No answer comes for longer than the limit of those who do not wait; then the supervisor hangs up."""
    monkeypatch.setattr(asking, "ANSWER_SECONDS", 0.2)
    with FakeControl(tmp_path, load=raw(), events=raw(), logs=raw()) as control:
        results: list[str] = []
        client = threading.Thread(target=lambda: results.append(invoke(tmp_path, *arguments).stderr))
        client.start()
        assert control.asked.wait(10)
        client.join(0.6)
        assert client.is_alive()
    client.join(10)
    assert results == ["llama-router: cannot hear llama-router: it closed the connection; did it stop?\n"]


def test_a_stream_that_follows_has_a_limit_for_its_answer_alone(tmp_path: Path) -> None:
    with FakeControl(tmp_path, events=answer(protocol.ok()), status=raw()):
        with Client(tmp_path, timeout=0.2) as client, pytest.raises(NotRunning, match="no answer within"):
            list(client.stream("events", follow=False))
        with Client(tmp_path, timeout=0.2) as client:
            events: list[object] = []
            reader = threading.Thread(target=lambda: events.append(_outcome(client)))
            reader.start()
            reader.join(0.6)
            assert reader.is_alive()
    reader.join(10)
    assert ["it closed the connection" in str(event) for event in events] == [True]


def _outcome(client: Client) -> object:
    try:
        return list(client.stream("events", follow=True))
    except NotRunning as error:
        return error


def test_a_supervisor_that_accepts_nobody(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / SOCKET_NAME))
        listener.listen(0)
        with Client(tmp_path, timeout=0.2):  # it fills the queue
            began = time.monotonic()
            with pytest.raises(NotRunning) as caught:
                Client(tmp_path, timeout=0.2)
            assert 0.2 <= time.monotonic() - began < 5
            assert str(caught.value) == SILENCE


@pytest.mark.parametrize("timeout", [None, 10.0])
def test_a_supervisor_that_accepts_late(tmp_path: Path, timeout: float | None) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / SOCKET_NAME))
        listener.listen(0)
        connected = threading.Event()

        def connect() -> None:
            with Client(tmp_path, timeout=timeout):
                connected.set()

        with Client(tmp_path):
            second = threading.Thread(target=connect)
            second.start()
            assert not connected.wait(0.1)
            listener.accept()[0].close()
            assert connected.wait(10)
            second.join(10)
