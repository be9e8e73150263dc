"""The last events of the fleet, numbered, for whoever asks or follows; llama-router's history in bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec

from supervisor.core.commands import Announce
from supervisor.core.status import reason_status

KEPT_EVENTS = 1000

Record = dict[str, Any]


class KeptRecords(msgspec.Struct, frozen=True):
    """The last records, and the number of the very last, which need not be kept."""

    records: list[Record]
    last: int


class Announcements:
    """`listener` is called with each new record. Progress is passed on but not kept."""

    def __init__(self, wall: Callable[[], float], listener: Callable[[Record], None]) -> None:
        self._wall = wall
        self._listener = listener
        self._kept: deque[Record] = deque(maxlen=KEPT_EVENTS)
        self._last = 0

    def add(self, announce: Announce, offset: float) -> None:
        """Number, keep and pass on; `offset` turns monotonic times into Unix seconds."""
        self._last += 1
        record = {
            "seq": self._last,
            "at": self._wall(),
            "kind": announce.kind,
            "model": announce.model,
            "instance": announce.instance,
            "from": announce.before.value if announce.before else None,
            "to": announce.state.value if announce.state else None,
            "sleeping": announce.sleeping,
            "reason": reason_status(announce.reason, offset),
            "progress": announce.progress,
            "text": announce.text,
        }
        if announce.kind != "progress":
            self._kept.append(record)
        self._listener(record)

    def handed_over(self) -> KeptRecords:
        """What is kept, for another program to go on with."""
        return KeptRecords(list(self._kept), self._last)

    def take_over(self, kept: KeptRecords) -> None:
        """Go on with what another program kept."""
        self._kept.extend(kept.records)
        self._last = kept.last

    def since(self, seq: int) -> list[Record]:
        """Kept records with a number above `seq`, oldest first."""
        return [record for record in self._kept if record["seq"] > seq]
