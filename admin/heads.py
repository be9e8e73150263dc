"""The head of a model server's answer, by RFC 9112: what is none is told from one that only broke off. Pure.

Lines may end with a bare LF (§2.2), as those of small servers do. Everything else that could be read in two ways is
refused: folded lines, two lengths, a length that is no plain number, codings but one "chunked".
"""

from __future__ import annotations

import re
from dataclasses import dataclass

Headers = list[tuple[str, str]]

MAX_HEAD = 128 * 1024
MAX_LINE = 65536
MAX_FIELDS = 100
MAX_DIGITS = 18  # of a length
SWITCHING_PROTOCOLS = 101
FIRST_FINAL = 200
BODILESS = frozenset([204, 304])
BEGINNING = b"HTTP/1."

_END = re.compile(rb"\r?\n\r?\n")
_STATUS = re.compile(r"HTTP/1\.([0-9])[ \t]+([1-9][0-9][0-9])(?:[ \t]+(.*))?")
# RFC 9110 §5.1 and §5.5, as latin-1 text. Spaces around a value match in one way only: in two, a line of nothing else
# would take seconds.
_FIELD = re.compile(r"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):([ \t\x21-\x7e\x80-\xff]*)")
_REASON = re.compile(r"[ \t\x21-\x7e\x80-\xff]*")


class Malformed(Exception):
    """What the server sent is no HTTP/1.1, or HTTP that nobody asked for."""


@dataclass(frozen=True)
class Head:
    """Of an answer. `length` is that of its body, None if that is `chunked` or ends with the connection; `declared` is
    what Content-Length says, which an answer without a body may have. `closes`: the connection serves no other request.
    """

    status: int
    reason: str
    fields: Headers
    length: int | None
    declared: str | None
    chunked: bool
    closes: bool


def end_of(data: bytes, begin: int) -> int:
    """Where the body begins, -1 if the head is not whole; `begin` is where to search. Raises Malformed for what can't
    become a head."""
    found = _END.search(data, max(0, begin - 3))
    if found is not None:
        return found.end()
    line, newline, _ = data[: MAX_LINE + 1].partition(b"\n")
    if newline or not BEGINNING.startswith(data[: len(BEGINNING)]):
        _status(line.removesuffix(b"\r").decode("latin-1"))
    if len(data) > MAX_HEAD or len(line) > MAX_LINE:
        raise Malformed("its head is too long")
    return -1


def parse(data: bytes, method: str) -> Head:
    """The head of the answer to a request of `method`. Raises Malformed."""
    first, *lines = data.decode("latin-1").rstrip("\r\n").split("\n")
    version, status, reason = _status(first.removesuffix("\r"))
    if len(lines) > MAX_FIELDS:
        raise Malformed(f"its head has more than {MAX_FIELDS} fields")
    fields: Headers = []
    lengths, codings, options = [], [], []
    for line in lines:
        field = _FIELD.fullmatch(line.removesuffix("\r"))
        if field is None or len(line) > MAX_LINE:
            raise Malformed(f"its head has a line that is no field: {line[:100]!r}")
        name, value = field[1], field[2].strip(" \t")
        fields.append((name, value))
        match name.lower():
            case "content-length":
                lengths.append(value)
            case "transfer-encoding":
                codings.append(value)
            case "connection":
                options.append(value.lower())
    length, chunked = _framing(lengths, codings)
    has_body = method != "HEAD" and status not in BODILESS
    closes = version == 0 or any("close" in each for each in options)
    if has_body:
        closes = closes or not (chunked or length is not None)
    elif method != "HEAD":
        closes = closes or chunked  # a server that says so may send some
    declared = lengths[0] if lengths else None
    return Head(status, reason, fields, length if has_body else 0, declared, chunked and has_body, closes)


def _status(line: str) -> tuple[int, int, str]:
    """The minor version, the status, and its reason, "" for one that can't be told."""
    found = _STATUS.fullmatch(line)
    if found is None:
        raise Malformed(f"its first line is {line[:100]!r}")
    reason = found[3] or ""
    return int(found[1]), int(found[2]), reason if _REASON.fullmatch(reason) else ""


def _framing(lengths: list[str], codings: list[str]) -> tuple[int | None, bool]:
    """The length of a body, and whether it comes in chunks, which then have the last word."""
    if any(not (len(each) <= MAX_DIGITS and each.isascii() and each.isdecimal()) for each in lengths):
        raise Malformed(f"Content-Length is {lengths[0][:100]!r}")
    if len(set(lengths)) > 1:
        raise Malformed("it has two lengths")
    if codings and (len(codings) > 1 or codings[0].lower() != "chunked"):
        raise Malformed(f"Transfer-Encoding is {', '.join(codings)[:100]!r}")
    return None if codings or not lengths else int(lengths[0]), bool(codings)
