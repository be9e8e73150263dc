"""Keys of the API: what one may do, how it is recognised, and what people write for limits and ends.

A key made by llama-router is 256 random bits, so what is kept of it is a plain SHA-256: there is nothing to guess that
a slow hash would protect, and every request is checked. Those that people choose (llama-server's forms) are not kept.
"""

from __future__ import annotations

import fnmatch
import functools
import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from supervisor.core import quantities
from supervisor.core.quantities import shown

KEYS_FILE = "keys.db"  # in the state directory
VARIABLE = "LLAMA_ROUTER_API_KEY"
OF_VARIABLE = "environment"  # what its keys are called, with their number: no name of keys.db has a colon
OF_FILE = "file"

MARK = "lr-"  # what a key begins with, so that people and scanners for secrets know it
RANDOM_BYTES = 32
SHOWN = len(MARK) + 6  # characters of a key that may be known to everybody
ALL_MODELS = "*"
MAX_GLOBS = 100
MAX_COUNT = 10**15

SECONDS_OF = {"s": 1, "min": 60, "h": 3600, "day": 86400}
_PERIODS = {
    **dict.fromkeys(("s", "sec", "second"), "s"),
    **dict.fromkeys(("m", "min", "minute"), "min"),
    **dict.fromkeys(("h", "hour"), "h"),
    **dict.fromkeys(("d", "day"), "day"),
}
_WORDS = {"s": "second", "min": "minute", "h": "hour", "day": "day"}
_LIMIT = re.compile(r"([0-9]{1,16})\s*/\s*([a-z]+)")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"  # in UTF-8
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


@dataclass(frozen=True)
class Limit:
    """At most `most` in each `period` of the clock: of SECONDS_OF, in UTC."""

    most: int
    period: str

    def __str__(self) -> str:
        return f"{self.most}/{self.period}"

    @property
    def words(self) -> str:
        """Such as "60 a minute"."""
        return f"{self.most} a{'n' if self.period == 'h' else ''} {self.word}"

    @property
    def word(self) -> str:
        """Its period, such as "minute"."""
        return _WORDS[self.period]

    def window(self, now: float) -> int:
        """The number of the period that `now` (Unix seconds) lies in."""
        return int(now // SECONDS_OF[self.period])

    def wait(self, number: int, used: int, now: float) -> float | None:
        """Seconds until there is more, None if there is some left; `used` was counted in the period `number`."""
        if number != self.window(now) or used < self.most:
            return None
        return (number + 1) * SECONDS_OF[self.period] - now


@dataclass(frozen=True)
class Key:
    """What a key may do. `id` is its row in keys.db, None for one of llama-server's forms; `models` are globs;
    `expires` is in Unix seconds."""

    id: int | None
    name: str
    models: tuple[str, ...] = (ALL_MODELS,)
    rate: Limit | None = None
    tokens: Limit | None = None
    expires: float | None = None
    is_revoked: bool = False

    def is_good(self, now: float) -> bool:
        """Whether it opens anything at `now`."""
        return not self.is_revoked and (self.expires is None or now < self.expires)

    @property
    def allows_all(self) -> bool:
        """Whether it may use every model, those to come included."""
        return ALL_MODELS in self.models

    def allows(self, names: Iterable[str]) -> bool:
        """Whether it may use the model of these names: its own and its aliases."""
        return self.allows_all or any(_matcher(glob).match(name) for glob in self.models for name in names)


def digest(secret: bytes) -> bytes:
    """What is kept of a key."""
    return hashlib.sha256(secret).digest()


def in_variable(value: str) -> list[str]:
    """The keys in VARIABLE, as in llama-server's --api-key: separated by commas, without empty ones."""
    return [key for each in value.split(",") if (key := each.strip())]


def in_file(content: bytes) -> dict[int, bytes]:
    """The keys of a file for llama-server's --api-key-file, by line from 1.

    Empty lines are none. Nor are lines that begin with "#", which llama-server takes for keys: a comment is guessed. A
    byte order mark, with which some editors begin a file in UTF-8, belongs to no key.
    """
    lines = (line.strip() for line in content.removeprefix(_BYTE_ORDER_MARK).split(b"\n"))
    return {number: line for number, line in enumerate(lines, 1) if line and not line.startswith(b"#")}


def name(value: str) -> str:
    """The name of a new key. Raises ValueError."""
    if _NAME.fullmatch(value) is None:
        raise ValueError(
            f"cannot name a key {shown(value)}: use 1 to 64 letters, digits and . _ @ + -, beginning with one of the "
            "first two"
        )
    return value


def globs(values: Iterable[str]) -> tuple[str, ...]:
    """The models of a new key; all for none. Raises ValueError."""
    given = tuple(dict.fromkeys(values)) or (ALL_MODELS,)
    if len(given) > MAX_GLOBS:
        raise ValueError(f"cannot allow {len(given)} patterns of models: write {MAX_GLOBS} at most")
    for each in given:
        if not each or len(each) > 255 or not each.isprintable():
            raise ValueError(f"cannot match models with {shown(each)}: write a model's name, or such as qwen-*")
    return given


def limit(value: str) -> Limit:
    """A limit as people write it: 60/min. Raises ValueError."""
    match = _LIMIT.fullmatch(value.strip().lower())
    if match is None or match[2] not in _PERIODS or not 1 <= int(match[1]) <= MAX_COUNT:
        raise ValueError(f"cannot use {shown(value)} as a limit: write such as 5/s, 60/min, 1000/h or 100000/day")
    return Limit(int(match[1]), _PERIODS[match[2]])


def expiry(value: str, now: float) -> float:
    """When a key ends, in Unix seconds: after a while (30d), or when a day begins in UTC (2027-01-01). Raises
    ValueError."""
    try:
        if _DATE.fullmatch(value):
            ends = datetime.fromisoformat(value).replace(tzinfo=UTC).timestamp()
        else:
            ends = now + quantities.duration(value)
    except ValueError:
        raise ValueError(f"cannot end a key at {shown(value)}: write such as 12h, 30d or 2027-01-01") from None
    if ends <= now:
        raise ValueError(f"cannot end a key at {shown(value)}: that is over")
    return ends


@functools.lru_cache(maxsize=4096)
def _matcher(glob: str) -> re.Pattern[str]:
    return re.compile(fnmatch.translate(glob))
