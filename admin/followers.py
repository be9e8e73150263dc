"""Streams without an end, such as /models/sse: so many at once that nobody else is kept from being served.

A worker serves a number of connections (gunicorn's worker_connections), and a stream holds one for as long as its
client likes. What anybody may follow takes nothing from those who are signed in, and of those none takes it all.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping
from enum import Enum, auto
from typing import ParamSpec

from flask import Response

from admin.errors import Unreadable

MAX_PUBLIC = 768  # of a worker
MAX_SIGNED_IN = 256
MAX_OF_SESSION = 16  # a browser has six connections for all its pages
MAX_OF_ADDRESS = 128  # of one role: who signs in again and again has many sessions; behind a reverse proxy all are one
RETRY_SECONDS = 5.0

P = ParamSpec("P")
View = Callable[P, Response]
Shares = Mapping[Hashable, int]


class For(Enum):
    """Who may follow a stream."""

    ANYBODY = auto()
    SIGNED_IN = auto()


# By what a stream counts for; a name that counts for nothing is not kept.
_now: Counter[Hashable] = Counter()


def endless(whom: For, shares: Callable[[], Shares] = dict) -> Callable[[View[P]], View[P]]:
    """Count a view's answers until each is over, for all that follow, and for what `shares` tells of a request with how
    many of that there may be. It raises Unreadable (503) for one too many, so that the connection ends as well: idle
    ones take as much room."""

    def decorate(view: View[P]) -> View[P]:
        @functools.wraps(view)
        def counted(*args: P.args, **kwargs: P.kwargs) -> Response:
            limits = {whom: MAX_PUBLIC if whom is For.ANYBODY else MAX_SIGNED_IN, **shares()}
            for name, most in limits.items():
                if _now[name] >= most:
                    who = "clients" if name is whom else "pages of yours"
                    raise Unreadable(503, f"{most} {who} follow such streams already", retry_after=RETRY_SECONDS)
            _now.update(limits.keys())
            try:
                response = view(*args, **kwargs)
            except BaseException:
                _leave(limits)
                raise
            response.call_on_close(lambda: _leave(limits))
            return response

        return counted

    return decorate


def _leave(names: Iterable[Hashable]) -> None:
    for name in names:
        _now[name] -= 1
        if not _now[name]:
            del _now[name]
