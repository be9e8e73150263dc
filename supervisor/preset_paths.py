"""The paths that a preset names: made absolute, and looked at, as those of a model's files have to be readable."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from supervisor.core.quantities import shown
from supervisor.yaml_source import Written


def with_paths(written: Written, directory: Path) -> Written:
    """The same with absolute paths; a program, be it a command's or `binary`, is a path only if it holds a slash."""
    body = dict(written)
    if isinstance(body.get("binary"), str) and "/" in body["binary"]:
        body["binary"] = absolute(directory, body["binary"])
    for key in ("model", "mmproj"):
        if isinstance(body.get(key), str) and body[key]:
            body[key] = absolute(directory, body[key])
    command = body.get("command")
    if isinstance(command, list) and command and isinstance(command[0], str) and "/" in command[0]:
        body["command"] = [absolute(directory, command[0]), *command[1:]]
    return body


def below(directory: Path, path: str) -> Path:
    """Where a path that counts from `directory` leads; "~" is the home of a user."""
    return directory / os.path.expanduser(path)  # noqa: PTH111  # Path.expanduser raises for an unknown user


def absolute(directory: Path, path: str) -> str:
    """As people would write it: without "..", unless a symbolic link before it leads elsewhere."""
    if path.startswith("/") and not path.endswith("/") and "//" not in path and "/." not in path:
        return path  # as most are, and thousands of paths take their time
    absolute = below(directory, path).absolute()
    if ".." not in absolute.parts:
        return str(absolute)
    plain = os.path.normpath(absolute)
    return plain if os.path.realpath(plain) == os.path.realpath(absolute) else str(absolute)


def why_unreadable(path: object) -> str | None:
    """What keeps a model's file from being read; None if nothing does, or if `path` is none and validation says so."""
    if not isinstance(path, str) or not path or "\0" in path:
        return None
    try:
        is_file = stat.S_ISREG(os.stat(path).st_mode)  # noqa: PTH116  # thousands of paths take their time
    except OSError as error:
        return f"cannot read {shown(path, 200)}: {error.strerror}; correct the path"
    if not is_file:
        return f"cannot read {shown(path, 200)}: it is not a regular file; write the path of a GGUF file"
    if not os.access(path, os.R_OK):
        return f"cannot read {shown(path, 200)}: permission denied; make it readable for this user"
    return None
