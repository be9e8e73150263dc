"""Failed sign-ins of the last minute, counted over all workers: nobody tries passwords by the thousand.

An attempt counts as failed before its password is looked at, so a hundred at once are no way round. Browsers that have
signed in before bring a cookie that says so (OWASP, "Device Cookies"), and are counted apart from strangers: however
many of those there are, they keep nobody out who has been in. A browser whose own attempts are used up is a stranger.
The file is in the runtime directory, locked while it is used (flock(2)), and never longer than the attempts that are
let through.
"""

from __future__ import annotations

import fcntl
import ipaddress
import json
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from admin.who import UNIX
from supervisor.core.access import FAILURES_FILE
from supervisor.errors import Refused

if TYPE_CHECKING:
    from wsgiref.types import WSGIEnvironment

WINDOW_SECONDS = 60.0
OF_ONE = 5
OF_ALL = 50  # of a group
MAX_FILE = 65536  # OF_ALL entries of each group with the longest names are a quarter of that
MAX_NAME = 64  # characters
IPV6_NETWORK = 64  # bits that name a customer; the rest of an address is as many as one likes

Failure = tuple[float, "Group", str]


class Group(StrEnum):
    """Whose failures count together. Browsers of viewers are no strangers, but may be the admin's guessers."""

    STRANGERS = "strangers"
    VIEWERS = "viewers"
    ADMINS = "admins"


@dataclass(frozen=True)
class Visitor:
    """Who tries: an address, and the browser if it has signed in before, with the role it had then."""

    address: str
    browser: tuple[Group, str] | None = None

    def queues(self) -> list[tuple[Group, str]]:
        """Where its attempt may count, the first one that has room."""
        return [*filter(None, [self.browser]), (Group.STRANGERS, self.address)]


@dataclass
class Throttle:
    """Times are those of CLOCK_MONOTONIC, which all processes share and nobody sets."""

    runtime_dir: Path

    def begin(self, visitor: Visitor) -> Failure:
        """Count an attempt as failed, and return it. Raises Refused: 429, with the time to wait, for one too many; 503
        if it can't be counted."""
        now = time.monotonic()
        with self._open() as failures:
            waits = {queue: failures.wait(*queue, now) for queue in visitor.queues()}
            wait = min(waits.values())
            if wait > 0:
                raise Refused(
                    f"too many failed attempts; the next one is looked at in {max(1, round(wait))} s. The link that "
                    "llama-router passwd --link prints does not wait",
                    status=429,
                    error_type="rate_limit_error",
                    retry_after=wait,
                )
            group, name = next(queue for queue in waits if waits[queue] <= 0)
            failures.entries.append((now, group, name))
        return now, group, name

    def succeeded(self, attempt: Failure, *, forgives: bool) -> None:
        """Take back an attempt, and if it `forgives` all others that count with it: who signs in as viewer may be
        guessing the admin's password meanwhile. Raises Refused (503)."""
        with self._open() as failures:
            if forgives:
                failures.entries = [entry for entry in failures.entries if entry[1:] != attempt[1:]]
            elif attempt in failures.entries:
                failures.entries.remove(attempt)

    @contextmanager
    def _open(self) -> Iterator[_Failures]:
        path = self.runtime_dir / FAILURES_FILE
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
            try:
                if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                    raise OSError(None, "it is not a regular file")
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                failures = _Failures(_recent(os.read(descriptor, MAX_FILE), time.monotonic()))
                yield failures
                data = json.dumps(failures.entries).encode()
                os.pwrite(descriptor, data, 0)
                os.ftruncate(descriptor, len(data))
            finally:
                fcntl.flock(descriptor, fcntl.LOCK_UN)  # gevent's os.close leaves the closing to its loop
                os.close(descriptor)
        except OSError as error:
            message = f"cannot count attempts to sign in, in {path}: {error.strerror or error}"
            raise Refused(message, status=503) from None


@dataclass
class _Failures:
    entries: list[Failure] = field(default_factory=list)

    def wait(self, group: Group, name: str, now: float) -> float:
        """Seconds until the next attempt may be made."""
        of_all = [at for at, its_group, _ in self.entries if its_group is group]
        of_one = [at for at, its_group, who in self.entries if (its_group, who) == (group, name)]
        return max(_wait(of_one, OF_ONE, now), _wait(of_all, OF_ALL, now))


def client_of(environ: WSGIEnvironment) -> str:
    """Who attempts count for: an IPv4 address, or a network of IPv6. Behind a reverse proxy that nobody trusts all are
    one."""
    address = environ.get("REMOTE_ADDR") or UNIX
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address[:MAX_NAME]
    if parsed.version == 6 and parsed.ipv4_mapped is None:
        return str(ipaddress.ip_network((parsed, IPV6_NETWORK), strict=False))
    return str(parsed.ipv4_mapped if parsed.version == 6 else parsed)


def _wait(failures: list[float], most: int, now: float) -> float:
    """Seconds until fewer than `most` of these, oldest first, are of the last WINDOW_SECONDS."""
    return failures[-most] + WINDOW_SECONDS - now if len(failures) >= most else 0.0


def _recent(data: bytes, now: float) -> list[Failure]:
    """Those of the last WINDOW_SECONDS; none of a file that is damaged, or of another boot."""
    try:
        entries = [(float(at), Group(group), str(who)[:MAX_NAME]) for at, group, who in json.loads(data or b"[]")]
    except (ValueError, TypeError, RecursionError):
        return []
    recent = sorted(entry for entry in entries if 0 <= now - entry[0] < WINDOW_SECONDS)
    return recent[-OF_ALL * len(Group) :]
