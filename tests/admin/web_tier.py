"""The real web tier: gunicorn in a subprocess, started as the supervisor starts it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from admin import sessions
from admin.cors import is_dashboard
from supervisor.access import known
from supervisor.core.access import RoleName
from supervisor.web_tier import ARGV, DIRECTORY

DEADLINE = 20.0
REPLACING = """
from importlib import import_module
from admin import gunicorn_conf
from admin.gunicorn_conf import *

timeout = {timeout!r}
gunicorn_conf.LOOK_SECONDS = timeout / 2

def post_worker_init(worker):
    for place, value in {constants!r}.items():
        module, _, name = place.rpartition(".")
        assert hasattr(import_module(module), name)
        setattr(import_module(module), name, value)
    gunicorn_conf.post_worker_init(worker)
"""

# Headers of requests that a page of another site makes a browser send, and of those it does not.
FOREIGN = [
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Sec-Fetch-Site": "same-origin", "Origin": "https://evil.example"},
]
OWN: list[dict[str, str]] = [
    {},
    {"Sec-Fetch-Site": "none"},
    {"Sec-Fetch-Site": "same-origin", "Host": "Router:8080", "Origin": "http://router:8080"},
]


@dataclass
class Answer:
    """A whole response."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        assert self.headers["content-type"] == "application/json", self
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        """The error object, checked for its shape."""
        error: dict[str, Any] = self.json["error"]
        assert set(error) == {"code", "message", "type"}
        assert error["code"] == self.status
        return error


@dataclass
class WebTier:
    """A running web tier, whose pages are asked for by an admin unless a request has a Cookie of its own. `notices`
    are the sd_notify datagrams that came until it was ready.

    `constants` replaces those of its modules, in each worker: {"admin.body.PIECE": 1}. `environment` is added to what
    the supervisor would set. `timeout`: seconds after which a worker counts as hung.
    """

    runtime_dir: Path
    workers: int = 1
    grace: float = 5.0
    family: socket.AddressFamily = socket.AF_INET
    cors_origins: str = "localhost"
    notices: list[bytes] = field(default_factory=list)
    constants: dict[str, float] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    timeout: int = 60

    @property
    def state_dir(self) -> Path:
        """Another one than `runtime_dir`: what is looked for in the wrong place shall not be found."""
        return self.runtime_dir / "state"

    def start(self) -> None:
        """Return when each worker has said READY=1."""
        self.launch()
        for _ in range(self.workers):
            self.notices.append(self.notify.recv(1024))

    def launch(self) -> None:
        """Return when it has been started."""
        self.state_dir.mkdir(mode=0o700, exist_ok=True)
        if self.family == socket.AF_INET:
            self.listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        else:
            self.listener = socket.socket(socket.AF_UNIX)
            self.listener.bind(str(self.runtime_dir / "web.sock"))
            self.listener.listen(128)
        self.notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        notify_path = self.runtime_dir / "notify.sock"
        self.notify.bind(str(notify_path))
        self.notify.settimeout(DEADLINE)
        fd = self.listener.fileno()
        environment = {
            "PATH": os.environ["PATH"],
            **{name: value for name, value in os.environ.items() if name.startswith("COVERAGE_")},
            "LLAMA_ROUTER_RUNTIME_DIR": str(self.runtime_dir),
            "LLAMA_ROUTER_STATE_DIR": str(self.state_dir),
            "LLAMA_ROUTER_LISTEN_FD": str(fd),
            "LLAMA_ROUTER_WORKERS": str(self.workers),
            "LLAMA_ROUTER_GRACE": str(self.grace),
            "LLAMA_ROUTER_CORS_ORIGINS": self.cors_origins,
            "LLAMA_ROUTER_KEYLESS": "open",
            "NOTIFY_SOCKET": str(notify_path),
            **self.environment,
        }
        self.log = (self.runtime_dir / "web.log").open("w+b")
        self.process = subprocess.Popen(
            self._argv(), cwd=DIRECTORY, env=environment, pass_fds=(fd,), stderr=self.log, stdout=self.log
        )
        self.address = self.listener.getsockname()

    def _argv(self) -> list[str]:
        if not self.constants and self.timeout == WebTier.timeout:
            return list(ARGV)
        config = self.runtime_dir / "constants.py"
        config.write_text(REPLACING.format(constants=self.constants, timeout=self.timeout))
        return [str(config) if argument.startswith("python:") else argument for argument in ARGV]

    def log_text(self) -> str:
        return (self.runtime_dir / "web.log").read_text()

    def worker_pids(self) -> list[int]:
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(pid) for pid in children.split()]

    def terminate(self) -> int:
        """SIGTERM to the master; its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(DEADLINE)

    def close(self) -> None:
        """End it, however it is."""
        if self.process.poll() is None:
            self.terminate()
        self.log.close()
        self.listener.close()
        self.notify.close()

    def connect(self) -> socket.socket:
        """A raw connection."""
        client = socket.socket(self.family)
        client.settimeout(DEADLINE)
        client.connect(self.address)
        return client

    def request(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> Answer:
        """One request on a connection of its own."""
        host, port = self.address
        connection = HTTPConnection(host, port, timeout=DEADLINE)
        headers = dict(headers or {})
        if is_dashboard(path.partition("?")[0]):
            headers.setdefault("Cookie", self.cookie(headers.get("Host", f"{host}:{port}")))
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            names = {name.lower() for name, _ in response.getheaders()}
            fields = {name: ", ".join(response.headers.get_all(name, ())) for name in names}
            return Answer(response.status, fields, response.read())
        finally:
            connection.close()

    def cookie(self, host: str = "x", role: RoleName = "admin") -> str:
        """What signs in a request with this Host."""
        _, colon, port = host.rpartition(":")
        name = f"{sessions.COOKIE}_{port}" if colon else sessions.COOKIE
        return f"{name}={sessions.sealed(role, known(self.state_dir, print))}"

    def post(self, path: str, document: object, headers: dict[str, str] | None = None) -> Answer:
        """A JSON request."""
        body = json.dumps(document).encode()
        return self.request("POST", path, body, {"Content-Type": "application/json"} | (headers or {}))

    def exchange(self, raw: bytes) -> bytes:
        """Send bytes, and read until the web tier closes the connection."""
        with self.connect() as client:
            client.sendall(raw)
            return read_all(client)


def read_all(client: socket.socket) -> bytes:
    """Everything until the end of the connection; raises ConnectionResetError for a reset."""
    received = bytearray()
    while data := client.recv(65536):
        received += data
    return bytes(received)


def read_until(client: socket.socket, end: bytes) -> bytes:
    """Everything up to and including the read that brings `end`."""
    received = bytearray()
    while end not in received:
        data = client.recv(65536)
        assert data, f"closed after {bytes(received)!r}"
        received += data
    return bytes(received)


def chat_request(document: object, extra: str = "", path: str = "/v1/chat/completions") -> bytes:
    """The bytes of a request."""
    body = json.dumps(document).encode()
    return f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n{extra}\r\n".encode() + body
