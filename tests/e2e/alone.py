"""A model server by itself: started without a supervisor, asked over its UNIX socket, its notices read."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket as sockets
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ASK = {"prompt": "The capital of France is", "max_tokens": 16, "temperature": 0}
LONG_ANSWER = {"prompt": "Once upon a time", "max_tokens": 4000, "temperature": 0}
PROGRAM = ("-m", "supervisor.model_server")
DEADLINE = 60.0


class Notices(list[str]):
    """Every message to a NOTIFY_SOCKET, read as it comes: a full one would stop the sender."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self._socket = sockets.socket(sockets.AF_UNIX, sockets.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._arrived = threading.Condition()
        self._taken = 0
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        while message := self._socket.recv(4096):
            with self._arrived:
                self.append(message.decode())
                self._arrived.notify_all()

    def next(self) -> str:
        """The next message, each once."""
        with self._arrived:
            assert self._arrived.wait_for(lambda: len(self) > self._taken, DEADLINE)
            self._taken += 1
            return self[self._taken - 1]

    def wait_for(self, words: str) -> None:
        """Pass over messages until one with these words."""
        while words not in self.next():
            pass

    def silent_for(self, seconds: float) -> None:
        """Forget what came so far; nothing else may come for so long."""
        with self._arrived:
            self._taken = len(self)
            assert not self._arrived.wait_for(lambda: len(self) > self._taken, seconds), self[self._taken :]

    def close(self) -> None:
        """Take in what was sent so far, and end."""
        with self._socket, sockets.socket(sockets.AF_UNIX, sockets.SOCK_DGRAM) as last:
            last.sendto(b"", str(self.path))
            self._reader.join()


@dataclass
class Server:
    """A model server, by what it shows of itself."""

    process: subprocess.Popen[bytes]
    socket: Path
    notices: Notices

    def connect(self) -> sockets.socket:
        connection = sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM)
        connection.settimeout(DEADLINE)
        try:
            connection.connect(str(self.socket))
        except OSError:
            connection.close()
            raise
        return connection

    def send(self, body: Any, path: str = "/v1/completions", method: str = "POST") -> sockets.socket:
        """Send a request and leave its answer unread."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        head += f"Content-Length: {len(data)}\r\n\r\n"
        connection = self.connect()
        connection.sendall(head.encode() + data)
        return connection

    def request(self, body: Any, path: str = "/v1/completions", method: str = "POST") -> tuple[int, Any]:
        status, data = read_answer(self.send(body, path, method))
        return status, json.loads(data)

    def events(self, body: dict[str, Any], path: str = "/v1/completions") -> list[Any]:
        status, data = read_answer(self.send({**body, "stream": True}, path))
        assert status == 200
        return parse_events(data)

    def text(self, body: dict[str, Any]) -> str:
        status, answer = self.request(body)
        assert status == 200, answer
        return str(answer["choices"][0]["text"])

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(DEADLINE)


def read_answer(connection: sockets.socket) -> tuple[int, bytes]:
    with connection:
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        return answer.status, answer.read()


def parse_events(data: bytes) -> list[Any]:
    lines = [line.removeprefix("data: ") for line in data.decode().splitlines() if line.startswith("data: ")]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]


def launch(folder: Path, settings: dict[str, Any], program: Sequence[str] = PROGRAM, **options: Any) -> Server:
    """Start a model server with its socket, settings, log and NOTIFY_SOCKET in `folder`; options are Popen's."""
    (folder / "settings.json").write_text(json.dumps(settings))
    paths = ["--socket", str(folder / "model.sock"), "--settings", str(folder / "settings.json")]
    # Names that llama-cpp-python's settings would read from the environment.
    stray = {"API_KEY": "secret", "MODEL": "/nonexistent", "CONFIG_FILE": "/nonexistent", "N_CTX": "16"}
    notices = Notices(folder / "notify")
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, *program, *paths],
            env={**os.environ, **stray, "NOTIFY_SOCKET": str(folder / "notify"), **options.pop("env", {})},
            stderr=log,
            stdout=subprocess.DEVNULL,
            **options,
        )
    return Server(process, folder / "model.sock", notices)


def finish(server: Server) -> None:
    """Kill it if it lives."""
    if server.process.poll() is None:
        server.process.kill()
        server.process.wait()
    server.notices.close()
