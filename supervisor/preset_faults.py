"""What keeps single presets from being served while all others are: their model or their program is not there, or not
all of it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from supervisor.backends import missing_program
from supervisor.configuration import Judge
from supervisor.core.preset import Preset
from supervisor.core.quantities import shown
from supervisor.errors import Problem
from supervisor.yaml_source import Keys, Source, Written


@dataclass
class Entry:
    """A model as a file has it; `preset` is None if it has problems, or `lacks` its file. `sound` is what is left of
    it without what is wrong, and `wrong` are the keys of that. `incomplete`: a file of it is not all there."""

    source: Source
    keys: Keys
    written: Written
    preset: Preset | None
    lacks: str | None = None
    sound: Preset | None = None
    incomplete: bool = False
    wrong: frozenset[str] = frozenset()

    @property
    def aliases(self) -> list[str]:
        """The aliases, those of an invalid preset included, so that clashes show together with its other problems."""
        written = self.written.get("aliases")
        return [alias for alias in written if isinstance(alias, str)] if isinstance(written, list) else []


def found(entries: Collection[Entry], judge: Judge) -> list[Problem]:
    """All of them, noted where they are written."""
    return [*lacking(entries), *_without_program(entries), *_not_whole(entries, judge)]


def lacking(entries: Iterable[Entry]) -> list[Problem]:
    """Presets that go without a model until its file is there; noted where they are written."""
    return [_noted(entry, "model", entry.lacks) for entry in entries if entry.lacks]


def _without_program(entries: Iterable[Entry]) -> list[Problem]:
    """Presets that can't be loaded until a program is there; noted likewise. llama-servers were asked already."""
    commands = [(entry, entry.preset) for entry in entries if entry.preset and entry.preset.backend == "command"]
    missing = [(entry, why) for entry, preset in commands if (why := missing_program(preset))]
    return [_noted(entry, "command", f"{why}; until it is there the model can't be loaded") for entry, why in missing]


def _not_whole(entries: Iterable[Entry], judge: Judge) -> Iterator[Problem]:
    """Presets that can't be loaded until the rest of their file is there, or another; noted likewise."""
    for entry in entries:
        if entry.preset is None or entry.preset.backend == "command":
            continue
        for key, path, why_not in (
            ("model", entry.preset.model, judge.why_no_model),
            ("mmproj", entry.preset.mmproj, judge.why_incomplete),
        ):
            if path is not None and (why := why_not(path)):
                entry.incomplete = True
                yield _noted(entry, key, f"cannot load {shown(path, 200)}: {why}; get all of it, or correct the path")


def _noted(entry: Entry, key: str, message: str) -> Problem:
    entry.source.notice((*entry.keys, key), message)
    return entry.source.notices[-1]
