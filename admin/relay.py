"""The answer to one client, and carrying it from the model server, byte by byte as it comes.

What speaks for a whole origin is taken out of a model server's answers, because that origin is the dashboard's too:
cookies, CORS, what a browser remembers of a site or asks its user for; and what a reverse proxy would obey.
"""

from __future__ import annotations

import errno
import logging
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from admin import errors
from admin.connection import abort
from admin.failures import failure
from admin.heads import Headers
from admin.leases import Lease
from admin.origin import is_for_pages
from admin.recording import Recording
from admin.upstream import Body, Connections, Upstream, end_to_end
from supervisor.errors import Refused

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

log = logging.getLogger("gunicorn.error.admin")

# Backends whose servers stand idle connections: both answer many at once. A command might serve one after the other.
KEEP_ALIVE = frozenset(["llama-cpp-python", "llama-server"])

# What a model server sends by the dashboard's own name is data. Were it shown as a page all the same, it would have no
# origin and run no scripts.
NO_PAGE = [("Content-Security-Policy", "sandbox"), ("X-Content-Type-Options", "nosniff")]

# Server and Date are gunicorn's to say.
NOT_RETURNED = frozenset(
    [
        *("x-request-id", "server", "date", "set-cookie", "set-cookie2", "clear-site-data", "service-worker-allowed"),
        *("strict-transport-security", "alt-svc", "nel", "report-to", "accept-ch", "use-as-dictionary"),
        *("www-authenticate", "set-login", "refresh", "x-accel-redirect", "x-sendfile"),
    ]
)
CORS = "access-control-"
HOST = "localhost"  # what model servers are told they are


@dataclass(frozen=True)
class Carried:
    """A request on its way: what depends on the lease is asked for once there is one.

    `again`: a server that died before it answered may be followed by another one. `prefix` is what stands before the
    server's own paths in the client's, "" for the API.
    """

    method: str
    target: Callable[[Lease], str]
    headers: Headers
    body: Callable[[Lease], Body | None]
    again: bool = True
    prefix: str = ""


class Reply:
    """The answer to one client, whose head is sent with the first byte of the body."""

    def __init__(self, environ: WSGIEnvironment, start_response: StartResponse, request_id: str) -> None:
        self.client: socket.socket | None = environ.get("gunicorn.socket")
        self.request_id = request_id
        self.recording = Recording(environ, request_id)
        self.started = False
        self._environ = environ
        self._start_response = start_response
        self._can_be_appended = False
        self._delimited_by_close = False
        self._last = b""

    def start(self, status: int, reason: str, headers: Headers) -> None:
        """Announce the head; it goes out with the first write."""
        names = {name.lower(): value for name, value in headers}
        stream = names.get("content-type", "").partition(";")[0].strip().lower() == "text/event-stream"
        sized = "content-length" in names
        self._can_be_appended = stream and not sized
        self._delimited_by_close = not sized and self._environ["SERVER_PROTOCOL"] == "HTTP/1.0"
        kept = [(name, value) for name, value in headers if not name.lower().startswith(CORS)]
        own = [*([] if is_for_pages(self._environ) else NO_PAGE), ("X-Request-Id", self.request_id)]
        self._write = self._start_response(f"{status} {reason}", [*end_to_end(kept, NOT_RETURNED), *own])
        self.started = True

    def write(self, data: bytes) -> None:
        """Send some of the body. Raises OSError when the client is gone."""
        self._write(data)
        self._last = data

    def cut_short(self, status: int, message: str) -> Iterable[bytes]:
        """End an answer before its end. Raises ConnectionResetError unless it can still carry the news."""
        if not self._can_be_appended:
            self.recording.added(0, message)
            if self._delimited_by_close:
                abort(self.client)
            raise ConnectionResetError(errno.ECONNRESET, message)
        # A half-sent event has to be closed first, or ours would become its tail.
        boundary = b"" if self._last.endswith((b"\n\n", b"\r\n\r\n")) or not self._last else b"\n\n"
        event = boundary + failure(self._environ["PATH_INFO"], status, message, self._last)
        self.recording.added(len(event), message)
        self._write(event)
        return []

    def refuse(self, refusal: Refused, extra: Headers | None = None) -> Iterable[bytes]:
        """Answer with an OpenAI error object."""
        if refusal.status >= 500:
            method, path = self._environ["REQUEST_METHOD"], self._environ["PATH_INFO"]
            log.warning("request %s, %s %.200r: %s", self.request_id, method, path, refusal)
        answer = errors.answer(refusal, self._start_response, [*(extra or []), ("X-Request-Id", self.request_id)])
        self.recording.answered(refusal.status, sum(map(len, answer)), str(refusal))
        return answer

    def redirect(self, target: str) -> Iterable[bytes]:
        """Send the client to `target` on this server, with the same method."""
        headers = [("Location", target), ("Content-Length", "0"), ("X-Request-Id", self.request_id)]
        self._start_response("307 Temporary Redirect", headers)
        self.recording.answered(307)
        return []


def relay(lease: Lease, request: Carried, reply: Reply, connections: Connections) -> Iterable[bytes]:
    """Carry the request to the leased server and its answer to the client.

    Raises Refused before anything is sent, UpstreamDied, or an OSError when the client is gone.
    """
    target, body = request.target(lease), request.body(lease)
    hosts = (HOST, lease.address.removeprefix("tcp:"))
    server = (lease.launch, lease.address)
    upstream = Upstream(server, connections if lease.backend in KEEP_ALIVE else None)
    try:
        status, reason, fields = upstream.ask(request.method, target, request.headers, body)
        data = upstream.read()
        lease.answered(status)
        reply.start(status, reason, [(name, moved(name, value, request.prefix, hosts)) for name, value in fields])
        while data:
            reply.write(data)
            lease.passed.add(data)
            data = upstream.read()
        return []
    finally:
        upstream.close()


def moved(name: str, value: str, prefix: str, hosts: tuple[str, ...]) -> str:
    """A header's value; a Location on the server itself, one of `hosts`, leads to where `prefix` shows it."""
    if not prefix or name.lower() != "location":
        return value
    scheme, separator, rest = value.partition("://")
    host, _, path = rest.partition("/")
    if separator and scheme.lower() in ("http", "https") and host.lower() in hosts:
        return f"{prefix}/{path}"
    return prefix + value if value.startswith("/") and not value.startswith("//") else value
