"""The proxy: an OpenAI request goes to a model server that is leased for it, and the answer's bytes come back.

A WSGI application before Flask's, because this path is the busy one. What it promises:

1. The body's original bytes are forwarded; they are scanned once, to check them and to find "model".
2. Nothing is sent to the client before the first byte of the answer's body. A server that dies until then costs the
   request one retry on another launch; after that, an event stream ends with an error event and any other answer is
   broken off, never silently short.
3. The lease is given back exactly once, and a client that hangs up is noticed in every phase.
"""

from __future__ import annotations

import errno
import logging
import re
import socket
import uuid
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, quote

from gevent import GreenletExit

from admin import errors
from admin.body import model_of, request_body
from admin.connection import abort, watch
from admin.leases import Lease, Leases, Wish
from admin.origin import refuse_foreign_pages
from admin.upstream import Headers, Upstream, UpstreamDied, end_to_end
from admin.who import who
from supervisor.errors import NotRunning, ProtocolError, Refused

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

log = logging.getLogger("gunicorn.error.admin")

ENDPOINTS = {
    path: f"/v1{name}" for name in ("/chat/completions", "/completions", "/embeddings") for path in (f"/v1{name}", name)
}
MAX_BODY = 256 * 1024 * 1024
ATTEMPTS = 2
STOPPED = "llama-router was stopped before this answer was complete"

# What may stand in a query as it is (RFC 3986), "%" included: it is encoded already.
URL_CHARACTERS = "%!$&'()*+,;=:@/?-._~[]"

# Credentials are for llama-router alone; the others describe the client's connection or are set anew.
NOT_FORWARDED = frozenset(["host", "authorization", "x-api-key", "cookie", "content-length", "expect", "x-request-id"])
REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")


class Proxy:
    """Serves ENDPOINTS; passes every other path on to `inner`."""

    def __init__(self, inner: WSGIApplication, leases: Leases) -> None:
        self._inner = inner
        self._leases = leases

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """PEP 3333. Raises errors.Unreadable or an OSError when the connection is of no further use."""
        target = ENDPOINTS.get(environ["PATH_INFO"])
        if target is None:
            return self._inner(environ, start_response)
        given = environ.get("HTTP_X_REQUEST_ID", "")
        reply = Reply(environ, start_response, given if REQUEST_ID.fullmatch(given) else uuid.uuid4().hex)
        try:
            if environ["REQUEST_METHOD"] != "POST":
                return reply.refuse(Refused("use POST", status=405, error_type=errors.INVALID), [("Allow", "POST")])
            refuse_foreign_pages(environ)
            with request_body(environ, MAX_BODY) as body:
                return self._serve(environ, target, body, reply)
        except Refused as refusal:
            return reply.refuse(refusal)
        except (NotRunning, ProtocolError) as error:
            log.warning("%s", error)
            return reply.refuse(errors.away())

    def _serve(self, environ: WSGIEnvironment, target: str, body: bytearray, reply: Reply) -> Iterable[bytes]:
        query = environ["QUERY_STRING"]
        wish = Wish(model_of(body), autoload_of(query) if "autoload" in query else None, who(environ))
        if query:
            target = f"{target}?{quote(query, safe=URL_CHARACTERS, encoding='latin-1')}"
        headers = forwarded_headers(environ, len(body), reply.request_id)
        with watch(reply.client):
            try:
                return self._forward(wish, target, headers, body, reply)
            except GreenletExit:  # the grace period is over; worker.py leaves a moment for these words
                if reply.started:
                    return reply.cut_short(503, STOPPED)
                raise Refused(STOPPED, status=503, retry_after=errors.AWAY_RETRY_SECONDS) from None

    def _forward(self, wish: Wish, target: str, headers: Headers, body: bytearray, reply: Reply) -> Iterable[bytes]:
        avoid = None
        for _ in range(ATTEMPTS):
            lease = self._lease(wish, avoid)
            try:
                with lease:
                    return relay(lease, target, headers, body, reply)
            except UpstreamDied as death:
                log.warning("model '%s', launch %s: its server broke off: %s", lease.model, lease.launch, death)
                if reply.started:
                    return reply.cut_short(502, f"model '{lease.model}': its server died while it was answering")
                avoid = lease.launch
        raise Refused(f"model '{lease.model}': its server died twice while serving this request", status=502)

    def _lease(self, wish: Wish, avoid: Any) -> Lease:
        try:
            return self._leases.acquire(wish, avoid)
        except Refused as refusal:
            if wish.model is None and refusal.status < 500:  # no fallback is configured
                raise errors.missing_model() from None
            raise


class Reply:
    """The answer to one client, whose head is sent with the first byte of the body."""

    def __init__(self, environ: WSGIEnvironment, start_response: StartResponse, request_id: str) -> None:
        self.client: socket.socket | None = environ.get("gunicorn.socket")
        self.request_id = request_id
        self.started = False
        self._environ = environ
        self._start_response = start_response
        self._can_be_appended = False
        self._delimited_by_close = False
        self._tail = b""

    def start(self, status: int, reason: str, headers: Headers) -> None:
        """Announce the head; it goes out with the first write."""
        names = {name.lower(): value for name, value in headers}
        stream = names.get("content-type", "").partition(";")[0].strip().lower() == "text/event-stream"
        sized = "content-length" in names
        self._can_be_appended = stream and not sized
        self._delimited_by_close = not sized and self._environ["SERVER_PROTOCOL"] == "HTTP/1.0"
        headers = [*end_to_end(headers, frozenset(["x-request-id"])), ("X-Request-Id", self.request_id)]
        self._write = self._start_response(f"{status} {reason}", headers)
        self.started = True

    def write(self, data: bytes) -> None:
        """Send some of the body. Raises OSError when the client is gone."""
        self._write(data)
        self._tail = data[-4:]

    def cut_short(self, status: int, message: str) -> Iterable[bytes]:
        """End an answer before its end. Raises ConnectionResetError unless it can still carry the news."""
        if not self._can_be_appended:
            if self._delimited_by_close:
                abort(self.client)
            raise ConnectionResetError(errno.ECONNRESET, message)
        # A half-sent event has to be closed first, or ours would become its tail.
        boundary = b"" if self._tail.endswith((b"\n\n", b"\r\n\r\n")) or not self._tail else b"\n\n"
        self._write(boundary + b"data: " + errors.error_object(status, message, errors.SERVER) + b"\n\n")
        return []

    def refuse(self, refusal: Refused, extra: Headers | None = None) -> Iterable[bytes]:
        """Answer with an OpenAI error object."""
        body = errors.error_object(refusal.status, str(refusal), refusal.error_type)
        headers = [*errors.headers_for(refusal), ("Content-Length", str(len(body))), *(extra or [])]
        self._start_response(errors.status_line(refusal.status), [*headers, ("X-Request-Id", self.request_id)])
        return [body]


def relay(lease: Lease, target: str, headers: Headers, body: bytearray, reply: Reply) -> Iterable[bytes]:
    """Carry the request to the leased server and its answer to the client, byte by byte as it comes.

    Raises UpstreamDied, or an OSError when the client is gone.
    """
    upstream = Upstream(lease.address)
    try:
        status, reason, fields = upstream.ask(target, headers, body)
        data = upstream.read()
        lease.answered(status)
        reply.start(status, reason, fields)
        while data:
            reply.write(data)
            lease.count(len(data))
            data = upstream.read()
        return []
    finally:
        upstream.close()


def autoload_of(query: str) -> bool | None:
    """?autoload= as llama-server reads it: true for "true" and "1" alone; None when it is not given."""
    values = parse_qs(query, keep_blank_values=True).get("autoload")
    return None if values is None else values[0] in ("true", "1")


def forwarded_headers(environ: WSGIEnvironment, length: int, request_id: str) -> Headers:
    """The client's end-to-end headers, without credentials, and those that are set anew."""
    headers = [
        (key[5:].replace("_", "-").title(), value)
        for key, value in environ.items()
        if key.startswith("HTTP_") and isinstance(value, str)
    ]
    set_anew = [("Content-Length", str(length)), ("X-Request-Id", request_id)]
    # The body is JSON, whatever the client calls it: curl -d says it is a form, and FastAPI believes that.
    set_anew.append(("Content-Type", "application/json"))
    return [("Host", "localhost"), *end_to_end(headers, NOT_FORWARDED), *set_anew]
