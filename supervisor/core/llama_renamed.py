"""What llama-server's newer builds call what an option of older ones did: the word to put into `options` instead.

Source: common/arg.cpp of llama.cpp build b11434, and of those since 2024 that have the older names.
"""

from __future__ import annotations

from collections.abc import Mapping

_MODES = {"mmap": "mmap", "no-mmap": "none", "mlock": "mlock", "direct-io": "dio", "dio": "dio"}

# By the older name without dashes before it: the newer name, and what it is set to, "" for the value as it was.
SUCCESSORS: Mapping[str, tuple[str, str]] = {
    **{name: ("load-mode", mode) for name, mode in _MODES.items()},
    **dict.fromkeys(("draft", "draft-n", "draft-max"), ("spec-draft-n-max", "")),
    **dict.fromkeys(("draft-min", "draft-n-min"), ("spec-draft-n-min", "")),
}


def successor(name: str) -> str | None:
    """Such as "load-mode: none" for "no-mmap"; None if it is not known to have one."""
    if name not in SUCCESSORS:
        return None
    newer, value = SUCCESSORS[name]
    return f"{newer}: {value}" if value else newer
