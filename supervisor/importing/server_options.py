"""The options of llama-server by every name they have, out of llama_server_options.txt beside this file."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files


@dataclass(frozen=True)
class Option:
    """`name` and `negated` (None: it can't be switched off) are without dashes; `values` is how many it takes.

    `is_optional` is a value that older builds do not take.
    """

    name: str
    negated: str | None
    values: int
    is_path: bool
    is_optional: bool


@dataclass(frozen=True)
class Spelling:
    """One name of an option, which may be one that switches it off."""

    option: Option
    is_negated: bool


def by_argument(argument: str) -> Spelling | None:
    """The option of an argument such as "-c" or "--ctx-size"; llama.cpp takes "_" for "-" in long ones."""
    return _spellings().get(argument.replace("_", "-") if argument.startswith("--") else argument)


def by_key(key: str) -> Spelling | None:
    """The option of a key of models.ini: an argument without its dashes, or an environment variable."""
    return _keys().get(key)


def all_keys() -> tuple[str, ...]:
    """Every key that `by_key` knows."""
    return tuple(_keys())


@cache
def _spellings() -> dict[str, Spelling]:
    found = {}
    for names, negated, option, _ in _table():
        found.update({name: Spelling(option, False) for name in names})
        found.update({name: Spelling(option, True) for name in negated})
    return found


@cache
def _keys() -> dict[str, Spelling]:
    found = {}
    for names, negated, option, variable in _table():
        found.update({name.lstrip("-"): Spelling(option, False) for name in (*names, variable) if name != "-"})
        found.update({name.lstrip("-"): Spelling(option, True) for name in negated})
    return found


@cache
def _table() -> tuple[tuple[list[str], list[str], Option, str], ...]:
    text = files(__package__).joinpath("llama_server_options.txt").read_text(encoding="utf-8")
    rows = (line.split() for line in text.splitlines() if line.startswith("-"))
    return tuple(_row(*row) for row in rows)


def _row(names: str, negated: str, value: str, variable: str) -> tuple[list[str], list[str], Option, str]:
    positive, negative = names.split(","), negated.split(",") if negated != "-" else []
    option = Option(
        name=positive[-1].lstrip("-"),
        negated=negative[-1].lstrip("-") if negative else None,
        values={"-": 0, "2": 2}.get(value, 1),
        is_path=value == "path",
        is_optional=value == "?",
    )
    return positive, negative, option, variable
