"""What a request says of itself: its query, and the body of a POST, read whole, with the model that it names."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, quote

from admin import errors, routes
from admin.body import model_of, request_body, spooled_body
from admin.leases import Lease
from admin.multipart import ModelField, is_form
from admin.passthrough import QUERY_CHARACTERS
from admin.upstream import Body

if TYPE_CHECKING:
    from wsgiref.types import WSGIEnvironment

MAX_BODY = 256 * 1024 * 1024
ADAPTERS = "/lora-adapters"
JSON = ("Content-Type", "application/json")

# The model, the Content-Type, and the body for a lease.
BodyOf = Callable[[Lease], Body | None]
Read = tuple[str | None, tuple[str, str], BodyOf]
Reader = Callable[["WSGIEnvironment"], AbstractContextManager[Read]]


def reader_of(environ: WSGIEnvironment, route: routes.Route) -> Reader:
    """How the body of a POST is read: see `adapters`, `form` and `document`."""
    if route.name == ADAPTERS and model_in(environ["QUERY_STRING"]):
        return adapters
    return form if is_form(environ.get("CONTENT_TYPE", "")) else document


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

        yield model_of(received), JSON, body


@contextmanager
def adapters(environ: WSGIEnvironment) -> Iterator[Read]:
    """A JSON list, which has no place for a model: ?model= names it. As it came."""
    with request_body(environ, MAX_BODY) as received:
        yield model_in(environ["QUERY_STRING"]), JSON, lambda _: Body(len(received), (received,))


@contextmanager
def form(environ: WSGIEnvironment) -> Iterator[Read]:
    """A multipart form, as `document`; no preset changes it."""
    content_type = environ["CONTENT_TYPE"]
    field = ModelField(content_type)
    with spooled_body(environ, MAX_BODY, field.feed) as spool:
        yield field.model(), ("Content-Type", content_type), lambda _: Body(spool.length, spool)


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
