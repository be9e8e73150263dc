"""Streams without an end, such as /models/sse: so many at once that nobody else is kept from being served.

A worker serves a number of connections (gunicorn's worker_connections), and a stream holds one for as long as its
client likes. What anybody may follow takes nothing from those who are signed in.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable
from enum import Enum, auto
from typing import ParamSpec

from flask import Response

from admin.errors import Unreadable

MAX_PUBLIC = 768  # of a worker
MAX_SIGNED_IN = 256
RETRY_SECONDS = 5.0

P = ParamSpec("P")
View = Callable[P, Response]


class For(Enum):
    """Who may follow a stream."""

    ANYBODY = auto()
    SIGNED_IN = auto()


_now: Counter[For] = Counter()


def endless(whom: For) -> Callable[[View[P]], View[P]]:
    """Count a view's answers until each is over. It raises Unreadable (503) when there are as many as those it is for
    may follow, so that the connection ends as well: idle ones take as much room."""

    def decorate(view: View[P]) -> View[P]:
        @functools.wraps(view)
        def counted(*args: P.args, **kwargs: P.kwargs) -> Response:
            most = MAX_PUBLIC if whom is For.ANYBODY else MAX_SIGNED_IN
            if _now[whom] >= most:
                raise Unreadable(503, f"{most} clients follow such streams already", retry_after=RETRY_SECONDS)
            _now[whom] += 1
            try:
                response = view(*args, **kwargs)
            except BaseException:
                _leave(whom)
                raise
            response.call_on_close(lambda: _leave(whom))
            return response

        return counted

    return decorate


def _leave(whom: For) -> None:
    _now[whom] -= 1
