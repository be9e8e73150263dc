"""/upstream/{model}/{path}: everything else that a model server offers, its own page included, as it is.

A model's name may hold slashes, as they are or as %2F: of the names that a path could begin with, the longest one that
is a model's or an alias counts.
"""

from __future__ import annotations

import time
from collections.abc import Container, Mapping
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

from admin.callers import Caller
from admin.latest import Latest
from supervisor.errors import Refused

if TYPE_CHECKING:
    from wsgiref.types import WSGIEnvironment

PREFIX = "/upstream/"
KNOWN_SECONDS = 1.0
MAX_SEGMENTS = 16  # of a path, that may be part of a name

# What may stand in a path or a query as it is (RFC 3986), "%" included: it is encoded already.
PATH_CHARACTERS = "%!$&'()*+,;=:@/-._~"
QUERY_CHARACTERS = f"{PATH_CHARACTERS}?[]"


class Names:
    """Every model's name and aliases, as they were at most KNOWN_SECONDS ago, or as they are if one is missing."""

    def __init__(self, latest: Latest) -> None:
        self._latest = latest
        self._known: Mapping[str, tuple[str, ...]] = {}  # all names of a model by each of them
        self._fallback: str | None = None
        self._until = 0.0

    def split(self, path: str) -> tuple[str, str, str]:
        """See `split`. Raises NotRunning or ProtocolError, or Refused (404) for a path that names no model.

        Such as one whose PREFIX is written otherwise: what it takes of the path could not be told from the rest.
        """
        if not path.startswith(PREFIX) or path[len(PREFIX) :].startswith("/") or path == PREFIX:
            raise Refused("File Not Found", status=404, error_type="not_found_error")
        if time.monotonic() < self._until:
            found = split(path, self._known)
            if found[0] in self._known:
                return found
        self._ask()
        return split(path, self._known)

    def check(self, caller: Caller, asked: str | None) -> None:
        """Raise Refused (403) for a model, or a fallback (None), that the caller may not use; NotRunning or
        ProtocolError. One that does not exist passes: the supervisor says so."""
        if caller.sees_all:
            return
        if time.monotonic() >= self._until or (asked is not None and asked not in self._known):
            self._ask()
        name = self._fallback if asked is None else asked
        if name is not None and name in self._known:
            caller.check_sees(name, self._known[name])

    def _ask(self) -> None:
        status = self._latest.status()
        models = [(model["name"], *model["aliases"]) for model in status["models"]]
        # A name goes before an alias, as for the supervisor.
        self._known = {alias: names for names in models for alias in names} | {names[0]: names for names in models}
        self._fallback = status.get("fallback")
        self._until = time.monotonic() + KNOWN_SECONDS


def raw_path(environ: WSGIEnvironment) -> str:
    """The request's path as the client wrote it, with what must be encoded encoded."""
    uri: str = environ.get("RAW_URI") or quote(environ["PATH_INFO"], encoding="latin-1")
    path = uri.partition("?")[0].partition("#")[0]
    if not path.startswith("/"):  # absolute form, RFC 9112 §3.2.2
        path = "/" + path.partition("://")[2].partition("/")[2]
    return quote(path, safe=PATH_CHARACTERS, encoding="latin-1")


def split(path: str, known: Container[str]) -> tuple[str, str, str]:
    """A raw path below PREFIX: the model's name, what it takes of the path, and the rest ("" or from "/" on).

    A name that is not known is the first segment.
    """
    segments = path.removeprefix(PREFIX).split("/")
    for count in range(min(len(segments), MAX_SEGMENTS), 1, -1):
        name = unquote("/".join(segments[:count]))
        if name in known:
            break
    else:
        count, name = 1, unquote(segments[0])
    taken = PREFIX + "/".join(segments[:count])
    return name, taken, path[len(taken) :]
