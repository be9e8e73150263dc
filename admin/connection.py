"""The client's connection: noticing at once that it went away, and ending it, well or not.

gevent would notice a hang-up only at the next write. Here a second watcher on the socket looks for it (MSG_PEEK, so
that nothing is taken from the stream) and throws into the greenlet that serves the request, as gevent.Timeout does.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import gevent
from gevent.event import Event

READ = 1  # libev's EV_READ
GLANCE = int(socket.MSG_PEEK | socket.MSG_DONTWAIT)
LINGER_SECONDS = 2.0
LOOK_SECONDS = 0.25  # between two looks at a connection that has brought bytes which nobody reads yet
# Those in which the peer has closed, CLOSE_WAIT among them (linux/tcp.h; tcp_info begins with the state).
CLOSED_STATES = frozenset([6, 7, 8, 9, 11])

# Set once, when the worker is asked to stop: whatever would go on for ever ends.
stopping = Event()


class ClientGone(BaseException):
    """The client closed its connection while its request was being served; worker.py ends such a request quietly.

    Like gevent.Timeout no Exception, and above all no OSError: it is thrown into whatever the request waits for, and
    must not be taken for a failure of that (of the control socket, say).
    """


def peek(client: socket.socket) -> bytes | None:
    """The next byte the client sent, b"" when it has hung up, None when there is nothing yet. Never waits."""
    raw: socket.socket = getattr(client, "_sock", client)  # beneath gevent's socket, which would wait
    try:
        return raw.recv(1, GLANCE)
    except BlockingIOError:
        return None
    except OSError:
        return b""


@contextmanager
def watch(client: socket.socket | None) -> Iterator[None]:
    """Raise ClientGone in the block as soon as `client` hangs up.

    A hang-up behind bytes (those of a next request, or TLS's own farewell) can't be seen without taking them; what TCP
    knows of the connection is looked at now and then instead.
    A client that has shut down its sending side counts as gone, as it does for llama-server. None: no watch.
    """
    if client is None:
        yield
        return
    serving = gevent.getcurrent()
    loop = gevent.get_hub().loop
    watcher, timer = loop.io(client.fileno(), READ), loop.timer(LOOK_SECONDS, LOOK_SECONDS)

    def look() -> None:
        byte = peek(client)
        if byte is None:
            return
        watcher.stop()
        if byte == b"":
            serving.throw(ClientGone())
        else:
            timer.start(look_behind)

    def look_behind() -> None:
        if has_closed(client):
            timer.stop()
            serving.throw(ClientGone())

    watcher.start(look)
    try:
        yield
    finally:
        for each in (watcher, timer):
            each.stop()
            each.close()


def has_closed(client: socket.socket) -> bool:
    """Whether the peer of a TCP connection has said that it sends no more, whatever of it is unread."""
    try:
        return client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] in CLOSED_STATES
    except OSError:  # a UNIX socket knows no such thing
        return False


def abort(client: socket.socket | None) -> None:
    """Make the coming close a reset: without a length, that alone tells the client that the body is incomplete."""
    if client is not None:
        with suppress(OSError):
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def silent_timeout(seconds: float) -> gevent.Timeout:
    """A timeout that ends its `with` block without an exception."""
    return gevent.Timeout(seconds, False)  # type: ignore[arg-type]  # documented, but not in the type stubs


def linger(client: socket.socket) -> None:
    """Say goodbye, then read on for a while: closing with bytes unread would reset the connection, and the client
    might never see its answer (RFC 9112 §9.6)."""
    client.shutdown(socket.SHUT_WR)
    with silent_timeout(LINGER_SECONDS):
        while client.recv(65536):
            gevent.sleep(0)
