"""The listening socket of the web tier, bound by the supervisor: an address in use is known before anything starts,
and a web tier that restarts refuses no connection.

Or systemd listens on it and passes it on (socket activation, sd_listen_fds(3)): then connections wait while the
supervisor restarts, too.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from collections.abc import MutableMapping
from pathlib import Path

import msgspec

from supervisor.core.config import Listen
from supervisor.errors import CannotListen
from supervisor.unix_socket import BoundPath, Identity

BACKLOG = 2048
LOOPBACK = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}  # noqa: S104  where this machine reaches what listens everywhere
FIRST_PASSED_FD = 3  # SD_LISTEN_FDS_START


def passed(environment: MutableMapping[str, str]) -> socket.socket | None:
    """The listening socket that systemd passed to this process, if it did.

    Its variables are taken out of `environment`, and no child inherits the socket by itself. Raises CannotListen for
    more than one, and for one that is no listening stream socket.
    """
    process, count = (environment.pop(name, "") for name in ("LISTEN_PID", "LISTEN_FDS"))
    for name in ("LISTEN_FDNAMES", "LISTEN_PIDFDID"):
        environment.pop(name, None)
    if process != str(os.getpid()) or count in ("", "0"):
        return None
    if count != "1":
        raise CannotListen(
            f"cannot listen on {count} sockets that systemd passed: llama-router takes one; "
            "write a single ListenStream= into llama-router.socket"
        )
    try:
        sock = socket.socket(fileno=FIRST_PASSED_FD)
        sock.set_inheritable(False)
        listens = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError as error:
        raise CannotListen(f"cannot listen on what systemd passed: {error.strerror or error}") from None
    known = sock.family in (socket.AF_INET, socket.AF_INET6) or (sock.family == socket.AF_UNIX and _path_of(sock))
    if not (listens and sock.type == socket.SOCK_STREAM and known):
        sock.close()
        raise CannotListen(
            "cannot listen on the socket that systemd passed: it is no listening stream socket; write "
            "ListenStream=127.0.0.1:8080, or the path of a UNIX socket, and no Accept=yes, into llama-router.socket"
        )
    return sock


class Listening(msgspec.Struct, frozen=True):
    """A listener that one program hands over to another: its descriptor, its `address`, the identity of the path if it
    is bound to one, and whether it is systemd's."""

    fd: int
    address: str
    identity: Identity | None
    is_passed: bool


class Listener:
    """Bound and listening, for clients that speak `scheme`. `url` is where people reach it. Raises CannotListen.

    A socket that was `passed` is used in place of `listen`, and stays systemd's; `inherited` is another program's.

    `address` is such as "127.0.0.1:8080", "[::1]:8080" or "unix:/run/llama.sock", with the real port where 0 was asked
    for; it can still be told when the socket is closed.
    """

    def __init__(
        self,
        listen: Listen,
        scheme: str = "http",
        passed: socket.socket | None = None,
        inherited: Listening | None = None,
    ) -> None:
        self._scheme = scheme
        if inherited is not None:
            self._socket = socket.socket(fileno=inherited.fd)
            self.is_passed, self.address = inherited.is_passed, inherited.address
            self._path = Path(self.address.removeprefix("unix:")) if self.address.startswith("unix:") else None
            self._bound = BoundPath(self._path, inherited.identity) if self._path and not self.is_passed else None
            return
        self.is_passed = passed is not None
        self._socket = _listening(listen) if passed is None else passed
        path = listen.path if passed is None else _path_of(passed)
        self._path = Path(path) if path else None
        self._bound = BoundPath(self._path) if self._path and passed is None else None
        self.address = f"unix:{self._path}" if self._path else _address_of(self._socket)

    @property
    def url(self) -> str:
        """What a browser on this machine opens; for a UNIX socket, its address."""
        if self._path is not None:
            return self.address
        host, _, port = self.address.rpartition(":")
        return f"{self._scheme}://{LOOPBACK.get(host, host)}:{port}"

    @property
    def told(self) -> str:
        """`url`, and what else there is to know about who reaches it."""
        is_everywhere = self._path is None and self.address.rpartition(":")[0] in LOOPBACK
        return f"{self.url} (listening on {self.address}, which others reach)" if is_everywhere else self.url

    def is_at(self, listen: Listen) -> bool:
        """Whether an address means this one."""
        if listen.path is not None or self._path is not None:
            return listen.path == _path_of(self._socket)
        with contextlib.suppress(OSError):
            found = socket.getaddrinfo(listen.host, listen.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            return found[0][4][:2] == tuple(self._socket.getsockname()[:2])
        return False

    def handed_over(self) -> Listening:
        """For another program to go on with."""
        fd = self.fileno()
        return Listening(
            fd, self.address, self._bound.handed_over(fd).identity if self._bound else None, self.is_passed
        )

    def fileno(self) -> int:
        """The descriptor, for the web tier."""
        return self._socket.fileno()

    def close(self) -> None:
        """Take no more connections; harmless the second time."""
        if self._socket.fileno() >= 0:
            self._socket.close()
            if self._bound is not None:
                self._bound.remove()


def _listening(listen: Listen) -> socket.socket:
    try:
        sock = _unix(Path(listen.path)) if listen.path else _tcp(str(listen.host), listen.port or 0)
    except OSError as error:
        raise CannotListen(
            f"cannot listen on {listen}: {error.strerror or error}; "
            "stop what uses it, or choose another address with --listen"
        ) from None
    sock.listen(BACKLOG)
    return sock


def _path_of(sock: socket.socket) -> str | None:
    """None for a socket of the network, and for one with an abstract name (unix(7))."""
    name = sock.getsockname()
    return name if isinstance(name, str) and name.startswith("/") else None


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
