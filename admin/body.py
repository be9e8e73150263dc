"""Reading request bodies: bounded, whole or not at all, and the one thing the router wants of them, "model".

A JSON body costs no more memory than its bytes, whatever it holds: no other part of its document is ever built. Any
other body lies in a temporary file from FREE bytes on.
"""

from __future__ import annotations

import codecs
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import msgspec

from admin.connection import ClientGone
from admin.errors import EMPTY, Unreadable, invalid, log, missing_model
from admin.turns import Turns

if TYPE_CHECKING:
    from tempfile import SpooledTemporaryFile
    from wsgiref.types import WSGIEnvironment

MAX_MODEL_NAME = 1024  # characters; far above any preset's, far below a control message's limit
MAX_ESCAPED_NAME = 12 * MAX_MODEL_NAME + 2  # bytes; a character is two escapes of six bytes at most, then the quotes
PIECE = 1024 * 1024

# What the bodies of all requests of a worker may take together, in memory and in temporary files, each one's first FREE
# bytes not counted: clients that hoard large bodies keep nobody from asking small questions.
MAX_TOGETHER = 1024 * 1024 * 1024
MAX_ON_DISK = 8 * MAX_TOGETHER  # and as much as is left free there
FREE = 64 * 1024
FULL_RETRY_SECONDS = 5.0


class Room:
    """What there is for large bodies, and how much of it they take `together`, in bytes."""

    def __init__(self, size: Callable[[], int]) -> None:
        self.size = size
        self.together = 0


class Share:
    """How much of a room one body takes."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self._taken = 0

    def check(self, size: int) -> None:
        """Raise Unreadable (503) when there is no room for this body to become `size` bytes."""
        others = self._room.together - self._taken
        if size > FREE and others + size - FREE > self._room.size():
            message = "the large bodies of other requests leave no room for this one"
            raise Unreadable(503, message, retry_after=FULL_RETRY_SECONDS)

    def take(self, size: int) -> None:
        """The body has `size` bytes now."""
        taken = max(0, size - FREE)
        self._room.together += taken - self._taken
        self._taken = taken


def _room_on_disk() -> int:
    try:
        found = os.statvfs(tempfile.gettempdir())
    except OSError:
        return MAX_ON_DISK  # writing then says what is wrong
    return min(MAX_ON_DISK, (found.f_bavail * found.f_frsize + DISK.together) // 2)


MEMORY = Room(lambda: MAX_TOGETHER)
DISK = Room(_room_on_disk)


@contextmanager
def request_body(environ: WSGIEnvironment, limit: int) -> Iterator[bytearray]:
    """The whole request body, at most `limit` bytes; it counts against MAX_TOGETHER until the block ends.

    Raises Unreadable (413, 408, 503), or ClientGone when it ends early.
    """
    share = Share(MEMORY)
    body = bytearray()
    try:
        for piece in _pieces(environ, limit, share):
            check_size(len(body) + len(piece), limit, share)
            body += piece
            share.take(len(body))
        yield body
    finally:
        share.take(0)


@contextmanager
def spooled_body(environ: WSGIEnvironment, limit: int, look: Callable[[bytes], None]) -> Iterator[Spool]:
    """The whole request body in a file that is gone when the block ends; `look` is shown each piece that arrives. It
    counts against MAX_ON_DISK until then.

    Raises Unreadable (413, 408, 503), or ClientGone when it ends early, and what `look` raises.
    """
    share = Share(DISK)
    try:
        with tempfile.SpooledTemporaryFile(max_size=FREE) as file:
            spool = Spool(file)
            for piece in _pieces(environ, limit, share):
                check_size(spool.length + len(piece), limit, share)
                look(piece)
                _write(file, piece)
                spool.length += len(piece)
                share.take(spool.length)
            yield spool
    finally:
        share.take(0)


def _write(file: SpooledTemporaryFile[bytes], piece: bytes) -> None:
    try:
        file.write(piece)
    except OSError as error:
        log.error("cannot keep a request body of more than %d bytes: %s", FREE, error)
        message = "there is no room for this request's body"
        raise Unreadable(503, message, retry_after=FULL_RETRY_SECONDS) from None


class Spool:
    """A body of `length` bytes; each iteration reads it from its start."""

    def __init__(self, file: SpooledTemporaryFile[bytes]) -> None:
        self.length = 0
        self._file = file

    def __iter__(self) -> Iterator[bytes]:
        self._file.seek(0)
        while piece := self._file.read(PIECE):
            yield piece


def _pieces(environ: WSGIEnvironment, limit: int, share: Share) -> Iterator[bytes]:
    """A body as it arrives. Raises Unreadable before any of it is read if its length is too large already."""
    declared = environ.get("CONTENT_LENGTH") or ""
    length = int(declared) if declared.isdecimal() else None
    if length is not None:
        check_size(length, limit, share)
    received = 0
    # Without a length there is no body, or a chunked one; gunicorn ends it where it ends.
    while length is None or received < length:
        piece = _piece(environ, PIECE if length is None else min(PIECE, length - received))
        if not piece:
            break
        received += len(piece)
        yield piece
    if length is not None and received < length:
        raise ClientGone


def check_size(size: int, limit: int, share: Share) -> None:
    """Raise Unreadable when a body of `size` bytes is too large: for itself (413), or together with others (503)."""
    if size > limit:
        raise Unreadable(413, f"the request body is larger than {limit} bytes")
    share.check(size)


def _piece(environ: WSGIEnvironment, size: int) -> bytes:
    try:
        piece: bytes = environ["wsgi.input"].read(size)
    except TimeoutError:
        raise Unreadable(408, "the request body did not arrive in time") from None
    return piece


class Request(msgspec.Struct):
    """What the router wants of a request; msgspec checks the rest and skips it."""

    model: msgspec.Raw = msgspec.Raw(b"null")


# The scan holds Python's global lock, so that a thread would keep other requests waiting as well. It takes some 2 ms
# for a MiB of the worst document (nothing but brackets), and 0.2 ms for one of images or text.
_decoder = msgspec.json.Decoder(Request)


def model_of(body: bytes | bytearray) -> str | None:
    """The "model" of a request, None when it names none; the last one counts. Raises Refused (400).

    `body` must be one JSON object (RFC 8259), in UTF-8 throughout. A string with half a surrogate pair is none.
    """
    if not body or body.isspace():
        raise invalid(EMPTY)
    try:
        check_utf8(body)
        found = memoryview(_decoder.decode(body).model)
    except msgspec.ValidationError:
        raise invalid("cannot use the request body: it must be a JSON object") from None
    except RecursionError:
        raise invalid("cannot parse the request body as JSON: it is nested too deeply") from None
    except ValueError as error:
        raise invalid(f"cannot parse the request body as JSON: {error}") from None
    raw = bytes(found[: MAX_ESCAPED_NAME + 1])
    if raw == b"null":
        return None
    if not raw.startswith(b'"'):
        raise missing_model()
    if len(raw) > MAX_ESCAPED_NAME or len(model := msgspec.json.decode(raw, type=str)) > MAX_MODEL_NAME:
        raise invalid(f"cannot use the request body: its model's name has more than {MAX_MODEL_NAME} characters")
    return model or None


def check_utf8(body: bytes | bytearray) -> None:
    """Raise ValueError unless `body` is UTF-8; msgspec does not look at strings that it skips.

    By pieces: decoded in one, it would take up to four times the memory, and keep other requests waiting.
    """
    if body.isascii():
        return
    decoder, turns = codecs.getincrementaldecoder("utf-8")(), Turns()
    try:
        for start in range(0, len(body), PIECE):
            decoder.decode(body[start : start + PIECE])
            turns.next()
        decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not UTF-8: {error.reason}") from None
