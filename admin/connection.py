"""The client's connection: noticing at once that it went away, and breaking it off.

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
        return raw.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return None
    except OSError:
        return b""


@contextmanager
def watch(client: socket.socket | None) -> Iterator[None]:
    """Raise ClientGone in the block as soon as `client` hangs up.

    Bytes of a next request end the watch: a hang-up behind them can't be seen without taking them.
    A client that has shut down its sending side counts as gone, as it does for llama-server. None: no watch.
    """
    if client is None:
        yield
        return
    serving = gevent.getcurrent()
    watcher = gevent.get_hub().loop.io(client.fileno(), READ)

    def look() -> None:
        byte = peek(client)
        if byte is None:
            return
        watcher.stop()
        if byte == b"":
            serving.throw(ClientGone())

    watcher.start(look)
    try:
        yield
    finally:
        watcher.stop()
        watcher.close()


def abort(client: socket.socket | None) -> None:
    """Make the coming close a reset: without a length, that alone tells the client that the body is incomplete."""
    if client is not None:
        with suppress(OSError):
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
