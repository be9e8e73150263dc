"""How the YAML files spell each kind of value, as JSON Schema: what an editor can know of the rules in `fields`.

A value that `fields` takes always fits; the other way round a few do not, because a schema can't calculate.
Patterns are of the kind that ECMA-262 and Python read alike.
"""

from __future__ import annotations

from typing import Any

from supervisor.core.quantities import MAX_DURATION, MAX_SIZE

Schema = dict[str, Any]

MAX_NAME = 200

_NUMBER = r"[0-9]+(\.[0-9]+)?"
_DURATION_TEXT: Schema = {
    "type": "string",
    "pattern": rf"^\s*({_NUMBER}|({_NUMBER} ?(ms|sec|s|min|m|h|d|w) ?)+)\s*$",
    "examples": ["30s", "15min", "1h30min"],
}
_SIZE_TEXT: Schema = {
    "type": "string",
    "pattern": rf"^\s*([0-9]+(\.0+)?|{_NUMBER} ?(B|[KMGTP](iB|B)?))\s*$",
    "examples": ["512M", "6GiB"],
}
_FLAG_WORDS = ("true", "false", "yes", "no", "on", "off")

NULL: Schema = {"type": "null"}
AUTO: Schema = {"const": "auto"}
DURATION: Schema = {"anyOf": [_DURATION_TEXT, {"type": "number", "minimum": 0, "maximum": MAX_DURATION}]}
DURATION_OR_NEVER: Schema = {"anyOf": [*DURATION["anyOf"], {"const": "never"}, NULL]}
SIZE: Schema = {"anyOf": [_SIZE_TEXT, {"type": "integer", "minimum": 0, "maximum": MAX_SIZE}]}
FLAG: Schema = {
    "anyOf": [
        {"type": "boolean"},
        {
            "type": "string",
            "pattern": f"^({'|'.join(''.join(f'[{c.upper()}{c}]' for c in word) for word in _FLAG_WORDS)})$",
        },
    ]
}
ARGUMENT: Schema = {"type": ["string", "integer"]}
FILLED: Schema = {"type": "string", "minLength": 1}
NAME: Schema = {"type": "string", "maxLength": MAX_NAME, "pattern": r"^[^\s#@]([^#\x00-\x1f]*[^\s#])?$"}
DEVICE: Schema = {"type": "string", "pattern": "^(host|gpu[0-9]{1,2})$"}
VARIABLE: Schema = {"type": "string", "pattern": "^[^=]+$"}
READY: Schema = {
    "anyOf": [
        {"enum": ["notify", "tcp", None]},
        {
            "type": "object",
            "properties": {"http": {"type": "string", "pattern": "^/[!-~]*$", "examples": ["/health"]}},
            "required": ["http"],
            "additionalProperties": False,
        },
    ]
}
LISTEN: Schema = {
    "type": "string",
    "pattern": r"^((unix:)?/.*[^/]|\[[^\]]*\]:[0-9]{1,5}|[^\[\]:]+:[0-9]{1,5})$",
    "examples": ["127.0.0.1:8080", "[::1]:8080", "unix:/run/llama-router/web.sock"],
}


def whole(least: int, most: int) -> Schema:
    """A whole number from `least` to `most`."""
    return {"type": "integer", "minimum": least, "maximum": most}


def either(*kinds: Schema) -> Schema:
    """A value of any of `kinds`."""
    return {"anyOf": list(kinds)}
