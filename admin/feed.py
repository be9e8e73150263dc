"""Everybody who watches /models/sse in this worker, behind one connection that follows the supervisor's events.

The connection is there while somebody watches. It ends all streams when it ends; a watcher who does not read ends his
own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import gevent
from gevent.event import Event
from gevent.lock import RLock

from admin.connection import stopping
from admin.frames import EVERY, Frame, Frames, reloaded
from admin.latest import Latest
from admin.states import Json
from supervisor.client import Client
from supervisor.errors import NotRunning, ProtocolError, Refused
from supervisor.protocol import Message

MAX_PENDING = 1000  # frames, which a watcher who is served has read long before
LATEST = 2**53  # no event has this number: only those to come are followed

# The entry of a model in the list, for a status object; see models.py.
EntryOf = Callable[[str, Message], Json]
# Whether somebody is told of the model of these names; None for nobody any more.
Tells = Callable[[tuple[str, ...]], bool | None]
INFO = ("id", "aliases", "tags", "object", "architecture", "created", "owned_by", "meta")


class Watcher:
    """What is still to be sent to one client, of the models that `tells` tells."""

    def __init__(self, tells: Tells) -> None:
        self._tells = tells
        self._pending: list[bytes] = []
        self._changed = Event()
        self._over = False

    def tell(self, frames: Iterable[Frame], names: Mapping[str, tuple[str, ...]]) -> None:
        """Have frames sent; a client that is too far behind is hung up on instead. `names` are those of each model."""
        if self._over:
            return
        for each in frames:
            told = each.model == EVERY or self._tells(names.get(each.model, (each.model,)))
            if told is None:
                self.end()
                return
            if told:
                self._pending.append(each)
        if len(self._pending) > MAX_PENDING:
            self._pending.clear()
            self._over = True
        self._changed.set()

    def end(self) -> None:
        """Nothing follows what is pending."""
        self._over = True
        self._changed.set()

    def read(self) -> Iterator[bytes]:
        """What comes, as it comes, until the end or until the worker is asked to stop."""
        while True:
            gevent.wait([self._changed, stopping], count=1)
            self._changed.clear()
            if self._pending:
                pending, self._pending = self._pending, []
                yield b"".join(pending)
            elif self._over or stopping.is_set():
                return


class Feed:
    """The watchers of this worker."""

    def __init__(self, runtime_dir: Path, timeout: float, latest: Latest, entry_of: EntryOf) -> None:
        """`timeout`: seconds to wait for the supervisor."""
        self._runtime_dir = runtime_dir
        self._timeout = timeout
        self._latest = latest
        self._entry_of = entry_of
        self._joining = RLock()
        self._follower: _Follower | None = None

    def join(self, tells: Tells) -> Watcher:
        """Watch from now on, what a Watcher `tells`. Raises NotRunning, ProtocolError or Refused."""
        with self._joining:  # one of many who come at once connects
            if self._follower is None or self._follower.ended:
                self._follower = _Follower(self._runtime_dir, self._timeout, self._latest, self._entry_of)
            watcher = Watcher(tells)
            self._follower.watchers.add(watcher)
            return watcher

    def leave(self, watcher: Watcher) -> None:
        """Watch no more; the last one hangs up on the supervisor."""
        follower = self._follower
        if follower is not None:
            follower.watchers.discard(watcher)
            if not follower.watchers:
                self._follower = None
                follower.close()


class _Follower:
    """Follows the events and tells `watchers` of them."""

    def __init__(self, runtime_dir: Path, timeout: float, latest: Latest, entry_of: EntryOf) -> None:
        self.watchers: set[Watcher] = set()
        self.ended = False
        self._latest = latest
        self._entry_of = entry_of
        self._names: dict[str, tuple[str, ...]] = {}
        self._client = Client(runtime_dir, timeout=timeout)
        try:
            events = self._client.stream("events", follow=True, since=LATEST)
            self._status = self._ask()
        except BaseException:
            self._client.close()
            raise
        self._frames = Frames(self._status["models"], self._info)
        self._greenlet = gevent.spawn(self._follow, events)

    def close(self) -> None:
        """Hang up."""
        self._greenlet.kill(block=False)
        self._client.close()

    def _follow(self, events: Iterator[Message]) -> None:
        try:
            for message in events:
                if frames := self._heard(message["event"]):
                    for watcher in self.watchers:
                        watcher.tell(frames, self._names)
                    gevent.sleep(0)  # reading waits only for what has not arrived, and they have to get on with it
        except (NotRunning, ProtocolError, Refused):
            pass  # the supervisor is away: it is the end for everybody
        finally:
            self.ended = True
            for watcher in self.watchers:
                watcher.end()
            self._client.close()

    def _heard(self, event: Json) -> list[Frame]:
        """The frames for an event. A "reload" may also be one that was refused, which leaves the revision as it is."""
        if event["kind"] != "reload":
            return self._frames.of(event)
        before, self._status = self._status.get("revision"), self._ask()
        if self._status.get("revision") == before:
            return []
        return [reloaded(), *self._frames.renewed(self._status["models"])]

    def _info(self, name: str) -> Json:
        """What is told of a model when it was loaded; little if the supervisor has no time to say more."""
        try:
            entry = self._entry_of(name, self._ask())
        except (NotRunning, ProtocolError, Refused, LookupError):
            return {"id": name}
        entry["meta"] = entry["status"]["detail"]["meta"]  # whether or not it is still loaded
        return {key: entry[key] for key in INFO if entry[key] is not None}

    def _ask(self) -> Message:
        status = self._latest.status()
        # A model that is gone keeps its names, as that is still to be told.
        self._names |= {model["name"]: (model["name"], *model["aliases"]) for model in status["models"]}
        return status
