"""How all pages word times and numbers; static/live.js words what changes while a page is open in the same way. Pure,
but for the clock.

How long ago something was grows while somebody looks, and is told in one unit ("5 min"); a duration is over, and told
exactly ("5 min 12 s").
"""

from __future__ import annotations

import time
from datetime import UTC, datetime

from supervisor.protocol import Message

UNKNOWN = "–"
_UNITS = ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s"))


def times(since: float) -> Message:
    """A Unix time for <time datetime=…>, and how long ago that is."""
    at = datetime.fromtimestamp(since, UTC).isoformat(timespec="seconds")
    return {"since_iso": at, "ago": ago(time.time() - since)}


def ago(seconds: float) -> str:
    """Such as "5 min"."""
    for size, unit, *_ in _UNITS:
        if seconds >= size:
            return f"{int(seconds // size)} {unit}"
    return f"{max(0, int(seconds))} s"


def duration(seconds: float | None) -> str:
    """Such as "12 ms", "3.42 s", "2 min 5 s" or "5 h 12 min"; "–" for None."""
    if seconds is None:
        return UNKNOWN
    if seconds < 0.9995:
        return f"{max(0.0, seconds) * 1000:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s" if seconds >= 9.995 else f"{seconds:.2f} s"
    whole = round(seconds)
    size, unit, smaller, below = next(units for units in _UNITS if whole >= units[0])
    return f"{whole // size} {unit} {whole % size // smaller} {below}"


def iso(at: float) -> str:
    """For <time datetime=…>."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")


def clock(at: float) -> str:
    """For who has no JavaScript, which shows the browser's own time."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def count(value: int | None) -> str:
    """With thin spaces between thousands, or "–"."""
    return UNKNOWN if value is None else f"{value:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def rate(value: float | None) -> str:
    """Tokens a second, to three digits, or "–"."""
    if value is None:
        return UNKNOWN
    return f"{value:.0f}" if value >= 99.95 else f"{value:.1f}"
