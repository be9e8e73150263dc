"""Taking fields out of the supervisor's answers. Everything raises ProtocolError for a missing or mistyped one."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

from supervisor.errors import ProtocolError
from supervisor.protocol import Message

T = TypeVar("T")

MOST_BYTES = 2**100  # far above what all presets together can ask for, and still a number to calculate with


def field(message: Message, key: str) -> Any:
    """Whatever is under `key`."""
    try:
        return message[key]
    except KeyError:
        raise ProtocolError(f"cannot read the supervisor's answer: it has no {key!r}") from None


def or_none(message: Message, key: str, take: Callable[[Message, str], T]) -> T | None:
    """What `take` takes; None where there is nothing, or null."""
    return None if message.get(key) is None else take(message, key)


def text(message: Message, key: str) -> str:
    """A string."""
    return _checked(str, field(message, key), key)


def texts(message: Message, key: str) -> tuple[str, ...]:
    """A list of strings."""
    return tuple(_checked(str, item, key) for item in _checked(list, field(message, key), key))


def table(message: Message, key: str) -> Message:
    """An object."""
    return _checked(dict, field(message, key), key)


def tables(message: Message, key: str) -> list[Message]:
    """A list of objects."""
    return [_checked(dict, item, key) for item in _checked(list, field(message, key), key)]


def whole(message: Message, key: str) -> int:
    """An integer."""
    value = field(message, key)
    if isinstance(value, bool):
        raise _mistyped(value, key)
    return _checked(int, value, key)


def number(message: Message, key: str) -> float:
    """A finite number."""
    value = field(message, key)
    try:
        number = math.nan if isinstance(value, bool | str) else float(value)
    except (TypeError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise _mistyped(value, key)
    return number


def sizes(message: Message, key: str) -> dict[str, int]:
    """Bytes by device."""
    amounts = table(message, key)
    taken = {device: whole(amounts, device) for device in amounts}
    for device, size in taken.items():
        if not 0 <= size < MOST_BYTES:
            raise _mistyped(size, device)
    return taken


def _checked(kind: type[T], value: Any, key: str) -> T:
    if not isinstance(value, kind):
        raise _mistyped(value, key)
    return value


def _mistyped(value: Any, key: str) -> ProtocolError:
    return ProtocolError(f"cannot read the supervisor's answer: {key!r} is {str(value)[:80]!r}")
