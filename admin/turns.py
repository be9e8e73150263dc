"""Work that takes its time, in turns: greenlets are switched when one waits, and what computes never does."""

from __future__ import annotations

import time

import gevent

TURN_SECONDS = 0.005


class Turns:
    """Lets everybody else get on with it every TURN_SECONDS, if it is asked often enough to."""

    def __init__(self) -> None:
        self._since = time.monotonic()

    def next(self) -> None:
        """Wait until it is one's turn again, if this one is over."""
        if time.monotonic() - self._since >= TURN_SECONDS:
            gevent.sleep(0)
            self._since = time.monotonic()
