"""The directory of models: which GGUF files in it are models without a preset, and what they are called.

It is laid out as for llama-server's `--models-dir`: a file is a model named after it, and a folder is one named after
the folder, which holds a file or its shards, and perhaps the projector of a vision model (`mmproj` in its name). Unlike
there, folders may lie in folders, several models may share one, and what can't be loaded is passed over and told.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from supervisor import gguf_file
from supervisor.core.fields import complaints
from supervisor.core.preset import Preset
from supervisor.core.quantities import shown
from supervisor.errors import Problem
from supervisor.paths import printable

SUFFIX = ".gguf"
# aria2 allots the whole file at once; until it is downloaded, there is a file of this name beside it.
ARIA2 = ".aria2"
# What browsers, wget-likes, Hugging Face's and llama.cpp's own downloads are called until they are whole.
PARTIAL = (".part", ".partial", ".filepart", ".tmp", ".incomplete", ".crdownload", ".download", ".downloadinprogress")

# Folders below the directory: as many as a repository of Hugging Face's cache with folders of its own has.
MAX_DEPTH = 4
MAX_ENTRIES = 20_000
MAX_NOTICES = 100


@dataclass(frozen=True)
class Found:
    """A model: its name, and the absolute paths of its first file and of its projector, if it has one."""

    name: str
    model: str
    mmproj: str | None = None


@dataclass(frozen=True)
class Folder:
    """A folder on disk: its path, its path below the directory of models ("" for that itself), its files that count."""

    path: str
    below: str
    names: tuple[str, ...]  # sorted

    def __truediv__(self, name: str) -> str:
        return os.path.join(self.path, name)  # noqa: PTH118  # Path would make ".." and "." disappear


@dataclass
class Walk:
    """What there is: folders, the symbolic links that lead to folders and models, and notices of what is passed over.

    `entries` counts what was looked at.
    """

    folders: list[Folder] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    notices: list[Problem] = field(default_factory=list)
    entries: int = 0
    too_deep: bool = False

    def notice(self, path: str, message: str) -> None:
        """Note what is passed over, and why."""
        if len(self.notices) < MAX_NOTICES:
            self.notices.append(Problem(printable(Path(path)), None, None, message))


@dataclass
class Models:
    """What was found, by name; why a name is missing that a file would have; and all that is to be told."""

    found: dict[str, Found] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    notices: list[Problem] = field(default_factory=list)

    def completed(self, name: str, written: dict[str, Any]) -> dict[str, Any]:
        """A preset's keys with the files of the model of that name, if they name no `model` themselves."""
        found = self.found.get(name)
        if found is None or written.get("model") is not None or written.get("backend") == "command":
            return written
        return {"mmproj": found.mmproj, **written, "model": found.model}


def may_matter(name: str, is_folder: bool) -> bool:
    """Whether what happens to an entry of that name can change what is found."""
    return not name.startswith(".") and (is_folder or name.endswith((SUFFIX, SUFFIX + ARIA2)))


def walk(directory: Path) -> Walk:
    """Look through the directory without opening a file. Raises OSError if it can't be read; a folder is then noted."""
    seen = Walk()
    _enter(seen, str(directory), "", ())
    return seen


def look(directory: Path, why_no_model: Callable[[str], str | None]) -> Models:
    """The models in the directory; `why_no_model` tells of a file what it lacks. Raises OSError as `walk` does."""
    seen = walk(directory)
    models = Models(notices=seen.notices)
    for folder in seen.folders:
        usable = []
        for name, stem in _candidates(folder, seen):
            if why := _why_not(folder, name, why_no_model):
                seen.notice(folder / name, f"passed over: {why}")
                models.missing[folder.below or stem] = why
            else:
                usable.append((name, stem))
        for found in _named(folder, usable, seen):
            if found.name in models.found:
                other = printable(Path(models.found[found.name].model))
                seen.notice(found.model, f"passed over: the name {shown(found.name)} is taken by {other}; rename one")
            else:
                models.found[found.name] = found
    return models


def presets(models: Models, taken: Mapping[str, tuple[str | None, str]]) -> dict[str, Preset]:
    """Presets for the models whose names are not `taken`; notes those that can't have one.

    `taken` has the names and aliases that presets give, each with the path of the model that has it as its name, and
    where that is written.
    """
    made: dict[str, Preset] = {}
    for name, found in sorted(models.found.items()):
        file, place = taken.get(name, (None, None))
        if place is None:
            try:
                made[name] = Preset(name=name, model=found.model, mmproj=found.mmproj)
                continue
            except ValidationError as error:
                why = "; ".join(message for _, message in complaints(Preset, error))
        elif file == found.model:
            continue
        else:
            why = f"the name {shown(name)} is taken by {place}; rename one of them"
        models.notices.append(Problem(printable(Path(found.model)), None, None, f"passed over: {why}"))
    return made


def _enter(seen: Walk, path: str, below: str, above: tuple[tuple[int, int], ...]) -> None:
    """Add the folder and those in it; `above` are the (st_dev, st_ino) of those that lead to it."""
    about = os.stat(path)  # noqa: PTH116  # as cheap as can be
    here = (about.st_dev, about.st_ino)
    if here in above:
        return  # a link that leads back
    names, folders = [], []
    for entry in _entries(seen, path):
        if _is_folder(seen, entry):
            folders.append(entry)
        elif _is_file(seen, entry):
            names.append(entry.name)
    seen.folders.append(Folder(path, below, tuple(names)))
    for entry in folders:
        if len(above) == MAX_DEPTH:
            if not seen.too_deep:
                seen.notice(entry.path, f"passed over: it is more than {MAX_DEPTH} folders deep, as others may be")
            seen.too_deep = True
            return
        if seen.entries > MAX_ENTRIES:
            return
        try:
            _enter(seen, entry.path, f"{below}/{entry.name}" if below else entry.name, (*above, here))
        except OSError as error:
            seen.notice(entry.path, f"passed over: {error.strerror}")


def _entries(seen: Walk, path: str) -> list[os.DirEntry[str]]:
    """What is not hidden in a folder, sorted by name."""
    entries = []
    with os.scandir(path) as scan:
        for entry in scan:
            seen.entries += 1
            if seen.entries > MAX_ENTRIES:
                seen.notice(path, f"passed over in part: only {MAX_ENTRIES} files and folders are looked at in all")
                break
            if not entry.name.startswith("."):
                entries.append(entry)
    return sorted(entries, key=lambda entry: entry.name)


def _is_folder(seen: Walk, entry: os.DirEntry[str]) -> bool:
    try:
        is_folder = entry.is_dir()
    except OSError:  # a circle of links, or one that leads where we may not look
        is_folder = False
    if entry.is_symlink() and may_matter(entry.name, is_folder):
        seen.links.append(entry.path)
    return is_folder


def _is_file(seen: Walk, entry: os.DirEntry[str]) -> bool:
    """Whether it is a file that counts; says so of what looks as if it should."""
    lower = entry.name.lower()
    if f"{SUFFIX}." in lower and lower.endswith(PARTIAL):
        seen.notice(entry.path, "passed over: its name says that its download is not complete")
    if not entry.name.endswith((SUFFIX, SUFFIX + ARIA2)):
        if lower.endswith(SUFFIX):  # llama-server passes it over as well
            seen.notice(entry.path, f"passed over: models end in {SUFFIX}, in small letters; rename it")
        return False
    try:
        why = None if entry.is_file() else "it leads to nothing" if entry.is_symlink() else "it is not a regular file"
    except OSError as error:
        why = error.strerror
    if why is not None:
        seen.notice(entry.path, f"passed over: {why}")
    return why is None


def _candidates(folder: Folder, seen: Walk) -> list[tuple[str, str]]:
    """The files that may be models, or the first shards of models, each with the name that it has by itself.

    llama-server prefers shards, too; it takes one model of a folder, whichever file is listed last.
    """
    files = [name for name in folder.names if name.endswith(SUFFIX) and not _is_projector(name)]
    shards = [(name, shard) for name in files if (shard := gguf_file.shard(name))]
    begun = {stem for _, (stem, number) in shards if number == 1}
    for name, (stem, _) in shards:
        if stem not in begun:
            begun.add(stem)
            seen.notice(folder / name, "passed over: the first shard of its model is not there")
    firsts = [(name, stem) for name, (stem, number) in shards if number == 1]
    return firsts + [(name, name.removesuffix(SUFFIX)) for name in files if not gguf_file.shard(name)]


def _named(folder: Folder, usable: list[tuple[str, str]], seen: Walk) -> Iterator[Found]:
    """The models of a folder with their names: the first one has that of the folder."""
    projectors = [folder / name for name in folder.names if _is_projector(name)]
    if not folder.below or not usable:
        for path in projectors:
            seen.notice(path, "passed over: a projector (mmproj) belongs into a folder with its model")
        yield from (Found(stem, folder / name) for name, stem in usable)
        return
    if len(projectors) > 1:
        seen.notice(projectors[0], f"is the projector that is used, as the first of {len(projectors)}")
    projector = projectors[0] if projectors else None
    for number, (name, stem) in enumerate(usable):
        called = f"{folder.below}/{stem}" if number else folder.below
        if len(usable) > 1:
            seen.notice(folder / name, f"is the model {shown(called)}, as there are {len(usable)} in this folder")
        yield Found(called, folder / name, projector)


def _is_projector(name: str) -> bool:
    return name.endswith(SUFFIX) and "mmproj" in name.lower()


def _why_not(folder: Folder, name: str, why_no_model: Callable[[str], str | None]) -> str | None:
    """What keeps a file from being a model, or its first shard."""
    for path in gguf_file.files(folder / name):
        each = os.path.basename(path)  # noqa: PTH119
        if each not in folder.names:
            return f"its shard {printable(Path(each))} is not there"
        if each + ARIA2 in folder.names:
            return f"aria2 has not completed it: {printable(Path(each))}{ARIA2} is there"
        if not os.access(path, os.R_OK):
            return "permission denied; make it readable for this user"
    try:
        (folder / name).encode()
    except UnicodeEncodeError:
        return "its path is not UTF-8; rename it"
    return why_no_model(folder / name)
