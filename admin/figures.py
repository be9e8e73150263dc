"""What an answer tells of its tokens, read once at its end from its first and last bytes. Pure.

Shapes, as recorded of llama-server b11434 and llama-cpp-python 0.3.36: `usage` of OpenAI's chat, completions,
embeddings and Responses; `usage` of Anthropic's messages, whose stream has the input in its first event and the output
in its last; `timings`, which llama-server adds to all of them. llama-cpp-python's streams tell nothing: their events
are counted, and what comes of that is marked as such.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

HEAD_BYTES = 2048
TAIL_BYTES = 16384
MAX_OBJECT = 4096  # characters of a `usage` or `timings`, which have some 300
MAX_TOKENS = 10**9
MAX_RATE = 10.0**6

# A quote within a JSON string is written \", so this is a key and never part of what a model wrote.
_KEY = re.compile(rb'"(usage|timings)"\s*:\s*(?=\{)')
_FINISHED = re.compile(rb'"finish_reason"\s*:\s*"')
_LAST_EVENT = re.compile(rb'"type"\s*:\s*"(?:message_stop|response\.completed)"')
_WORD = re.compile(r"[A-Za-z][A-Za-z_]{0,63}")
_JSON = json.JSONDecoder()

Json = Mapping[str, Any]


@dataclass(frozen=True)
class Tokens:
    """Each None where nothing is known of it. `cached` of `taken_in` were in the model's cache already.

    `rate` is in tokens a second, as the server has measured it. `counted`: `given_out` is the number of events.
    """

    taken_in: int | None = None
    given_out: int | None = None
    cached: int | None = None
    rate: float | None = None
    counted: bool = False


class Passing:
    """An answer that passes by: its first and last bytes, and how many events it had. Costs next to nothing a piece."""

    __slots__ = ("_head", "_kept", "_pieces", "events", "size")

    def __init__(self) -> None:
        self.size = 0
        self.events = 0
        self._head = b""
        self._pieces: deque[bytes] = deque()
        self._kept = 0

    def add(self, piece: bytes) -> None:
        """The next piece of the body. It is kept as it is, so up to one piece more than TAIL_BYTES are."""
        if self.size < HEAD_BYTES:
            self._head += piece[: HEAD_BYTES - self.size]
        size = len(piece)
        self.size += size
        self.events += piece.count(b"data:")
        pieces = self._pieces
        pieces.append(piece)
        self._kept += size
        while self._kept - len(pieces[0]) >= TAIL_BYTES:
            self._kept -= len(pieces.popleft())

    def tokens(self) -> Tokens:
        """What it told; call it once the answer is over."""
        return tokens_of(self._head, self._tail(), self.events)

    def was_whole(self) -> bool:
        """True if the last event of a stream has passed; behind it, clients hang up without waiting for the end."""
        tail = self._tail()
        return tail.rstrip().endswith(b"data: [DONE]") or _LAST_EVENT.search(tail) is not None

    def error_type(self) -> str | None:
        """What kind of error a whole answer is that is an OpenAI error object; a word, never what was sent."""
        return _error_type(self._tail()) if self.size <= TAIL_BYTES else None

    def _tail(self) -> bytes:
        return b"".join(self._pieces)[-TAIL_BYTES:]


def tokens_of(head: bytes, tail: bytes, events: int) -> Tokens:
    """What an answer that begins with `head` and ends with `tail` tells; `events` is how often it has "data:"."""
    told = _told(tail)
    if told.taken_in is None and b'"message_start"' in head:
        begun = _KEY.search(head)
        begin = _usage(_object(head, begun.end() if begun else None))
        told = replace(told, taken_in=begin.taken_in, cached=begin.cached)
    if told.given_out is None and b'"choices"' in tail and (count := _counted(head, tail, events)) > 0:
        told = replace(told, given_out=count, counted=True)
    return told


def _counted(head: bytes, tail: bytes, events: int) -> int:
    """Events with a token in them; without those that open and end a stream of OpenAI's."""
    ends = (b'"role"' in head) + (b"[DONE]" in tail) + (_FINISHED.search(tail) is not None)
    return events - ends if events else 0


def _told(data: bytes) -> Tokens:
    """The last `usage` wins, and the last `timings` tell what it does not."""
    last: dict[bytes, int] = {found[1]: found.end() for found in _KEY.finditer(data)}
    usage = _usage(_object(data, last.get(b"usage")))
    timings = _timings(_object(data, last.get(b"timings")))
    return Tokens(
        timings.taken_in if usage.taken_in is None else usage.taken_in,
        timings.given_out if usage.given_out is None else usage.given_out,
        timings.cached if usage.cached is None else usage.cached,
        timings.rate,
    )


def _object(data: bytes, start: int | None) -> Json:
    if start is None:
        return {}
    try:
        found, _ = _JSON.raw_decode(data[start : start + MAX_OBJECT].decode(errors="replace"))
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _error_type(body: bytes) -> str | None:
    """Its `code` where that is a word, such as "context_length_exceeded", else its `type`, such as "server_error"."""
    try:
        error = json.loads(body).get("error")
    except (ValueError, RecursionError, AttributeError):
        return None
    told = [error.get(name) for name in ("code", "type")] if isinstance(error, dict) else []
    return next((word for word in told if isinstance(word, str) and _WORD.fullmatch(word)), None)


def _usage(usage: Json) -> Tokens:
    """OpenAI counts what was cached within the input (`…_details`), Anthropic beside it (`cache_…`)."""
    if "prompt_tokens" in usage or "completion_tokens" in usage:
        cached = _detail(usage, "prompt_tokens_details")
        return Tokens(_count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens")), cached)
    taken, given = _count(usage.get("input_tokens")), _count(usage.get("output_tokens"))
    if "input_tokens_details" in usage:
        return Tokens(taken, given, _detail(usage, "input_tokens_details"))
    cached = _count(usage.get("cache_read_input_tokens"))
    if taken is not None:
        taken += (cached or 0) + (_count(usage.get("cache_creation_input_tokens")) or 0)
    return Tokens(taken, given, cached)


def _detail(usage: Json, name: str) -> int | None:
    details = usage.get(name)
    return _count(details.get("cached_tokens")) if isinstance(details, dict) else None


def _timings(timings: Json) -> Tokens:
    """`prompt_n` is what was computed of the prompt, `cache_n` what was not."""
    computed, cached = _count(timings.get("prompt_n")), _count(timings.get("cache_n"))
    taken = None if computed is None else computed + (cached or 0)
    return Tokens(taken, _count(timings.get("predicted_n")), cached, rate(timings.get("predicted_per_second")))


def _count(value: object) -> int | None:
    """A number of tokens that can be one."""
    return value if type(value) is int and 0 <= value <= MAX_TOKENS else None


def rate(value: object) -> float | None:
    """A speed that can be one, in tokens a second."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    return float(value) if 0 < value <= MAX_RATE else None  # an integer may be too large for a float, NaN is no more
