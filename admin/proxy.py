"""The proxy: a request goes to a model server that is leased for it, and the answer's bytes come back.

A WSGI application before Flask's, because this path is the busy one. What it promises:

1. A JSON body's original bytes are forwarded, unless the preset changes them; they are scanned once, to check them and
   to find "model". Other bodies are forwarded as they are.
2. Nothing is sent to the client before the first byte of the answer's body. A server that dies until then costs the
   request one retry on another launch; after that, an event stream ends with an error event and any other answer is
   broken off, never silently short.
3. The lease is given back exactly once, and a client that hangs up is noticed in every phase.
"""

from __future__ import annotations

import logging
import re
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, quote

from gevent import GreenletExit

from admin import errors, routes
from admin.body import model_of, request_body, spooled_body
from admin.connection import watch
from admin.leases import Lease, Leases, Wish
from admin.multipart import ModelField, is_form
from admin.origin import Origins, is_foreign, is_visit, refuse_pages, refuse_visits
from admin.passthrough import PREFIX, QUERY_CHARACTERS, Names, raw_path
from admin.relay import HOST, Carried, Reply, relay
from admin.upstream import Body, Connections, Headers, UpstreamDied, end_to_end
from admin.who import who
from supervisor.errors import NotRunning, ProtocolError, Refused

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

log = logging.getLogger("gunicorn.error.admin")

MAX_BODY = 256 * 1024 * 1024
ATTEMPTS = 2
STOPPED = "llama-router was stopped before this answer was complete"
NO_WEBSOCKET = "llama-router forwards no WebSocket; ask over HTTP"

# RFC 9110 §9.2.2. What the API's POST computes leaves nothing behind; of /upstream's nobody knows.
IDEMPOTENT = frozenset(["GET", "HEAD", "OPTIONS", "PUT", "DELETE"])

# GET without ?model= is llama-router's own.
OWN_WITHOUT_MODEL = frozenset(["/props", "/metrics"])

# Credentials are for llama-router alone; the others describe the client's connection or are set anew.
NOT_FORWARDED = frozenset(
    ["host", "authorization", "x-api-key", "cookie", "content-length", "content-type", "expect", "x-request-id"]
)
# With it llama-server goes on generating when the connection ends, for a client that asks for the rest: by then the
# lease is given back, and another replica may be asked. Without it there is nothing to resume, as streams.py says.
NOT_FOR_THE_API = frozenset(["x-conversation-id"])
REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")


class Proxy:
    """Serves routes.find's and /upstream; passes every other path on to `inner`."""

    def __init__(self, inner: WSGIApplication, leases: Leases, names: Names, origins: Origins) -> None:
        self._inner = inner
        self._leases = leases
        self._names = names
        self._origins = origins
        self._connections = Connections()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """PEP 3333. Raises errors.Unreadable or an OSError when the connection is of no further use."""
        path = environ["PATH_INFO"]
        route = routes.find(path)
        if route is None and not path.startswith(PREFIX):
            return self._inner(environ, start_response)
        given = environ.get("HTTP_X_REQUEST_ID", "")
        reply = Reply(environ, start_response, given if REQUEST_ID.fullmatch(given) else uuid.uuid4().hex)
        try:
            check(environ, route, self._origins)
            if route is None:
                return self._pass_through(environ, reply)
            if environ["REQUEST_METHOD"] not in routes.GET:
                return self._post(environ, route, reply)
            model = model_in(environ["QUERY_STRING"])
            if model is None and route.name in OWN_WITHOUT_MODEL:
                return self._inner(environ, start_response)
            return self._get(environ, route, model, reply)
        except NotAllowed as refusal:
            return reply.refuse(refusal, [("Allow", refusal.allow)])
        except Refused as refusal:
            return reply.refuse(refusal)
        except (NotRunning, ProtocolError) as error:
            log.warning("request %s: %s", reply.request_id, error)
            return reply.refuse(errors.away())

    def _get(self, environ: WSGIEnvironment, route: routes.Route, model: str | None, reply: Reply) -> Iterable[bytes]:
        headers = forwarded_headers(environ, reply.request_id, NOT_FORWARDED)
        carried = Carried(environ["REQUEST_METHOD"], target_of(environ, route), headers, lambda _: None)
        return self._serve(environ, model, carried, reply)

    def _post(self, environ: WSGIEnvironment, route: routes.Route, reply: Reply) -> Iterable[bytes]:
        read = form if is_form(environ.get("CONTENT_TYPE", "")) else document
        with read(environ) as (model, kind, body):
            headers = [*forwarded_headers(environ, reply.request_id, NOT_FORWARDED | NOT_FOR_THE_API), kind]
            return self._serve(environ, model, Carried("POST", target_of(environ, route), headers, body), reply)

    def _pass_through(self, environ: WSGIEnvironment, reply: Reply) -> Iterable[bytes]:
        """/upstream. Without a body's length, and no chunks, there is no body."""
        path = raw_path(environ)
        model, taken, rest = self._names.split(path)
        query = query_of(environ)
        method = environ["REQUEST_METHOD"]
        if not rest and method in routes.GET:
            return reply.redirect(f"{taken}/{query}")  # else what a page names would be looked for above it
        headers = forwarded_headers(environ, reply.request_id, NOT_FORWARDED)
        if content_type := environ.get("CONTENT_TYPE"):
            headers.append(("Content-Type", content_type))
        has_body = "CONTENT_LENGTH" in environ or "HTTP_TRANSFER_ENCODING" in environ
        with spooled_body(environ, MAX_BODY, lambda _: None) as spool:
            body = Body(spool.length, spool) if has_body else None
            again = method in IDEMPOTENT
            carried = Carried(method, lambda _: (rest or "/") + query, headers, lambda _: body, again, taken)
            return self._serve(environ, model, carried, reply)

    def _serve(self, environ: WSGIEnvironment, model: str | None, request: Carried, reply: Reply) -> Iterable[bytes]:
        # Another site's link to a model server's page is all that comes this far of foreign visits: it loads nothing.
        autoload = False if is_foreign(environ) and is_visit(environ) else autoload_of(environ["QUERY_STRING"])
        wish = Wish(model, autoload, who(environ))
        with watch(reply.client):
            try:
                return self._forward(wish, request, reply)
            except GreenletExit:  # the grace period is over; worker.py leaves a moment for these words
                if reply.started:
                    return reply.cut_short(503, STOPPED)
                raise Refused(STOPPED, status=503, retry_after=errors.AWAY_RETRY_SECONDS) from None

    def _forward(self, wish: Wish, request: Carried, reply: Reply) -> Iterable[bytes]:
        avoid = None
        for _ in range(ATTEMPTS):
            lease = self._lease(wish, avoid)
            try:
                with lease:
                    return relay(lease, request, reply, self._connections)
            except UpstreamDied as death:
                broke = "request %s, model '%s', launch %s: its server broke off: %s"
                log.warning(broke, reply.request_id, lease.model, lease.launch, death)
                if reply.started:
                    return reply.cut_short(502, f"model '{lease.model}': its server died while it was answering")
                if not request.again:
                    raise Refused(f"model '{lease.model}': its server died on this request", status=502) from None
                avoid = lease.launch
        raise Refused(f"model '{lease.model}': its server died twice while serving this request", status=502)

    def _lease(self, wish: Wish, avoid: Any) -> Lease:
        try:
            return self._leases.acquire(wish, avoid)
        except Refused as refusal:
            if wish.model is None and refusal.status < 500:  # no fallback is configured
                raise errors.missing_model() from None
            raise


class NotAllowed(Refused):
    """A method that a route does not take; answered with those it `allow`s."""

    def __init__(self, methods: frozenset[str]) -> None:
        self.allow = ", ".join(sorted(methods))
        super().__init__(f"use {self.allow.replace(', ', ' or ')}", status=405, error_type=errors.INVALID)


BodyOf = Callable[[Lease], Body | None]
Read = tuple[str | None, tuple[str, str], BodyOf]


def check(environ: WSGIEnvironment, route: routes.Route | None, origins: Origins) -> None:
    """Raise Refused for a method, a page or a protocol that is not served; `route` None takes every method."""
    if route is not None and environ["REQUEST_METHOD"] not in route.methods:
        raise NotAllowed(route.methods)
    if route is None:
        refuse_visits(environ)
    if route is not None or not is_visit(environ):
        refuse_pages(environ, origins)
    if environ.get("HTTP_UPGRADE", "").strip().lower() == "websocket":
        raise Refused(NO_WEBSOCKET, status=501, error_type=errors.SERVER)


@contextmanager
def document(environ: WSGIEnvironment) -> Iterator[Read]:
    """A JSON body: its model, its Content-Type, and the body for a lease, changed if the preset wants that.

    It is JSON, whatever the client calls it: curl -d says it is a form, and FastAPI believes that.
    """
    with request_body(environ, MAX_BODY) as received:

        def body(lease: Lease) -> Body:
            if lease.rewriting is None:
                return Body(len(received), (received,))
            pieces = lease.rewriting.apply(received)
            return Body(sum(map(len, pieces)), pieces)

        yield model_of(received), ("Content-Type", "application/json"), body


@contextmanager
def form(environ: WSGIEnvironment) -> Iterator[Read]:
    """A multipart form, as `document`; no preset changes it."""
    content_type = environ["CONTENT_TYPE"]
    field = ModelField(content_type)
    with spooled_body(environ, MAX_BODY, field.feed) as spool:
        yield field.model(), ("Content-Type", content_type), lambda _: Body(spool.length, spool)


def target_of(environ: WSGIEnvironment, route: routes.Route) -> Callable[[Lease], str]:
    """What is asked of the server of a lease; raises Refused (404) for one that lacks the route."""
    path, query = environ["PATH_INFO"], query_of(environ)
    return lambda lease: quote(route.target(path, lease.backend, lease.model), encoding="latin-1") + query


def query_of(environ: WSGIEnvironment) -> str:
    """The query with its "?", or ""."""
    query = environ["QUERY_STRING"]
    return f"?{quote(query, safe=QUERY_CHARACTERS, encoding='latin-1')}" if query else ""


def model_in(query: str) -> str | None:
    """?model=, None when it is missing or empty; the last one counts, as for llama-server."""
    return _last(query, "model")


def autoload_of(query: str) -> bool | None:
    """?autoload= as llama-server reads it: true for "true" and "1" alone; None when it is missing or empty."""
    value = _last(query, "autoload")
    return None if value is None else value in ("true", "1")


def _last(query: str, name: str) -> str | None:
    if name not in query and "%" not in query:
        return None
    try:
        values = parse_qs(query, encoding="utf-8", errors="replace", max_num_fields=1000).get(name)
    except ValueError:
        raise errors.invalid("cannot read the query: it has too many fields") from None
    return values[-1] if values else None


def forwarded_headers(environ: WSGIEnvironment, request_id: str, dropped: frozenset[str]) -> Headers:
    """The client's end-to-end headers, without those `dropped`, and those that are set anew."""
    headers = [
        (key[5:].replace("_", "-").title(), value)
        for key, value in environ.items()
        if key.startswith("HTTP_") and isinstance(value, str)
    ]
    return [("Host", HOST), *end_to_end(headers, dropped), ("X-Request-Id", request_id)]
