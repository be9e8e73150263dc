"""Streams without an end, such as /models/sse: so many at once that nobody else is kept from being served.

A worker serves a number of connections (gunicorn's worker_connections), and a stream holds one for as long as its
client likes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec

from flask import Response

from admin.errors import Unreadable

MAX_FOLLOWERS = 1024  # of a worker
RETRY_SECONDS = 5.0

P = ParamSpec("P")


class _Followers:
    now = 0


def endless(view: Callable[P, Response]) -> Callable[P, Response]:
    """Count a view's answers until each is over. It raises Unreadable (503) when there are MAX_FOLLOWERS, so that the
    connection ends as well: idle ones take as much room."""

    @functools.wraps(view)
    def counted(*args: P.args, **kwargs: P.kwargs) -> Response:
        if _Followers.now >= MAX_FOLLOWERS:
            message = f"{MAX_FOLLOWERS} clients follow such streams already"
            raise Unreadable(503, message, retry_after=RETRY_SECONDS)
        _Followers.now += 1
        try:
            response = view(*args, **kwargs)
        except BaseException:
            _leave()
            raise
        response.call_on_close(_leave)
        return response

    return counted


def _leave() -> None:
    _Followers.now -= 1
