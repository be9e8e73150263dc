"""The dashboard: one page with every model, its state and the reason of its last end, and the queue, live.

It works without JavaScript (forms, and a reload of the page). With it, /ui/events says when something changed and the
page fetches its table anew from /ui/models.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import suppress

import gevent
from flask import Blueprint, Response, make_response, redirect, render_template, request, url_for
from gevent.event import Event
from werkzeug.wrappers import Response as BaseResponse

from admin import errors
from admin.connection import stopping, watch
from admin.origin import refuse_foreign_pages
from admin.supervision import ask, connect, status
from admin.view import view
from supervisor.client import Client
from supervisor.errors import NotRunning, ProtocolError, Refused
from supervisor.protocol import Message

blueprint = Blueprint("dashboard", __name__)

HEARTBEAT_SECONDS = 15.0
REFRESH_SECONDS = 0.25  # between two refreshes of a page, however much happens
AWAY_REFRESH_SECONDS = 5
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)


@blueprint.after_request
def secure(response: Response) -> Response:
    """Nothing of a page may be loaded from, sent to or framed by another site, whatever slips into it."""
    response.headers["Content-Security-Policy"] = CONTENT_SECURITY_POLICY
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Referrer-Policy"] = "same-origin"
    response.headers["Cache-Control"] = "no-store"
    return response


@blueprint.get("/")
def index() -> str:
    """The page."""
    return page()


@blueprint.get("/ui/models")
def table() -> str:
    """The part of the page that changes."""
    return render_template("models.html", **view(status()))


@blueprint.post("/ui/models/<any(load, unload):action>")
def act(action: str) -> BaseResponse:
    """A button. Forms need no token against forgery: see refuse_foreign_pages."""
    refuse_foreign_pages(request.environ)
    ask(action, model=request.form.get("model", ""), wait=False)
    return redirect(url_for("dashboard.index"), code=303)


@blueprint.get("/ui/events")
def events() -> Response:
    """Server-sent events without an end: "models" whenever the table is out of date, comments in between."""
    client = connect()
    try:
        changes = client.stream("events", follow=True, since=0)
    except BaseException:
        client.close()
        raise
    headers = {"Content-Type": "text/event-stream", "X-Accel-Buffering": "no"}
    return Response(_changes(client, changes, request.environ.get("gunicorn.socket")), headers=headers)


def _changes(client: Client, changes: Iterator[Message], browser: socket.socket | None) -> Iterator[bytes]:
    """Runs until the supervisor hangs up, the browser goes away or the worker stops."""
    changed = Event()
    reader = gevent.spawn(_read, changes, changed)
    try:
        with watch(browser):
            yield b": connected\n\n"
            while not (reader.ready() or stopping.is_set()):
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


@blueprint.errorhandler(Refused)
def refused(refusal: Refused) -> Response:
    """The page again, with what the supervisor said no to."""
    try:
        body = page(str(refusal))
    except (NotRunning, ProtocolError) as error:
        return away(error)
    return make_response(body, refusal.status)


@blueprint.errorhandler(NotRunning)
@blueprint.errorhandler(ProtocolError)
def away(error: Exception) -> Response:
    """The supervisor does not answer: say so, and look again in a moment."""
    errors.log.warning("%s", error)
    response = make_response(render_template("away.html"), 503)
    response.headers["Retry-After"] = str(AWAY_REFRESH_SECONDS)
    response.headers["Refresh"] = str(AWAY_REFRESH_SECONDS)
    return response


def page(error: str | None = None) -> str:
    """The whole page, with a message on top if `error` is given. Raises NotRunning or ProtocolError."""
    return render_template("index.html", error=error, **view(status()))
