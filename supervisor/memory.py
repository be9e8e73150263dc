"""What presets are judged by: what memory the machine has, what presets need and running servers use, and what the
programs are that serve them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from supervisor import backends
from supervisor.backends.llama_server_asking import Answer, Question
from supervisor.backends.llama_server_binary import Binary, Programs
from supervisor.core import policy
from supervisor.core.config import Config
from supervisor.core.misfits import Misfit, misfits
from supervisor.core.need import Need
from supervisor.core.policy import Policy
from supervisor.core.preset import Preset
from supervisor.core.quantities import shown
from supervisor.needs import Header, Needs
from supervisor.usage import Gpus, Nvidia, Usage, machine_memory, process_usage


@dataclass(frozen=True)
class _Seen:
    """GPUs as they were."""

    by_pid: list[dict[int, int]]

    def totals(self) -> list[int | None]:
        return []

    def used(self) -> list[dict[int, int]]:
        return self.by_pid


class Memory:
    """`state_dir` is where measures are kept; without it none is kept or known. `waiting` is told for how many seconds
    at most nothing may happen."""

    def __init__(
        self,
        state_dir: Path | None,
        gpus: Gpus | None = None,
        waiting: Callable[[float], None] = lambda _seconds: None,
    ) -> None:
        self._gpus = Nvidia() if gpus is None else gpus
        self._machine = machine_memory(self._gpus)
        self._count = len(self._gpus.totals())
        self._untold: list[str] = []
        self._tell: Callable[[str], None] = self._untold.append
        self._needs = Needs(state_dir, self._count, lambda line: self._tell(line), waiting)
        self._programs = Programs(waiting)

    def serve(self, tell: Callable[[str], None]) -> None:
        """From now on headers and programs are left `unknown`, as nobody may wait for them, and what is wrong with what
        is remembered is told line by line; so is what was wrong until now. The state directory is there."""
        self._tell = tell
        for line in self._untold:
            tell(line)
        self._needs.reads_later = self._programs.asks_later = True
        self._programs.settle()
        self._needs.save()

    def apart(self) -> None:
        """In a process of its own, which may wait: files are read as they are asked for. Programs are not run."""
        self._needs.apart()

    def policy(self, config: Config) -> Policy:
        """The part of the configuration that the core acts on, "auto" replaced by what there is."""
        return policy.policy(config, self._machine)

    def needs(self, config: Config, presets: Mapping[str, Preset]) -> dict[str, Need]:
        """What each preset needs, as far as that is known."""
        # GPUs of other makers are known by their budgets only.
        self._needs.gpus = max([self._count, *(int(device[3:]) + 1 for device in config.memory if device != "host")])
        return self._needs.of(presets)

    def misfits(self, config: Config, presets: Mapping[str, Preset], needs: Mapping[str, Need]) -> list[Misfit]:
        """What does not fit: replicas together, a single model, or every model."""
        budget = policy.budget(config, self._machine)
        found = misfits(presets, needs, budget)
        return found + [
            Misfit(name, "memory", f"there is no {device} here; limit it in config.yaml", fatal=False)
            for name, preset in presets.items()
            for device in preset.memory or ()
            if device not in budget
        ]

    def why_no_model(self, path: str) -> str | None:
        """What makes the file at `path` no model, or not all of one; None if nothing does."""
        return self._needs.why_no_model(path)

    def why_incomplete(self, path: str) -> str | None:
        """What is missing at the end of a model's or a projector's file, or of its shards; None if nothing is."""
        return self._needs.why_incomplete(path)

    def why_not_whole(self, preset: Preset) -> str | None:
        """Which file of a preset that is to be started is still incomplete, by its size, and how. Reads no file."""
        for path in (preset.model, preset.mmproj):
            if path is not None and (why := self._needs.still_incomplete(path)):
                return f"{shown(path, 200)}: {why}"
        return None

    def prepare(self, presets: Iterable[Preset]) -> None:
        """Find out at once what the programs are that serve them, unless that is found out later."""
        self._programs.prepare(preset for preset in presets if preset.backend == "llama-server")

    def refused(self, preset: Preset) -> list[tuple[tuple[str, ...], str]]:
        """What the program would refuse that is to serve it. Runs the program to learn that, unless that is found out
        later."""
        return backends.problems(preset, self._programs.of)

    @property
    def gave_up(self) -> bool:
        """True if a program was refused that may be fine, as it did not answer in time."""
        return self._programs.gave_up

    def binary(self, preset: Preset) -> Binary:
        """The llama-server of a preset that is to be started, as it was last known. Raises CannotStart."""
        return self._programs.last_known(preset)

    def names_pooling(self, path: str) -> bool:
        """Whether a model says how an input's vectors become one; False as well if nothing is known of it."""
        header = self.header(path)
        return header is not None and header.shape is not None and bool(header.shape.pooling)

    def unknown(self) -> list[str | Question]:
        """The programs to be asked and the files to be read before what was said since the last time can be relied on;
        each once."""
        unknown: list[str | Question] = [*self._programs.unasked(), *self._needs.unread()]
        if not unknown:
            self._programs.settle()
        return unknown

    def take(self, what: str | Question, learned: Header | Answer) -> None:
        """Take in what was found out of one of them."""
        if isinstance(what, Question) and isinstance(learned, Answer):
            self._programs.take(what, learned)
        elif isinstance(what, str) and isinstance(learned, Header):
            self._needs.take(what, learned)

    @property
    def answers(self) -> list[tuple[Question, Answer]]:
        """What programs have answered."""
        return self._programs.answers

    def header(self, path: str) -> Header | None:
        """What a file said when it was last asked for; None if nothing is known of it. Looks at no file."""
        return self._needs.header(path)

    def look(self, group: int) -> Callable[[], Usage | None]:
        """A function that tells, in a fork too, what the processes of a group use; None if they are gone. The GPUs are
        asked at once: NVIDIA's library is lost on a fork."""
        seen = _Seen(self._gpus.used())
        return lambda: process_usage([group], seen).get(group)

    def remember(self, preset: Preset, need: Need) -> None:
        """Keep what was measured, for all that is started in the same way."""
        self._needs.remember(preset.name, preset, need)
