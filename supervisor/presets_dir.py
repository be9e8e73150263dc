"""The configuration on disk: config.yaml and the directories that it names, read and checked as a whole."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from pydantic import ValidationError

from supervisor import models_dir, preset_faults, yaml_positions
from supervisor.config_file import DEFAULT_MODELS, check_fallback, default_directory, models_directory, read_config
from supervisor.configuration import LENIENT, Configuration, Judge, Origin
from supervisor.core import preset as preset_keys
from supervisor.core.config import Config
from supervisor.core.fields import complaints, sound, unknown_key
from supervisor.core.misfits import Misfit
from supervisor.core.need import Need
from supervisor.core.preset import Preset
from supervisor.core.quantities import shown
from supervisor.errors import ConfigurationError, Problem
from supervisor.files import Files
from supervisor.models_dir import Models
from supervisor.paths import printable
from supervisor.preset_faults import Entry
from supervisor.preset_paths import why_unreadable, with_paths
from supervisor.yaml_source import Keys, Source, Written

SUFFIXES = (".yaml", ".yml")
TOP_KEYS = ("defaults", "models")
MODEL_KEYS = Preset.model_fields.keys() - {"name"}


def load(path: Path, judge: Judge = LENIENT, files: Files | None = None) -> Configuration:
    """The configuration that the config.yaml at `path` names, as far as `judge` lets it pass.

    Raises ConfigurationError with the problems of all files, sorted by file and line. If config.yaml can't be read,
    the presets are looked for where they are by default.
    """
    files = files or Files()
    files.begin()
    problems: list[Problem] = []
    sources = list(_opened(files, [path], problems))
    config, presets_dir = read_config(sources[0]) if sources else (None, default_directory(path))
    models = _look(sources[0], config, judge) if config is not None else Models()
    entries: dict[str, Entry] = {}
    if presets_dir is not None:
        for source in _opened(files, _presets_files(files, presets_dir, path, sources), problems):
            _load_presets(source, entries, models)
            sources.append(source)
    _check_with_programs(entries.values(), judge)
    faults = preset_faults.found(entries.values(), judge)
    aliases = _load_aliases(entries)
    found = models_dir.presets(models, _taken(entries, aliases))
    if config is not None and config.fallback is not None:
        check_fallback(sources[0], config.fallback, [*entries, *aliases, *found])
    presets = {name: entry.preset for name, entry in entries.items() if entry.preset is not None} | found
    problems += [problem for source in sources for problem in source.problems]
    needs: Mapping[str, Need] = {}
    if config is not None and not problems:
        needs = judge.needs(config, presets)
        for misfit in judge.misfits(config, presets, needs):
            problems += _place_misfit(misfit, sources[0], entries, models)
    if problems or config is None or presets_dir is None:
        raise ConfigurationError(_sorted([*problems, *faults]))
    paths = {name: printable(Path(models.found[name].model)) for name in found}
    return Configuration(
        config=config,
        path=path.absolute(),
        presets_dir=presets_dir.absolute(),
        models_dir=models_directory(path, config.models_dir),
        presets=presets,
        aliases={alias: name for alias, name in aliases.items() if name in presets},
        needs=needs,
        origins=_origins(sources, entries, path.parent)
        | {name: Origin(file, None, "models_dir") for name, file in paths.items()},
        notices=tuple(_sorted([*models.notices, *(notice for source in sources for notice in source.notices)])),
        faults=tuple(_sorted(faults)),
        incomplete=frozenset(name for name, entry in entries.items() if entry.incomplete),
        sources={name: entry.source for name, entry in entries.items()},
        files=files,
    )


def _look(source: Source, config: Config, judge: Judge) -> Models:
    """What is in the directory of models. That the one by default is missing, or can't be seen, says nothing."""
    directory = models_directory(source.path, config.models_dir)
    try:
        return models_dir.look(directory, judge.why_no_model)
    except OSError as error:
        message = f"cannot read the directory {shown(str(directory), 200)}: {error.strerror}"
        if config.models_dir != DEFAULT_MODELS:
            source.complain(("models_dir",), f"{message}; create it or correct the path")
        elif os.path.exists(directory):  # noqa: PTH110  # Path.exists may raise PermissionError
            source.notice(("models_dir",), message)
    return Models()


def _taken(entries: Mapping[str, Entry], aliases: Mapping[str, str]) -> dict[str, tuple[str | None, str]]:
    """The names and aliases of models that files name: each with the file of the model that has it, and where it is."""
    places = {name: entry.source.place(entry.keys) for name, entry in entries.items()}
    taken: dict[str, tuple[str | None, str]] = {alias: (None, places[name]) for alias, name in aliases.items()}
    for name, entry in entries.items():
        taken[name] = (entry.preset.model if entry.preset else None, places[name])
    return taken


def _place_misfit(misfit: Misfit, config: Source, entries: Mapping[str, Entry], models: Models) -> list[Problem]:
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
    directory of models, if config.yaml can be read."""
    files = Files()
    sources = list(_opened(files, [path], []))
    config, directory = read_config(sources[0]) if sources else (None, default_directory(path))
    presets = _presets_files(files, directory, path, []) if directory is not None else []
    return directory, presets, models_directory(path, config.models_dir) if config is not None else None


def look_through(path: Path, text: str) -> list[Problem]:
    """The problems that a file of presets would have if it were at `path` and held `text`.

    Names that other files have as well are not seen. Raises ConfigurationError if it can't be read as YAML.
    """
    source = Source(path, yaml_positions.parse(text.encode(), printable(path)))
    entries: dict[str, Entry] = {}
    _load_presets(source, entries, Models())
    _load_aliases(entries)
    return _sorted([*source.problems, *preset_faults.lacking(entries.values())])


def is_presets_name(name: str) -> bool:
    """Whether a file of that name may hold presets: not if it is hidden, or an editor's lock or backup."""
    return name.endswith(SUFFIXES) and not name.startswith((".", "#"))


def _opened(files: Files, paths: Iterable[Path], problems: list[Problem]) -> Iterator[Source]:
    for path in paths:
        try:
            yield files.open(path)
        except ConfigurationError as error:
            problems += error.problems


def _presets_files(files: Files, directory: Path, config: Path, sources: list[Source]) -> list[Path]:
    """The files of presets, sorted by name; config.yaml is none."""
    try:
        names = files.names(directory)
    except OSError as error:
        for source in sources:
            reason = f"{error.strerror}; create it or correct the path"
            source.complain(("presets",), f"cannot read the directory {shown(str(directory), 200)}: {reason}")
        return []
    return [directory / name for name in sorted(names) if is_presets_name(name) and directory / name != config]


def _load_presets(source: Source, entries: dict[str, Entry], found: Models) -> None:
    """Add the models of one file to `entries`, and all that is wrong with them to the file's problems.

    One that names no `model` has the files of the one `found` under its name.
    """
    models, defaults = _sections(source)
    for name, written in models.items():
        if source.is_full:
            return
        keys: Keys = ("models", name)
        if name in entries:
            other = entries[name].source.place(keys)
            source.complain(keys, f"cannot use the name {shown(name)}: it is taken by {other}; rename one of them")
        elif written is None or isinstance(written, dict):
            whole = found.completed(name, _overlaid(written or {}, defaults))
            entries[name] = _load_preset(source, name, whole, found)
        else:
            source.complain(keys, f"cannot use {shown(written)} as a model: write 'key: value' lines below its name")
            entries[name] = Entry(source, keys, {}, None)


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


def _load_preset(source: Source, name: str, written: Written, models: Models) -> Entry:
    """One model of a file; what is wrong with it is complained about, but for a file that `models` might have had."""
    entry = Entry(source, ("models", name), written, None)
    body = with_paths(written, source.path.parent)
    found: list[tuple[Keys, str]] = []
    if "name" in body:
        found.append((("name",), unknown_key("name", MODEL_KEYS)))
    known, preset = source.made.get(name, (None, None))
    try:
        if preset is None or body != known:  # equal bodies of one content are of the same types
            preset = Preset.model_validate({**body, "name": name})
            source.made[name] = body, preset
    except ValidationError as error:
        found += [(() if keys == ("name",) else keys, message) for keys, message in complaints(Preset, error)]
    if body.get("backend") != "command":
        found += [((key,), why) for key in ("model", "mmproj") if (why := why_unreadable(body.get(key)))]
    entry.wrong = frozenset(str(keys[0]) for keys, _ in found if keys)
    for keys, message in found:
        if keys == ("model",) and body.get("model") is None:
            entry.lacks = message + _instead(name, models)
        else:
            source.complain((*entry.keys, *keys), message)
    entry.preset = None if found else preset
    # Where the file is missing any will do: what is asked of it is what its program says to the rest.
    entry.sound = preset if not found else sound(Preset, {"model": "/", **body, "name": name}, entry.wrong - {"model"})
    return entry


def _instead(name: str, models: Models) -> str:
    """What else could have been meant by a preset that names no file."""
    if name in models.missing:
        why = f"; {shown(name)} in models_dir is none: {models.missing[name]}"
    elif close := difflib.get_close_matches(name, models.found, n=1):
        why = f"; did you mean {shown(close[0])}, which is in models_dir?"
    else:
        why = ", or put one of its name into models_dir"
    return f"{why}; until then the model is left out"


def _check_with_programs(entries: Iterable[Entry], judge: Judge) -> None:
    """Complain about what the programs would refuse that are to serve the models."""
    judge.prepare([entry.sound for entry in entries if entry.sound is not None and not entry.source.is_full])
    for entry in entries:
        if entry.sound is not None and not entry.source.is_full:
            for keys, message in judge.refused(entry.sound):
                if keys[0] not in entry.wrong:
                    entry.source.complain((*entry.keys, *keys), message)


def _load_aliases(entries: dict[str, Entry]) -> dict[str, str]:
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


def _origins(sources: Iterable[Source], entries: Mapping[str, Entry], base: Path) -> dict[str, Origin]:
    paths = [source.path for source in sources]
    files = {path: printable(path.relative_to(base) if path.is_relative_to(base) else path) for path in paths}
    return {
        name: Origin(files[entry.source.path], entry.source.line(entry.keys))
        for name, entry in entries.items()
        if entry.preset
    }


def _sorted(problems: Iterable[Problem]) -> list[Problem]:
    return sorted(problems, key=lambda problem: (problem.file, problem.line or 0, problem.field or "", problem.message))
