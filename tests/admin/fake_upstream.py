"""A model server that does what the test says, byte by byte, over a UNIX or TCP socket."""

from __future__ import annotations

import queue
import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Self

DEADLINE = 10.0


class Call:
    """One connection to the server, its request read."""

    def __init__(self, connection: socket.socket, reads_body: bool) -> None:
        self.connection = connection
        connection.settimeout(DEADLINE)
        received = bytearray()
        while b"\r\n\r\n" not in received:
            data = connection.recv(65536)
            if not data:
                raise ConnectionError
            received += data
        head, _, body = bytes(received).partition(b"\r\n\r\n")
        self.line, *fields = head.decode("latin-1").split("\r\n")
        self.fields = [(name.lower(), value.strip()) for name, _, value in (field.partition(":") for field in fields)]
        self.headers = dict(self.fields)
        rest = bytearray(body)
        while reads_body and len(rest) < int(self.headers.get("content-length", "0")):
            rest += connection.recv(1 << 20)
        self.body = bytes(rest)

    def send(self, data: bytes) -> None:
        self.connection.sendall(data)

    def chunk(self, data: bytes) -> None:
        self.send(b"%X\r\n%s\r\n" % (len(data), data))

    def head(self, content_type: str = "text/event-stream", extra: str = "") -> None:
        """The head of a chunked answer."""
        head = f"HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nTransfer-Encoding: chunked\r\n{extra}\r\n"
        self.send(head.encode("latin-1"))

    def reply(self, body: bytes, status: str = "200 OK", extra: str = "") -> None:
        """A whole JSON answer."""
        head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n{extra}\r\n"
        self.send(head.encode("latin-1") + body)

    def reset(self) -> None:
        """Close as a killed process does."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    def wait_for_hangup(self) -> bool:
        """Whether the router closes the connection within DEADLINE."""
        try:
            return self.connection.recv(1) == b""
        except ConnectionError:
            return True
        except TimeoutError:
            return False


Handler = Callable[[Call], None]


class FakeUpstream:
    """Calls `handler` for every connection, each in a thread; `calls` hands the calls to the test."""

    reads_body = True

    def __init__(self, handler: Handler, path: Path | None = None) -> None:
        self.handler = handler
        self.calls: queue.Queue[Call] = queue.Queue()
        if path is None:
            self._listener = socket.create_server(("127.0.0.1", 0))
            self.address = f"tcp:127.0.0.1:{self._listener.getsockname()[1]}"
        else:
            self._listener = socket.socket(socket.AF_UNIX)
            self._listener.bind(str(path))
            self.address = f"unix:{path}"
        self._listener.listen(128)
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def call(self) -> Call:
        """The next call that came in."""
        return self.calls.get(timeout=DEADLINE)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            call = Call(connection, self.reads_body)
            self.calls.put(call)
            self.handler(call)


Serve = Callable[..., FakeUpstream]
