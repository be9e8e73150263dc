"""The synchronous loop: wait for something to happen, tell the core, carry out what it answers, until it says exit.

No threads, no polling: it sleeps until a descriptor is ready or the next deadline is due.
"""

from __future__ import annotations

import selectors
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

from supervisor.core.commands import Command
from supervisor.core.events import Event, Tick
from supervisor.core.fleet import Fleet

READ = selectors.EVENT_READ
WRITE = selectors.EVENT_WRITE
LONGEST_SLEEP = 86400.0  # epoll_wait(2) takes an int of milliseconds, 24 days
TICK_SLACK = 0.0005  # epoll counts in whole milliseconds; waking a moment late beats waking twice


class Watched(Protocol):
    """Anything with a descriptor."""

    def fileno(self) -> int:
        """The descriptor."""


class Timed(Protocol):
    """Something outside the core that must act at a time of its own. Times are monotonic."""

    def due(self) -> float | None:
        """When `fire` wants to be called, if at all."""

    def fire(self, now: float) -> None:
        """Act if it is time; harmless otherwise."""


class Loop:
    """`execute` carries out commands; it must be set before `run`. `exit_code` ends the loop once it is set. `handled`
    counts the events that the core took in: while it is the same, so is the fleet."""

    execute: Callable[[Command], None]

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.exit_code: int | None = None
        self.handled = 0
        self.timed: list[Timed] = []
        self._selector = selectors.DefaultSelector()
        self._events: deque[Event] = deque()
        self._delivering = False

    def watch(self, what: Watched | int, callback: Callable[[], None], events: int = READ) -> None:
        """Call `callback` whenever `what` is ready for `events`. Watching again replaces both."""
        if what in self._selector.get_map():
            self._selector.modify(what, events, callback)
        else:
            self._selector.register(what, events, callback)

    def unwatch(self, what: Watched | int) -> None:
        """No longer watch; harmless if it is not watched."""
        if what in self._selector.get_map():
            self._selector.unregister(what)

    def deliver(self, event: Event) -> None:
        """Tell the core and carry out its commands. An event that comes up meanwhile is delivered after them."""
        self._events.append(event)
        if self._delivering:
            return
        self._delivering = True
        try:
            while self._events:
                commands = self.fleet.handle(self._events.popleft(), time.monotonic())
                self.handled += 1
                for command in commands:
                    self.execute(command)
        finally:
            self._delivering = False

    def run(self, first: Event) -> int:
        """Deliver the first event and run until the core says exit. Returns the exit code."""
        self.deliver(first)
        while self.exit_code is None:
            due = self._due()
            for key, _ in self._selector.select(_timeout(due)):
                current = self._selector.get_map().get(key.fd)
                if current is not None and current.data is key.data:  # an earlier callback may have closed it
                    key.data()
            if due is not None and due <= time.monotonic():  # what came up meanwhile is due at the next turn
                self._fire_timers()
        return self.exit_code

    def close(self) -> None:
        """Free the selector."""
        self._selector.close()

    def _due(self) -> float | None:
        """When the first timer is."""
        times = (self.fleet.next_deadline(), *(timed.due() for timed in self.timed))
        return min((at for at in times if at is not None), default=None)

    def _fire_timers(self) -> None:
        now = time.monotonic()
        deadline = self.fleet.next_deadline()
        if deadline is not None and deadline <= now:
            self.deliver(Tick())
        for timed in self.timed:
            timed.fire(now)


def _timeout(due: float | None) -> float | None:
    """How long to sleep at most, in seconds."""
    return None if due is None else min(max(0.0, due - time.monotonic() + TICK_SLACK), LONGEST_SLEEP)
