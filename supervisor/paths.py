"""Paths as text."""

from __future__ import annotations

import os
from pathlib import Path


def printable(path: Path) -> str:
    """A path as text that can be sent and shown, even if it is not UTF-8."""
    return os.fsencode(path).decode("utf-8", "replace")
