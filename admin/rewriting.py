"""Changes to the body of a request that a preset asks for: top-level keys set and removed, all else left as it is.

What is not changed keeps its exact bytes. A body that writes a key twice does so afterwards, with the same new value;
so it does not matter which of them counts for whoever parses it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec

from admin.errors import invalid
from admin.turns import Turns

MAX_MEMBERS = 1000  # far above any API's; what is cut out of a body is kept in pieces
LARGE = 16 * 1024  # bytes in a row from which on they are passed along instead of being copied
WINDOW = 64 * 1024  # bytes that are looked at in one go

Piece = bytes | bytearray | memoryview

_SPACES = b" \t\r\n"
_QUOTE, _BACKSLASH, _COMMA = b'"', b"\\", b","
_OPENING, _CLOSING = b"[{", b"]}"
_SPACE = re.compile(rb"[ \t\r\n]*+")
_SCALAR = re.compile(rb"[^ \t\r\n,}\]]*+")
_INSIDE_STRING = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+', re.DOTALL)
# Inside a list or an object, what leads to no other depth: all but strings and brackets, whole strings, and lists and
# objects of nothing but these.
_PLAIN = rb'[^"\[\]{}]++|"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_LEVEL = re.compile(rb"(?:%b|[\[{](?:%b)*+[\]}])*+" % (_PLAIN, _PLAIN), re.DOTALL)


@dataclass(frozen=True)
class Rewriting:
    """`set` has keys and their JSON; a key in both is set."""

    set: Mapping[str, bytes]
    remove: frozenset[str]

    @classmethod
    def of(cls, grant: Mapping[str, Any] | None) -> Rewriting | None:
        """What a grant says, {"set": {…}, "remove": […]}; None for nothing."""
        if not grant:
            return None
        return cls({key: _json(value) for key, value in grant["set"].items()}, frozenset(grant["remove"]))

    def apply(self, body: bytes | bytearray) -> list[Piece]:
        """The new body, in pieces. `body` must be one JSON object. Raises Refused (400) for one of too many members."""
        names = {**dict.fromkeys(self.remove), **self.set}
        missing = dict(self.set)
        pieces = _Pieces(body)
        pieces.add(b"{")
        separator = b""
        for member in _members(body, max(map(len, names), default=0)):
            if member.name not in names:
                pieces.add(separator)
                pieces.cut(member.start, member.end)
            elif (value := names[member.name]) is not None:
                missing.pop(member.name, None)
                pieces.add(separator)
                pieces.cut(member.start, member.value)
                pieces.add(value)
            else:
                continue
            separator = _COMMA
        for name, value in missing.items():
            pieces.add(separator + _json(name) + b":" + value)
            separator = _COMMA
        pieces.add(b"}")
        return pieces.all()


class Member(NamedTuple):
    """Where in a body `"name": value` begins, its value begins, and it ends. `name` None: a long one."""

    name: str | None
    start: int
    value: int
    end: int


class _Pieces:
    """Parts of a body and what is put between them; large ones are not copied."""

    def __init__(self, body: bytes | bytearray) -> None:
        self._body = memoryview(body)
        self._pieces: list[Piece] = []
        self._small = bytearray()

    def cut(self, start: int, end: int) -> None:
        self.add(self._body[start:end])

    def add(self, piece: Piece) -> None:
        if len(piece) < LARGE:
            self._small += piece
            return
        self._pieces += [self._small, piece]
        self._small = bytearray()

    def all(self) -> list[Piece]:
        return [*self._pieces, self._small]


def _members(body: bytes | bytearray, longest: int) -> Iterator[Member]:
    """The members of a JSON object; a name of more than `longest` characters is not told."""
    scan = _Scan(body)
    at = scan.behind_space(body.index(b"{") + 1)
    count = 0
    while body[at] in _QUOTE:
        count += 1
        if count > MAX_MEMBERS:
            raise invalid(
                f"cannot change the request body as the model's preset asks: it has more than {MAX_MEMBERS} keys"
            )
        start, end = at, scan.behind_string(at)
        name = msgspec.json.decode(body[start:end], type=str) if end - start <= 12 * longest + 2 else None
        value = scan.behind_space(scan.behind_space(end) + 1)
        end = scan.behind_value(value)
        yield Member(name, start, value, end)
        at = scan.behind_space(end)
        if body[at] in _COMMA:
            at = scan.behind_space(at + 1)


class _Scan:
    """Finds where parts of a valid JSON document end, a WINDOW at a time, and lets others be served in between."""

    def __init__(self, body: bytes | bytearray) -> None:
        self._body = body
        self._turns = Turns()

    def behind_space(self, at: int) -> int:
        while self._body[at] in _SPACES:
            at = self._behind(_SPACE, at)
        return at

    def behind_string(self, at: int) -> int:
        at += 1
        while self._body[at] not in _QUOTE:
            at = self._behind(_INSIDE_STRING, at)
        return at + 1

    def behind_value(self, at: int) -> int:
        if self._body[at] in _QUOTE:
            return self.behind_string(at)
        if self._body[at] in _OPENING:
            return self._behind_nested(at)
        while self._body[at] not in b" \t\r\n,}":
            at = self._behind(_SCALAR, at)
        return at

    def _behind_nested(self, at: int) -> int:
        at, depth = at + 1, 1
        while depth:
            at = self._behind(_LEVEL, at)
            byte = self._body[at]
            if byte in _QUOTE:  # its end lies outside the window
                at = self.behind_string(at)
            elif byte in _OPENING:
                at, depth = at + 1, depth + 1
            elif byte in _CLOSING:
                at, depth = at + 1, depth - 1
        return at

    def _behind(self, pattern: re.Pattern[bytes], at: int) -> int:
        self._turns.next()
        match = pattern.match(self._body, at, at + WINDOW)
        return match.end() if match else at


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
