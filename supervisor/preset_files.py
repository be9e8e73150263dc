"""The files of presets for whoever edits them in a browser: to list, to read, to try, to save, and what they were.

A save goes the way of every other change: the file is replaced, and the configuration is read again.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from supervisor import file_writing, presets_dir, protocol
from supervisor.aside import Aside
from supervisor.configuration import Configuration, Judge
from supervisor.configured import Configured
from supervisor.core import reload_words, schema
from supervisor.core.quantities import shown
from supervisor.core.reload_words import Outcome, Told
from supervisor.errors import ConfigurationError, Problem, Refused
from supervisor.file_history import History, sha_of
from supervisor.file_writing import Present
from supervisor.files import Edited
from supervisor.paths import printable
from supervisor.protocol import CONFIG, Message
from supervisor.trying import Trying
from supervisor.yaml_source import read_file

MAX_BYTES = 2**20
# More models, or a longer file, are tried aside: that takes longer than everybody else may have to wait.
MOST_MODELS = 1000
MOST_BYTES_AT_ONCE = 2**16
_FULL = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "the disk quota is used up"}
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}")

Answer = Callable[[Message | Refused], None]
Handler = Callable[[Message, Answer], None]


@dataclass(frozen=True)
class Tried:
    """What a content would do: `fresh` are the problems that it would make, `problems` all there would be then."""

    fresh: list[Problem]
    problems: list[Problem]
    new: Configuration | None


class PresetFiles:
    """Answers the requests of the protocol that are about files."""

    def __init__(
        self, configured: Configured, judge: Judge, history: History, aside: Aside, apart: Callable[[], None]
    ) -> None:
        """`apart` tells the judge, in a process of its own, to find out at once what it does not know."""
        self._configured = configured
        self._judge = judge
        self._aside = aside
        self._apart = apart
        self._history = history
        self.handlers: Mapping[str, Handler] = {
            "files": self._list,
            "file": self._read,
            "try": self._try,
            "save": self._save,
            "history": self._tell_history,
            "schema": lambda _, answer: answer({"schema": schema.presets()}),
        }

    @property
    def _directory(self) -> Path:
        return self._configured.running.presets_dir

    def _list(self, _: Message, answer: Answer) -> None:
        running = self._configured.running
        models: dict[str, list[str]] = {}
        for name in running.written():
            models.setdefault(Path(running.origins[name].file).name, []).append(name)
        try:
            names = sorted(filter(presets_dir.is_presets_name, self._configured.files.names(self._directory)))
        except OSError as error:
            raise _refused(f"cannot list {printable(self._directory)}: {error.strerror}", 500) from None
        files = [self._about(self._directory / name, models.get(name, [])) for name in names]
        answer(
            {
                "directory": printable(self._directory),
                "files": [about for about in files if about is not None],
                "edit_commands": running.config.web.edit_commands,
                "writable": os.access(self._directory, os.W_OK | os.X_OK),
            }
        )

    def _about(self, path: Path, models: list[str]) -> Message | None:
        """None for what was removed at this moment."""
        why = None if _is_name(path.name) else "its name has other characters than A-Z a-z 0-9 . _ - in it"
        data = None
        try:
            current = file_writing.present(path)
            if current is None:
                return None
            data = current.data
        except OSError as error:
            why = error.strerror or str(error)
        size, sha = (None, None) if data is None else (len(data), sha_of(data))
        return {"file": printable(Path(path.name)), "size": size, "sha": sha, "models": models, "why_not": why}

    def _read(self, message: Message, answer: Answer) -> None:
        if message.get("file") == CONFIG:
            path = self._configured.running.path
            try:
                data: bytes | None = read_file(path)
            except OSError as error:
                raise _refused(f"cannot read {printable(path)}: {error.strerror or error}", 500) from None
        else:
            path = self._path(message)
            current = _present(path)
            data = current.data if current else None
        if data is None:
            raise _refused(f"there is no file {path.name!r}", 404)
        answer({"path": printable(path), "text": _text(data), "sha": sha_of(data)})

    def _try(self, message: Message, answer: Answer) -> None:
        path, data = self._path(message), _data(message)
        if len(self._configured.running.presets) > MOST_MODELS or len(data or b"") > MOST_BYTES_AT_ONCE:
            self._try_aside(path, data, answer)
        else:
            self._tried(path, data, False, lambda tried: answer(self._told(path, tried)))

    def _try_aside(self, path: Path, data: bytes | None, answer: Answer) -> None:
        def work() -> bytes:
            self._apart()
            return protocol.encode(self._told(path, self._look(path, data, False)))

        def then(told: bytes | None) -> None:
            if told is None:
                answer(_refused(f"cannot try {path.name}: it takes too long, or there is no memory for it", 503))
            else:
                answer(protocol.decode(told))

        self._aside.start(work, then)

    def _save(self, message: Message, answer: Answer) -> None:
        path, data, base = self._path(message), _data(message), message.get("base")
        by = message.get("by")

        def go_on(tried: Tried) -> None:
            try:
                self._replace(path, data, base, tried, answer, by if isinstance(by, str) else None)
            except Refused as refused:
                answer(refused)

        if (conflict := _conflict(_present(path), base)) is not None:
            answer(conflict)
        else:
            self._tried(path, data, True, go_on)

    def _replace(self, path: Path, data: bytes | None, base: Any, tried: Tried, answer: Answer, by: str | None) -> None:
        """Headers may have been read meanwhile, and the file changed."""
        current = _present(path)
        if (conflict := _conflict(current, base)) is not None:
            return answer(conflict)
        if tried.fresh:
            return answer({"outcome": "refused", **self._told(path, tried)})
        try:
            if current is not None and data != current.data:
                self._history.keep(path.name, current.data, data or b"", by)
        except OSError as error:
            why = f"what {path.name} holds can't be kept in the state directory: {error.strerror or error}"
            raise _refused(f"cannot save: {why}; nothing was changed", 507) from None
        try:
            if data is not None and (current is None or data != current.data):
                file_writing.replace(path, data, current)
            elif data is None and current is not None:
                file_writing.remove(path, current)
        except FileExistsError:
            return answer(_conflict(_present(path), base) or {"outcome": "conflict", "text": None, "sha": None})
        except OSError as error:
            raise unwritable(path, error) from None
        sha = None if data is None else sha_of(data)
        return self._configured.reload(
            lambda read: answer({"outcome": "saved", "sha": sha, **self._applied(path, read)})
        )

    def _applied(self, path: Path, read: Message | ConfigurationError) -> Message:
        if isinstance(read, ConfigurationError):
            return {"problems": _problems(path, read.problems), "notices": [], "changes": None, "words": None}
        notices = self._noticed(path, self._configured.running, [])
        outcomes = {name: Outcome(**outcome) for name, outcome in read["outcomes"].items()}
        words = reload_words.did(Told(**{**read, "outcomes": outcomes}))
        return {"problems": [], "notices": _problems(path, notices), "changes": read, "words": words}

    def _tell_history(self, message: Message, answer: Answer) -> None:
        name, at = self._path(message).name, message.get("at")
        if at is None:
            told = ("at", "sha", "size", "added", "removed", "by")
            versions = self._history.versions(name)
            answer({"versions": [{key: getattr(each, key) for key in told} for each in versions]})
            return
        try:
            data = self._history.content(name, at) if isinstance(at, int) else None
        except OSError as error:
            raise _refused(f"cannot read what {name} was: {error.strerror or error}", 500) from None
        if data is None:
            raise _refused(f"there is no such version of {name}; it may be too old, or damaged", 404)
        answer({"text": _text(data), "sha": sha_of(data)})

    def _tried(self, path: Path, data: bytes | None, runs: bool, then: Callable[[Tried], None]) -> None:
        """Call `then` with what `data` would do, at once unless headers have to be read for that."""

        def go_on() -> None:
            tried = self._look(path, data, runs)
            if not self._configured.read_missing(go_on):
                then(tried)

        go_on()

    def _look(self, path: Path, data: bytes | None, runs: bool) -> Tried:
        running, files = self._configured.running, self._configured.files
        edited = Edited(files, path, data)
        judge = Trying(self._judge, running, _names(edited, path, data), runs=runs)
        mine = printable(path)
        try:
            new = presets_dir.load(running.path, judge, edited)
        except ConfigurationError as error:
            problems = error.problems
        else:
            # A model whose file is away does not keep others from changing, but nobody means to write one.
            faults = [fault for fault in new.faults if fault.file == mine and not _is_known(fault, running.faults)]
            return Tried(faults, faults, new)
        fresh = [problem for problem in problems if problem.file == mine]
        if len(fresh) < len(problems):
            before = self._problems_now(judge)
            fresh = [problem for problem in problems if problem.file == mine or problem not in before]
        return Tried(fresh, problems, None)

    def _problems_now(self, judge: Judge) -> list[Problem]:
        try:
            presets_dir.load(self._configured.running.path, judge, self._configured.files)
        except ConfigurationError as error:
            return error.problems
        return []

    def _told(self, path: Path, tried: Tried) -> Message:
        told = None if tried.new is None or tried.fresh else self._configured.told(tried.new)
        notices = [] if tried.new is None else self._noticed(path, tried.new, tried.fresh)
        return {
            "savable": not tried.fresh,
            "problems": _problems(path, tried.problems),
            "notices": _problems(path, notices),
            "changes": None if told is None else asdict(told),
            "words": None if told is None else reload_words.would(told),
        }

    def _noticed(self, path: Path, configuration: Configuration, problems: list[Problem]) -> list[Problem]:
        notices = configuration.notices  # the faults among them
        return [each for each in notices if each.file == printable(path) and each not in problems]

    def _path(self, message: Message) -> Path:
        name = message.get("file")
        if not isinstance(name, str) or not _is_name(name):
            raise _refused(
                f"cannot use {shown(name)} as the name of a file of presets: write one such as chat.yaml, "
                "of at most 100 letters, digits, '.', '_' and '-'",
                400,
            )
        path = self._directory / name
        if path == self._configured.running.path:
            raise _refused("cannot edit config.yaml in the browser; edit it on the machine", 400)
        return path


def _is_name(name: str) -> bool:
    return _NAME.fullmatch(name) is not None and presets_dir.is_presets_name(name)


def _names(edited: Edited, path: Path, data: bytes | None) -> frozenset[str]:
    """The models that the edited file names."""
    try:
        root = edited.open(path).root if data is not None else {}
    except ConfigurationError:
        return frozenset()
    models = root.get("models") if isinstance(root, dict) else None
    return frozenset(models) if isinstance(models, dict) else frozenset()


def _is_known(fault: Problem, known: Iterable[Problem]) -> bool:
    """At another line it is the same."""
    return any((fault.file, fault.field, fault.message) == (each.file, each.field, each.message) for each in known)


def _present(path: Path) -> Present | None:
    try:
        return file_writing.present(path)
    except OSError as error:
        raise _refused(f"cannot edit {path.name} here: {error.strerror or error}", 409) from None


def _conflict(current: Present | None, base: Any) -> Message | None:
    """The answer if it is not `base` any more what is there."""
    sha = sha_of(current.data) if current is not None else None
    if sha == base:
        return None
    return {"outcome": "conflict", "text": _text(current.data) if current is not None else None, "sha": sha}


def _data(message: Message) -> bytes | None:
    """The content that was sent; None is no file. Browsers end lines with CR LF in forms."""
    text = message.get("text")
    if text is None:
        return None
    try:
        data = text.replace("\r\n", "\n").encode() if isinstance(text, str) else None
    except UnicodeEncodeError:
        data = None
    if data is None:
        raise _refused("cannot use the text: it is none", 400)
    if len(data) > MAX_BYTES:
        raise _refused(f"cannot use the text: it is larger than {MAX_BYTES // 2**20} MiB; split it", 413)
    return data


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def _problems(path: Path, problems: list[Problem]) -> list[Message]:
    """Of the edited file, the name alone."""
    mine = printable(path)
    return [
        {**vars(problem), "file": path.name if problem.file == mine else problem.file, "here": problem.file == mine}
        for problem in problems
    ]


def unwritable(path: Path, error: OSError) -> Refused:
    """Why `path` can't be replaced, and what to do: 507 where there is no room, 500 otherwise."""
    directory = printable(path.parent)
    if error.errno in _FULL:
        fix = f"make room on the file system of {directory}"
        return _refused(f"cannot save {path.name}: {_FULL[error.errno]}; {fix}; nothing was changed", 507)
    fix = f"make the directory {directory} writable for the user that llama-router runs as"
    if error.errno == errno.EROFS:
        fix = f"systemd shows it read-only; write ReadWritePaths={directory} into a drop-in of the unit, or mount it so"
    return _refused(f"cannot save {path.name}: {error.strerror or error}; {fix}; nothing was changed", 500)


def _refused(message: str, status: int) -> Refused:
    kind = "server_error" if status >= 500 else "not_found_error" if status == 404 else "invalid_request_error"
    return Refused(message, status=status, error_type=kind)
