"""The server side of the control socket: connections, framing and back-pressure. What the requests mean is in
`operations`; the wire format in `protocol`.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from supervisor import protocol
from supervisor.descriptors import most_connections
from supervisor.errors import ProtocolError, Refused
from supervisor.loop import READ, WRITE, Loop
from supervisor.protocol import Message
from supervisor.unix_socket import Bound, BoundPath

BACKLOG = 1024
RECEIVE_BYTES = 65536
MAX_UNSENT = 16 * 1024 * 1024
ACCEPT_AGAIN_SECONDS = 0.1

Handler = Callable[["Connection", Message], None]


class Connected(msgspec.Struct, frozen=True):
    """A connection that one program hands over to another: its descriptor, what Connection says of it, the line that
    has not arrived in full, and what is still to be sent."""

    fd: int
    claim: int | None
    granted: bool
    asking: int | None
    follows_events: bool
    follows_log: str | None
    received: bytes
    unsent: bytes


class Connection:
    """One client. `claim` numbers the lease it holds or waits for, `asking` the answer it waits for."""

    def __init__(self, server: ControlServer, sock: socket.socket) -> None:
        self.claim: int | None = None
        self.granted = False
        self.asking: int | None = None
        self.follows_events = False
        self.follows_log: str | None = None
        self.open = True
        self._server = server
        self._socket = sock
        self._lines = protocol.LineBuffer()
        self._unsent = bytearray()
        self._waits_to_send = False  # what the loop watches it for

    def handed_over(self) -> Connected:
        """For another program to go on with."""
        return Connected(
            self.fileno(),
            self.claim,
            self.granted,
            self.asking,
            self.follows_events,
            self.follows_log,
            self._lines.pending,
            bytes(self._unsent),
        )

    def take_over(self, inherited: Connected) -> None:
        """Go on where another program left off."""
        self.claim, self.granted, self.asking = inherited.claim, inherited.granted, inherited.asking
        self.follows_events, self.follows_log = inherited.follows_events, inherited.follows_log
        self._lines.feed(inherited.received)
        self._unsent += inherited.unsent
        self._waits_to_send = bool(inherited.unsent)

    @property
    def busy(self) -> bool:
        """True while a request is unanswered, or a stream runs."""
        waits = self.claim is not None and not self.granted
        return waits or self.asking is not None or self.follows_events or self.follows_log is not None

    def fileno(self) -> int:
        """For the selector."""
        return self._socket.fileno()

    def send(self, *messages: Message) -> None:
        """Send without waiting. A client that does not read is hung up on once MAX_UNSENT bytes are due to it."""
        self.send_encoded(b"".join(map(protocol.encode, messages)))

    def send_encoded(self, lines: bytes) -> None:
        """The same for messages that were encoded once for many clients."""
        if not self.open:
            return
        self._unsent += lines
        self._flush()
        if len(self._unsent) > MAX_UNSENT:
            self._server.hang_up(self)

    def refuse(self, error: Refused) -> None:
        """Send an error object."""
        self.send(protocol.refusal(error))

    def ready(self) -> None:
        """The socket is readable or writable."""
        self._flush()
        try:
            data = self._socket.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._server.hang_up(self)
            return
        try:
            for line in self._lines.feed(data):
                if self.open:
                    self._server.handle(self, protocol.decode(line))
        except ProtocolError as error:
            self.refuse(Refused(str(error), status=400, error_type="invalid_request_error"))
            self._server.hang_up(self)

    def close(self) -> None:
        """Close the socket; the server has forgotten it already."""
        self.open = False
        self._socket.close()

    def _flush(self) -> None:
        if not self._unsent:
            return
        try:
            sent = self._socket.send(self._unsent)
        except BlockingIOError:
            sent = 0
        except OSError:
            return  # the hang-up is read next
        del self._unsent[:sent]
        if self._waits_to_send is not bool(self._unsent):
            self._waits_to_send = bool(self._unsent)
            self._server.watch(self, self._waits_to_send)


class ControlServer:
    """Listens at `path`, mode 0600. `handler` takes requests, `gone` hears of every connection that ended.

    While there are no descriptors for more connections, clients wait in the backlog.
    """

    def __init__(
        self,
        loop: Loop,
        path: Path,
        handler: Handler,
        gone: Callable[[Connection], None],
        inherited: Bound | None = None,
    ) -> None:
        self.path = path
        self.handle = handler
        self.connections: set[Connection] = set()
        self._loop = loop
        self._gone = gone
        self._most = most_connections()
        self._accept_at: float | None = None
        if inherited is not None:
            self._socket = socket.socket(fileno=inherited.fd)
            self._socket.setblocking(False)
            self._bound = BoundPath(path, inherited.identity)
        else:
            self._socket = _listening(path)
            self._bound = BoundPath(path)
        loop.watch(self._socket, self._accept)
        loop.timed.append(self)

    def handed_over(self) -> Bound:
        """The socket, for another program to go on with."""
        return self._bound.handed_over(self._socket.fileno())

    def take_over(self, inherited: Connected) -> Connection:
        """Go on with a connection that another program accepted."""
        sock = socket.socket(fileno=inherited.fd)
        sock.setblocking(False)
        connection = Connection(self, sock)
        connection.take_over(inherited)
        self.connections.add(connection)
        self.watch(connection, bool(inherited.unsent))
        return connection

    def watch(self, connection: Connection, unsent: bool) -> None:
        """Wait for the client to speak and, with something unsent, to listen."""
        if connection.open:
            self._loop.watch(connection, connection.ready, READ | WRITE if unsent else READ)

    def hang_up(self, connection: Connection) -> None:
        """Close a connection and free what it held."""
        if connection.open:
            self.connections.discard(connection)
            self._loop.unwatch(connection)
            connection.close()
            self._gone(connection)

    def close(self) -> None:
        """Hang up on everyone and remove the socket."""
        for connection in list(self.connections):
            self.hang_up(connection)
        self._loop.unwatch(self._socket)
        self._socket.close()
        self._bound.remove()

    def due(self) -> float | None:
        """When to accept again."""
        return self._accept_at

    def fire(self, now: float) -> None:
        """Accept again if it is time."""
        if self._accept_at is not None and self._accept_at <= now:
            self._accept_at = None
            self._loop.watch(self._socket, self._accept)

    def _accept(self) -> None:
        try:
            sock, _ = self._socket.accept()
        except OSError:  # without a pause, being out of descriptors would keep the loop spinning
            self._loop.unwatch(self._socket)
            self._accept_at = time.monotonic() + ACCEPT_AGAIN_SECONDS
            return
        sock.setblocking(False)
        connection = Connection(self, sock)
        self.connections.add(connection)
        if len(self.connections) > self._most:
            connection.refuse(Refused(f"{self._most} clients are connected already", status=503, retry_after=1.0))
            self.hang_up(connection)
        else:
            self._loop.watch(connection, connection.ready)


def _listening(path: Path) -> socket.socket:
    """Raises OSError."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    path.unlink(missing_ok=True)
    sock.bind(str(path))
    path.chmod(0o600)
    sock.listen(BACKLOG)
    return sock
