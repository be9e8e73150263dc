"""Durations and sizes as people write them: text to numbers and back.

Durations are seconds (float). Units: ms, s (sec), min (m), h, d, w; they add up ("1h30min"); a plain number is seconds.
Sizes are bytes (int). K, M, G, T, P and KiB … PiB count in 1024s as in systemd.syntax(7); KB, MB, GB, TB, PB count in
1000s as in coreutils' dd(1); a plain number is bytes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction
from itertools import islice
from typing import Any

MAX_DURATION = 3650 * 86400.0
MAX_SIZE = 2**60
# The shortest text of the smallest float, written without an exponent, has 330 digits or so.
MAX_TEXT = 400

_MILLISECONDS = {
    "ms": 1,
    "s": 1000,
    "sec": 1000,
    "m": 60_000,
    "min": 60_000,
    "h": 3_600_000,
    "d": 86_400_000,
    "w": 604_800_000,
}
_BYTES = {"B": 1} | {
    prefix + suffix: base**power
    for power, prefix in enumerate("KMGTP", start=1)
    for suffix, base in (("", 1024), ("iB", 1024), ("B", 1000))
}
_NUMBER = r"[0-9]+(?:\.[0-9]+)?"
_PLAIN = re.compile(_NUMBER)
_PART = re.compile(rf"({_NUMBER}) ?([a-z]+) ?")
_DURATION = re.compile(rf"(?:{_PART.pattern})+")
_SIZE = re.compile(rf"({_NUMBER}) ?([A-Za-z]+)")

_DURATION_EXAMPLES = "30s, 15min, 1h or 1h30min"
_DURATION_OR_NEVER_EXAMPLES = "30s, 15min, 1h, 1h30min or never"
_SIZE_EXAMPLES = "512M, 6GiB or 24GB"


def shown(value: object, limit: int = 60, depth: int = 2) -> str:
    """`value` as a message quotes it, much as YAML writes it: about `limit` characters at most, however large it is."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int) and value.bit_length() > 200:
        return f"a number of {value.bit_length()} bits"
    if isinstance(value, str):
        return _cut(repr(value[: limit + 1]), limit)
    if isinstance(value, bytes):
        return _shown_bytes(value[: limit + 1], limit)
    if isinstance(value, Mapping | list | tuple):
        return _cut(_shown_collection(value, limit, depth), limit)
    return _cut(repr(value), limit)


def _shown_bytes(value: bytes, limit: int) -> str:
    if value.isascii() and (text := value.decode()).isprintable():
        return shown(text, limit)
    return _cut(value.hex(" "), limit)


def _shown_collection(value: Mapping[Any, Any] | list[Any] | tuple[Any, ...], limit: int, depth: int) -> str:
    inside = "…"
    if depth and isinstance(value, Mapping):
        pairs = islice(value.items(), limit)
        inside = ", ".join(f"{shown(key, limit, 0)}: {shown(entry, limit, depth - 1)}" for key, entry in pairs)
    elif depth:
        inside = ", ".join(shown(entry, limit, depth - 1) for entry in islice(value, limit))
    return f"{{{inside}}}" if isinstance(value, Mapping) else f"[{inside}]"


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit + 2 else text[: limit - 1] + "…"


def duration(value: object) -> float:
    """Seconds in 0..MAX_DURATION of "1h30min", "500ms" or a plain number. Raises ValueError with examples."""
    return _duration(value, _DURATION_EXAMPLES)


def duration_or_never(value: object) -> float | None:
    """As `duration`; "never" and None are None."""
    return None if value is None or value == "never" else _duration(value, _DURATION_OR_NEVER_EXAMPLES)


def size(value: object) -> int:
    """Bytes in 0..MAX_SIZE of "6GiB", "512M" or a plain number; parts of a byte are dropped.

    Raises ValueError with examples.
    """
    number = _plain_number(value, "size", _SIZE_EXAMPLES)
    if number is None:
        match = _SIZE.fullmatch(str(value).strip())
        unit = _BYTES.get(match[2]) if match else None
        if match is None or unit is None:
            raise ValueError(_cannot(value, "size", f"write {_SIZE_EXAMPLES}"))
        number = Fraction(match[1]) * unit
    elif number.denominator != 1:
        raise ValueError(_cannot(value, "size", f"a plain number is whole bytes; write {_SIZE_EXAMPLES}"))
    return int(_in_range(number, MAX_SIZE, value, "size", f"0 to 1EiB; write {_SIZE_EXAMPLES}"))


def format_duration(seconds: float | None) -> str:
    """The text that `duration_or_never` reads as exactly `seconds`; "never" for None."""
    if seconds is None:
        return "never"
    milliseconds = round(seconds * 1000)
    if milliseconds / 1000 != seconds:
        return f"{Decimal(repr(seconds)):f}s"
    parts = []
    for unit in ("d", "h", "min", "s", "ms"):
        count, milliseconds = divmod(milliseconds, _MILLISECONDS[unit])
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


def format_size(size_in_bytes: int) -> str:
    """The text that `size` reads as exactly `size_in_bytes`, in the largest unit that divides it."""
    for unit in ("PiB", "TiB", "GiB", "MiB", "KiB"):
        count, rest = divmod(size_in_bytes, _BYTES[unit])
        if count and not rest:
            return f"{count}{unit}"
    return f"{size_in_bytes}B"


def readable_size(size_in_bytes: int) -> str:
    """For people: two or three digits and a unit, such as "5.6 GiB" or "312 MiB"; rounded."""
    amount, unit = float(size_in_bytes), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB", "PiB"):
        if round(amount) < 1024:
            break
        amount, unit = amount / 1024, larger
    return f"{amount:.1f} {unit}" if amount < 10 and unit != "B" else f"{amount:.0f} {unit}"


def _duration(value: object, examples: str) -> float:
    if isinstance(value, float) and 0 <= value <= MAX_DURATION:
        return abs(value)
    number = _plain_number(value, "duration", examples)
    if number is None:
        text = str(value).strip()
        parts = _PART.findall(text) if _DURATION.fullmatch(text) else []
        if not parts or any(unit not in _MILLISECONDS for _, unit in parts):
            raise ValueError(_cannot(value, "duration", f"write {examples}"))
        number = sum((Fraction(count) * _MILLISECONDS[unit] for count, unit in parts), Fraction()) / 1000
    return float(_in_range(number, MAX_DURATION, value, "duration", f"0 to 10 years; write {examples}"))


def _plain_number(value: object, kind: str, examples: str) -> Fraction | None:
    """The number that `value` is or spells without a unit; None for other text. Raises ValueError for other types."""
    if isinstance(value, str) and len(value) <= MAX_TEXT:
        return Fraction(value.strip()) if _PLAIN.fullmatch(value.strip()) else None
    if isinstance(value, int) and not isinstance(value, bool):
        return Fraction(value)
    if isinstance(value, float) and math.isfinite(value):
        return Fraction(value)
    raise ValueError(_cannot(value, kind, f"write {examples}"))


def _in_range(number: Fraction, limit: float, value: object, kind: str, hint: str) -> Fraction:
    if 0 <= number <= limit:
        return number
    raise ValueError(_cannot(value, kind, f"it must be {hint}"))


def _cannot(value: object, kind: str, why: str) -> str:
    return f"cannot read {shown(value)} as a {kind}: {why}"
