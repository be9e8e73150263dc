"""The listening socket of the web tier, bound by the supervisor: an address in use is known before anything starts,
and a web tier that restarts refuses no connection.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from pathlib import Path

from supervisor.core.config import Listen
from supervisor.errors import CannotListen
from supervisor.unix_socket import BoundPath

BACKLOG = 2048


class Listener:
    """Bound and listening, for clients that speak `scheme`. `url` is where people reach it. Raises CannotListen.

    `address` is such as "127.0.0.1:8080", "[::1]:8080" or "unix:/run/llama.sock", with the real port where 0 was asked
    for; it can still be told when the socket is closed.
    """

    def __init__(self, listen: Listen, scheme: str = "http") -> None:
        self._scheme = scheme
        self._path: Path | None = Path(listen.path) if listen.path else None
        try:
            self._socket = _unix(self._path) if self._path else _tcp(str(listen.host), listen.port or 0)
        except OSError as error:
            raise CannotListen(
                f"cannot listen on {listen}: {error.strerror or error}; "
                "stop what uses it, or choose another address with --listen"
            ) from None
        self._bound = BoundPath(self._path) if self._path else None
        self._socket.listen(BACKLOG)
        self.address = f"unix:{self._path}" if self._path else _address_of(self._socket)

    @property
    def url(self) -> str:
        """What a browser on this machine opens; for a UNIX socket, its address."""
        if self._path is not None:
            return self.address
        return f"{self._scheme}://" + self.address.replace("0.0.0.0:", "127.0.0.1:").replace("[::]:", "[::1]:")

    def fileno(self) -> int:
        """The descriptor, for the web tier."""
        return self._socket.fileno()

    def close(self) -> None:
        """Take no more connections; harmless the second time."""
        if self._socket.fileno() >= 0:
            self._socket.close()
            if self._bound is not None:
                self._bound.remove()


def _tcp(host: str, port: int) -> socket.socket:
    family, _, _, _, target = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(target)
    except BaseException:
        sock.close()
        raise
    return sock


def _address_of(sock: socket.socket) -> str:
    host, port = sock.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _unix(path: Path) -> socket.socket:
    """A socket nobody listens on any more is replaced; anything else at `path` is left alone."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        with contextlib.suppress(FileNotFoundError):
            if stat.S_ISSOCK(path.stat().st_mode) and not _answers(path):
                path.unlink()
        mask = os.umask(0o117)
        try:
            sock.bind(str(path))
        finally:
            os.umask(mask)
    except BaseException:
        sock.close()
        raise
    return sock


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return False
        except BlockingIOError:  # its queue is full
            return True
        return True
