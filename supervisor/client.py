"""The client of the control socket, for the command line and the web tier. Blocking; cooperative under gevent.

    with Client(runtime_dir) as client:
        client.call("load", model="qwen", wait=True)

A web worker keeps a few connected Clients for leases; everything else connects, asks and closes.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from supervisor import protocol
from supervisor.errors import NotRunning
from supervisor.protocol import Message

SOCKET_NAME = "control.sock"
RECEIVE_BYTES = 65536
RETRY_SECONDS = 0.02


class Client:
    """One connection to the supervisor. Connecting raises NotRunning; every call may raise Refused or NotRunning."""

    def __init__(self, runtime_dir: Path, *, timeout: float | None = None) -> None:
        """`timeout`: seconds to wait for the connection, then for a sign of each answer; None waits for ever."""
        path = runtime_dir / SOCKET_NAME
        self._lines = protocol.LineBuffer()
        self._ready: list[bytes] = []
        self._held = b""  # what goes out with the next request
        self._timeout = timeout
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            self._connect(str(path))
        except TimeoutError:
            self._socket.close()
            raise self._silence() from None
        except OSError as error:
            self._socket.close()
            raise NotRunning(
                f"cannot reach llama-router at {path}: {error.strerror or error}; "
                "is it running, and is this its --runtime-dir?"
            ) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Hang up: releases or withdraws the lease of this connection, ends its streams."""
        self._held = b""
        self._socket.close()

    def fileno(self) -> int:
        """The socket's descriptor, for selectors."""
        return self._socket.fileno()

    def wait_at_most(self, timeout: float | None) -> None:
        """Change the `timeout` for what follows."""
        self._timeout = timeout
        self._socket.settimeout(timeout)

    def call(self, op: str, **fields: Any) -> Message:
        """Send a request and wait for its answer. Raises Refused with the supervisor's error object."""
        self._send({"op": op, **fields})
        return protocol.raise_refusal(self._receive())

    def stream(self, op: str, **fields: Any) -> Iterator[Message]:
        """Send a request and wait for its answer; then yield the messages that follow, until the stream ends.

        With `follow`, only the answer is subject to the timeout.
        """
        self.call(op, **fields)
        if fields.get("follow"):
            self.wait_at_most(None)
        return self._messages()

    def _messages(self) -> Iterator[Message]:
        while not (message := self._receive()).get("end"):
            yield message

    def release(self, figures: Message) -> None:
        """Give the lease back with what is known of its request; not answered."""
        self._send({"op": "release", "figures": figures})

    def release_later(self, figures: Message) -> None:
        """The same, told with the next request or by `flush`, whichever comes first."""
        self._held += protocol.encode({"op": "release", "figures": figures})

    def flush(self) -> None:
        """Send what is held, without waiting; if that can't be, NotRunning is raised, and the connection of no use."""
        if not self._held:
            return
        held, self._held = self._held, b""
        self._socket.settimeout(0)
        try:
            is_sent = self._socket.send(held) == len(held)
        except OSError:
            is_sent = False
        finally:
            self._socket.settimeout(self._timeout)
        if not is_sent:
            raise NotRunning("cannot tell llama-router that a lease is over; did it stop?")

    def _connect(self, path: str) -> None:
        """Connect by polling: of a listener whose queue is full, a socket with a timeout can't wait for its turn."""
        began = time.monotonic()
        self._socket.setblocking(False)
        while True:
            try:
                self._socket.connect(path)
            except BlockingIOError:
                if self._timeout is not None and time.monotonic() - began > self._timeout:
                    raise TimeoutError from None
                time.sleep(RETRY_SECONDS)
            else:
                self._socket.settimeout(self._timeout)
                return

    def _silence(self) -> NotRunning:
        return NotRunning(
            f"cannot hear llama-router: no answer within {self._timeout:g} s; is it stopped (SIGSTOP) or overloaded?"
        )

    def _send(self, message: Message) -> None:
        line, self._held = self._held + protocol.encode(message), b""
        try:
            sent = self._socket.send(line)  # gevent's sendall would ask for the size of a buffer first
            if sent < len(line):
                self._socket.sendall(memoryview(line)[sent:])
        except TimeoutError:
            raise self._silence() from None
        except OSError as error:
            raise NotRunning(f"cannot ask llama-router: {error.strerror or error}; did it stop?") from None

    def _receive(self) -> Message:
        while not self._ready:
            try:
                data = self._socket.recv(RECEIVE_BYTES)
            except TimeoutError:
                raise self._silence() from None
            except OSError as error:
                raise NotRunning(f"cannot hear llama-router: {error.strerror or error}; did it stop?") from None
            if not data:
                raise NotRunning("cannot hear llama-router: it closed the connection; did it stop?")
            self._ready = self._lines.feed(data)
        return protocol.decode(self._ready.pop(0))
