"""Cross-origin resource sharing: which pages of other origins a browser lets read the API's answers.

As llama-server answers (llama.cpp b11434, server-http.cpp; its --cors-origins), with three differences: the default is
its "localhost", not "*"; headers that a page asks for are named, because "*" does not cover Authorization (Fetch,
CORS-preflight); and credentials are allowed for origins, never for "*". The dashboard has none of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from admin import errors
from admin.origin import Origins, is_for_pages, is_foreign, refuse_foreign_names, refuse_pages
from supervisor.errors import Refused

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

METHODS = "GET, POST, DELETE, OPTIONS"
UPSTREAM_METHODS = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"
FIELD_NAMES = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z, ]{1,2000}")
EXPOSED = "X-Request-Id, Retry-After"
MAX_AGE_SECONDS = 600
NO_WEBSOCKET = "llama-router speaks no WebSocket; ask over HTTP"

Headers = list[tuple[str, str]]


class Cors:
    """In front of everything: refuses names of elsewhere and WebSockets, answers OPTIONS, and marks answers that a page
    may read."""

    def __init__(self, inner: WSGIApplication, origins: Origins) -> None:
        self._inner = inner
        self._origins = origins

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """PEP 3333."""
        try:
            refuse_foreign_names(environ, self._origins)
            environ["PATH_INFO"] = environ["PATH_INFO"] or "/"  # RFC 9110 §4.2.3: http://host is http://host/
            if environ.get("HTTP_UPGRADE", "").strip().lower() == "websocket":
                raise Refused(NO_WEBSOCKET, status=501, error_type=errors.SERVER)
            # Flask would take "//ui" for "/ui", which is_dashboard does not.
            if environ["PATH_INFO"].startswith("//") or (is_for_pages(environ) and not _is_upstream(environ)):
                raise _not_found()
            if is_dashboard(environ["PATH_INFO"]):
                if environ["REQUEST_METHOD"] == "OPTIONS":
                    raise _not_found()
                return self._inner(environ, start_response)
            if environ["REQUEST_METHOD"] == "OPTIONS" and not _is_for_upstream(environ):
                return self._options(environ, start_response)
        except Refused as refusal:
            return errors.answer(refusal, start_response)
        if "HTTP_ORIGIN" not in environ:
            return self._inner(environ, start_response)
        return self._inner(environ, _marking(start_response, self._granted(environ)))

    def _options(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """A preflight, which carries no key: open for every path, as for llama-server."""
        refuse_pages(environ, self._origins)
        methods = UPSTREAM_METHODS if _is_upstream(environ) else METHODS
        wanted = environ.get("HTTP_ACCESS_CONTROL_REQUEST_HEADERS", "*")
        wanted = wanted if FIELD_NAMES.fullmatch(wanted) else "*"
        headers = [("Allow", methods), ("Access-Control-Allow-Methods", methods)]
        headers += [("Access-Control-Allow-Headers", wanted), ("Access-Control-Max-Age", str(MAX_AGE_SECONDS))]
        start_response("200 OK", [*headers, *self._granted(environ), ("Content-Length", "0")])
        return []

    def _granted(self, environ: WSGIEnvironment) -> Headers:
        """What lets the page of the request read the answer; nothing if it may not."""
        origin = environ.get("HTTP_ORIGIN", "")
        vary = ("Vary", "Origin")
        if not origin or not is_foreign(environ):
            return [vary]
        if self._origins.everybody:
            return [("Access-Control-Allow-Origin", "*"), ("Access-Control-Expose-Headers", EXPOSED), vary]
        if not self._origins.allow(origin):
            return [vary]
        allow = [("Access-Control-Allow-Origin", origin), ("Access-Control-Allow-Credentials", "true")]
        return [*allow, ("Access-Control-Expose-Headers", EXPOSED), vary]


def is_dashboard(path: str) -> bool:
    """Whether a path is a page for people, or what belongs to it."""
    return path == "/" or path.startswith(("/ui/", "/static/")) or path == "/ui"


def _is_upstream(environ: WSGIEnvironment) -> bool:
    return bool(environ["PATH_INFO"].startswith("/upstream/"))


def _is_for_upstream(environ: WSGIEnvironment) -> bool:
    """A model server's own OPTIONS, which no browser sends by itself."""
    return _is_upstream(environ) and "HTTP_ACCESS_CONTROL_REQUEST_METHOD" not in environ


def _not_found() -> Refused:
    return Refused("File Not Found", status=404, error_type="not_found_error")


def _marking(start_response: StartResponse, added: Headers) -> StartResponse:
    def marked(status: str, headers: Headers, exc_info: Any = None) -> Callable[[bytes], object]:
        return start_response(status, [*headers, *added], exc_info)

    return marked
