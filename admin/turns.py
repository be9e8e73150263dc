"""Work that takes its time, in turns: greenlets are switched when one waits, and what computes never does."""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import Any

import gevent
from gevent.hub import Waiter

TURN_SECONDS = 0.005
# A sleep of 0 lets those run who can, fifty times over, before the loop looks for what has arrived.
LOOK = 1e-6
TOGETHER = 4  # who begin, between two looks of the loop
SHARE = 0.5  # of the time that all else takes, which those who begin have if that is more


class Turns:
    """Lets everybody else get on with it every TURN_SECONDS, if it is asked often enough to."""

    def __init__(self) -> None:
        self._since = time.monotonic()

    def next(self) -> None:
        """Wait until it is one's turn again, if this one is over."""
        if time.monotonic() - self._since >= TURN_SECONDS:
            gevent.sleep(LOOK)
            self._since = time.monotonic()


class Line:
    """Those who want to begin with something, in the order in which they came: a few each time the loop has looked for
    what has arrived. So whoever need not stand in line waits for a few of them, however many come at once; and they
    have their share of the time, however much else there is to do."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[Waiter[None], None] = OrderedDict()
        self._begun = 0  # since the loop's last look
        self._since = 0.0  # when others had their turn
        self._check: Any = None  # called at each look
        self._timer: Any = None  # one that is due makes a look wait for nothing

    def __bool__(self) -> bool:
        """Whether anybody waits."""
        return bool(self._waiting)

    def wait(self) -> bool:
        """Wait until it is one's turn; False if there was no need to."""
        if not self._waiting and self._has_room():
            return False
        waiter: Waiter[None] = Waiter()
        self._waiting[waiter] = None
        if self._timer is None:
            self._timer = gevent.get_hub().loop.timer(0)
        if not self._timer.active:
            self._look_again()
        try:
            waiter.get()
        finally:
            self._waiting.pop(waiter, None)
        return True

    def _has_room(self) -> bool:
        if not self._begun:
            if self._check is None:
                self._check = gevent.get_hub().loop.check()
            self._check.start(self._looked)
        self._begun += 1
        return self._begun <= TOGETHER

    def _looked(self) -> None:
        self._check.stop()
        self._begun = 0

    def _look_again(self) -> None:
        self._since = time.monotonic()
        self._timer.start(self._let_in)

    def _let_in(self) -> None:
        """Runs in the hub, once after each look while anybody waits."""
        now = time.monotonic()
        until = now + (now - self._since) * SHARE
        while self._waiting and (self._has_room() or time.monotonic() < until):
            self._waiting.popitem(last=False)[0].switch(None)
        if self._waiting:
            self._look_again()


# Requests of this worker that go to a model server.
beginning = Line()
