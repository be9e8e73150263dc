"""llama-swap's macros: ${NAME} and ${env.NAME} in any value, replaced as its internal/config/macros.go does.

The one defined last is replaced first, so a macro may use those above it, and nothing can go round in a circle.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from supervisor.core.quantities import shown

MAX_MACROS = 500
MAX_TEXT = 2**17  # MAX_ARG_STRLEN of Linux: no longer argument can be passed to a program
RESERVED = frozenset({"PID", "PORT", "MODEL_ID"})

_NAME = re.compile(r"[A-Za-z0-9_-]{1,63}")
_USE = re.compile(r"\$\{([A-Za-z0-9_-]+)\}")
_VARIABLE = re.compile(r"\$\{env\.([A-Za-z_][A-Za-z0-9_]*)\}")
_WHOLE = re.compile(r"0|-?[1-9][0-9]{0,17}")


class CannotExpand(ValueError):
    """A value grows beyond what a program can be given."""


def fault(name: str, value: object) -> str | None:
    """Why a macro can't be used; None if it can."""
    if not _NAME.fullmatch(name):
        return "its name must be 1 to 63 letters, digits, '_' and '-'"
    if name in RESERVED:
        return "llama-swap gives this name its own meaning; choose another one"
    if not isinstance(value, str | int | float):
        return f"it must be text, a number, true or false, but is {shown(value)}"
    if isinstance(value, str) and f"${{{name}}}" in value:
        return "it uses itself"
    return None


class Macros:
    """Macros by name in the order of their definition; values are text, numbers or booleans."""

    def __init__(self, values: Mapping[str, Any], environment: Mapping[str, str]) -> None:
        self._values = dict(values)
        self._rank = {name: rank for rank, name in enumerate(self._values)}
        self._environment = environment

    def over(self, values: Mapping[str, Any]) -> Macros:
        """These, with `values` in their place where names are the same, and behind them otherwise."""
        return Macros({**self._values, **values}, self._environment)

    def under(self, values: Mapping[str, Any]) -> Macros:
        """These with `values` below them, to be replaced last."""
        return Macros({**values, **self._values}, self._environment)

    def expand(self, value: Any) -> Any:
        """`value` with every macro replaced in every text of it, keys excepted; unknown ones stay.

        A text that is nothing but a macro becomes its value, a number if that is one. Raises CannotExpand.
        """
        if isinstance(value, str):
            return self._expanded(value) if "${" in value else value
        if isinstance(value, list):
            return [self.expand(entry) for entry in value]
        return {key: self.expand(entry) for key, entry in value.items()} if isinstance(value, dict) else value

    def expand_key(self, key: str) -> str:
        """The same for a mapping's key, which stays text."""
        return _as_text(self.expand(key))

    def _expanded(self, text: str) -> Any:
        value: Any = self._with_variables(text)
        below = len(self._rank)
        while isinstance(value, str):
            used = {name for name in _USE.findall(value) if self._rank.get(name, below) < below}
            if not used:
                return value
            name = max(used, key=self._rank.__getitem__)
            below = self._rank[name]
            value = self._replaced(value, name)
        return value

    def _replaced(self, text: str, name: str) -> Any:
        use, value = f"${{{name}}}", self._values[name]
        if isinstance(value, str):
            value = self._with_variables(value)
        if text == use:
            return value
        _require_short(len(text) + text.count(use) * len(_as_text(value)))
        return text.replace(use, _as_text(value))

    def _with_variables(self, text: str) -> Any:
        def value(match: re.Match[str]) -> str:
            return self._environment.get(match[1], match[0])

        used = _VARIABLE.findall(text)
        _require_short(len(text) + sum(len(self._environment.get(name, "")) for name in used))
        replaced = _VARIABLE.sub(value, text)
        # llama-swap replaces variables before it reads the YAML, which then reads a number.
        return int(replaced) if replaced != text and _WHOLE.fullmatch(replaced) else replaced


def variables(value: Any) -> set[str]:
    """The names of the environment variables that `value` uses, at any depth."""
    if isinstance(value, str):
        return set(_VARIABLE.findall(value)) if "${" in value else set()
    entries = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return {name for entry in entries for name in variables(entry)}


def unresolved(value: Any) -> list[str]:
    """The macros and variables still in `value`, as they are written, each once; ${PID} is no macro."""
    if isinstance(value, str):
        return sorted({match[0] for pattern in (_USE, _VARIABLE) for match in pattern.finditer(value)} - {"${PID}"})
    entries = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return sorted({name for entry in entries for name in unresolved(entry)})


def _as_text(value: Any) -> str:
    """As Go's %v writes it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _require_short(length: int) -> None:
    if length > MAX_TEXT:
        raise CannotExpand(f"it would be longer than {MAX_TEXT // 1024} KiB with its macros replaced")
