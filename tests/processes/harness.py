"""The real supervisor as a subprocess, its models misbehaving on command, and nothing of it left afterwards.

Everything that waits does so on an event (a message of the supervisor, a connection of a model server, the end of a
process) and gives up at DEADLINE.
"""

from __future__ import annotations

import ast
import json
import os
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from observed import DEADLINE, Gate, Process, Timeout, processes

from supervisor.client import Client
from supervisor.errors import NotRunning, Refused
from supervisor.protocol import Message

ROOT = Path(__file__).resolve().parents[2]
MISBEHAVING = (sys.executable, "-IS", str(Path(__file__).with_name("misbehaving.py")))
READY = ("listen={socket}", "notify=READY=1", "serve")
QUICK = {"policy": "on-failure", "delay": "20ms", "max_delay": "1s", "limit": 3, "within": "1min"}


class Watch:
    """The events of one model (None: all), each seen once."""

    def __init__(self, client: Client, model: str | None, since: int) -> None:
        self.client = client
        self.model = model
        self.seen: list[Message] = []
        self._stream = client.stream("events", follow=True, since=since)

    def next(self, matches: Callable[[Message], bool]) -> Message:
        """The next event that matches. Raises Timeout with what came instead."""
        try:
            for message in self._stream:
                event: Message = message["event"]
                if self.model in (None, event["model"]):
                    self.seen.append(event)
                    if matches(event):
                        return event
        except NotRunning as error:
            raise Timeout(f"{error}; seen: {[event['text'] for event in self.seen]}") from None
        raise Timeout("the stream ended")

    def state(self, to: str) -> Message:
        """The next event that leads to a state."""
        return self.next(lambda event: event["kind"] == "state" and event["to"] == to and event["from"] != to)

    def state_of_each(self, to: str, names: Iterable[str]) -> None:
        """Wait until every one of these models has come to a state; the web tier's events are not theirs."""
        missing = set(names)
        while missing:
            missing.discard(self.state(to)["model"])

    def text(self, part: str) -> Message:
        """The next event whose text holds `part`."""
        return self.next(lambda event: part in event["text"])


class Lease:
    """A request for a model on a connection of its own, asked at once and answered when `grant` is called."""

    def __init__(self, client: Client, model: str | None, **fields: Any) -> None:
        self.client = client
        client._send({"op": "lease", "model": model, **fields})

    def grant(self) -> Message:
        """Wait for the grant. Raises Refused."""
        answer = self.client._receive()
        if "error" in answer:
            error = answer["error"]
            raise Refused(error["message"], status=error["code"], error_type=error["type"])
        grant: Message = answer["lease"]
        return grant

    @property
    def answered(self) -> bool:
        """True once there is an answer, or the connection is gone."""
        return bool(select.select([self.client], [], [], 0)[0])

    def release(self) -> None:
        """Give it back as served."""
        self.client.release({"ended": "complete"})

    def close(self) -> None:
        """Hang up."""
        self.client.close()


class Supervisor:
    """`llama-router run` with directories, configuration and clients of its own. Use as a context manager.

    `prefix` is Python that runs in its process first.
    """

    def __init__(
        self,
        listen: str | None = None,
        env: dict[str, str] | None = None,
        config: str = "",
        prefix: str = "",
        max_models: int = 0,
    ) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="lr-", dir="/tmp"))
        self.runtime = self.directory / "run"
        self.presets = self.directory / "presets.d"
        self.log = self.directory / "log"
        self.listen = listen or f"unix:{self.directory}/web.sock"
        self.env = env or {}
        self.prefix = prefix
        self.process: subprocess.Popen[bytes] | None = None
        self._clients: list[Client] = []
        self._gates: dict[str, Gate] = {}
        self._since = 0
        self.expected = 0
        self.cwd = ROOT
        self.config = self.directory / "config.yaml"
        self.presets.mkdir()
        daemon = f"listen: {self.listen}\nweb: {{workers: 1}}\nmax_models: {max_models}\n"
        self.config.write_text(daemon + config)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and self.log.exists():
            sys.stderr.write(f"--- log of the supervisor\n{self.log.read_text(errors='replace')[-8000:]}")
        try:
            self.stop()
        finally:
            left = self.left_over(patience=2.0 if self.expected else 0.0)
            crashed = self.process is not None and self.process.returncode not in (0, self.expected)
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            shutil.rmtree(self.directory)
        assert not left, f"processes outlive their supervisor: {left}"
        assert not crashed, f"the supervisor ended with {self.process and self.process.returncode}"

    def argv(self, *options: str) -> list[str]:
        """The command line."""
        paths = ("--config", str(self.config), "--state-dir", f"{self.directory}/state")
        program = f"{self.prefix}\nimport runpy; runpy.run_module('supervisor.cli', run_name='__main__')"
        start = ("-c", program) if self.prefix else ("-m", "supervisor.cli")
        return [sys.executable, *start, "--runtime-dir", f"{self.runtime}", "run", *paths, *options]

    def start(self, until: str = "STATUS=", **popen: Any) -> Self:
        """Start it and wait for a word to systemd: "STATUS=" when it takes requests, "READY=1" with the web tier."""
        with Systemd(self.directory / "systemd.sock") as systemd:
            self.launch(env=systemd.env, **popen)
            systemd.heard(until, self)
        return self

    def launch(self, env: dict[str, str] | None = None, stderr: int | None = None) -> Process:
        """Start it and wait for nothing."""
        environment = {**os.environ, **self.env, **(env or {})}
        self._since = 0  # each one numbers its events from 1
        with self.log.open("ab") as log, Path("/dev/zero").open("rb") as stdin:
            self.process = subprocess.Popen(
                self.argv(), cwd=self.cwd, env=environment, stdin=stdin, stdout=log, stderr=stderr or log
            )
        return Process(self.process.pid)

    def run(self, *options: str) -> subprocess.CompletedProcess[str]:
        """Start a second one, which can't go on, and wait for its end."""
        return subprocess.run(
            self.argv(*options),
            cwd=ROOT,
            capture_output=True,
            env={**os.environ, **self.env},
            text=True,
            timeout=DEADLINE,
            check=False,
        )

    def check(self) -> subprocess.CompletedProcess[str]:
        """`llama-router check` of its configuration."""
        argv = [sys.executable, "-m", "supervisor.cli", "check", "--config", str(self.config)]
        return subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE, check=False)

    def stop(self) -> int | None:
        """SIGTERM, with nobody left who holds or waits for anything, and SIGKILL if that does not help."""
        for client in self._clients:
            client.close()
        for gate in self._gates.values():
            gate.close()
        if self.process is None:
            return None
        self.process.terminate()
        try:
            return self.process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise

    def wait(self) -> int:
        """Its exit code, once it ends."""
        assert self.process is not None
        return self.process.wait(DEADLINE)

    @property
    def pid(self) -> int:
        """The supervisor's."""
        assert self.process is not None
        return self.process.pid

    def left_over(self, patience: float = 0.0) -> dict[int, str]:
        """Processes that know the directory of this supervisor and do not end within `patience` seconds."""
        left = {}
        until = time.monotonic() + patience
        for pid, argv in processes(str(self.directory)):
            with suppress(ProcessLookupError, Timeout), Process(pid) as process:
                left[pid] = " ".join(argv)
                process.gone(max(0.0, until - time.monotonic()))
                del left[pid]
        return left

    # Configuration

    def add(self, name: str, *steps: str, reload: bool = True, **preset: Any) -> None:
        """Write a preset whose server takes `steps`, and reload."""
        merged: dict[str, Any] = {
            "backend": "command",
            "command": [*MISBEHAVING, *(steps or READY)],
            "ready": "notify",
            "stop_timeout": "300ms",
            "restart": QUICK,
            **preset,
        }
        if not any("{socket}" in word or "{port}" in word for word in merged["command"]):
            merged["env"] = {"ADDRESS": "{socket}", **merged.get("env", {})}
        self.write(name, {"models": {name: merged}})
        if reload and self.process is not None:
            self.call("reload")

    def replace_web_tier(self, *steps: str) -> None:
        """Start a process that takes `steps` where the web tier would be."""
        self.prefix = f"import supervisor.web_tier; supervisor.web_tier.ARGV = {(*MISBEHAVING, *steps)}"

    def write(self, name: str, content: object) -> None:
        """Write a file of presets: text as it is, all else as JSON, which is YAML."""
        text = content if isinstance(content, str) else json.dumps(content)
        (self.presets / f"{name}.yaml").write_text(text)

    def remove(self, name: str) -> None:
        """Take a preset away, and reload."""
        (self.presets / f"{name}.yaml").unlink()
        self.call("reload")

    def clear(self) -> None:
        """Hang up, and take every preset away with what runs of it."""
        for client in self._clients:
            client.close()
        self._clients.clear()
        for gate in self._gates.values():
            gate.close()
        self._gates.clear()
        for path in [*self.presets.iterdir(), *self.directory.glob("*.gate"), *self.directory.glob("*.dump")]:
            path.unlink()
        os.truncate(self.log, 0)
        self.call("reload")
        self.eventually(lambda: not self.status()["models"], "all models are gone")
        for message in self.client().stream("events", since=self._since):
            self._since = message["event"]["seq"]

    def gate(self, name: str) -> Gate:
        """A gate, made when it is first asked for."""
        if name not in self._gates:
            self._gates[name] = Gate(self.directory / f"{name}.gate")
        return self._gates[name]

    # Requests

    def client(self) -> Client:
        """A connection that gives up at DEADLINE and is closed in the end."""
        client = Client(self.runtime)
        self._clients.append(client)
        give_up_after(client, DEADLINE)
        return client

    def call(self, op: str, **fields: Any) -> Message:
        """One request on a connection of its own."""
        with Client(self.runtime) as client:
            give_up_after(client, DEADLINE)
            return client.call(op, **fields)

    def status(self) -> Message:
        """The status object."""
        status: Message = self.call("status")["status"]
        return status

    def model(self, name: str) -> Message:
        """One model of it."""
        found: Message = next(model for model in self.status()["models"] if model["name"] == name)
        return found

    def load(self, name: str, *steps: str, **preset: Any) -> Message:
        """Add a model (if there are steps or keys) and load it. Returns it once it is ready."""
        if steps or preset or not (self.presets / f"{name}.yaml").exists():
            self.add(name, *steps, **preset)
        model: Message = self.call("load", model=name, wait=True)["model"]
        return model

    def watch(self, name: str | None = None) -> Watch:
        """The events of a model since the test began."""
        return Watch(self.client(), name, self._since)

    def lease(self, name: str | None, **fields: Any) -> Lease:
        """Ask for a lease; don't wait for it."""
        return Lease(self.client(), name, **fields)

    def kill(self, pid: int, number: signal.Signals) -> None:
        """Signal one of its descendants."""
        os.kill(pid, number)

    def logs(self, name: str, lines: int = 1000) -> list[str]:
        """What is kept of a model's log."""
        client = self.client()
        return [message["line"]["text"] for message in client.stream("logs", model=name, lines=lines)]

    def eventually(self, true: Callable[[], bool], what: str) -> None:
        """Ask for the status, again and again, until something that no event tells is true."""
        deadline = time.monotonic() + DEADLINE
        while not true():
            if time.monotonic() > deadline:
                raise Timeout(f"not true: {what}")
            self.status()

    def cpu_seconds_in(self, seconds: float) -> float:
        """The time it uses while it is left alone for so long."""
        schedstat = Path(f"/proc/{self.pid}/schedstat")
        before = int(schedstat.read_text().split()[0])
        with Process(self.pid) as process:
            assert not select.select([process], [], [], seconds)[0], "it ended"
        return (int(schedstat.read_text().split()[0]) - before) / 1e9

    def dump(self, name: str) -> dict[str, Any]:
        """What a server with the step `dump=…/NAME.dump` wrote."""
        dumped: dict[str, Any] = ast.literal_eval((self.directory / f"{name}.dump").read_text())
        return dumped


class Systemd:
    """A NOTIFY_SOCKET of the test's own."""

    def __init__(self, path: Path) -> None:
        self.env = {"NOTIFY_SOCKET": str(path)}
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        path = self._socket.getsockname()
        self._socket.close()
        Path(path).unlink()

    def heard(self, start: str, supervisor: Supervisor) -> list[str]:
        """Everything until a message that starts so. Raises Timeout if the supervisor ends first."""
        messages: list[str] = []
        with Process(supervisor.pid) as process:
            while not messages or not messages[-1].startswith(start):
                ready = select.select([self._socket.fileno(), process.fileno()], [], [], DEADLINE)[0]
                if self._socket.fileno() not in ready:
                    raise Timeout(f"no {start} but {messages}; log:\n{supervisor.log.read_text(errors='replace')}")
                messages.append(self._socket.recv(65536).decode())
        return messages


def give_up_after(client: Client, seconds: float) -> None:
    """Let every wait of a client end with NotRunning after so long."""
    with socket.socket(fileno=os.dup(client.fileno())) as same:
        same.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", int(seconds), 0))


@contextmanager
def refused() -> Iterator[list[Refused]]:
    """Expect Refused, which is in the list afterwards."""
    caught: list[Refused] = []
    try:
        yield caught
    except Refused as error:
        caught.append(error)
    assert caught, "was not refused"
