"""The configuration on disk: config.yaml and the directories that it names, read and checked as a whole."""

from __future__ import annotations

import difflib
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from supervisor import models_dir, yaml_positions
from supervisor.configuration import LENIENT, Configuration, Judge, Origin
from supervisor.core import config as config_keys
from supervisor.core import preset as preset_keys
from supervisor.core.config import Config
from supervisor.core.fields import complaints, unknown_key
from supervisor.core.misfits import Misfit
from supervisor.core.preset import Preset
from supervisor.core.quantities import shown
from supervisor.errors import ConfigurationError, Problem
from supervisor.models_dir import Models
from supervisor.yaml_source import Keys, Source, open_source, printable

SUFFIXES = (".yaml", ".yml")
TOP_KEYS = ("defaults", "models")
MODEL_KEYS = Preset.model_fields.keys() - {"name"}

Written = dict[str, Any]


@dataclass
class _Entry:
    """A model as a file has it; `preset` is None if it has problems."""

    source: Source
    keys: Keys
    written: Written
    preset: Preset | None

    @property
    def aliases(self) -> list[str]:
        """The aliases, those of an invalid preset included, so that clashes show together with its other problems."""
        written = self.written.get("aliases")
        return [alias for alias in written if isinstance(alias, str)] if isinstance(written, list) else []


def load(path: Path, judge: Judge = LENIENT) -> Configuration:
    """The configuration that the config.yaml at `path` names, as far as `judge` lets it pass.

    Raises ConfigurationError with the problems of all files, sorted by file and line. If config.yaml can't be read,
    the presets are looked for where they are by default.
    """
    problems: list[Problem] = []
    sources = list(_opened([path], problems))
    config, presets_dir = _load_config(sources[0]) if sources else (None, _default_directory(path))
    models = _look(sources[0], config, judge) if config is not None else Models()
    entries: dict[str, _Entry] = {}
    if presets_dir is not None:
        for source in _opened(_presets_files(presets_dir, path, sources), problems):
            _load_presets(source, entries, models)
            sources.append(source)
    _check_with_programs(entries.values(), judge)
    aliases = _load_aliases(entries)
    found = models_dir.presets(models, _taken(entries, aliases))
    if config is not None and config.fallback is not None:
        _check_fallback(sources[0], config.fallback, [*entries, *aliases, *found])
    presets = {name: entry.preset for name, entry in entries.items() if entry.preset is not None} | found
    problems += [problem for source in sources for problem in source.problems]
    if config is not None and not problems:
        for misfit in judge.misfits(config, presets):
            problems += _place_misfit(misfit, sources[0], entries, models)
    if problems or config is None or presets_dir is None:
        raise ConfigurationError(_sorted(problems))
    files = {name: printable(Path(models.found[name].model)) for name in found}
    return Configuration(
        config=config,
        path=path.absolute(),
        presets_dir=presets_dir.absolute(),
        models_dir=_models_directory(path, config.models_dir),
        presets=presets,
        aliases=aliases,
        origins={name: _origin(entry, path.parent) for name, entry in entries.items()}
        | {name: Origin(file, None, "models_dir") for name, file in files.items()},
        notices=tuple(_sorted([*models.notices, *(notice for source in sources for notice in source.notices)])),
    )


def _look(source: Source, config: Config, judge: Judge) -> Models:
    """What is in the directory of models. That the one by default is missing, or can't be seen, says nothing."""
    directory = _models_directory(source.path, config.models_dir)
    try:
        return models_dir.look(directory, judge.why_no_model)
    except OSError as error:
        message = f"cannot read the directory {shown(str(directory), 200)}: {error.strerror}"
        if config.models_dir != _DEFAULT_MODELS:
            source.complain(("models_dir",), f"{message}; create it or correct the path")
        elif os.path.exists(directory):  # noqa: PTH110  # Path.exists may raise PermissionError
            source.notice(("models_dir",), message)
    return Models()


def _taken(entries: Mapping[str, _Entry], aliases: Mapping[str, str]) -> dict[str, tuple[str | None, str]]:
    """The names and aliases of models that files name: each with the file of the model that has it, and where it is."""
    places = {name: entry.source.place(entry.keys) for name, entry in entries.items()}
    taken: dict[str, tuple[str | None, str]] = {alias: (None, places[name]) for alias, name in aliases.items()}
    for name, entry in entries.items():
        taken[name] = (entry.preset.model if entry.preset else None, places[name])
    return taken


def _place_misfit(misfit: Misfit, config: Source, entries: Mapping[str, _Entry], models: Models) -> list[Problem]:
    """Note what does not fit where it is written. Returns it if it is fatal, which files that nobody named are not."""
    entry = entries.get(misfit.name or "")
    if entry is None and models.found:
        file = models.found[misfit.name].model if misfit.name in models.found else str(config.path)
        models.notices.append(Problem(printable(Path(file)), None, None, misfit.message))
        return []
    source, keys = (entry.source, (*entry.keys, misfit.key)) if entry else (config, (misfit.key,))
    if not misfit.fatal:
        source.notice(keys, misfit.message)
        return []
    source.complain(keys, misfit.message)
    return source.problems[-1:]


def places(path: Path) -> tuple[Path | None, list[Path], Path | None]:
    """The directory of presets that the config.yaml at `path` names, as far as that can be told, its files, and the
    directory of models, if config.yaml can be used."""
    sources = list(_opened([path], []))
    config, directory = _load_config(sources[0]) if sources else (None, _default_directory(path))
    files = _presets_files(directory, path, []) if directory is not None else []
    return directory, files, _models_directory(path, config.models_dir) if config is not None else None


def look_through(path: Path, text: str) -> tuple[list[Problem], list[Problem]]:
    """The problems and the notices that a file of presets would have if it were at `path` and held `text`.

    Names that other files have as well are not seen. Raises ConfigurationError if it can't be read as YAML.
    """
    source = Source(path, yaml_positions.parse(text.encode(), printable(path)))
    entries: dict[str, _Entry] = {}
    _load_presets(source, entries, Models())
    _load_aliases(entries)
    return _sorted(source.problems), _sorted(source.notices)


def is_presets_name(name: str) -> bool:
    """Whether a file of that name may hold presets: not if it is hidden, or an editor's lock or backup."""
    return name.endswith(SUFFIXES) and not name.startswith((".", "#"))


def _opened(paths: Iterable[Path], problems: list[Problem]) -> Iterator[Source]:
    for path in paths:
        try:
            yield open_source(path)
        except ConfigurationError as error:
            problems += error.problems


def _load_config(source: Source) -> tuple[Config | None, Path | None]:
    """The config, or None if it has problems; and the directory of presets as far as it is known all the same."""
    written = source.root
    if not isinstance(written, dict):
        source.complain((), f"cannot use {shown(written)} as a configuration: write 'key: value' lines")
        return None, _default_directory(source.path)
    config = None
    try:
        config = Config.model_validate(written)
    except ValidationError as error:
        for keys, message in complaints(Config, error):
            source.complain(keys, message)
    for key in written:
        if key in config_keys.UNACTED:
            source.notice((key,), f"{key!r} is read but has no effect in this version")
    directory = written.get("presets", _DEFAULT_PRESETS)
    if not isinstance(directory, str) or not directory or "\0" in directory:
        return config, None
    return config, _below(source.path.parent, directory)


def _check_fallback(source: Source, fallback: str, names: list[str]) -> None:
    if fallback not in names:
        close = difflib.get_close_matches(fallback, names, n=1)
        hint = f"did you mean {shown(close[0])}?" if close else "write the name of a preset, or null"
        source.complain(("fallback",), f"cannot fall back on {shown(fallback)}: no model has that name; {hint}")


_DEFAULT_PRESETS: str = Config.model_fields["presets"].default
_DEFAULT_MODELS: str = Config.model_fields["models_dir"].default


def _models_directory(config: Path, written: str) -> Path:
    return Path(_absolute(config.parent, written))


def _default_directory(path: Path) -> Path | None:
    directory = path.parent / _DEFAULT_PRESETS
    return directory if os.path.isdir(directory) else None  # noqa: PTH112  # Path.is_dir may raise PermissionError


def _presets_files(directory: Path, config: Path, sources: list[Source]) -> list[Path]:
    """The files of presets, sorted by name; config.yaml is none."""
    try:
        with os.scandir(directory) as entries:
            names = [entry.name for entry in entries]
    except OSError as error:
        for source in sources:
            reason = f"{error.strerror}; create it or correct the path"
            source.complain(("presets",), f"cannot read the directory {shown(str(directory), 200)}: {reason}")
        return []
    return [directory / name for name in sorted(names) if is_presets_name(name) and directory / name != config]


def _load_presets(source: Source, entries: dict[str, _Entry], found: Models) -> None:
    """Add the models of one file to `entries`, and all that is wrong with them to the file's problems.

    One that names no `model` has the files of the one `found` under its name.
    """
    models, defaults = _sections(source)
    _notice_unacted(source, ("defaults",), defaults)
    for name, written in models.items():
        if source.is_full:
            return
        keys: Keys = ("models", name)
        if name in entries:
            other = entries[name].source.place(keys)
            source.complain(keys, f"cannot use the name {shown(name)}: it is taken by {other}; rename one of them")
        elif written is None or isinstance(written, dict):
            _notice_unacted(source, keys, written or {})
            whole = found.completed(name, _overlaid(written or {}, defaults))
            entries[name] = _Entry(source, keys, whole, _load_preset(source, name, whole, found.missing.get(name)))
        else:
            source.complain(keys, f"cannot use {shown(written)} as a model: write 'key: value' lines below its name")
            entries[name] = _Entry(source, keys, {}, None)


def _sections(source: Source) -> tuple[Written, Written]:
    """The models and the known defaults of a file, each empty if it is missing or unusable."""
    root = source.root
    if not isinstance(root, dict):
        source.complain((), f"cannot use {shown(root)} as presets: write 'models:', and the models' names below it")
        return {}, {}
    _refuse_unknown(source, (), root, TOP_KEYS, "; the models' names belong below 'models:'")
    models, defaults = (_section(source, root, key) for key in ("models", "defaults"))
    _refuse_unknown(source, ("defaults",), defaults, MODEL_KEYS)
    return models, {key: value for key, value in defaults.items() if key in MODEL_KEYS}


def _section(source: Source, root: Written, key: str) -> Written:
    section = root.get(key)
    if section is None or isinstance(section, dict):
        return section or {}
    source.complain((key,), f"cannot use {shown(section)} as {key}: write 'key: value' lines")
    return {}


def _refuse_unknown(source: Source, keys: Keys, written: Written, known: Iterable[str], hint: str = "") -> None:
    for key in written:
        if key not in known and not source.is_full:
            source.complain((*keys, key), unknown_key(key, known) + hint)


def _overlaid(written: Written, defaults: Written) -> Written:
    """The model as written, over those defaults that mean something to its backend."""
    backend = written.get("backend", defaults.get("backend"))
    foreign = preset_keys.LLAMA_KEYS if backend == "command" else preset_keys.COMMAND_KEYS
    if backend != "llama-server":
        foreign |= preset_keys.LLAMA_SERVER_KEYS
    return _merged(written, {key: value for key, value in defaults.items() if key not in foreign})


def _merged(over: Written, under: Written) -> Written:
    merged = {**under, **over}
    for key in over.keys() & under.keys():
        if isinstance(over[key], dict) and isinstance(under[key], dict):
            merged[key] = _merged(over[key], under[key])
    return merged


def _load_preset(source: Source, name: str, written: Written, missing: str | None) -> Preset | None:
    """`missing` is what is wrong with the file of that name in the directory of models."""
    body = _with_paths(written, source.path.parent)
    found: list[tuple[Keys, str]] = []
    if "name" in body:
        found.append((("name",), unknown_key("name", MODEL_KEYS)))
    preset = None
    try:
        preset = Preset.model_validate({**body, "name": name})
    except ValidationError as error:
        found += [(() if keys == ("name",) else keys, message) for keys, message in complaints(Preset, error)]
    if body.get("backend") != "command":
        found += [((key,), why) for key in ("model", "mmproj") if (why := _why_unreadable(body.get(key)))]
    for keys, message in found:
        if keys == ("model",) and body.get("model") is None:
            message += (
                f"; {shown(name)} in models_dir is none: {missing}"
                if missing
                else ", or put one of its name into models_dir"
            )
        source.complain(("models", name, *keys), message)
    return None if found else preset


def _with_paths(written: Written, directory: Path) -> Written:
    """The same with absolute paths; a program, be it a command's or `binary`, is a path only if it holds a slash."""
    body = dict(written)
    if isinstance(body.get("binary"), str) and "/" in body["binary"]:
        body["binary"] = _absolute(directory, body["binary"])
    for key in ("model", "mmproj"):
        if isinstance(body.get(key), str) and body[key]:
            body[key] = _absolute(directory, body[key])
    command = body.get("command")
    if isinstance(command, list) and command and isinstance(command[0], str) and "/" in command[0]:
        body["command"] = [_absolute(directory, command[0]), *command[1:]]
    return body


def _below(directory: Path, path: str) -> Path:
    return directory / os.path.expanduser(path)  # noqa: PTH111  # Path.expanduser raises for an unknown user


def _absolute(directory: Path, path: str) -> str:
    """As people would write it: without "..", unless a symbolic link before it leads elsewhere."""
    absolute = _below(directory, path).absolute()
    if ".." not in absolute.parts:
        return str(absolute)
    plain = os.path.normpath(absolute)
    return plain if os.path.realpath(plain) == os.path.realpath(absolute) else str(absolute)


def _why_unreadable(path: object) -> str | None:
    """What keeps a model's file from being read; None if nothing does, or if `path` is none and validation says so."""
    if not isinstance(path, str) or not path or "\0" in path:
        return None
    try:
        is_file = stat.S_ISREG(Path(path).stat().st_mode)
    except OSError as error:
        return f"cannot read {shown(path, 200)}: {error.strerror}; correct the path"
    if not is_file:
        return f"cannot read {shown(path, 200)}: it is not a regular file; write the path of a GGUF file"
    if not os.access(path, os.R_OK):
        return f"cannot read {shown(path, 200)}: permission denied; make it readable for this user"
    return None


def _notice_unacted(source: Source, keys: Keys, written: Written) -> None:
    for key in written:
        if key in preset_keys.UNACTED:
            source.notice((*keys, key), f"{key!r} is read but has no effect in this version")


def _check_with_programs(entries: Iterable[_Entry], judge: Judge) -> None:
    """Complain about what the programs would refuse that are to serve the models."""
    for entry in entries:
        if entry.preset is not None and not entry.source.is_full:
            for keys, message in judge.refused(entry.preset):
                entry.source.complain((*entry.keys, *keys), message)


def _load_aliases(entries: dict[str, _Entry]) -> dict[str, str]:
    """The name that each alias leads to; complains about those that are names or aliases of other models."""
    aliases: dict[str, str] = {}
    for name, entry in entries.items():
        for index, alias in enumerate(entry.aliases):
            holder = alias if alias in entries else aliases.setdefault(alias, name)
            # A model's clash with itself is the preset's own rule.
            if holder != name and not entry.source.is_full:
                other = entries[holder].source.place(entries[holder].keys)
                keys: Keys = (*entry.keys, "aliases", index)
                message = (
                    f"cannot use alias {shown(alias)}: it is taken by {shown(holder)} at {other}; remove one of them"
                )
                entry.source.complain(keys, message)
    return aliases


def _origin(entry: _Entry, base: Path) -> Origin:
    path = entry.source.path
    return Origin(
        printable(path.relative_to(base) if path.is_relative_to(base) else path), entry.source.line(entry.keys)
    )


def _sorted(problems: Iterable[Problem]) -> list[Problem]:
    return sorted(problems, key=lambda problem: (problem.file, problem.line or 0, problem.field or "", problem.message))
