"""The configuration in use, and how another one takes its place: when somebody asks for it, or its files change.

Whatever is wrong with the new one, the one in use stays, and nothing is unloaded.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import msgspec

from supervisor import presets_dir
from supervisor.announcements import Announcements
from supervisor.configuration import Configuration, Judge, Origin
from supervisor.core.commands import Announce
from supervisor.core.config import Config, parse_listen
from supervisor.core.fleet import Fleet
from supervisor.core.need import Need
from supervisor.core.reload import changes
from supervisor.core.reload_words import Told, later, outcome
from supervisor.core.settings import REEXEC, RESTART, differing
from supervisor.core.status import fleet_status
from supervisor.errors import ConfigurationError, Problem
from supervisor.logs import Journal
from supervisor.loop import Loop
from supervisor.paths import printable
from supervisor.presets_watch import PresetsWatch
from supervisor.protocol import Message
from supervisor.reading import Reading

MAX_PROBLEMS_TOLD = 100

Read = Configuration | ConfigurationError
Answer = Callable[[Message | ConfigurationError], None]
Asking = tuple[Callable[[Read], None], bool]  # who gets what is on disk, and whether it may be taken over


class InUse(msgspec.Struct, frozen=True):
    """The configuration in use, as one program hands it over to another, but for the presets, which the fleet has. What
    is `wrong` was told already, and `listen` is where it listens since the start."""

    config: dict[str, Any]
    listen: str
    path: str
    presets_dir: str
    models_dir: str
    needs: dict[str, Need]
    origins: dict[str, Origin]
    notices: list[Problem]
    faults: list[Problem]
    incomplete: list[str]
    wrong: list[Problem]

    def configuration(self, fleet: Fleet) -> Configuration:
        """The same without the files that presets are written in. Raises ValueError."""
        return Configuration(
            config=Config.model_validate(self.config),
            path=Path(self.path),
            presets_dir=Path(self.presets_dir),
            models_dir=Path(self.models_dir),
            presets={name: model.preset for name, model in fleet.models.items() if not model.removed},
            aliases=fleet.aliases,
            needs=self.needs,
            origins=self.origins,
            notices=tuple(self.notices),
            faults=tuple(self.faults),
            incomplete=frozenset(self.incomplete),
        )


class Configured:
    """`running` is the configuration in use; `use` is called with each that takes its place, which `judge` lets pass
    once it knows all that is `reading`.

    `overridden` are keys of config.yaml that the command line decides.
    """

    def __init__(
        self,
        loop: Loop,
        running: Configuration,
        *,
        use: Callable[[Configuration], None],
        judge: Judge,
        reading: Reading,
        overridden: frozenset[str],
        journal: Journal,
        announcements: Announcements,
    ) -> None:
        self.running = running
        self.files = running.files
        self._loop = loop
        self._use = use
        self._judge = judge
        self._reading = reading
        self._journal = journal
        self._announcements = announcements
        self._started_with = running.config
        self._overridden = overridden
        self._waiting: list[Asking] = []
        # With what is on disk, as far as it was read and told: why it is not what is in use.
        self.wrong: list[Problem] = []
        self.watch = PresetsWatch(
            loop,
            running.path,
            changed=self._files_changed,
            complain=lambda line: journal.write(f"llama-router: {line}", "warning"),
        )

    @property
    def busy(self) -> bool:
        """True while somebody waits for what is on disk."""
        return bool(self._waiting) or self._reading.busy

    def handed_over(self) -> InUse:
        """For another program to go on with."""
        running = self.running
        return InUse(
            config=running.config.model_dump(mode="json"),
            listen=str(self._started_with.listen),
            path=str(running.path),
            presets_dir=str(running.presets_dir),
            models_dir=str(running.models_dir),
            needs=dict(running.needs),
            origins=running.origins,
            notices=list(running.notices),
            faults=list(running.faults),
            incomplete=sorted(running.incomplete),
            wrong=self.wrong,
        )

    def take_over(self, inherited: InUse) -> None:
        """Go on with what another program used, and take over what is on disk if it differs. The web tier is started by
        the configuration in use, and the listener is the one that there was."""
        listen = parse_listen(inherited.listen)
        self._started_with = self._started_with.model_copy(update={"listen": listen})
        self.wrong = list(inherited.wrong)
        self._files_changed()

    def tell_faults(self, faults: Sequence[Problem], before: Sequence[Problem] = ()) -> None:
        """Say what keeps single models from being served, unless it did so `before`, if at another line."""
        known = {(fault.file, fault.field) for fault in before}
        for fault in faults:
            if (fault.file, fault.field) not in known:
                self._announce(str(fault))

    def would_change(self, then: Answer) -> None:
        """Call `then` with the `changes` that a reload would make, or with what keeps it from making any."""

        def compare(read: Read) -> None:
            then(read if isinstance(read, ConfigurationError) else asdict(self.told(read)))

        self._read(compare, applies=False)

    def reload(self, then: Answer) -> None:
        """Read the configuration again and apply what differs; `then` gets the `changes`.

        Or it gets what is wrong, and has to tell that. It is announced, and nothing changes.
        """

        def apply(read: Read) -> None:
            if isinstance(read, ConfigurationError):
                self._refuse(read.problems)
                then(read)
            else:
                then(asdict(self._apply(read)))

        self._read(apply)

    def reload_and_tell(self, then: Callable[[], None]) -> None:
        """The same for nobody in particular: problems are told to the journal."""

        def tell(changes: Message | ConfigurationError) -> None:
            if isinstance(changes, ConfigurationError):
                self._tell(changes.problems)
            then()

        self.reload(tell)

    def read_missing(self, then: Callable[[], None]) -> bool:
        """Have headers read that something lacked which was no reload, and call `then`; False if that is not needed,
        or if others are being read: then what is known has to do."""

        def go_on() -> None:
            then()
            self._go_on()

        return not self._reading.busy and self._reading.start(go_on)

    def _read(self, use: Callable[[Read], None], *, applies: bool = True) -> None:
        """Call `use` with what is on disk, at once unless headers have to be read. `applies`: it may be taken over."""
        self._waiting.append((use, applies))
        self._go_on()

    def _go_on(self) -> None:
        """Read the configuration for all who wait, if any do and no headers are being read. Who comes while they are
        waits for another reading: a header may be older than the change that he comes for."""
        if self._reading.busy or not self._waiting:
            return
        asking, self._waiting = self._waiting, []
        if any(applies for _, applies in asking):
            self.watch.before_reading()
        self._look(asking)

    def _look(self, asking: Sequence[Asking]) -> None:
        """Read the configuration; if headers were missing for it, once more when they are there."""
        read: Read
        try:
            read = presets_dir.load(self.running.path, self._judge, self.files)
        except ConfigurationError as error:
            read = error
        if self._reading.start(lambda: self._look_again(asking)):
            return
        for use, _ in asking:
            use(read)
        self._go_on()

    def _look_again(self, asking: Sequence[Asking]) -> None:
        if any(applies for _, applies in asking):
            self.watch.before_reading_again()
        self._look(asking)

    def _files_changed(self) -> None:
        self._read(self._take_over)

    def _take_over(self, read: Read) -> None:
        """Apply what the files say if it differs; say nothing that was said before.

        An empty directory in the place of the one that held the presets, or the models, is a file system that is not
        mounted, or a checkout that is not there yet, sooner than somebody's wish to end all models.
        """
        if isinstance(read, Configuration) and (emptied := self._emptied(read)) is not None:
            read = ConfigurationError([emptied])
        if isinstance(read, ConfigurationError):
            if read.problems != self.wrong:
                self._refuse(read.problems)
                self._tell(read.problems)
            return
        if self._differs(read):
            self._apply(read)
            return
        self.tell_faults(read.faults, self.running.faults)
        self.running = read  # the same at other lines
        self.watch.applied()
        if self.wrong:
            self.wrong = []
            self._announce("the configuration is in order again, and the same as the running one")

    def _emptied(self, new: Configuration) -> Problem | None:
        """What is wrong if one of the directories was replaced by one with nothing in it."""
        old = self.running
        if self.watch.replaced and old.written() and not new.written():
            return _is_empty(new, "presets", new.presets_dir)
        same = old.models_dir == new.models_dir
        if same and self.watch.models_replaced and old.in_models_dir() and not new.in_models_dir():
            return _is_empty(new, "models_dir", new.models_dir)
        return None

    def _differs(self, new: Configuration) -> bool:
        old = self.running
        if (old.presets, old.aliases, old.config) != (new.presets, new.aliases, new.config):
            return True
        # A model's file was replaced. What was measured meanwhile the fleet knows already.
        return any(need.source == "estimated" and need != old.needs[name] for name, need in new.needs.items())

    def _apply(self, new: Configuration) -> Told:
        told = self.told(new)
        fresh = differing(self.running.config, new.config)
        self.tell_faults(new.faults, self.running.faults)
        self.running, self.wrong = new, []
        self.watch.applied()
        self._use(new)
        if told.settings:
            self._announce(f"changed in config.yaml: {', '.join(told.settings)}")
        for line in later(told, fresh):
            self._announce(line)
        return told

    def told(self, new: Configuration) -> Told:
        """What the change to `new` would be."""
        difference = changes(self.running.presets, new.presets)
        models = {model["name"]: model for model in fleet_status(self._loop.fleet, 0.0)["models"]}
        return Told(
            added=difference.added,
            changed=difference.changed,
            adjusted=difference.adjusted,
            removed=difference.removed,
            unchanged=difference.unchanged,
            outcomes={name: outcome(models.get(name)) for name in (*difference.changed, *difference.removed)},
            settings=tuple(sorted(differing(self.running.config, new.config) - RESTART - REEXEC)),
            **self.needs(new),
        )

    def needs(self, configuration: Configuration) -> dict[str, tuple[str, ...]]:
        """The keys of config.yaml that are not as this program was started with: what a restart is needed for, and what
        a reexec is enough for."""
        changed = differing(self._started_with, configuration.config) - self._overridden
        return {"needs_restart": tuple(sorted(changed & RESTART)), "needs_reexec": tuple(sorted(changed & REEXEC))}

    def _refuse(self, problems: list[Problem]) -> None:
        """Note and announce that the configuration on disk can't be used."""
        self.wrong = problems
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


def _is_empty(new: Configuration, key: str, directory: Path) -> Problem:
    what = "was replaced by one without presets" if key == "presets" else "is gone, or replaced by one without models"
    why = f"the directory {printable(directory)} {what}; if that is meant, run: llama-router reload"
    return Problem(printable(new.path), None, key, why)
