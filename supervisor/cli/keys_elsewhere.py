"""Keys of the API that `llama-router key` did not make: where the one that runs has them from, and how many."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from supervisor import key_file
from supervisor.cli import checked
from supervisor.core.keys import OF_FILE, OF_VARIABLE, VARIABLE
from supervisor.protocol import Message


@dataclass(frozen=True)
class Elsewhere:
    """A source, called as its keys are in the activity. `count` is None where `problem` says why that can't be told;
    `path` is the file's."""

    source: str
    count: int | None
    path: str | None = None
    problem: str | None = None

    def __str__(self) -> str:
        place = f"of {VARIABLE}" if self.path is None else f"in {self.path} (web.api_key_file)"
        if self.count is None:
            return f"{self.source}: keys {place}, how many is not known: {self.problem}"
        return f"{self.source}: {self.count} key{'s'[: self.count != 1]} {place}, for all models and without limits"


def elsewhere(status: Message | None, state: Path) -> list[Elsewhere] | None:
    """The sources of the llama-router of this status object; None if it does not tell, or has another directory of
    `state`."""
    told = None if status is None else checked.or_none(status, "keys", checked.table)
    if status is None or told is None or Path(checked.text(status, "state_dir")).resolve() != state.resolve():
        return None
    count, file = checked.whole(told, "environment"), checked.or_none(told, "file", checked.text)
    sources = [Elsewhere(OF_VARIABLE, count)] if count else []
    return sources if file is None else [*sources, _counted(file)]


def _counted(file: str) -> Elsewhere:
    try:
        return Elsewhere(OF_FILE, len(key_file.read(Path(file))), file)
    except OSError as error:
        return Elsewhere(OF_FILE, None, file, error.strerror or str(error))
