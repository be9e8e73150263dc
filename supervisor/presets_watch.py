"""Notices with inotify(7) that the configuration's files change: config.yaml, the presets, the models found without
one, and what leads there.

What is watched is directories, for the names in them: editors, package managers and Kubernetes replace files, links and
whole directories by renaming others over them, which only the directory around them sees. From "/" on, each directory
on the way is watched for the next name of the way, symbolic links included; so whatever is taken away and comes back,
at whatever depth, is heard of.

A file counts as changed when it is closed, not with each write. Mounting a file system makes no event, but the kernel's
table of mounts does, see proc_pid_mountinfo(5). What other machines change on a network file system is not noticed.
"""

from __future__ import annotations

import errno
import os
import select
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from inotify_simple import INotify, flags

from supervisor import models_dir, presets_dir
from supervisor.loop import Loop
from supervisor.paths import printable

QUIET_SECONDS = 0.25
LONGEST_SECONDS = 2.0
MAX_LINKS = 40  # as many as path_resolution(7) follows

Ends = tuple[int | None, int | None]

NAMES = flags.CREATE | flags.DELETE | flags.MOVED_FROM | flags.MOVED_TO | flags.CLOSE_WRITE | flags.ATTRIB
MASK = NAMES | flags.DELETE_SELF | flags.MOVE_SELF | flags.ONLYDIR

# What can be mended by an administrator only; the rest (a missing directory, say) is told when the file is read.
WHY = {
    errno.ENOSPC: "fs.inotify.max_user_watches is used up",
    errno.EMFILE: "fs.inotify.max_user_instances or the number of open files is used up",
    errno.ENFILE: "the system has no more open files",
    errno.ENOMEM: "the kernel is out of memory",
    errno.ENOSYS: "this kernel has no inotify",
}


@dataclass
class _Directory:
    """What matters in the directory at `path`: `names`, with `presets` files of presets, with `models` models."""

    path: str
    names: set[str] = field(default_factory=set)
    presets: bool = False
    models: bool = False

    def wants(self, name: str, is_folder: bool) -> bool:
        """Whether what happened to that name, or to the directory itself (""), may change the configuration."""
        if not name or name in self.names:
            return True
        if self.presets and presets_dir.is_presets_name(name):
            return True
        # A link may lead to a folder, which its event does not tell.
        return self.models and models_dir.may_matter(name, is_folder or os.path.islink(f"{self.path}/{name}"))  # noqa: PTH114

    def add(self, other: _Directory) -> None:
        """Let matter what does to another."""
        self.names |= other.names
        self.presets |= other.presets
        self.models |= other.models


class PresetsWatch:
    """Calls `changed` once the files have been quiet for QUIET_SECONDS, or LONGEST_SECONDS after their first change.

    `complain` gets a line when the kernel refuses to watch; nothing but the automatic reload is lost then.
    """

    def __init__(
        self, loop: Loop, config: Path, *, changed: Callable[[], None], complain: Callable[[str], None]
    ) -> None:
        self._loop = loop
        self._config = config
        self._changed = changed
        self._complain = complain
        self._watched: dict[int, _Directory] = {}
        # The watches on the directories of presets and of models: those there are, and when they were last read.
        self._ends: Ends = (None, None)
        self._read_ends: Ends = (None, None)
        self._complained: str | None = None
        self._first: float | None = None
        self._last = 0.0
        self._inotify: INotify | None = None
        self._mounts: tuple[IO[bytes], select.epoll] | None = None
        loop.timed.append(self)

    def start(self) -> None:
        """Watch from now on. What changed between the reading of the configuration and this is found by another one."""
        self._arm()
        self._read_ends = self._ends
        if self._inotify is not None:
            self._gather()
            self._watch_mounts()

    def close(self) -> None:
        """Watch no more."""
        if self._inotify is not None:
            self._loop.unwatch(self._inotify)
            self._inotify.close()
        if self._mounts is not None:
            table, changes = self._mounts
            self._loop.unwatch(changes)
            changes.close()
            table.close()

    def before_reading(self) -> None:
        """To be called before the configuration is read: whatever happened until now, the reading sees it."""
        self._drain()
        self._first = None
        self._arm()

    def before_reading_again(self) -> None:
        """The same before it is read once more with the headers that it lacked: what happened since the first time may
        have happened after they were read, and is told still."""
        self._ready()
        self._arm()

    def applied(self) -> None:
        """What was read is in use."""
        self._read_ends = self._ends

    @property
    def replaced(self) -> bool:
        """Whether another directory stands where the presets in use were read from: made anew, renamed or unmounted."""
        return self._ends[0] != self._read_ends[0]

    @property
    def models_replaced(self) -> bool:
        """The same of the directory of models; or there is none."""
        return self._ends[1] != self._read_ends[1]

    def due(self) -> float | None:
        """When the changes gathered so far are to be told."""
        return None if self._first is None else min(self._last + QUIET_SECONDS, self._first + LONGEST_SECONDS)

    def fire(self, now: float) -> None:
        """Tell of changes if it is time."""
        due = self.due()
        if due is not None and due <= now:
            self._first = None
            self._changed()

    def _ready(self) -> None:
        if self._drain():
            self._gather()

    def _watch_mounts(self) -> None:
        """A change of the table is a "priority" event; an epoll descriptor of its own makes it plain readiness."""
        try:
            table = open("/proc/self/mountinfo", "rb", buffering=0)  # noqa: SIM115, PTH123  # as long as the process
        except OSError:  # no /proc: then they are not noticed
            return
        changes = select.epoll()
        changes.register(table, select.EPOLLPRI)
        self._mounts = table, changes
        self._loop.watch(changes, lambda: self._mounted(changes))

    def _mounted(self, changes: select.epoll) -> None:
        changes.poll(0)
        before = self._watched.keys()
        self._arm()
        if self._watched.keys() != before:
            self._gather()

    def _gather(self) -> None:
        self._last = time.monotonic()
        if self._first is None:
            self._first = self._last

    def _drain(self) -> bool:
        """Take in what happened; whether any of it matters. Lost events (Q_OVERFLOW) may have."""
        matters = False
        for event in self._inotify.read(timeout=0) if self._inotify is not None else ():
            directory, is_folder = self._watched.get(event.wd), bool(event.mask & flags.ISDIR)
            if event.mask & flags.Q_OVERFLOW or (directory is not None and directory.wants(event.name, is_folder)):
                matters = True
            if event.mask & flags.IGNORED:
                self._watched.pop(event.wd, None)
        return matters

    def _arm(self) -> None:
        """Watch all that leads to the files as they are at this moment, and nothing else."""
        refused: OSError | None = None
        before, self._watched = self._watched, {}
        watches: dict[str | None, int] = {}
        ends: tuple[str | None, str | None] = (None, None)
        try:
            inotify = self._inotify or self._opened()
            ends, wanted = _wanted(self._config)
            for path, directory in wanted.items():
                if (watch := self._add(inotify, path)) is not None:
                    self._watched.setdefault(watch, _Directory(path)).add(directory)
                    watches[path] = watch
        except OSError as error:
            refused = error
            self._watched = {**before, **self._watched}
        self._ends = watches.get(ends[0]), watches.get(ends[1])
        for watch in before.keys() - self._watched.keys():
            self._forget(watch)
        self._tell(refused)

    def _opened(self) -> INotify:
        self._inotify = INotify()
        self._loop.watch(self._inotify, self._ready)
        return self._inotify

    def _add(self, inotify: INotify, path: str) -> int | None:
        """A watch descriptor; None for what is missing or closed to us. Raises OSError if no more can be watched."""
        try:
            return int(inotify.add_watch(path, MASK))
        except OSError as error:
            if error.errno in WHY:
                raise
            return None

    def _forget(self, watch: int) -> None:
        assert self._inotify is not None
        try:
            self._inotify.rm_watch(watch)
        except OSError:  # EINVAL: its directory is gone, and the watch with it
            return

    def _tell(self, refused: OSError | None) -> None:
        """Complain once for each reason, as long as it lasts."""
        why = WHY.get(refused.errno or 0, refused.strerror or str(refused)) if refused is not None else None
        if why and why != self._complained:
            self._complain(
                f"cannot watch {printable(self._config)} and its presets for changes: {why}; "
                "after an edit, run: llama-router reload"
            )
        self._complained = why


def _wanted(config: Path) -> tuple[tuple[str | None, str | None], dict[str, _Directory]]:
    """Where the presets and the models are, with all links followed, and for each directory what in it matters."""
    presets, files, models = presets_dir.places(config)
    links = [file for file in files if os.path.islink(file)]  # noqa: PTH114  # Path.is_symlink may raise PermissionError
    folders, more_links = _models_places(models)
    wanted: dict[str, _Directory] = {}
    for path in (config, *links, *more_links, *filter(None, (presets, models))):
        for end, name in _way(path):
            wanted.setdefault(end, _Directory(end)).names.add(name)
    for folder in folders:
        wanted.setdefault(folder, _Directory(folder)).models = True
    presets_end = os.path.realpath(presets) if presets else None
    if presets_end is not None:
        wanted.setdefault(presets_end, _Directory(presets_end)).presets = True
    return (presets_end, folders[0] if folders else None), wanted


def _models_places(models: Path | None) -> tuple[list[str], list[Path]]:
    """The folders of models, all links followed and the directory itself first, and the links in them."""
    try:
        seen = models_dir.walk(models) if models is not None else models_dir.Walk()
    except OSError:
        return [], []
    return [os.path.realpath(folder.path) for folder in seen.folders], [Path(link) for link in seen.links]


def _way(path: Path) -> Iterator[tuple[str, str]]:
    """Each directory that is passed on the way to `path`, without links in it, and the name that is looked up there."""
    directory, names, links = "/", _names(str(path)), 0
    while names:
        name = names.pop()
        if name == "..":
            directory = os.path.dirname(directory)  # noqa: PTH120  # free of links, so this is its parent
            continue
        yield directory, name
        here = os.path.join(directory, name)  # noqa: PTH118
        try:
            target = os.readlink(here)  # noqa: PTH115
        except OSError as error:
            if error.errno != errno.EINVAL:  # it is missing, or closed to us; EINVAL: it is no link
                return
            directory = here
            continue
        links += 1
        if links > MAX_LINKS:
            return
        if target.startswith("/"):
            directory = "/"
        names += _names(target)


def _names(path: str) -> list[str]:
    """The names in a path, the last one first."""
    return [name for name in reversed(path.split("/")) if name not in ("", ".")]
