"""The configuration in use, and how another one takes its place: when somebody asks for it, or its files change.

Whatever is wrong with the new one, the one in use stays, and nothing is unloaded.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from supervisor import presets_dir
from supervisor.announcements import Announcements
from supervisor.configuration import Configuration, Judge
from supervisor.core import config as config_keys
from supervisor.core.commands import Announce
from supervisor.core.config import Config
from supervisor.core.reload import changes
from supervisor.core.reload_words import Told, outcome, restart_needed
from supervisor.core.status import fleet_status
from supervisor.errors import ConfigurationError, Problem
from supervisor.logs import Journal
from supervisor.loop import Loop
from supervisor.presets_watch import PresetsWatch
from supervisor.protocol import Message
from supervisor.yaml_source import printable

READ_AT_START = ("listen", "web")
MAX_PROBLEMS_TOLD = 100


class Configured:
    """`running` is the configuration in use; `use` is called with each that takes its place, which `judge` lets pass.

    `overridden` are keys of config.yaml that the command line decides.
    """

    def __init__(
        self,
        loop: Loop,
        running: Configuration,
        *,
        use: Callable[[Configuration], None],
        judge: Judge,
        overridden: frozenset[str],
        journal: Journal,
        announcements: Announcements,
    ) -> None:
        self.running = running
        self._loop = loop
        self._use = use
        self._judge = judge
        self._journal = journal
        self._announcements = announcements
        self._started_with = running.config
        self._at_start = [key for key in READ_AT_START if key not in overridden]
        self._wrong: list[Problem] = []  # with what is on disk, as far as it was read and told
        self.watch = PresetsWatch(
            loop,
            running.path,
            changed=self._files_changed,
            complain=lambda line: journal.write(f"llama-router: {line}", "warning"),
        )

    def would_change(self) -> Message:
        """The `changes` that a reload would make. Raises ConfigurationError as the reload would."""
        return asdict(self._told(presets_dir.load(self.running.path, self._judge)))

    def reload(self) -> Message:
        """Read the configuration again and apply what differs. Returns the `changes`.

        Raises ConfigurationError and changes nothing; that is announced, and the caller tells the problems.
        """
        self.watch.before_reading()
        try:
            new = presets_dir.load(self.running.path, self._judge)
        except ConfigurationError as error:
            self._refuse(error.problems)
            raise
        return asdict(self._apply(new))

    def reload_and_tell(self) -> None:
        """The same for nobody in particular: problems are told to the journal."""
        try:
            self.reload()
        except ConfigurationError as error:
            self._tell(error.problems)

    def _files_changed(self) -> None:
        """Apply what the files say if it differs; say nothing that was said before.

        An empty directory in the place of the one that held the presets, or the models, is a file system that is not
        mounted, or a checkout that is not there yet, sooner than somebody's wish to end all models.
        """
        self.watch.before_reading()
        try:
            new = presets_dir.load(self.running.path, self._judge)
            if (emptied := self._emptied(new)) is not None:
                raise ConfigurationError([emptied])
        except ConfigurationError as error:
            if error.problems != self._wrong:
                self._refuse(error.problems)
                self._tell(error.problems)
            return
        if self._differs(new):
            self._apply(new)
            return
        self.running = new  # the same at other lines
        self.watch.applied()
        if self._wrong:
            self._wrong = []
            self._announce("the configuration is in order again, and the same as the running one")

    def _emptied(self, new: Configuration) -> Problem | None:
        """What is wrong if one of the directories was replaced by one with nothing in it."""
        old = self.running
        if self.watch.replaced and old.written() and not new.written():
            return _is_empty(new, "presets", new.presets_dir)
        if old.models_dir == new.models_dir and self.watch.models_replaced and old.found() and not new.found():
            return _is_empty(new, "models_dir", new.models_dir)
        return None

    def _differs(self, new: Configuration) -> bool:
        old = self.running
        return (old.presets, old.aliases, old.config) != (new.presets, new.aliases, new.config)

    def _apply(self, new: Configuration) -> Told:
        told = self._told(new)
        fresh = [key for key in told.needs_restart if getattr(new.config, key) != getattr(self.running.config, key)]
        self.running, self._wrong = new, []
        self.watch.applied()
        self._use(new)
        if told.settings:
            self._announce(f"changed in config.yaml: {', '.join(told.settings)}")
        for line in restart_needed(fresh):
            self._announce(line)
        return told

    def _told(self, new: Configuration) -> Told:
        difference = changes(self.running.presets, new.presets)
        models = {model["name"]: model for model in fleet_status(self._loop.fleet, 0.0)["models"]}
        settings = _differing(self.running.config, new.config) - {*READ_AT_START, *config_keys.UNACTED}
        return Told(
            added=difference.added,
            changed=difference.changed,
            adjusted=difference.adjusted,
            removed=difference.removed,
            unchanged=difference.unchanged,
            outcomes={name: outcome(models.get(name)) for name in (*difference.changed, *difference.removed)},
            settings=tuple(sorted(settings)),
            needs_restart=tuple(key for key in self._at_start if key in _differing(self._started_with, new.config)),
        )

    def _refuse(self, problems: list[Problem]) -> None:
        """Note and announce that the configuration on disk can't be used."""
        self._wrong = problems
        count = f"{len(problems)} problems, the first is " if len(problems) > 1 else ""
        text = f"cannot reload, the running configuration is kept: {count}{problems[0]}"
        self._announcements.add(Announce("reload", None, text), time.time() - time.monotonic())

    def _tell(self, problems: Sequence[Problem]) -> None:
        self._journal.write("llama-router: cannot reload; the running configuration is kept:", "error")
        self._journal.write_all((f"llama-router:   {problem}" for problem in problems[:MAX_PROBLEMS_TOLD]), "error")
        if len(problems) > MAX_PROBLEMS_TOLD:
            more = len(problems) - MAX_PROBLEMS_TOLD
            self._journal.write(f"llama-router:   and {more} more; run: llama-router check", "error")

    def _announce(self, text: str) -> None:
        self._announcements.add(Announce("reload", None, text), time.time() - time.monotonic())
        self._journal.write(f"llama-router: {text}")


def _differing(old: Config, new: Config) -> set[str]:
    return {key for key in Config.model_fields if getattr(old, key) != getattr(new, key)}


def _is_empty(new: Configuration, key: str, directory: Path) -> Problem:
    what = "was replaced by one without presets" if key == "presets" else "is gone, or replaced by one without models"
    why = f"the directory {printable(directory)} {what}; if that is meant, run: llama-router reload"
    return Problem(printable(new.path), None, key, why)
