"""Reading request bodies: bounded, whole or not at all, and the one thing the router wants of them, "model".

A body costs no more memory than its bytes, whatever it holds: no other part of its document is ever built.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import gevent
import msgspec

from admin.connection import ClientGone
from admin.errors import Unreadable, invalid, missing_model

if TYPE_CHECKING:
    from wsgiref.types import WSGIEnvironment

MAX_MODEL_NAME = 1024  # characters; far above any preset's, far below a control message's limit
MAX_ESCAPED_NAME = 12 * MAX_MODEL_NAME + 2  # bytes; a character is two escapes of six bytes at most, then the quotes
PIECE = 1024 * 1024

# What the bodies of all requests of a worker may take together, each one's first FREE bytes not counted: clients that
# hoard large bodies keep nobody from asking small questions.
MAX_TOGETHER = 1024 * 1024 * 1024
FREE = 64 * 1024
FULL_RETRY_SECONDS = 5.0


class Share:
    """How much of MAX_TOGETHER one body takes."""

    together = 0

    def __init__(self) -> None:
        self._taken = 0

    def check(self, size: int) -> None:
        """Raise Unreadable (503) when there is no room for this body to become `size` bytes."""
        if Share.together - self._taken + size - FREE > MAX_TOGETHER:
            message = "the large bodies of other requests leave no room for this one"
            raise Unreadable(503, message, retry_after=FULL_RETRY_SECONDS)

    def take(self, size: int) -> None:
        """The body has `size` bytes now."""
        taken = max(0, size - FREE)
        Share.together += taken - self._taken
        self._taken = taken


@contextmanager
def request_body(environ: WSGIEnvironment, limit: int) -> Iterator[bytearray]:
    """The whole request body, at most `limit` bytes; it counts against MAX_TOGETHER until the block ends.

    Raises Unreadable (413, 408, 503), or ClientGone when it ends early.
    """
    declared = environ.get("CONTENT_LENGTH") or ""
    length = int(declared) if declared.isdecimal() else None
    share = Share()
    if length is not None:
        check_size(length, limit, share)
    body = bytearray()
    try:
        # Without a length there is no body, or a chunked one; gunicorn ends it where it ends.
        while length is None or len(body) < length:
            piece = _piece(environ, PIECE if length is None else min(PIECE, length - len(body)))
            if not piece:
                break
            check_size(len(body) + len(piece), limit, share)
            body += piece
            share.take(len(body))
        if length is not None and len(body) < length:
            raise ClientGone
        yield body
    finally:
        share.take(0)


def check_size(size: int, limit: int, share: Share) -> None:
    """Raise Unreadable when a body of `size` bytes is too large, for itself (413) or with all others (503)."""
    if size > limit:
        raise Unreadable(413, f"the request body is larger than {limit} bytes")
    share.check(size)


def _piece(environ: WSGIEnvironment, size: int) -> bytes:
    try:
        piece: bytes = environ["wsgi.input"].read(size)
    except TimeoutError:
        raise Unreadable(408, "the request body did not arrive in time") from None
    if len(piece) == PIECE:
        gevent.sleep(0)  # reading waits only for what has not arrived, so a fast sender would hold up everybody
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
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        for start in range(0, len(body), PIECE):
            decoder.decode(body[start : start + PIECE])
            if len(body) > PIECE:
                gevent.sleep(0)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not UTF-8: {error.reason}") from None
