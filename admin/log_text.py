"""Whatever a process writes is text here: escape sequences are taken out, characters that would change how others are
shown are replaced, lines are cut. Pure."""

from __future__ import annotations

import re
import unicodedata

MAX_CHARACTERS = 4096

# Control sequences (CSI), strings (OSC and the like, up to their end) and the short ones: ECMA-48, 5.4 and 8.3.
_ESCAPES = re.compile(
    "(?:\x1b\\[|\x9b)[0-?]*[ -/]*[@-~]"
    "|(?:\x1b[\\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\\\|\x9c)?"
    "|\x1b[ -/]*[0-~]"
)
_HIDDEN = frozenset(["Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"])
# Joins the parts of an emoji, and letters of several scripts.
_JOINERS = "\u200c\u200d"


def clean(text: str) -> str:
    """What of a line is shown: what a terminal would have left of it, without what would make it lie."""
    text = _ESCAPES.sub("", text)
    if "\r" in text:
        text = next((piece for piece in reversed(text.split("\r")) if piece), "")
    if len(text) > MAX_CHARACTERS:
        text = f"{text[:MAX_CHARACTERS]}… ({len(text) - MAX_CHARACTERS} more characters)"
    return text if text.isprintable() else "".join(map(_shown, text))


def _shown(character: str) -> str:
    if character in _JOINERS or character == "\t" or unicodedata.category(character) not in _HIDDEN:
        return character
    return "\N{REPLACEMENT CHARACTER}"
