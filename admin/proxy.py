"""The proxy: a request goes to a model server that is leased for it, and the answer's bytes come back.

A WSGI application before Flask's, because this path is the busy one. What it promises:

1. A JSON body's original bytes are forwarded, unless the preset changes them; they are scanned once, to check them and
   to find "model". Other bodies are forwarded as they are.
2. Nothing is sent to the client before the first byte of the answer's body. A server that dies until then costs the
   request one retry on another launch, one whose answer is no HTTP none; after that, an event stream ends with an
   error event and any other answer is broken off, never silently short.
3. The lease is given back exactly once, and a client that hangs up is noticed in every phase.
"""

from __future__ import annotations

import logging
import re
import secrets
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from gevent import GreenletExit

from admin import errors, routes
from admin.activity import Activity
from admin.body import spooled_body
from admin.callers import Caller, caller_of, key_of, shown
from admin.connection import watch
from admin.heads import Headers
from admin.key_usage import KeyUsage
from admin.leases import Lease, Leases, Wish
from admin.origin import Origins, is_foreign, is_visit, refuse_pages, refuse_visits
from admin.passthrough import PREFIX, Names, raw_path
from admin.posted import MAX_BODY, autoload_of, model_in, query_of, reader_of
from admin.recording import COMPLETE, CUT_SHORT, UPSTREAM_DIED, Recording
from admin.relay import HOST, Carried, Reply, relay
from admin.sampling import Sampling
from admin.upstream import Body, Connections, NotHttp, UpstreamDied, end_to_end
from admin.who import who
from supervisor.errors import NotRunning, ProtocolError, Refused

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

log = logging.getLogger("gunicorn.error.admin")

ATTEMPTS = 2
STOPPED = "llama-router was stopped before this answer was complete"

# RFC 9110 §9.2.2. What the API's POST computes leaves nothing behind; of /upstream's nobody knows.
IDEMPOTENT = frozenset(["GET", "HEAD", "OPTIONS", "PUT", "DELETE"])

# GET without ?model= is llama-router's own.
OWN_WITHOUT_MODEL = frozenset(["/props", "/metrics"])

# Credentials are for llama-router alone; the others describe the client's connection or are set anew.
NOT_FORWARDED = frozenset(
    [
        *("authorization", "x-api-key", "api-key", "x-goog-api-key", "cookie"),
        *("host", "content-length", "content-type", "expect", "x-request-id"),
    ]
)
# With it llama-server goes on generating when the connection ends, for a client that asks for the rest: by then the
# lease is given back, and another replica may be asked. Without it there is nothing to resume, as streams.py says.
NOT_FOR_THE_API = frozenset(["x-conversation-id"])
REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")


class Proxy:
    """Serves routes.find's and /upstream; passes every other path on to `inner`."""

    def __init__(
        self,
        inner: WSGIApplication,
        leases: Leases,
        names: Names,
        origins: Origins,
        activity: Activity,
        sampling: Sampling,
        usage: KeyUsage,
    ) -> None:
        self._inner = inner
        self._leases = leases
        self._names = names
        self._origins = origins
        self._activity = activity
        self._sampling = sampling
        self._usage = usage
        self._connections = Connections()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """PEP 3333. Raises errors.Unreadable or an OSError when the connection is of no further use."""
        path = environ["PATH_INFO"]
        route = routes.find(path)
        if route is None and not path.startswith(PREFIX):
            return self._inner(environ, start_response)
        reply = Reply(environ, start_response, request_id(environ))
        try:
            return self._answer(environ, start_response, route, reply)
        finally:
            if not reply.recording.is_own:
                recorded = reply.recording.finish(routes.label(route))
                self._activity.add(recorded)
                self._usage.count(key_of(environ), recorded.row)

    def _answer(
        self, environ: WSGIEnvironment, start_response: StartResponse, route: routes.Route | None, reply: Reply
    ) -> Iterable[bytes]:
        try:
            check(environ, route, self._origins)
            if is_own(environ, route):
                reply.recording.is_own = True
                return self._inner(environ, start_response)
            self._usage.admit(key_of(environ))
            if route is None:
                return self._pass_through(environ, reply)
            if environ["REQUEST_METHOD"] not in routes.GET:
                return self._post(environ, route, reply)
            return self._get(environ, route, reply)
        except NotAllowed as refusal:
            return reply.refuse(refusal, [("Allow", refusal.allow)])
        except Refused as refusal:
            return reply.refuse(refusal)
        except errors.Unreadable as verdict:
            reply.recording.answered(verdict.status, len(verdict.body()), str(verdict))
            raise
        except (NotRunning, ProtocolError) as error:
            log.warning("request %s: %s", reply.request_id, error)
            return reply.refuse(errors.away())

    def _get(self, environ: WSGIEnvironment, route: routes.Route, reply: Reply) -> Iterable[bytes]:
        headers = forwarded_headers(environ, reply.request_id, NOT_FORWARDED)
        carried = Carried(environ["REQUEST_METHOD"], target_of(environ, route), headers, lambda _: None)
        return self._serve(environ, model_in(environ["QUERY_STRING"]), carried, reply)

    def _post(self, environ: WSGIEnvironment, route: routes.Route, reply: Reply) -> Iterable[bytes]:
        with reader_of(environ, route)(environ) as (model, kind, body):
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
        wish, caller = Wish(model, autoload, who(environ)), caller_of(environ)
        self._names.check(caller, model)
        with watch(reply.client):
            try:
                return self._forward(wish, caller, request, reply)
            except GreenletExit:  # the grace period is over; worker.py leaves a moment for these words
                reply.recording.ended = CUT_SHORT
                if reply.started:
                    return reply.cut_short(503, STOPPED)
                raise Refused(STOPPED, status=503, retry_after=errors.AWAY_RETRY_SECONDS) from None

    def _forward(self, wish: Wish, caller: Caller, request: Carried, reply: Reply) -> Iterable[bytes]:
        avoid, recording = None, reply.recording
        recording.asked(wish)
        self._sampling.wake()
        for _ in range(ATTEMPTS):
            lease = self._lease(wish, avoid, recording)
            try:
                with lease:
                    self._names.check(caller, lease.model)  # what a name means may have changed meanwhile
                    recording.granted(lease)
                    answer = relay(lease, request, reply, self._connections)
                recording.ended = COMPLETE
                return answer
            except UpstreamDied as death:
                recording.ended = UPSTREAM_DIED
                broke = "request %s, model '%s', launch %s: its server broke off: %s"
                log.warning(broke, reply.request_id, lease.model, lease.launch, death)
                if reply.started:
                    return reply.cut_short(502, f"model '{lease.model}': its server {death.did} while it was answering")
                if isinstance(death, NotHttp):
                    message = f"model '{lease.model}': its server's answer is no HTTP: {death}"
                    raise Refused(message, status=502) from None
                if not request.again:
                    raise Refused(f"model '{lease.model}': its server died on this request", status=502) from None
                avoid = lease.launch
        raise Refused(f"model '{lease.model}': its server died twice while serving this request", status=502)

    def _lease(self, wish: Wish, avoid: Any, recording: Recording) -> Lease:
        try:
            return self._leases.acquire(wish, avoid)
        except Refused as refusal:
            recording.refused(refusal)
            if wish.model is None and refusal.status < 500:  # no fallback is configured
                raise errors.missing_model() from None
            raise


class NotAllowed(Refused):
    """A method that a route does not take; answered with those it `allow`s."""

    def __init__(self, methods: frozenset[str]) -> None:
        self.allow = ", ".join(sorted(methods))
        super().__init__(f"use {self.allow.replace(', ', ' or ')}", status=405, error_type=errors.INVALID)


def request_id(environ: WSGIEnvironment) -> str:
    """The client's X-Request-Id, or a new one for what is none, or holds the key: it is told to many."""
    given: str = environ.get("HTTP_X_REQUEST_ID", "")
    secret = shown(environ)
    is_good = REQUEST_ID.fullmatch(given) and not (secret and secret in given)
    return given if is_good else secrets.token_hex(16)


def is_own(environ: WSGIEnvironment, route: routes.Route | None) -> bool:
    """Whether llama-router itself answers the request of a route."""
    is_get = route is not None and route.name in OWN_WITHOUT_MODEL and environ["REQUEST_METHOD"] in routes.GET
    return is_get and model_in(environ["QUERY_STRING"]) is None


def check(environ: WSGIEnvironment, route: routes.Route | None, origins: Origins) -> None:
    """Raise Refused for a method or a page that is not served; `route` None takes every method."""
    if route is not None and environ["REQUEST_METHOD"] not in route.methods:
        raise NotAllowed(route.methods)
    if route is None:
        refuse_visits(environ)
    if route is not None or not is_visit(environ):
        refuse_pages(environ, origins)


def target_of(environ: WSGIEnvironment, route: routes.Route) -> Callable[[Lease], str]:
    """What is asked of the server of a lease; raises Refused (404) for one that lacks the route."""
    path, query = environ["PATH_INFO"], query_of(environ)
    return lambda lease: quote(route.target(path, lease.backend, lease.model), encoding="latin-1") + query


def forwarded_headers(environ: WSGIEnvironment, request_id: str, dropped: frozenset[str]) -> Headers:
    """The client's end-to-end headers, without those `dropped`, and those that are set anew."""
    headers = [
        (key[5:].replace("_", "-").title(), value)
        for key, value in environ.items()
        if key.startswith("HTTP_") and isinstance(value, str)
    ]
    return [("Host", HOST), *end_to_end(headers, dropped), ("X-Request-Id", request_id)]
