"""A model's log, as its processes write it: as text to keep, and as events for the page that follows it.

A browser that reads too slowly is told how many lines it has missed.
"""

from __future__ import annotations

import json
import re
import socket
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from urllib.parse import quote

import gevent
from flask import Response, request
from gevent.event import Event

from admin.connection import stopping, watch
from admin.dashboard.access import Role, follower, needs, still_signed_in
from admin.dashboard.pages import new_blueprint
from admin.followers import For, endless
from admin.log_text import clean
from admin.supervision import connect
from supervisor.client import Client
from supervisor.errors import NotRunning, ProtocolError, Refused
from supervisor.protocol import Message

blueprint = new_blueprint("log")

MOST_LINES = 5000
MAX_BYTES = 2**20  # of lines for a browser that reads too slowly
BATCH_LINES = 1000
BATCH_SECONDS = 0.05  # between two events, however fast lines come
HEARTBEAT_SECONDS = 15.0
YIELD_LINES = 200  # read at once, before other requests get on

Line = tuple[int, float, int, str, str, int | None]  # number, time, launch, instance, text, process


@blueprint.get("/ui/model-log/<path:name>")
@needs(Role.VIEWER)
@endless(For.SIGNED_IN, follower)
def log(name: str) -> Response:
    """?lines= of the log as text; with ?follow=1 as server-sent events without an end, which go on after the line that
    Last-Event-ID or ?after= numbers. Raises Refused (404), NotRunning or ProtocolError."""
    lines = min(max(_number("lines", MOST_LINES), 0), MOST_LINES)
    if not request.args.get("follow"):
        return _text(name, lines)
    after = request.headers.get("Last-Event-ID", request.args.get("after", ""))
    client = connect()
    try:
        messages = client.stream("logs", model=name, lines=lines, after=_whole(after, 0), follow=True)
    except BaseException:
        client.close()
        raise
    headers = {"Content-Type": "text/event-stream", "X-Accel-Buffering": "no"}
    browser = request.environ.get("gunicorn.socket")
    return Response(_events(client, messages, browser, still_signed_in()), headers=headers)


class Pending:
    """Lines that are still to be sent, as JSON: the newest, MOST_LINES and MAX_BYTES of them at most.

    `skipped` counts those that did not fit.
    """

    def __init__(self) -> None:
        self.changed = Event()
        self.skipped = 0
        self._lines: deque[tuple[int, bytes]] = deque()
        self._size = 0

    def add(self, line: Line) -> None:
        """One more line."""
        data = json.dumps(line, separators=(",", ":")).encode()
        while self._lines and (len(self._lines) >= MOST_LINES or self._size + len(data) > MAX_BYTES):
            self._first()
            self.skipped += 1
        self._lines.append((line[0], data))
        self._size += len(data)
        self.changed.set()

    def take(self) -> bytes:
        """The next event: {"lines": [[number, time, launch, instance, text, pid]], "skipped": how many before them}."""
        lines = [self._first() for _ in range(min(len(self._lines), BATCH_LINES))]
        skipped, self.skipped = self.skipped, 0
        if not self._lines:
            self.changed.clear()
        if not lines:
            return b""
        told = b'{"lines":[%b],"skipped":%d}' % (b",".join(data for _, data in lines), skipped)
        return b"id: %d\nevent: lines\ndata: %b\n\n" % (lines[-1][0], told)

    def _first(self) -> tuple[int, bytes]:
        """The oldest line, taken out: its number, and its JSON."""
        number, data = self._lines.popleft()
        self._size -= len(data)
        return number, data


def _events(
    client: Client, messages: Iterator[Message], browser: socket.socket | None, is_signed_in: Callable[[], bool]
) -> Iterator[bytes]:
    """Runs until the supervisor hangs up, the browser goes away or is signed out, or the worker stops."""
    pending = Pending()
    reader = gevent.spawn(_read, messages, pending)
    try:
        with watch(browser):
            yield b"retry: 1000\n: connected\n\n"
            while is_signed_in() and not stopping.is_set():
                gevent.wait([pending.changed, stopping], timeout=HEARTBEAT_SECONDS, count=1)
                if pending.changed.is_set():
                    yield pending.take()
                    if reader.ready() and not pending.changed.is_set():
                        return
                    stopping.wait(BATCH_SECONDS)
                else:
                    yield b": still here\n\n"
    finally:
        reader.kill()
        client.close()


def _read(messages: Iterator[Message], pending: Pending) -> None:
    with suppress(NotRunning, ProtocolError, Refused):
        for number, message in enumerate(messages):
            pending.add(_line(message["line"]))
            if number % YIELD_LINES == 0:
                gevent.sleep(0)
    pending.changed.set()  # and the reader is ready: the end


def _text(name: str, lines: int) -> Response:
    with connect() as client:
        told = [_line(message["line"]) for message in client.stream("logs", model=name, lines=lines)]
    text = "".join(
        f"{datetime.fromtimestamp(at, UTC).isoformat(timespec='milliseconds')} {instance}[{pid or launch}] {line}\n"
        for _, at, launch, instance, line, pid in told
    )
    response = Response(text, content_type="text/plain; charset=utf-8")
    if request.args.get("download"):
        file = quote(re.sub(r"[^\w.-]+", "-", name).strip(".-") or "model", safe="")
        response.headers["Content-Disposition"] = f"attachment; filename*=UTF-8''{file}.log.txt"
    return response


def _line(line: Message) -> Line:
    launch, number = line["launch"], line.get("number") or 0
    return number, line["at"], launch, line.get("instance") or "", clean(line["text"]), line.get("pid")


def _number(field: str, default: int) -> int:
    return _whole(request.args.get(field, ""), default)


def _whole(text: str, default: int) -> int:
    """Ten and more digits are a number as well, of which JSON knows those below 2**53."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= 16 else default
