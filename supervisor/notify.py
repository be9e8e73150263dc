"""The supervisor's own NOTIFY_SOCKET, on which its children say READY=1, STATUS= and the like (sd_notify(3)).

One datagram socket for all of them. The kernel attests the sender's pid (SO_PASSCRED, unix(7)); its process group is
the launch it belongs to, so that a child of a child may speak for it but nobody else can.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from supervisor.core.events import Notified
from supervisor.unix_socket import Bound, BoundPath

MAX_DATAGRAM = 8192
MAX_AT_ONCE = 512  # more than usually wait at once (net.unix.max_dgram_qlen), so that a flood does not hold up the loop
MAX_STATUS = 300
UCRED = struct.Struct("iII")  # pid, uid, gid
OUT_OF_MEMORY = "12"  # ENOMEM, as ERRNO= carries it


@dataclass(frozen=True)
class Notification:
    """One datagram. `group` is the sender's process group; `progress` is between 0 and 1."""

    group: int
    ready: bool
    status: str | None
    progress: float | None
    out_of_memory: bool
    alive: bool = False
    stuck: bool = False

    def of(self, launch: int) -> Notified:
        """The same as an event of the launch."""
        return Notified(
            launch, self.ready, self.status, self.progress, self.out_of_memory, alive=self.alive, stuck=self.stuck
        )


class NotifySocket:
    """Bound at `path`, mode 0600. Raises OSError when that is not possible."""

    def __init__(self, path: Path, inherited: Bound | None = None) -> None:
        self.path = path
        if inherited is not None:
            self._socket = socket.socket(fileno=inherited.fd)
            self._socket.setblocking(False)
            self._bound = BoundPath(path, inherited.identity)
            return
        path.unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._socket.bind(str(path))
        path.chmod(0o600)
        self._bound = BoundPath(path)

    def fileno(self) -> int:
        """For the selector."""
        return self._socket.fileno()

    def handed_over(self) -> Bound:
        """For another program to go on with."""
        return self._bound.handed_over(self.fileno())

    def close(self) -> None:
        """Stop listening and remove the socket."""
        self._socket.close()
        self._bound.remove()

    def receive(self) -> Iterator[Notification]:
        """What has arrived, MAX_AT_ONCE at most. Datagrams of processes that are gone without a trace are dropped."""
        for _ in range(MAX_AT_ONCE):
            try:
                data, control, _, _ = self._socket.recvmsg(MAX_DATAGRAM, socket.CMSG_SPACE(UCRED.size))
            except BlockingIOError:
                return
            for level, kind, credentials in control:
                if level == socket.SOL_SOCKET and kind == socket.SCM_CREDENTIALS:
                    try:
                        group = os.getpgid(UCRED.unpack(credentials)[0])
                    except ProcessLookupError:
                        continue
                    yield parse(data, group)


def parse(data: bytes, group: int) -> Notification:
    """Read the lines of one datagram; what is unknown or malformed in it is passed over."""
    lines = data.decode(errors="replace").splitlines()
    fields = dict(line.split("=", 1) for line in lines if "=" in line)
    status = fields.get("STATUS")
    return Notification(
        group=group,
        ready=fields.get("READY") == "1",
        status=None if status is None else status[:MAX_STATUS],
        progress=_fraction(fields.get("X_PROGRESS")),
        out_of_memory=fields.get("ERRNO") == OUT_OF_MEMORY,
        alive=fields.get("WATCHDOG") == "1",
        stuck=fields.get("WATCHDOG") == "trigger",
    )


def _fraction(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if 0.0 <= value <= 1.0 else None
