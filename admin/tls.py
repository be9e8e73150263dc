"""https: the certificate, read anew when its files change, and the handshake of a connection.

A renewed certificate counts for the next connection, without a restart. Its two files are replaced one after the other,
and may not fit meanwhile: until they can be used, the ones before stay in use.
"""

from __future__ import annotations

import logging
import os
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from admin.connection import linger, silent_timeout

LOOKED_AFTER_SECONDS = 1.0
GOODBYE_SECONDS = 1.0
HANDSHAKE = 0x16  # the first byte of every TLS connection: a record's content type (RFC 8446 §5.1)
NO_PASSWORD = ""  # given, so that OpenSSL does not ask for one on the terminal
PLAIN = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s"
PLAIN_TEXT = b"this port speaks https: write https:// instead of http://\n"

log = logging.getLogger("gunicorn.error.admin")

Pair = tuple[bytes, bytes]

# What could be used last, as far as the master knows: it forks workers, maybe at a moment when the files can't be.
_last: Pair | None = None


def remember(certificate: str, key: str) -> None:
    """The two files, if they can be used."""
    global _last
    with suppress(OSError):
        pair = _read(certificate), _read(key)
        _context(pair)
        _last = pair


class Certificate:
    """Two PEM files. Raises OSError, ssl.SSLError among them, when they can't be used, and never could."""

    def __init__(self, certificate: str, key: str) -> None:
        self._files = (certificate, key)
        self._seen = self._versions()
        self._complained = False
        try:
            self._context = self._opened()
        except OSError as error:
            if _last is None:
                raise
            self._complain(error)
            self._context = _context(_last)
        self._looked = time.monotonic()

    def wrap(self, client: socket.socket) -> ssl.SSLSocket | None:
        """Shake hands. None, and `client` is closed, for one that did not bring the handshake about."""
        try:
            first = client.recv(1, socket.MSG_PEEK)
            if first and first[0] != HANDSHAKE:
                client.sendall(PLAIN % (len(PLAIN_TEXT), PLAIN_TEXT))
                linger(client)
            elif first:
                return self._current().wrap_socket(client, server_side=True)
        except OSError as error:
            log.debug("no TLS with a client: %s", error)
        client.close()
        return None

    def _current(self) -> ssl.SSLContext:
        now = time.monotonic()
        if now - self._looked >= LOOKED_AFTER_SECONDS:
            self._looked = now
            if (seen := self._versions()) != self._seen:
                self._seen = seen
                try:
                    self._context = self._opened()
                except OSError as error:
                    self._complain(error)
                else:
                    self._settled()
        return self._context

    def _versions(self) -> list[tuple[int, int, int] | None]:
        seen: list[tuple[int, int, int] | None] = []
        for path in self._files:
            try:
                stat = os.stat(path)  # noqa: PTH116  a Path would be made each second
                seen.append((stat.st_ino, stat.st_size, stat.st_mtime_ns))
            except OSError:
                seen.append(None)
        return seen

    def _opened(self) -> ssl.SSLContext:
        certificate, key = self._files
        return _context((_read(certificate), _read(key)))

    def _complain(self, error: OSError) -> None:
        self._complained = True
        log.error("cannot use %s, which have changed: %s; those before stay in use", " and ".join(self._files), error)

    def _settled(self) -> None:
        """They can be used: told to those who were told that they can't."""
        if self._complained:
            self._complained = False
            log.warning("%s can be used again, and are in use", " and ".join(self._files))


def _read(path: str) -> bytes:
    return Path(path).read_bytes()


def _context(pair: Pair) -> ssl.SSLContext:
    """OpenSSL's, which takes files only. Raises ssl.SSLError."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.set_alpn_protocols(["http/1.1"])
    with _file(pair[0]) as certificate, _file(pair[1]) as key:
        context.load_cert_chain(certificate, key, NO_PASSWORD)
    return context


@contextmanager
def _file(content: bytes) -> Iterator[str]:
    """The path of a file in memory."""
    descriptor = os.memfd_create("pem")
    try:
        os.write(descriptor, content)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


def goodbye(client: socket.socket) -> None:
    """Say that nothing follows (close_notify), on a connection with TLS: without it a client takes an answer that ends
    with its connection for one that was cut."""
    if isinstance(client, ssl.SSLSocket):
        with suppress(OSError, ValueError), silent_timeout(GOODBYE_SECONDS):
            client.unwrap()
