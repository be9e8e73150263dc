"""Changes to the body of a request that a preset asks for: top-level keys set and removed, all else left as it is.

The values of other keys keep their exact bytes, and all keys their order; what stands between them is not kept. Of a
key written twice the last value counts, as for whoever parses the body.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

LARGE = 64 * 1024  # bytes of a value from which on it is passed along instead of being copied

Piece = bytes | bytearray | memoryview

_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])


@dataclass(frozen=True)
class Rewriting:
    """`set` has keys and their JSON; a key in both is set."""

    set: Mapping[str, bytes]
    remove: frozenset[str]

    @classmethod
    def of(cls, grant: Mapping[str, Any] | None) -> Rewriting | None:
        """What a grant says, {"set": {…}, "remove": […]}; None for nothing."""
        if not grant:
            return None
        return cls({key: _json(value) for key, value in grant["set"].items()}, frozenset(grant["remove"]))

    def apply(self, body: bytes | bytearray) -> list[Piece]:
        """The new body, in pieces. `body` must be a JSON object."""
        fields: dict[str, msgspec.Raw | bytes] = {
            key: value for key, value in _decoder.decode(body).items() if key not in self.remove or key in self.set
        }
        fields.update(self.set)
        pieces: list[Piece] = []
        small = bytearray(b"{")
        for key, value in fields.items():
            view = memoryview(value)
            small += _json(key) + b":"
            if len(view) < LARGE:
                small += view
            else:
                pieces += [small, view]
                small = bytearray()
            small += b","
        if fields:
            del small[-1:]
        return [*pieces, small + b"}"]


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
