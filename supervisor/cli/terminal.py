"""Text for a person at a terminal: what may be shown of foreign text, how wide it is, tables, colours, times.

A name, reason or log line comes from files and programs of others. Control characters in it could move the cursor,
forge lines or retitle the window, so whatever is laid out for people is escaped first.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TextIO

from supervisor.errors import RouterError
from supervisor.systemd import is_journal

# Characters that reorder the text around them: Unicode Standard Annex #9, table 4.
BIDI_CONTROLS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
UNSAFE_CATEGORIES = frozenset({"Cc", "Cs", "Zl", "Zp"})
ZERO_WIDTH_CATEGORIES = frozenset({"Mn", "Me", "Cf"})

GAP = "  "
ELLIPSIS = "…"
ERROR = "<3>"  # sd-daemon(3)
COLOURS = {"green": "32", "yellow": "33", "red": "31", "bold": "1"}


class CannotWrite(RouterError):
    """Standard output takes no more, such as a full disk; what was printed is incomplete."""

    exit_code = 74  # EX_IOERR of sysexits(3)


def say(text: str) -> None:
    """Print `text` and a newline, at once. Raises BrokenPipeError when nobody reads on, else CannotWrite."""
    try:
        # A line at a time: unbuffered (PYTHONUNBUFFERED), Python takes the part of a long write that a pipe accepted
        # before it was closed for the whole.
        sys.stdout.writelines(f"{text}\n".splitlines(keepends=True))
        sys.stdout.flush()
    except OSError as error:
        _discard_output()
        if isinstance(error, BrokenPipeError):
            raise
        raise CannotWrite(f"cannot write to standard output: {error.strerror or error}") from None


def say_json(value: Any, indent: int | None = 2) -> None:
    """Print JSON in ASCII, which no terminal misreads. Raises as `say` does."""
    say(json.dumps(value, indent=indent))


def complain(text: str) -> None:
    """Say on standard error, in one line, what went wrong."""
    explain(f"llama-router: {text}", is_error=True)


def explain(text: str, *, is_error: bool = False) -> None:
    """Print one line on standard error, in the journal with the priority of an error if it is of one; nothing is left
    to tell when that fails."""
    with suppress(OSError):
        print((ERROR if is_error and _is_journal() else "") + escape(text), file=sys.stderr, flush=True)


def escape(text: str, keep: str = "") -> str:
    r"""`text` with what a terminal would obey written as \x1b, \n or \u202e; `keep` names characters to leave."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(char if char in keep or not _unsafe(char) else _escaped(char) for char in text)


def escape_log(text: str) -> str:
    """A log line, escaped but for tabs: what it is piped through may end at a terminal all the same."""
    return escape(text, keep="\t")


def is_terminal(stream: TextIO) -> bool:
    """False for a closed stream too."""
    try:
        return stream.isatty()
    except ValueError:
        return False


def width(text: str) -> int:
    """Terminal cells that `text` takes: 2 for East Asian wide characters and emoji, 0 for combining marks."""
    if text.isascii():
        return len(text)
    return sum(map(_cells, text))


def fit(text: str, cells: int) -> str:
    """`text` cut or padded to exactly `cells` terminal cells; an ellipsis marks a cut."""
    if width(text) > cells:
        text = _cut(text, cells - 1) + ELLIPSIS if cells > 0 else ""
    return text + " " * (cells - width(text))


def colour(text: str, name: str | None) -> str:
    """`text` in a colour of COLOURS when standard output shows colours and nobody set NO_COLOR (no-color.org)."""
    shown = is_terminal(sys.stdout) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return f"\x1b[{COLOURS[name]}m{text}\x1b[0m" if name and shown else text


@dataclass(frozen=True)
class Column:
    """A table's column. One with a `minimum` gives way, to that many cells, when the terminal is narrow."""

    title: str
    right: bool = False
    minimum: int | None = None


@dataclass(frozen=True)
class Cell:
    """Foreign text and the colour it is shown in."""

    text: str
    colour: str | None = None


def table(columns: Sequence[Column], rows: Iterable[Sequence[Cell]], cells: int | None) -> list[str]:
    """The lines of a table with a title line, none wider than `cells` (None: as wide as need be).

    Columns with a minimum shrink, the last of them first; when that is not enough, columns go, from the right.
    """
    body = [[Cell(escape(cell.text), cell.colour) for cell in row] for row in rows]
    lines = [[Cell(column.title) for column in columns], *body]
    widths = [max(width(line[index].text) for line in lines) for index in range(len(columns))]
    if cells is not None:
        widths = _narrowed(columns, widths, cells)
    return [_line(columns, line, widths) for line in lines]


def cells_of_stdout() -> int | None:
    """The width of the terminal in cells; None when standard output is no terminal, where nothing is cut."""
    return shutil.get_terminal_size().columns if is_terminal(sys.stdout) else None


def span(seconds: float) -> str:
    """A length of time in its two largest units at most: 0s, 45s, 5min, 2h 10min, 3d 4h."""
    whole = int(max(seconds, 0))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}min"
    if whole < 86400:
        return _two(whole // 3600, "h", whole % 3600 // 60, "min")
    return _two(whole // 86400, "d", whole % 86400 // 3600, "h")


def clock(at: float) -> str:
    """A wall-clock time (Unix seconds) in local time, short, like the journal's: Nov 22 15:04:05."""
    try:
        return datetime.fromtimestamp(at).strftime("%b %d %H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return "?"


def _discard_output() -> None:
    """Keep the interpreter from failing once more when it ends and flushes what was not taken."""
    with suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)


def _two(first: int, first_unit: str, second: int, second_unit: str) -> str:
    return f"{first}{first_unit} {second}{second_unit}" if second else f"{first}{first_unit}"


def _unsafe(char: str) -> bool:
    return char in BIDI_CONTROLS or unicodedata.category(char) in UNSAFE_CATEGORIES


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")


def _cells(char: str) -> int:
    if unicodedata.category(char) in ZERO_WIDTH_CATEGORIES:
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def _is_journal() -> bool:
    try:
        return is_journal(sys.stderr.fileno())
    except (OSError, ValueError):  # it is closed, or no file
        return False


def _cut(text: str, cells: int) -> str:
    taken = 0
    for index, char in enumerate(text):
        taken += _cells(char)
        if taken > cells:
            return text[:index]
    return text


def _narrowed(columns: Sequence[Column], widths: list[int], cells: int) -> list[int]:
    widths = list(widths)
    for index in reversed(range(len(columns))):
        minimum = columns[index].minimum
        excess = _total(widths) - cells
        if minimum is not None and excess > 0:
            widths[index] = min(widths[index], max(minimum, widths[index] - excess))
    while len(widths) > 1 and _total(widths) > cells:
        widths.pop()
    return [min(widths[0], cells), *widths[1:]]


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + len(GAP) * (len(widths) - 1)


def _line(columns: Sequence[Column], line: Sequence[Cell], widths: Sequence[int]) -> str:
    parts = []
    for column, cell, cells in zip(columns, line, widths, strict=False):
        text = fit(cell.text, cells)
        if column.right:
            stripped = text.rstrip(" ")
            text = " " * (cells - width(stripped)) + stripped
        parts.append(colour(text, cell.colour))
    return GAP.join(parts).rstrip(" ")
