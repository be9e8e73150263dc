"""Finding "model" in a multipart form (RFC 7578) while it arrives; nothing of its files is kept.

The form is forwarded as it came. So that the router and the model server can't read two models in it, one that names
several is refused, and lines must end with CRLF, as the servers behind want it.
"""

from __future__ import annotations

import re

from werkzeug.http import parse_options_header

from admin.body import MAX_MODEL_NAME
from admin.errors import invalid, missing_model
from admin.turns import Turns
from supervisor.errors import Refused

FORM = "multipart/form-data"
FIELD = "model"
MAX_PARTS = 1000
MAX_HEAD = 16 * 1024  # bytes of a part's headers
MAX_NAME_BYTES = 4 * MAX_MODEL_NAME
MAX_PADDING = 128  # bytes of white space behind a boundary, the line's end included

_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,\-./:=? ]{0,69}[0-9A-Za-z'()+_,\-./:=?]")  # RFC 2046 §5.1.1
_BEHIND = rb"(?:(--)|[ \t]{0,%d}\r\n)" % (MAX_PADDING - 2)
_DISPOSITION = re.compile(rb"\r\ncontent-disposition:([^\r\n]*)", re.IGNORECASE)


def is_form(content_type: str) -> bool:
    """Whether a Content-Type is that of a multipart form."""
    return content_type.partition(";")[0].strip().lower() == FORM


class ModelField:
    """Reads a form, piece by piece. Every method raises Refused (400) for what is no such form."""

    def __init__(self, content_type: str) -> None:
        boundary = parse_options_header(content_type)[1].get("boundary", "")
        if not _BOUNDARY.fullmatch(boundary):
            raise _unreadable("its Content-Type names no boundary")
        self._delimiter = b"\r\n--" + boundary.encode()
        self._boundary = re.compile(re.escape(self._delimiter) + _BEHIND)
        self._buffer = bytearray(b"\r\n")  # the first boundary may be the first line
        self._step = self._read_data
        self._parts = 0
        self._value: bytearray | None = None  # of the part that is read, if it is the field
        self._found: list[bytearray] = []
        self._ended = False

    def feed(self, piece: bytes) -> None:
        """More of the form. Others are served between its parts."""
        self._buffer += piece
        turns = Turns()
        while self._step():
            turns.next()

    def model(self) -> str | None:
        """At the end of the form: the model it names, None if it names none."""
        if not self._ended:
            raise _unreadable("it ends before its last boundary")
        names = {bytes(name) for name in self._found}
        if len(names) > 1:
            raise _unreadable("it names more than one model")
        try:
            model = names.pop().decode() if names else ""
        except UnicodeDecodeError:
            raise _unreadable("its model's name is not UTF-8") from None
        if len(model) > MAX_MODEL_NAME:
            raise _too_long()
        return model or None

    def _read_data(self) -> bool:
        """Up to the next boundary, or as far as none can begin.

        What looks like one is passed over by one search, however much of it there is.
        """
        match = self._boundary.search(self._buffer, max(0, self._buffer.find(self._delimiter)))
        if match is None:
            self._take(max(0, len(self._buffer) - len(self._delimiter) - MAX_PADDING))
            return False
        start, end = match.span()
        self._take(start)
        if match.lastindex:
            self._ended = True
            self._step = self._read_rest
        else:
            # The line's end stays: it begins the first header, or the empty line if there is none.
            del self._buffer[: end - start - 2]
            self._step = self._read_head
        return True

    def _read_head(self) -> bool:
        end = self._buffer.find(b"\r\n\r\n", 0, MAX_HEAD)
        if end < 0:
            if len(self._buffer) >= MAX_HEAD:
                raise _unreadable(f"the headers of a part have more than {MAX_HEAD} bytes")
            return False
        self._begin(bytes(self._buffer[:end]))
        del self._buffer[: end + 2]  # an empty part's boundary begins with the end of this line
        self._step = self._read_start
        return True

    def _read_start(self) -> bool:
        """The rest of the empty line, unless it belongs to the boundary behind an empty part."""
        if len(self._buffer) < len(self._delimiter) and self._delimiter.startswith(bytes(self._buffer)):
            return False
        if not self._buffer.startswith(self._delimiter):
            del self._buffer[:2]
        self._step = self._read_data
        return True

    def _read_rest(self) -> bool:
        self._buffer.clear()
        return False

    def _begin(self, head: bytes) -> None:
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise _unreadable(f"it has more than {MAX_PARTS} parts")
        match = _DISPOSITION.search(head)
        if match is None:
            raise _unreadable("a part has no Content-Disposition")
        options = parse_options_header(match[1].decode("utf-8", "replace").strip())[1]
        self._value = None
        if options.get("name") != FIELD:
            return
        if "filename" in options:
            raise missing_model()
        self._value = bytearray()
        self._found.append(self._value)

    def _take(self, size: int) -> None:
        """`size` bytes belong to the part, or stand before the first one."""
        if self._value is not None:
            self._value += self._buffer[:size]
            if len(self._value) > MAX_NAME_BYTES:
                raise _too_long()
        del self._buffer[:size]


def _unreadable(why: str) -> Refused:
    return invalid(f"cannot read the form: {why}")


def _too_long() -> Refused:
    return _unreadable(f"its model's name has more than {MAX_MODEL_NAME} characters")
