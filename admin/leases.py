"""Leases from the supervisor: "this model server may not be stopped while I use it", one control connection each."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import gevent

from admin.figures import Passing
from admin.rewriting import Rewriting
from admin.upstream import UpstreamDied
from supervisor.client import Client
from supervisor.errors import NotRunning, Refused
from supervisor.protocol import Message

MAX_IDLE_CONNECTIONS = 64
CONNECT_SECONDS = 5.0


@dataclass(frozen=True)
class Wish:
    """What a request asks for. `model` None is for the fallback, `autoload` None is as configured; `who` asks, in words
    for people."""

    model: str | None
    autoload: bool | None
    who: str


class Lease:
    """A granted lease; leaving its `with` block gives it back, once, with the figures of its request.

    `backend` is the preset's, None for one that is not told; `rewriting` is what the preset changes in bodies.
    `passed` is what went to the client of the body.

    `figures`: status (HTTP, or None), bytes (of body sent to the client), first_byte and duration (seconds since the
    lease was granted; first_byte None if none came), ended ("complete", "client_gone" or "upstream_died").
    """

    def __init__(self, pool: Leases, client: Client, grant: Message) -> None:
        self.model = str(grant["model"])
        self.launch: Any = grant["launch"]
        self.address = str(grant["address"])
        self.backend: str | None = grant.get("backend")
        self.rewriting = Rewriting.of(grant.get("request"))
        self._pool = pool
        self._client = client
        self._granted = time.monotonic()
        self.status: int | None = None
        self.first_byte: float | None = None
        self.passed = Passing()

    def answered(self, status: int) -> None:
        """The first byte of the body, or its end, is there."""
        self.status = status
        self.first_byte = self._elapsed()

    def _elapsed(self) -> float:
        return round(time.monotonic() - self._granted, 6)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        ended = "client_gone"
        if kind is None or issubclass(kind, Refused):
            ended = "complete"
        elif issubclass(kind, UpstreamDied):
            ended = "upstream_died"
        figures = {
            "status": self.status,
            "bytes": self.passed.size,
            "first_byte": self.first_byte,
            "duration": self._elapsed(),
            "ended": ended,
        }
        self._pool.give_back(self._client, figures)


class Leases:
    """Takes leases, over connections kept from one request to the next (last in, first out)."""

    def __init__(self, runtime_dir: Path) -> None:
        self._runtime_dir = runtime_dir
        self._idle: list[Client] = []
        self._due: list[Client] = []  # whose leases are over, which the supervisor may not know

    def acquire(self, wish: Wish, avoid: Any) -> Lease:
        """Wait for a lease. `avoid` is a launch that just failed, or None.

        Raises Refused, NotRunning or ProtocolError. An exception thrown in while waiting withdraws the request.
        """
        fields: Message = {"model": wish.model, "timeout": None, "who": wish.who}
        if wish.autoload is not None:
            fields["autoload"] = wish.autoload
        if avoid is not None:
            fields["avoid"] = avoid
        if self._idle:
            try:
                return self._ask(self._idle.pop(), fields)
            except NotRunning:
                self._drop_idle()  # the supervisor was restarted: all of them are as dead
        client = Client(self._runtime_dir, timeout=CONNECT_SECONDS)
        client.wait_at_most(None)  # a lease comes when a model is ready
        return self._ask(client, fields)

    def give_back(self, client: Client, figures: Message) -> None:
        """End the lease of `client` and keep its connection for another: the supervisor hears of both at once if that
        follows before the loop looks for what has arrived, else by then."""
        client.release_later(figures)
        if not self._due:
            loop = gevent.get_hub().loop
            loop.run_callback(loop.run_callback, self._tell)  # behind whoever only gives others their turn
        self._due.append(client)
        self._keep(client)

    def _tell(self) -> None:
        """Runs in the hub, where nothing may wait."""
        due, self._due = self._due, []
        for client in due:
            try:
                client.flush()
            except NotRunning:
                client.close()

    def _ask(self, client: Client, fields: Message) -> Lease:
        try:
            grant = client.call("lease", **fields)["lease"]
        except Refused:
            self._keep(client)
            raise
        except BaseException:
            client.close()
            raise
        return Lease(self, client, grant)

    def _keep(self, client: Client) -> None:
        if len(self._idle) < MAX_IDLE_CONNECTIONS:
            self._idle.append(client)
        else:
            with suppress(NotRunning):
                client.flush()
            client.close()

    def _drop_idle(self) -> None:
        while self._idle:
            self._idle.pop().close()
