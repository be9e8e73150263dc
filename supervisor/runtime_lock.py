"""The lock on the runtime directory: two supervisors must not share one."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from supervisor.errors import AlreadyRunning

LOCK_NAME = "lock"


@contextlib.contextmanager
def held(runtime: Path) -> Iterator[int]:
    """Hold the runtime directory, by the descriptor that this gives; the kernel lets go of it however the process ends.
    Raises AlreadyRunning."""
    descriptor = os.open(runtime / LOCK_NAME, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise AlreadyRunning(
                f"cannot start: another llama-router (pid {lock.read().strip() or 'unknown'}) uses {runtime}; "
                "stop it, or choose another --runtime-dir"
            ) from None
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield lock.fileno()
