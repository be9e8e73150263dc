"""INI as llama.cpp reads it (parse_ini_from_file of common/preset.cpp): sections, keys, values, and their lines.

`;` and `#` start a comment anywhere, in a value too; quotes mean nothing; a value is one line.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

# llama.cpp calls the section before the first header so (COMMON_PRESET_DEFAULT_NAME).
BEFORE_SECTIONS = "default"

_NEWLINE = re.compile(r"\r\n|\n|\r")
_COMMENT = re.compile(r"[;#]")
_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_BLANKS = " \t"


@dataclass(frozen=True)
class Entry:
    """`key = value` in a line, counted from 1."""

    line: int
    key: str
    value: str


@dataclass
class Section:
    """A `[name]` and what is below it; the one before the first is called BEFORE_SECTIONS and starts in line 1."""

    line: int
    name: str
    entries: list[Entry] = field(default_factory=list)


def parse(text: str) -> tuple[list[Section], list[tuple[int, str]]]:
    """All sections in order, and the lines that are neither a header nor a key nor a comment, with why."""
    sections = [Section(1, BEFORE_SECTIONS)]
    faults = []
    for number, written in enumerate(_NEWLINE.split(text), 1):
        line = written.strip(_BLANKS)
        if not line or line[0] in ";#":
            continue
        if line[0] == "[":
            name, end, rest = line[1:].partition("]")
            name = name.strip(_BLANKS)
            if not end or not name or _without_comment(rest):
                faults.append((number, "cannot read this as the name of a section: write [NAME]"))
            sections.append(Section(number, name))
            continue
        key, equals, value = line.partition("=")
        key = key.rstrip(_BLANKS)
        if not equals or not _KEY.fullmatch(key):
            faults.append((number, "cannot read this line: write key = value, [NAME], or a comment after ';'"))
            continue
        sections[-1].entries.append(Entry(number, key, _without_comment(value)))
    return [section for section in sections if section.entries or section is not sections[0]], faults


def _without_comment(text: str) -> str:
    return _COMMENT.split(text, maxsplit=1)[0].strip(_BLANKS)
