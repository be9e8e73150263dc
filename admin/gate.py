"""Who may use the API: every path that is no page of the dashboard needs a key, or somebody who is signed in, as soon
as there is any key.

Open is what llama-server leaves open, as far as it is here: /health and OPTIONS (which cors.py answers). As with it, a
key is in Authorization or else in X-Api-Key (callers.py), and a wrong one is answered with its words.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from flask import Request

from admin import errors, sessions
from admin.callers import CALLER, Caller, shown
from admin.cors import is_dashboard
from admin.credentials import Credentials
from admin.keys import Keys
from supervisor.errors import Refused

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

OPEN = frozenset(["/health", "/v1/health"])
CHALLENGE = [("WWW-Authenticate", "Bearer")]  # RFC 9110 §11.6.1: a 401 has one
ANYBODY = Caller()


class Gate:
    """Lets requests through to `inner`, with their CALLER."""

    def __init__(self, inner: WSGIApplication, keys: Keys, credentials: Credentials) -> None:
        self._inner = inner
        self._keys = keys
        self._credentials = credentials

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """PEP 3333."""
        path = environ["PATH_INFO"]
        if not is_dashboard(path) and path not in OPEN:
            try:
                environ[CALLER] = self._caller(environ)
            except Refused as refusal:
                return errors.answer(refusal, start_response, CHALLENGE if refusal.status == 401 else [])
        return self._inner(environ, start_response)

    def _caller(self, environ: WSGIEnvironment) -> Caller:
        """Raises Refused: 401, or 503 if keys can't be read."""
        known = self._keys.now()
        if not known.are_needed:
            return ANYBODY
        secret = shown(environ)
        if secret:
            key = known.find(secret.encode("latin-1"))
            caller = None if key is None else Caller(key)
        else:
            caller = self._signed_in(environ)
        if caller is None:
            raise Refused("Invalid API Key", status=401, error_type="authentication_error")
        return caller

    def _signed_in(self, environ: WSGIEnvironment) -> Caller | None:
        if sessions.COOKIE not in environ.get("HTTP_COOKIE", ""):
            return None
        access = self._credentials.access()
        session = None if access is None else sessions.session_of(Request(environ), access)
        return None if session is None else Caller(is_viewer=session.role != "admin")
