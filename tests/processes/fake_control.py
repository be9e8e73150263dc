"""A scripted supervisor: a real UNIX socket that answers each op with the bytes a test chose."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from click.testing import CliRunner, Result

from supervisor import protocol
from supervisor.cli import program
from supervisor.client import SOCKET_NAME
from supervisor.protocol import Message

Script = Callable[[Message], Iterable[bytes]]
JOIN_SECONDS = 10.0


class HangUp(Exception):
    """Raised by a script: the connection is closed there."""


def answer(*messages: Message) -> Script:
    """Sends these messages."""
    return lambda request: [protocol.encode(message) for message in messages]


def raw(*chunks: bytes, hang_up: bool = False) -> Script:
    """Sends these bytes as they are; no chunk at all is a supervisor that hangs."""

    def script(request: Message) -> Iterable[bytes]:
        yield from chunks
        if hang_up:
            raise HangUp

    return script


class FakeControl:
    """Serves `scripts`, by op, until the block ends. `requests` are those received, `asked` is set by the first."""

    def __init__(self, runtime_dir: Path, **scripts: Script) -> None:
        self.requests: list[Message] = []
        self.asked = threading.Event()
        self._scripts = scripts
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(runtime_dir / SOCKET_NAME))
        self._listener.listen()
        self._connection: socket.socket | None = None
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for open_socket in (self._listener, self._connection):
            if open_socket is not None:
                _shut(open_socket)
        self._thread.join(JOIN_SECONDS)
        self._listener.close()
        assert not self._thread.is_alive()

    def asked_for(self, op: str) -> list[Message]:
        """The requests of one op."""
        return [request for request in self.requests if request["op"] == op]

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._connection = connection
            with connection:
                try:
                    self._converse(connection)
                except (HangUp, OSError):
                    continue

    def _converse(self, connection: socket.socket) -> None:
        lines = protocol.LineBuffer()
        while data := connection.recv(65536):
            for line in lines.feed(data):
                request = protocol.decode(line)
                self.requests.append(request)
                self.asked.set()
                for chunk in self._scripts[request["op"]](request):
                    connection.sendall(chunk)


def _shut(open_socket: socket.socket) -> None:
    try:
        open_socket.shutdown(socket.SHUT_RDWR)
    except OSError:
        return


def model(name: str = "qwen", **fields: Any) -> Message:
    """One of status' models, ready unless `fields` say otherwise; of replicas, memory and the queue it tells nothing,
    like a supervisor that does not know of them."""
    facts: Message = {
        "name": name,
        "aliases": [],
        "description": None,
        "backend": "llama-cpp-python",
        "state": "ready",
        "draining": False,
        "reason": None,
        "message": None,
        "progress": None,
        "pid": 4712,
        "launch": 18,
        "since": 1760000000.0,
        "in_flight": 0,
        "waiting": 0,
        "served": 12,
        "restarts": 0,
        "next_start": None,
        "file": "presets.d/qwen.yaml",
        "line": 3,
    }
    return facts | fields


def replica(name: str = "qwen", **fields: Any) -> Message:
    """One of a model's replicas, ready unless `fields` say otherwise."""
    kept = ("name", "state", "draining", "reason", "message", "progress", "pid", "launch", "since", "in_flight")
    facts = model(name)
    return {key: facts[key] for key in (*kept, "served", "restarts", "next_start")} | fields


def failed(name: str = "qwen", *last_lines: str, text: str = "exited with code 65") -> Message:
    """A model that failed for good."""
    reason = {
        "kind": "exited",
        "text": text,
        "code": 65,
        "signal": None,
        "at": 1760000000.0,
        "last_lines": list(last_lines),
    }
    return model(name, state="failed", pid=None, launch=None, reason=reason)


def status(*models: Message, **fields: Any) -> Script:
    """The answer of op "status"."""
    states = [item["state"] for item in models]
    body = {
        "version": "0.1.0",
        "pid": 4711,
        "state": "running",
        "since": 1760000000.0,
        "listen": "127.0.0.1:8080",
        "config": "/etc/llama-router/config.yaml",
        "autoload": True,
        "counts": {state: states.count(state) for state in ("stopped", "starting", "ready", "failed")},
        "web": model("@web", aliases=[]),
        "models": sorted(models, key=lambda item: str(item["name"])),
    }
    return answer(protocol.ok(status=body | fields))


def refuse(code: int, message: str, **fields: Any) -> Script:
    """A negative answer."""
    return answer({"ok": False, "error": {"code": code, "type": "server_error", "message": message, **fields}})


def invoke(directory: Path, *arguments: str) -> Result:
    environment = {"LLAMA_ROUTER_RUNTIME_DIR": str(directory), "LLAMA_ROUTER_DEBUG": None, "NO_COLOR": None}
    return CliRunner(env=environment).invoke(program, list(arguments))


EACH_CLIENT = [
    ("queue",),
    ("load", "qwen"),
    ("unload", "qwen"),
    ("restart", "qwen"),
    ("reset-failed",),
    ("logs", "qwen"),
    ("events",),
    ("reload",),
]
