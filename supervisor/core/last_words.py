"""Which of the last lines of a log says why a program ended: seldom the very last one."""

from __future__ import annotations

import re
from collections.abc import Sequence

# What colours a terminal, and what llama-server writes before a line: the time and the letter of its level.
_BEGINNING = re.compile(r"(?:\x1b\[[0-9;]*m|[0-9.:]+ )*+(?P<error>E )?")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_ERROR = re.compile(
    r"error|fail|fatal|critical|exception|invalid|unknown|unsupported|unable|cannot|can't|could ?n[o']t|no such"
    r"|not found|denied|refused|already in use|out of memory|insufficient|abort|assert|what\(\):",
    re.IGNORECASE,
)
# 1. how to be told more · 2. that it ends now, or what follows from an error that was told before · 3. a name only
_EMPTY = re.compile(
    r"run with -h|for (more|complete) (information|usage|help)|(run|see) '[^']* --?h(elp)?'|^usage:"  # 1
    r"|exiting due to|cleaning up before exit|please consider|failed to load model(,? from \S+|,? '[^']*')?$"  # 2
    r"|failed to initialize chat template$|core dumped\)?$"
    r"|std::exception$|CUDA error$",  # 3
    re.IGNORECASE,
)


def telling(lines: Sequence[str]) -> str | None:
    """The last line that tells of an error; without one, the last that says anything; None if there is no line."""
    said = [line for line in lines if line.strip()]
    worth = [line for line in said if not _EMPTY.search(_COLOUR.sub("", line).strip())] or said
    return next(filter(_is_error, reversed(worth)), worth[-1] if worth else None)


def _is_error(line: str) -> bool:
    """An indented line, or one that begins with a dash, goes on with another or explains an option."""
    match = _BEGINNING.match(line)
    rest = line[match.end() if match else 0 :]
    if match and match["error"]:
        return True
    return bool(_ERROR.search(rest)) and (not rest.startswith((" ", "\t", "-")) or "what():" in rest)
