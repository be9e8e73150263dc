"""Where the log goes: the journal, stderr, files; what those are called, and which are deleted for want of room."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from supervisor.core.config import Log

OWN_FILE = "llama-router.log"
PREFIX = "llama-router."
OLDER = ".1"
PARTS = 8  # a file is replaced when it holds this part of `keep`
MAX_FILE_NAME = 200  # bytes; a file system takes 255

_ESCAPED = "%/"


class Stderr(StrEnum):
    """What stderr is."""

    JOURNAL = "journal"
    NOWHERE = "nowhere"
    ELSEWHERE = "elsewhere"


@dataclass(frozen=True)
class Places:
    """Where the log goes. `stderr` is for what llama-router says itself, `models_too` for the models' output there;
    what the journal does not take goes to stderr as well. `files` is a directory."""

    journal: bool
    stderr: bool
    models_too: bool
    files: str | None


def places(log: Log, stderr: Stderr, usual: str) -> Places:
    """What `log` of config.yaml means.

    1. The journal: where it is wanted; by itself where stderr is it already, as that says that systemd runs us.
    2. stderr: unless that would tell the journal twice. Where it is the journal and the journal is not wanted, the
       models' output stays out.
    3. Files: where they are wanted; by themselves, in the directory `usual`, where nothing else keeps a word.
    """
    journal = stderr is Stderr.JOURNAL if log.journal == "auto" else log.journal  # 1
    own = not (journal and stderr is Stderr.JOURNAL)  # 2
    unkept = stderr is Stderr.NOWHERE and not journal
    return Places(
        journal=journal,
        stderr=own,
        models_too=own and stderr is not Stderr.JOURNAL,
        files=log.directory if log.directory is not None else usual if unkept else None,  # 3
    )


def file_name(name: str | None) -> str:
    """The name of the file for what `name` writes, None being llama-router itself; no two names share one.

    "%" and "/" are written as %25 and %2F; a name that is too long ends in "%-" and its hash.
    """
    if name is None:
        return OWN_FILE
    plain = "".join(f"%{ord(char):02X}" if char in _ESCAPED else char for char in name)
    encoded = plain.encode(errors="replace")
    if len(encoded) > MAX_FILE_NAME:
        digest = hashlib.sha256(name.encode(errors="replace")).hexdigest()[:16]
        plain = f"{encoded[: MAX_FILE_NAME - 18].decode(errors='ignore')}%-{digest}"
    return f"{PREFIX}{plain}.log"


def is_ours(file: str) -> bool:
    """Whether a file of that name is a log of llama-router's: those alone are counted and deleted."""
    name = file.removesuffix(OLDER)
    return name == OWN_FILE or (name.startswith(PREFIX) and name.endswith(".log"))


def surplus(files: Iterable[tuple[str, int, float]], allowed: int) -> list[str]:
    """The names of those files (name, size, time of the last line) that must go, so that the rest has at most
    `allowed` bytes: those that were not written to for the longest."""
    kept = sorted(files, key=lambda file: (file[2], file[0]), reverse=True)
    going = []
    for name, size, _ in kept:
        allowed -= size
        if allowed < 0:
            going.append(name)
    return going
