"""An answer as it arrives from a model server: its head, then its body, each time as much of it as there is."""

from __future__ import annotations

import re
import socket

from admin.heads import FIRST_FINAL, MAX_HEAD, MAX_LINE, SWITCHING_PROTOCOLS, Head, Malformed, end_of, parse

READ_BYTES = 65536
MAX_INTERIM = 100  # answers before the final one
FIRST_REDIRECTION = 300  # the first status that is no success

_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\r]*)?\r?")


class BrokenOff(Exception):
    """The connection ended within the answer."""


class Incoming:
    """The answer to the request of `method` that was sent on `sock`. `is_whole`: its end was read."""

    def __init__(self, sock: socket.socket, method: str) -> None:
        """Wait for its `head`, and pass over interim ones. Raises Malformed, BrokenOff or OSError."""
        self.is_whole = False
        self._sock = sock
        self._unread = b""
        for _ in range(MAX_INTERIM):
            self.head = self._next_head(method)
            if self.head.status >= FIRST_FINAL:
                break
        else:
            raise Malformed("it is never final")
        self._left = self.head.length or 0  # of the body, or of a chunk of it
        self._is_behind_chunk = False
        self._trailers: int | None = None  # bytes of them, once they have begun
        self._has_body = False

    @property
    def leaves_connection(self) -> bool:
        """Whether the server waits for another request on its connection."""
        return self.is_whole and not self.head.closes and not self._unread

    def read(self) -> bytes:
        """What has arrived of the body, b"" at its end. Raises Malformed, BrokenOff or OSError."""
        if self.is_whole:
            return b""
        if self.head.chunked:
            data = self._read_chunks()
        elif self.head.length is None:
            data = self._read_until_close()
        else:
            data = self._read_some()
        return data

    def _next_head(self, method: str) -> Head:
        seen = 0
        while (end := end_of(self._unread, seen)) < 0:
            seen = len(self._unread)
            self._receive("in the head")
        head, self._unread = parse(self._unread[:end], method), self._unread[end:]
        if head.status == SWITCHING_PROTOCOLS:
            raise Malformed("nobody asked for another protocol")
        return head

    def _receive(self, where: str) -> None:
        data = self._sock.recv(READ_BYTES)
        if not data:
            raise BrokenOff(f"the connection ended {where}")
        self._unread = self._unread + data if self._unread else data

    def _read_some(self) -> bytes:
        if self._left and not self._unread:
            self._receive(f"with {self._left} bytes of the body missing")
        data, self._unread = self._unread[: self._left], self._unread[self._left :]
        self._left -= len(data)
        self.is_whole = not self._left
        return data

    def _read_until_close(self) -> bytes:
        data, self._unread = self._unread or self._sock.recv(READ_BYTES), b""
        # Of redirections and errors the head says all, and servers that end bodies in this way often send none.
        if not data and not self._has_body and self.head.status < FIRST_REDIRECTION:
            raise BrokenOff("the connection ended right behind the head")
        self._has_body = True
        self.is_whole = not data
        return data

    def _read_chunks(self) -> bytes:
        while not (data := self._arrived_chunks()) and not self.is_whole:
            if self._trailers is None:
                self._receive("within a body of chunks")
            elif not self._receive_trailers():
                self.is_whole = True  # the last chunk was there
        return data

    def _receive_trailers(self) -> bool:
        data = self._sock.recv(READ_BYTES)
        self._unread += data
        return bool(data)

    def _arrived_chunks(self) -> bytes:
        """The data of all chunks, and parts of one, that have arrived."""
        data, unread, at = [], self._unread, 0
        while at < len(unread) and self._trailers is None:
            if self._left:
                piece = unread[at : at + self._left]
                self._left -= len(piece)
                self._is_behind_chunk = not self._left
                data.append(piece)
                at += len(piece)
                continue
            try:
                behind = self._end_chunk(unread, at) if self._is_behind_chunk else self._begin_chunk(unread, at)
            except Malformed:
                if not data:
                    raise
                behind = -1  # what came before it goes first
            if behind < 0:
                break
            at = behind
        self._unread = unread[at:]
        if self._trailers is not None and not data:
            self._skip_trailers()
        return data[0] if len(data) == 1 else b"".join(data)

    def _end_chunk(self, unread: bytes, at: int) -> int:
        """Where the newline behind a chunk ends, -1 if it is not there."""
        if unread.startswith((b"\r\n", b"\n"), at):
            self._is_behind_chunk = False
            return unread.index(b"\n", at) + 1
        if unread[at:] != b"\r":
            raise Malformed(f"behind a chunk stands {unread[at : at + 20]!r}")
        return -1

    def _begin_chunk(self, unread: bytes, at: int) -> int:
        """Read a chunk's size: where that ends, -1 if it is not there."""
        end = unread.find(b"\n", at)
        if (end if end >= 0 else len(unread)) - at > MAX_LINE:
            raise Malformed("a chunk's size has no end")
        if end < 0:
            return -1
        size = _SIZE.fullmatch(unread, at, end)
        if size is None:
            raise Malformed(f"a chunk's size is {unread[at:end][:100]!r}")
        self._left = int(size[1], 16)
        if not self._left:
            self._trailers = 0
        return end + 1

    def _skip_trailers(self) -> None:
        """They end with an empty line."""
        assert self._trailers is not None
        while not self.is_whole:
            line, newline, rest = self._unread.partition(b"\n")
            if self._trailers + len(line) > MAX_HEAD:
                raise Malformed("its trailers are too long")
            if not newline:
                return
            self._trailers += len(line)
            self._unread = rest
            self.is_whole = line in (b"\r", b"")
