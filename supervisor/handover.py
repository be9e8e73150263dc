"""What a supervisor leaves to the program that takes its place in the same process: a document, and descriptors.

The document is JSON in a memfd (memfd_create(2)), because the program that reads it may be another version. It is read
whole or not at all: of another format, or with anything in it that this program does not know, or without something
that it does, nothing is taken over. LLAMA_ROUTER_HANDOVER tells the program which descriptor it is, and what to do:

    check 3     say whether you could go on with this, and end
    take 17     go on with this
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, MutableMapping
from typing import Any

import msgspec

from supervisor import __version__
from supervisor.announcements import KeptRecords
from supervisor.backends.llama_server_asking import Answer, Question
from supervisor.children import Process
from supervisor.configuration import Configuration
from supervisor.configured import InUse
from supervisor.control import Connected
from supervisor.core import handover as fleet_handover
from supervisor.core.fleet import Fleet
from supervisor.core.log_fields import Entry
from supervisor.errors import CannotTakeOver
from supervisor.guard import Guarding
from supervisor.listener import Listening
from supervisor.logs import KeptLines
from supervisor.unix_socket import Bound

VERSION = 1
VARIABLE = "LLAMA_ROUTER_HANDOVER"
CHECK, TAKE = "check", "take"
ACCEPTED = "can take over as llama-router "


class Handover(msgspec.Struct, frozen=True):
    """All that outlives the program. `version` is the format's, `program` that of the llama-router that wrote it.

    `asker` is the number of who asked for the reexec, `since` when the process was started, in Unix seconds, `mark` the
    value of SUPERVISOR_VARIABLE, and `limits` are those of open files that the process was started with. `links` are
    what the terminal is yet to be told of signing in. `probing` are launches that were being asked, with the path, and
    `measuring` those that were being measured. `unlogged` is what the journal has not taken, `hashes` are
    those of the keys that the environment held at the start.
    """

    version: int
    program: str
    asker: int | None
    since: float
    mark: str
    limits: tuple[int, int]
    lock: int
    fleet: dict[str, Any]
    in_use: InUse
    revision: int
    answers: list[tuple[Question, Answer]]
    listener: Listening
    hashes: tuple[bytes, ...]
    notify: Bound
    control: Bound
    connections: list[Connected]
    last_number: int
    guard: Guarding
    processes: list[Process]
    probing: list[tuple[int, str | None]]
    measuring: list[int]
    lines: KeptLines
    records: KeptRecords
    unlogged: list[Entry]
    links: list[str]

    @property
    def descriptors(self) -> Iterator[int]:
        """Those that the program is to have."""
        yield from (self.lock, self.listener.fd, self.notify.fd, self.control.fd, self.guard.pipe)
        yield from (each.fd for each in self.connections)
        for process in self.processes:
            yield from (process.pidfd, process.log, *([] if process.stdin is None else [process.stdin]))

    def restored(self) -> tuple[Fleet, Configuration]:
        """The fleet and its configuration. Raises CannotTakeOver for what is not understood in full."""
        try:
            fleet = fleet_handover.restored(self.fleet)
            return fleet, self.in_use.configuration(fleet)
        except ValueError as error:
            raise CannotTakeOver(f"cannot take over the models: {' '.join(str(error).split())}") from None


def encode(handover: Handover) -> bytes:
    """The document. Half a surrogate pair, as a path may hold one, is told as JSON's escape."""
    return json.dumps(msgspec.to_builtins(handover)).encode()


def decode(data: bytes) -> Handover:
    """What a document tells. Raises CannotTakeOver."""
    try:
        told = json.loads(data)
        version = told["version"]
    except (ValueError, TypeError, KeyError):
        raise CannotTakeOver("cannot take over: what was handed over is no document of llama-router's") from None
    if version != VERSION:
        raise CannotTakeOver(
            f"cannot take over from llama-router {told.get('program')}: it hands over in format {version}, and "
            f"llama-router {__version__} knows format {VERSION}; restart it instead"
        )
    try:
        handover = msgspec.convert(told, Handover)
    except msgspec.ValidationError as error:
        raise CannotTakeOver(f"cannot take over: {error}") from None
    if (where := _difference(told, json.loads(encode(handover)))) is not None:
        raise CannotTakeOver(f"cannot take over: {where} is known to one of the two programs only")
    return handover


def written(handover: Handover) -> int:
    """A new descriptor of the document, which no other program inherits. Raises OSError, and CannotTakeOver for what
    not even this program could go on with."""
    data = encode(handover)
    decode(data).restored()
    fd = os.memfd_create("llama-router-handover", os.MFD_CLOEXEC)
    with os.fdopen(os.dup(fd), "wb") as file:
        file.write(data)
    return fd


def given(environment: MutableMapping[str, str]) -> tuple[str, Handover] | None:
    """What this program is to do, CHECK or TAKE, and with what; None if it is the first one in its process. Nobody who
    is started by it is told. Raises CannotTakeOver."""
    told = environment.pop(VARIABLE, None)
    if told is None:
        return None
    order, _, fd = told.partition(" ")
    if order not in (CHECK, TAKE) or not fd.isdecimal():
        raise CannotTakeOver(f"cannot take over: {VARIABLE} is {told!r}, which is for llama-router itself to set")
    try:
        with os.fdopen(int(fd), "rb") as file:
            file.seek(0)
            data = file.read()
    except OSError as error:
        raise CannotTakeOver(f"cannot take over: cannot read descriptor {fd}: {error.strerror}") from None
    return order, decode(data)


def _difference(one: Any, other: Any, path: str = "") -> str | None:
    """Where two JSON values differ first; None if they don't."""
    if isinstance(one, dict) and isinstance(other, dict):
        keys = sorted(one.keys() | other.keys())
        pairs = [(f"{path}.{key}", one.get(key, ...), other.get(key, ...)) for key in keys]
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        pairs = [(f"{path}[{index}]", one[index], other[index]) for index in range(len(one))]
    else:
        return None if one == other else path.removeprefix(".")
    found = (_difference(left, right, name) for name, left, right in pairs)
    return next((place for place in found if place is not None), None)
