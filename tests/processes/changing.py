"""Changes of a running supervisor's configuration on disk, and what was announced of them."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

from harness import MISBEHAVING, READY, Supervisor, Watch

from supervisor.presets_watch import QUIET_SECONDS

LONG_ENOUGH = 2.5 * QUIET_SECONDS


def preset(name: str, **keys: object) -> str:
    """A file's content with one model that can be loaded."""
    body = {"backend": "command", "command": [*MISBEHAVING, *READY], "ready": "notify", **keys}
    return json.dumps({"models": {name: body}})


def reloads(supervisor: Supervisor) -> list[str]:
    """What was announced about the configuration since the test began."""
    stream = supervisor.client().stream("events", since=supervisor._since)
    return [message["event"]["text"] for message in stream if message["event"]["kind"] == "reload"]


def told(watch: Watch, part: str) -> str:
    """The next announcement about the configuration that holds `part`."""
    return str(watch.next(lambda event: event["kind"] == "reload" and part in event["text"])["text"])


def replace(path: Path, content: str) -> None:
    """As editors do: by renaming another file over it."""
    other = path.with_name(f".{path.name}.swp")
    other.write_text(content)
    other.rename(path)


def link(path: Path, target: Path | str) -> None:
    """As `ln -sfn` does."""
    other = path.with_name(f"{path.name}.new")
    other.symlink_to(target)
    other.rename(path)


def left_alone(supervisor: Supervisor) -> None:
    """Until whatever it would do about a change must have been done."""
    assert supervisor.cpu_seconds_in(LONG_ENOUGH) < 0.2


def watches(supervisor: Supervisor) -> int:
    """How many it has, see proc_pid_fdinfo(5)."""
    found = 0
    for path in Path(f"/proc/{supervisor.pid}/fdinfo").iterdir():
        with suppress(FileNotFoundError):  # a connection that ends
            found += path.read_text().count("inotify wd:")
    return found
