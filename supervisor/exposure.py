"""Who may use the API, as it is decided when llama-router starts: where it listens, and which keys there are."""

from __future__ import annotations

import ctypes
import os
import shlex
import socket
from dataclasses import dataclass
from pathlib import Path

from supervisor import access, keys_db
from supervisor.configuration import Configuration
from supervisor.core import exposure, keys
from supervisor.core.config import Listen
from supervisor.core.keys import KEYS_FILE, VARIABLE
from supervisor.errors import Problem
from supervisor.paths import printable

Hashes = tuple[bytes, ...]


@dataclass(frozen=True)
class Admission:
    """What the web tier is told: whether everybody may use the API while there is no key, the keys of VARIABLE as
    core.keys.digest has them, and the file with others."""

    keyless: bool
    hashes: Hashes = ()
    key_file: Path | None = None

    def sources(self) -> dict[str, int | str | None]:
        """For the status object: how many keys VARIABLE held, and the path of the file."""
        return {"environment": len(self.hashes), "file": None if self.key_file is None else printable(self.key_file)}


def take_keys() -> Hashes:
    """The keys of VARIABLE, which is gone then: from what is started afterwards, and from /proc/self/environ, which
    model servers of the same user could read."""
    libc = ctypes.CDLL(None)
    libc.getenv.restype = ctypes.c_void_p
    address, value = libc.getenv(VARIABLE.encode()), os.environ.get(VARIABLE, "")
    if address:
        ctypes.memset(address, 0, len(os.fsencode(value)))
    os.environ.pop(VARIABLE, None)
    return tuple(keys.digest(os.fsencode(key)) for key in keys.in_variable(value))


def admission(configuration: Configuration, listen: Listen, hashes: Hashes) -> Admission:
    """For one that listens there."""
    web, file = configuration.config.web, configuration.config.web.api_key_file
    return Admission(
        exposure.is_keyless(is_private=is_private(listen), allow_anyone=web.allow_anyone),
        hashes,
        None if file is None else configuration.path.parent / file,
    )


def problems(configuration: Configuration, listen: Listen, state: Path, admitted: Admission) -> list[Problem]:
    """What keeps it from starting so. Keys that can't be read are no reason: then nobody can use the API."""
    why_not = exposure.refusal(
        str(listen),
        shlex.quote(printable(state)),
        is_keyless=admitted.keyless,
        has_key=bool(admitted.hashes or admitted.key_file or _may_have_key(state)),
        has_password=access.has_password(state),
    )
    return [] if why_not is None else [Problem(printable(configuration.path), None, "listen", why_not)]


def is_private(listen: Listen) -> bool:
    """Whether nobody but this machine's users reaches it: a UNIX socket, or a loopback address."""
    if listen.path is not None:
        return True
    try:
        found = socket.getaddrinfo(listen.host, listen.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError:
        return False
    return all(exposure.is_loopback(str(address[0])) for *_, address in found)


def _may_have_key(state: Path) -> bool:
    try:
        return os.path.lexists(state / KEYS_FILE) and keys_db.has_any(state / KEYS_FILE)
    except (OSError, keys_db.Error):
        return True
