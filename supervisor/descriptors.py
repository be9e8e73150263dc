"""How many files may be open: each waiting request is a control connection, and the usual 1,024 are soon used up."""

from __future__ import annotations

import resource

ENOUGH = 65536
RESERVED = 256  # for logs, pidfds, probes, and files opened for a moment

_given = resource.getrlimit(resource.RLIMIT_NOFILE)


def given() -> tuple[int, int]:
    """What this process was started with."""
    return _given


def was_given(limits: tuple[int, int]) -> None:
    """Say what the process was started with, of which this is not the first program."""
    global _given
    _given = limits


def raise_limit() -> None:
    """Allow this process as many as the hard limit does, ENOUGH at most."""
    soft, hard = _given
    most = ENOUGH if hard == resource.RLIM_INFINITY else min(hard, ENOUGH)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def restore_limit() -> None:
    """What this process was started with, for a child: programs that use select(2) trust in 1,024."""
    resource.setrlimit(resource.RLIMIT_NOFILE, _given)


def most_connections() -> int:
    """How many clients may be connected so that enough is left for everything else."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return ENOUGH
    return soft - min(soft // 2, RESERVED)
