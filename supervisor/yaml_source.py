"""One YAML file of the configuration: opened without trusting it, with all that is found wrong in it and where.

A file may be half written, huge, a FIFO or gone by the time it is opened; none of that may stop the supervisor.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from supervisor.core.preset import Preset
from supervisor.errors import ConfigurationError, Problem
from supervisor.paths import printable
from supervisor.yaml_positions import MAX_PROBLEMS, Document

MAX_BYTES = 4 * 2**20
MAX_FIELD_PART = 200

Keys = tuple[str | int, ...]
Written = dict[str, Any]
# What was made of a file's models, by their names: each of what, and the preset.
Made = dict[str, tuple[Written, Preset]]


@dataclass
class Source:
    """A file's content, its problems (at most MAX_PROBLEMS, then it `is_full`) and notices.

    Keys below ("models", NAME) that come from the file's defaults are reported where they are written. `made` is
    shared by all that are opened with the same content.
    """

    path: Path
    document: Document
    made: Made = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    notices: list[Problem] = field(default_factory=list)

    @property
    def root(self) -> Any:
        """The whole content; {} if there are only comments."""
        return {} if self.document.value is None else self.document.value

    @property
    def is_full(self) -> bool:
        """Whether so much is wrong that reading on would help nobody."""
        return len(self.problems) >= MAX_PROBLEMS

    def complain(self, keys: Keys, message: str) -> None:
        """Add a problem with what is written at `keys`."""
        problem = self._about(keys, message)
        if not self.is_full and problem not in self.problems:
            self.problems.append(problem)
            if self.is_full:
                self.problems.append(
                    Problem(problem.file, None, None, f"only the first {MAX_PROBLEMS} problems of this file are listed")
                )

    def notice(self, keys: Keys, message: str) -> None:
        """Add a notice about what is written at `keys`."""
        self.notices.append(self._about(keys, message))

    def line(self, keys: Keys) -> int:
        """The line of `keys`, or of the nearest keys above that are written."""
        return self.document.lines[self.document.known(self._written(keys))]

    def place(self, keys: Keys) -> str:
        """FILE:LINE of `keys`."""
        return f"{printable(self.path)}:{self.line(keys)}"

    def _about(self, keys: Keys, message: str) -> Problem:
        written = self._written(keys)
        dotted = ".".join(str(part)[:MAX_FIELD_PART] for part in written)
        return Problem(printable(self.path), self.line(written), dotted or None, message)

    def _written(self, keys: Keys) -> Keys:
        """`keys` of a model, or of the file's defaults when those hold (more of) it."""
        if keys[:1] == ("models",) and len(keys) > 2:
            default = ("defaults", *keys[2:])
            if len(self.document.known(default)) > max(1, len(self.document.known(keys)) - 1):
                return default
        return keys


def read_source(path: Path) -> bytes:
    """The content of `path`. Raises ConfigurationError."""
    try:
        return read_file(path)
    except OSError as error:
        problem = Problem(printable(path), None, None, f"cannot read the file: {error.strerror or error}")
        raise ConfigurationError([problem]) from None


def read_file(path: Path) -> bytes:
    """A regular file's content, of at most MAX_BYTES. Raises OSError, whose text says why when it has no strerror.

    O_NONBLOCK keeps a FIFO without a writer from stopping the whole supervisor.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    with open(descriptor, "rb", buffering=0) as file:  # noqa: PTH123  # a descriptor has no Path
        before = os.fstat(descriptor)
        if not stat.S_ISREG(before.st_mode):
            raise OSError("it is not a regular file; move it away or rename it")
        data = b""
        while len(data) <= MAX_BYTES and (more := file.read(MAX_BYTES + 1 - len(data))):
            data += more
        after = os.fstat(descriptor)
    if len(data) > MAX_BYTES:
        raise OSError(f"it is larger than {MAX_BYTES // 2**20} MiB; split it")
    if (before.st_mtime_ns, before.st_size) != (after.st_mtime_ns, len(data)):
        raise OSError("it was changed while it was read; try again")
    return data
