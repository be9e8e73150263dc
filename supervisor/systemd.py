"""What the supervisor says to systemd, if that started it (sd_notify(3)): readiness, a status line, signs of life.

And whether it is systemd's journal that reads what a program writes.
"""

from __future__ import annotations

import os
import time

import sdnotify

VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
# While it stops, systemd is told again and again to wait so long. One that hangs is soon silent.
STOP_SECONDS = 30.0


def extend_start(seconds: float) -> None:
    """Ask for so much time, if it is more than is left until READY=1 has to come. For before there is a Systemd."""
    if "NOTIFY_SOCKET" in os.environ:
        sdnotify.SystemdNotifier().notify(f"EXTEND_TIMEOUT_USEC={int(seconds * 1_000_000)}")


def is_journal(fd: int) -> bool:
    """Whether the journal reads what is written to `fd`: JOURNAL_STREAM says which stream it does, systemd.exec(5), and
    that may have been redirected since. Raises OSError."""
    found = os.fstat(fd)
    return os.environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


class Systemd:
    """Silent unless NOTIFY_SOCKET is set; takes it, and WATCHDOG_USEC, out of the environment the children get.
    `variables` are those, for another program that takes over this process."""

    def __init__(self) -> None:
        self._notifier = sdnotify.SystemdNotifier() if "NOTIFY_SOCKET" in os.environ else None
        self._status = ""
        self._interval = self._watchdog_interval()
        self._next_beat = 0.0
        self._next_extension: float | None = None
        self.variables = {name: os.environ.pop(name) for name in VARIABLES if name in os.environ}

    def notify(self, text: str) -> None:
        """Send lines such as "READY=1"."""
        if self._notifier is not None:
            self._notifier.notify(text)

    def reloading(self) -> None:
        """Until "READY=1" is sent."""
        self.notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def status(self, line: str) -> None:
        """Show `line` in `systemctl status`."""
        if line != self._status:
            self._status = line
            self.notify(f"STATUS={line}")

    def stopping(self) -> None:
        """Say that it stops, and from then on that it is still about it."""
        self.notify("STOPPING=1")
        self._next_extension = 0.0

    def due(self) -> float | None:
        """When the next word is due: of the watchdog's, twice per timeout; while it stops, three times."""
        if self._notifier is None:
            return None
        beat = self._next_beat if self._interval else None
        return min((at for at in (beat, self._next_extension) if at is not None), default=None)

    def fire(self, now: float) -> None:
        """Say what is due."""
        if self._notifier is None:
            return
        if self._interval and self._next_beat <= now:
            self._next_beat = now + self._interval
            self.notify("WATCHDOG=1")
        if self._next_extension is not None and self._next_extension <= now:
            self._next_extension = now + STOP_SECONDS / 3
            self.notify(f"EXTEND_TIMEOUT_USEC={int(STOP_SECONDS * 1_000_000)}")

    @staticmethod
    def _watchdog_interval() -> float:
        if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
            return 0.0
        return int(os.environ.get("WATCHDOG_USEC", "0")) / 2_000_000
