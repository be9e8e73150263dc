"""A scripted supervisor: the control socket's protocol in threads, obeying the test instead of a policy."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from supervisor import protocol
from supervisor.errors import Refused
from supervisor.protocol import Message

DEADLINE = 10.0


def model(name: str, **fields: Any) -> Message:
    """A model of the status object, stopped unless told otherwise."""
    return {
        "name": name,
        "aliases": [],
        "description": None,
        "backend": "llama-cpp-python",
        "state": "stopped",
        "draining": False,
        "reason": None,
        "message": None,
        "progress": None,
        "pid": None,
        "launch": None,
        "since": 1760000000.0,
        "in_flight": 0,
        "waiting": 0,
        "served": 0,
        "restarts": 0,
        "next_start": None,
        "file": f"presets.d/{name}.yaml",
        "line": 2,
    } | fields


def replica(name: str, **fields: Any) -> Message:
    """One replica of a model, ready unless told otherwise."""
    own = ("name", "state", "draining", "reason", "message", "progress", "pid", "launch", "since", "in_flight")
    facts = model(name, state="ready", pid=7)
    return {key: facts[key] for key in (*own, "served", "restarts", "next_start")} | fields


def reason(kind: str, text: str, **fields: Any) -> Message:
    """Why a run ended."""
    ended = {"at": 1760000000.0, "launch": 1, "last_lines": []}
    return {"kind": kind, "text": text, "code": None, "signal": None} | ended | fields


def event_of(kind: str = "state", model: str | None = "m", **fields: Any) -> Message:
    """An event, of a model that became ready unless told otherwise."""
    own = {"seq": 1, "at": 0.0, "kind": kind, "model": model, "instance": model, "from": "starting", "to": "ready"}
    return own | {"reason": None, "progress": None, "text": f"{model}: {kind}"} | fields


class FakeSupervisor:
    """Grants leases of `grants` (model -> [(launch, address)], the first that is not avoided), refuses `refusals`.
    `granted` is what else each grant says, such as the backend.

    Without `gate` leases are granted when it is set again; without `awake` nothing at all is answered until then.
    `facts` are added to the status object, and `told` is what "facts" tells of each model, by name. `happened` are the
    events that are told to who does not follow them.
    `streams` are what follows the answer to an op; what follows events is told by `emit`.
    `seen` lists what happened: ("lease" | "release" | "load" | …, message) and ("hangup", lease request or None).
    """

    def __init__(self, runtime_dir: Path) -> None:
        self.path = runtime_dir / "control.sock"
        self._changed = threading.Condition()
        self._connections: set[socket.socket] = set()
        self._following: set[socket.socket] = set()
        self._leased: set[socket.socket] = set()
        self._listener: socket.socket | None = None
        self.reset()

    def reset(self) -> None:
        """Forget the script of the last test."""
        with self._changed:
            self.grants: dict[str | None, list[tuple[int, str]]] = {}
            self.refusals: dict[str | None, Refused] = {}
            self.granted: Message = {}
            self.models: list[Message] = []
            self.facts: Message = {}
            self.told: dict[str, Message] = {}
            self.happened: list[Message] = []
            self.answers: dict[str, Callable[[Message], Message]] = {}
            self.streams: dict[str, list[Message]] = {"events": [{"end": True}]}
            self.seen: list[tuple[str, Any]] = []
            self.gate = threading.Event()
            self.gate.set()
            self.awake = threading.Event()
            self.awake.set()

    def start(self) -> None:
        """Listen on the control socket, whatever was there."""
        self.path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.path))
        self._listener.listen(128)
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def stop(self) -> None:
        """Hang up on everybody, as a supervisor that ends does."""
        assert self._listener is not None
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.path.unlink(missing_ok=True)
        with self._changed:
            for connection in self._connections:
                connection.shutdown(socket.SHUT_RDWR)
        self.wait(lambda: not self._connections)

    def emit(self, **fields: Any) -> int:
        """Send an event to everybody who follows them; returns to how many."""
        event = {"event": event_of(**fields)}
        with self._changed:
            for follower in self.followers():
                with suppress(BrokenPipeError, ConnectionResetError):  # it has just hung up
                    follower.sendall(protocol.encode(event))
            return len(self.followers())

    def followers(self) -> list[socket.socket]:
        return [connection for connection in self._connections if connection in self._following]

    def wait_for_followers(self) -> None:
        """Wait until somebody follows the events."""
        self.wait(self.followers)

    def wait_for_rest(self) -> None:
        """Wait until no lease is held: a test that leaves one behind fails here."""
        self.wait(lambda: not self._leased)

    def of(self, kind: str) -> list[Any]:
        """What was seen of one kind, oldest first."""
        with self._changed:
            return [message for name, message in self.seen if name == kind]

    def wait(self, condition: Callable[[], Any]) -> Any:
        """The condition's first true value; fails after DEADLINE seconds."""
        end = time.monotonic() + DEADLINE
        with self._changed:
            while not (value := condition()):
                assert self._changed.wait(end - time.monotonic()), f"waited in vain; seen: {self.seen}"
            return value

    def wait_for(self, kind: str, count: int = 1) -> list[Any]:
        """Wait until `count` of one kind were seen."""
        found: list[Any] = self.wait(lambda: (seen := [m for n, m in self.seen if n == kind])[count - 1 :] and seen)
        return found

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with self._changed:
                self._connections.add(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _note(self, kind: str, message: Any) -> None:
        with self._changed:
            self.seen.append((kind, message))
            self._changed.notify_all()

    def _serve(self, connection: socket.socket) -> None:
        lines = protocol.LineBuffer()
        leased: Message | None = None
        try:
            while data := connection.recv(65536):
                for line in lines.feed(data):
                    message = protocol.decode(line)
                    self._note(message["op"], message)
                    if message["op"] == "release":
                        leased = None
                        with self._changed:
                            self._leased.discard(connection)
                            self._changed.notify_all()
                        continue
                    if message["op"] == "lease":
                        leased = message
                    self.awake.wait(DEADLINE)
                    if not self.gate.is_set() and message["op"] == "lease":
                        threading.Thread(target=self._grant_late, args=(connection, message), daemon=True).start()
                        continue
                    connection.sendall(protocol.encode(self._answer(connection, message)))
                    if message["op"] == "facts" and "facts" not in self.answers:
                        lines = [{"facts": {"model": name, **told}} for name, told in self.told.items()]
                        connection.sendall(b"".join(map(protocol.encode, [*lines, {"end": True}])))
                    if message["op"] == "events" and not message.get("follow"):
                        events = [{"event": event} for event in self.happened]
                        connection.sendall(b"".join(map(protocol.encode, [*events, {"end": True}])))
                    if message["op"] in self.streams and not (message["op"] == "events" and message.get("follow")):
                        connection.sendall(b"".join(map(protocol.encode, self.streams[message["op"]])))
        except OSError:
            pass
        finally:
            self._note("hangup", leased)
            with self._changed:
                self._connections.discard(connection)
                self._following.discard(connection)
                self._leased.discard(connection)
                self._changed.notify_all()
            connection.close()

    def _grant_late(self, connection: socket.socket, message: Message) -> None:
        self.gate.wait(DEADLINE)
        with suppress(OSError):  # withdrawn
            connection.sendall(protocol.encode(self._answer(connection, message)))

    def _answer(self, connection: socket.socket, message: Message) -> Message:
        try:
            return self._positive(connection, message)
        except Refused as refused:
            return protocol.refusal(refused)

    def _positive(self, connection: socket.socket, message: Message) -> Message:
        op = message["op"]
        if scripted := self.answers.get(op):
            return scripted(message)
        if op == "lease":
            lease = self._lease(message)
            with self._changed:
                if connection in self._connections:  # else withdrawn meanwhile
                    self._leased.add(connection)
            return protocol.ok(lease=lease)
        if op == "status":
            return protocol.ok(status=self.status())
        if op == "events" and message.get("follow"):
            with self._changed:
                self._following.add(connection)
                self._changed.notify_all()
            return protocol.ok()
        if op == "events":
            return protocol.ok()
        return protocol.ok(model=next((m for m in self.models if m["name"] == message.get("model")), {}))

    def _lease(self, message: Message) -> Message:
        name = message["model"]
        if name in self.refusals:
            raise self.refusals[name]
        for launch, address in self.grants.get(name, []):
            if launch != message.get("avoid"):
                lease = {"model": name or "fallback", "instance": name, "launch": launch, "address": address}
                return {**lease, **self.granted}
        raise Refused(f"model '{name}' not found", status=400, error_type="invalid_request_error")

    def status(self) -> Message:
        """The status object with the models and facts of the script; of memory and the queue it tells nothing by
        itself, like a supervisor that does not know of them."""
        return {
            "version": "0.1.0",
            "pid": 4711,
            "state": "running",
            "since": 1760000000.5,
            "listen": "127.0.0.1:8080",
            "config": "/etc/llama-router/config.yaml",
            "autoload": True,
            "counts": {},
            "web": model("@web", state="ready"),
            "models": self.models,
            **self.facts,
        }
