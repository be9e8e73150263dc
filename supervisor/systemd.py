"""What the supervisor says to systemd, if systemd started it: readiness, a status line, the watchdog (sd_notify(3))."""

from __future__ import annotations

import os

import sdnotify


def extend_start(seconds: float) -> None:
    """Ask for so much time, if it is more than is left until READY=1 has to come. For before there is a Systemd."""
    if "NOTIFY_SOCKET" in os.environ:
        sdnotify.SystemdNotifier().notify(f"EXTEND_TIMEOUT_USEC={int(seconds * 1_000_000)}")


class Systemd:
    """Silent unless NOTIFY_SOCKET is set; takes it, and WATCHDOG_USEC, out of the environment the children get."""

    def __init__(self) -> None:
        self._notifier = sdnotify.SystemdNotifier() if "NOTIFY_SOCKET" in os.environ else None
        self._status = ""
        self._interval = self._watchdog_interval()
        self._next_beat = 0.0
        for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"):
            os.environ.pop(name, None)

    def notify(self, text: str) -> None:
        """Send lines such as "READY=1"."""
        if self._notifier is not None:
            self._notifier.notify(text)

    def status(self, line: str) -> None:
        """Show `line` in `systemctl status`."""
        if line != self._status:
            self._status = line
            self.notify(f"STATUS={line}")

    def due(self) -> float | None:
        """When the next watchdog beat is due: twice per timeout."""
        return self._next_beat if self._interval and self._notifier is not None else None

    def fire(self, now: float) -> None:
        """Beat if it is time."""
        due = self.due()
        if due is not None and due <= now:
            self._next_beat = now + self._interval
            self.notify("WATCHDOG=1")

    @staticmethod
    def _watchdog_interval() -> float:
        if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
            return 0.0
        return int(os.environ.get("WATCHDOG_USEC", "0")) / 2_000_000
