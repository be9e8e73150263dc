"""The head of a model server's answer, read by http.client, which makes something of every head: of half a one, of one
with lines that are no fields, and of lengths that are no numbers. What it then takes for the end of a body is none.
"""

from __future__ import annotations

from http import HTTPStatus
from http.client import HTTPException, HTTPResponse, RemoteDisconnected
from typing import Any

MAX_INTERIM = 100  # answers before the final one
MAX_DIGITS = 18  # of a length


class Malformed(HTTPException):
    """What the server sent is no HTTP/1.1 (RFC 9112), or HTTP that nobody asked for."""


class Response(HTTPResponse):
    """An answer whose head came whole and can be relied upon; interim answers before it are passed over."""

    def begin(self) -> None:
        """Read the head. Raises Malformed, OSError, or RemoteDisconnected when the connection ends before it does."""
        file = self.fp
        lines: Any = _Lines(file)
        self.fp = lines
        try:
            self._read_heads()
        except HTTPException as error:
            if lines.ended:
                raise
            raise Malformed(str(error) or repr(error)) from None
        finally:
            if self.fp is not None:  # else http.client has closed it
                self.fp = file
        if lines.ended:
            raise RemoteDisconnected("the connection ended in the head")
        self._check()

    def _read_heads(self) -> None:
        super().begin()
        for _ in range(MAX_INTERIM):
            if self.status >= HTTPStatus.OK or self.status == HTTPStatus.SWITCHING_PROTOCOLS:
                return
            self.headers = self.msg = None  # type: ignore[assignment]  # "not begun", as http.client has it
            super().begin()

    def _check(self) -> None:
        if self.status < HTTPStatus.OK:
            raise Malformed(f"status {self.status} is no final one")
        if self.headers.defects or self.headers.get_payload() or self.headers.get_unixfrom():
            raise Malformed("its head has a line that is no field")
        lengths = self.headers.get_all("content-length", [])
        if any(not (len(each) <= MAX_DIGITS and each.isascii() and each.isdecimal()) for each in lengths):
            raise Malformed(f"Content-Length is {lengths[0][:100]!r}")
        if len(set(lengths)) > 1:
            raise Malformed("it has two lengths")
        codings = self.headers.get_all("transfer-encoding", [])
        if codings and (len(codings) > 1 or not self.chunked):
            raise Malformed(f"Transfer-Encoding is {', '.join(codings)[:100]!r}")

    def check_chunk(self) -> None:
        """Raise Malformed if the chunk that is being read has a size below zero."""
        left = self.chunk_left if self.chunked else None
        if isinstance(left, int) and left < 0:
            raise Malformed("a chunk's size is negative")


class _Lines:
    """A file that is read by lines; `ended` says whether it ended within the last one, or before it."""

    def __init__(self, file: Any) -> None:
        self.ended = False
        self._file = file

    def readline(self, limit: int) -> bytes:
        line: bytes = self._file.readline(limit)
        self.ended = len(line) < limit and not line.endswith(b"\n")
        return line

    def close(self) -> None:
        self._file.close()
