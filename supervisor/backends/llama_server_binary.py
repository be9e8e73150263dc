"""Finds the llama-server of a preset, and knows what each is: its version and its options. Each build is asked once."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from supervisor.backends.llama_server_asking import PATIENCE, Answer, Question, ask
from supervisor.backends.llama_server_help import Options
from supervisor.core.preset import Preset
from supervisor.core.quantities import shown
from supervisor.errors import CannotStart

NAME = "llama-server"
MOST_KEPT = 1_000
_INSTALL = "install llama.cpp's llama-server (b5000 of April 2025 or newer)"
# Variables that say how it computes, of which --help does not tell. All others count: a script may be in its place.
_WITHOUT_EFFECT = ("CUDA_", "NVIDIA_", "HIP_", "ROCR_", "HSA_", "GPU_", "GGML_", "LLAMA_", "OMP_", "GOMP_", "HF_")

_Program = tuple[str, tuple[tuple[str, str], ...]]


@dataclass(frozen=True)
class Binary:
    """A llama-server that can be used: where it is, the first line of what it says to --version, and its options."""

    path: str
    version: str
    options: Options


class Programs:
    """What the programs are that presets name.

    One that is not known is asked when it is looked for, or, with `asks_later`, noted for `unasked`. `gave_up` is
    true if one of them could not be asked although nothing may be wrong with it.
    """

    def __init__(self, waiting: Callable[[float], None] = lambda _seconds: None) -> None:
        """`waiting` is told for how many seconds at most nothing may happen."""
        self.asks_later = False
        self.gave_up = False
        self._waiting = waiting
        self._known: dict[_Program, tuple[tuple[int, ...], Binary]] = {}
        self._answers: dict[_Program, tuple[Question, Answer]] = {}  # of those that are known
        self._fresh: dict[_Program, Binary | str] = {}
        self._unasked: dict[Question, None] = {}

    def of(self, preset: Preset) -> Binary | None:
        """What a preset is served by; None if that is asked later. Raises CannotStart, which says what to do."""
        question = _question(preset)
        found = self._found(question)
        if found is None and self.asks_later:
            self._unasked[question] = None
            return None
        if found is None:
            self._ask([question])
            found = self._fresh[_program(question)]
        if isinstance(found, str):
            raise CannotStart(found)
        return found

    def prepare(self, presets: Iterable[Preset]) -> None:
        """Ask at once what all of them are served by, as far as it is not known and not asked later."""
        questions: dict[_Program, Question] = {}
        for preset in presets if not self.asks_later else ():
            try:
                question = _question(preset)
            except CannotStart:
                continue
            if self._found(question) is None:
                questions[_program(question)] = question
        if questions:
            self._ask(list(questions.values()))

    def last_known(self, preset: Preset) -> Binary:
        """The same for a server that is to be started, which can't wait: of a file that was replaced since it was
        asked, this is what was there before. Raises CannotStart."""
        question = _question(preset)
        if not self.asks_later:
            self.of(preset)
        found = self._fresh.get(_program(question))
        if isinstance(found, Binary):
            return found
        if (known := self._known.get(_program(question))) is not None:
            return known[1]
        raise CannotStart(f"{_cannot_use(question)}: nobody asked it yet what it is; run: llama-router reload")

    def unasked(self) -> list[Question]:
        """Those to be asked before what was said since the last time can be relied on."""
        questions = list(self._unasked)
        self._unasked.clear()
        return questions

    def take(self, question: Question, answer: Answer) -> None:
        """Take in what a program answered. It counts, however the file changes, until `settle`: a file that never
        rests must not be asked for ever."""
        program = _program(question)
        self.gave_up |= answer.may_pass
        self._fresh[program] = found = _judged(question, answer)
        if isinstance(found, Binary):
            self._known.pop(program, None)
            self._known[program] = (question.stamp, found)
            self._answers[program] = (question, answer)
            while len(self._known) > MOST_KEPT:
                oldest = next(iter(self._known))
                del self._known[oldest], self._answers[oldest]

    @property
    def answers(self) -> list[tuple[Question, Answer]]:
        """What those that are known have answered; another program can `take` it in."""
        return [self._answers[program] for program in self._known]

    def settle(self) -> None:
        """From now on a file that changed is another one, and what failed is asked again."""
        self._fresh.clear()

    def _found(self, question: Question) -> Binary | str | None:
        program = _program(question)
        stamp, binary = self._known.get(program, ((), None))
        return self._fresh.get(program) or (binary if stamp == question.stamp else None)

    def _ask(self, questions: list[Question]) -> None:
        self._waiting(PATIENCE)
        for question, answer in ask(questions):
            self.take(question, answer)
            self._waiting(PATIENCE)


def _question(preset: Preset) -> Question:
    """What is to be asked for a preset. Raises CannotStart if there is no program."""
    path = _path(preset)
    try:
        about = os.stat(path)  # noqa: PTH116 - Path would accept "" as "."
    except OSError as error:
        raise CannotStart(f"cannot run {shown(path, 200)}: {error.strerror}") from None
    env = {name: value for name, value in preset.env.items() if not name.startswith(_WITHOUT_EFFECT)}
    stamp = (about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns)
    return Question(path, tuple(sorted(env.items())), stamp)


def _program(question: Question) -> _Program:
    return question.path, question.env


def _path(preset: Preset) -> str:
    """The path of the program, which is looked for on PATH if it is only a name."""
    name = preset.binary or NAME
    if "/" not in name:
        found = shutil.which(name, path=preset.env.get("PATH", os.environ.get("PATH", os.defpath)))
        if found is None:
            raise CannotStart(
                f"cannot find {shown(name, 200)} on PATH: {_INSTALL}, or write binary: with the path of one"
            )
        return os.path.abspath(found)  # noqa: PTH100 - Path.absolute keeps ".."
    path = Path(name)
    try:
        is_file = path.is_file()
    except OSError as error:
        raise CannotStart(f"cannot run {shown(name, 200)}: {error.strerror}; correct the path") from None
    if not is_file:
        why = "it is not a file" if path.exists() else "there is no such file"
        raise CannotStart(f"cannot run {shown(name, 200)}: {why}; {_INSTALL}, or correct the path")
    if not os.access(name, os.X_OK):
        raise CannotStart(f"cannot run {shown(name, 200)}: it is not executable for this user; chmod +x helps")
    return name


def _judged(question: Question, answer: Answer) -> Binary | str:
    """The program, or what makes it none: everything that is told to it without the preset's asking, it must know."""
    if answer.why:
        return f"{_cannot_use(question)}: {answer.why}"
    options = Options(answer.help)
    host, model = options.get("--host"), options.get("--model")
    if host is None or model is None:
        return f"{_cannot_use(question)}: its --help lists no --host and --model; {_INSTALL}"
    if ".sock" not in host.words:
        old = shown(answer.version, 100)
        return f"{_cannot_use(question)}: {old} is too old, it can't listen on a UNIX socket; {_INSTALL}"
    return Binary(question.path, answer.version, options)


def _cannot_use(question: Question) -> str:
    return f"cannot use {shown(question.path, 200)} as llama-server"
