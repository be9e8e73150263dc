"""Which requests the proxy carries to model servers, and under which path each backend knows them.

The list is that of llama-server's router mode (llama.cpp b11434, server.cpp), which knows some names with /v1, some
without and some in both forms. Here each one exists in both; a model server gets the form that it knows.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from supervisor.errors import Refused

V1 = "/v1"
POST = frozenset(["POST"])
GET = frozenset(["GET", "HEAD"])

# By what llama-server knows. With and without /v1 its completions differ: the form that the client used is kept.
_BOTH_FORMS = (
    *("/chat/completions", "/chat/completions/input_tokens", "/completions", "/embeddings"),
    *("/responses", "/responses/input_tokens", "/rerank", "/reranking", "/audio/transcriptions"),
)
_PREFIXED = ("/messages", "/messages/count_tokens", "/chat/completions/control", "/systemone")
_BARE = ("/completion", "/embedding", "/infill", "/tokenize", "/detokenize", "/apply-template")
_BARE_GET = ("/metrics", "/slots")
_BARE_EITHER = ("/props", "/lora-adapters")
_SLOT = re.compile(r"(?:/v1)?(/slots/[^/]+)")

# Routes of llama-cpp-python's server (0.3.36, server/app.py). Its /extras/tokenize is no stand-in for /tokenize: it
# adds a first token that llama-server adds only on request.
_LLAMA_CPP_PYTHON = frozenset(["/chat/completions", "/completions", "/embeddings"])


@dataclass(frozen=True)
class Route:
    """A name (a path without /v1), the methods it takes, and the one form llama-server knows; None if it knows both."""

    name: str
    methods: frozenset[str]
    llama_server: str | None

    def target(self, path: str, backend: str | None, model: str) -> str:
        """The path for the server of `model`, where the client used `path`. Raises Refused (404) if it has none.

        A command is any server, of which nothing is known: it gets what the client wrote.
        """
        if backend == "llama-server":
            return self.llama_server or path
        if backend != "llama-cpp-python":
            return path
        if self.name in _LLAMA_CPP_PYTHON:
            return V1 + self.name
        message = f"model '{model}' has backend llama-cpp-python, which has no {self.name}; backend llama-server has"
        raise Refused(message, status=404, error_type="not_found_error")


def find(path: str) -> Route | None:
    """The route of a request's path."""
    route = _ROUTES.get(path)
    if route is None and (match := _SLOT.fullmatch(path)):
        return Route(match[1], POST, match[1])
    return route


def label(route: Route | None) -> str:
    """A path of which there are few: the route's name, "/slots" for each of them, "/upstream" for what is no route."""
    if route is None:
        return "/upstream"
    return "/slots" if route.name.startswith("/slots/") else route.name


def _table() -> dict[str, Route]:
    routes = [Route(name, POST, None) for name in _BOTH_FORMS]
    routes += [Route(name, POST, V1 + name) for name in _PREFIXED]
    routes += [Route(name, POST, name) for name in _BARE]
    routes += [Route(name, GET, name) for name in _BARE_GET]
    routes += [Route(name, GET | POST, name) for name in _BARE_EITHER]
    return {prefix + route.name: route for route in routes for prefix in ("", V1)}


_ROUTES = _table()
PATHS = tuple(sorted(_ROUTES))
