"""The one event stream that keeps pages live: /ui/events says what is out of date; pages fetch what they show of it."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import suppress

import gevent
from flask import Response, request
from gevent.event import Event

from admin.connection import stopping, watch
from admin.dashboard.access import Role, follower, needs, still_signed_in
from admin.dashboard.pages import new_blueprint
from admin.followers import For, endless
from admin.supervision import connect
from supervisor.client import Client
from supervisor.errors import NotRunning, ProtocolError, Refused
from supervisor.protocol import Message

blueprint = new_blueprint("stream")

HEARTBEAT_SECONDS = 15.0
REFRESH_SECONDS = 0.25  # between two refreshes of a page, however much happens


@blueprint.get("/ui/events")
@needs(Role.VIEWER)
@endless(For.SIGNED_IN, follower)
def events() -> Response:
    """Server-sent events without an end: "models" whenever the table is out of date, comments in between."""
    client = connect()
    try:
        changes = client.stream("events", follow=True, since=0)
    except BaseException:
        client.close()
        raise
    headers = {"Content-Type": "text/event-stream", "X-Accel-Buffering": "no"}
    browser = request.environ.get("gunicorn.socket")
    return Response(_changes(client, changes, browser, still_signed_in()), headers=headers)


def _changes(
    client: Client, changes: Iterator[Message], browser: socket.socket | None, is_signed_in: Callable[[], bool]
) -> Iterator[bytes]:
    """Runs until the supervisor hangs up, the browser goes away or is signed out, or the worker stops."""
    changed = Event()
    reader = gevent.spawn(_read, changes, changed)
    try:
        with watch(browser):
            yield b": connected\n\n"
            while is_signed_in() and not (reader.ready() or stopping.is_set()):
                gevent.wait([changed, stopping], timeout=HEARTBEAT_SECONDS, count=1)
                if changed.is_set():
                    changed.clear()
                    yield b"event: models\ndata:\n\n"
                    stopping.wait(REFRESH_SECONDS)
                else:
                    yield b": still here\n\n"
    finally:
        reader.kill()
        client.close()


def _read(changes: Iterator[Message], changed: Event) -> None:
    with suppress(NotRunning, ProtocolError, Refused):
        for _ in changes:
            changed.set()
    changed.set()  # and the reader is ready: the end
