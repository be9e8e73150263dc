"""One answer for all who ask while it is found: what takes its time is done once, however many want it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

import gevent
from gevent.util import wrap_errors

T = TypeVar("T")


class Shared(Generic[T]):
    """Of one worker. `find` runs in a greenlet of its own, outside of any request, so that none who waits matters."""

    def __init__(self, find: Callable[[], T]) -> None:
        self._find = wrap_errors((Exception,), find)
        self._finding: gevent.Greenlet[..., T | Exception] | None = None

    def get(self) -> T:
        """The answer, begun now or a moment ago. Raises what `find` does."""
        if self._finding is None:
            self._finding = gevent.spawn(self._find)
            self._finding.rawlink(self._over)
        answer = self._finding.get()
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _over(self, _: object) -> None:
        self._finding = None
