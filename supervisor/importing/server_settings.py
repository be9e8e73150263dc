"""What a llama-server is told, by a command line or a models.ini, as keys of a preset."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from supervisor.core.llama_renamed import successor
from supervisor.importing.draft import Imported, Written, seconds
from supervisor.importing.server_options import Option, Spelling, by_argument

# What llama-server serves at once when nobody says (n_parallel of -1, tools/server/server.cpp); a preset's own is 1.
SLOTS = 4
PORT = "{port}"

_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]{0,17})")
_FRACTION = re.compile(r"-?(?:0|[1-9][0-9]{0,8})\.[0-9]{1,12}")

# Preset keys of whole numbers, and from where on a number means itself instead of "llama-server decides".
_WHOLE = {
    "ctx-size": ("context", 0),
    "n-gpu-layers": ("gpu_layers", 0),
    "parallel": ("parallel", 1),
    "threads": ("threads", 1),
}
_FILES = {"model": "model", "mmproj": "mmproj"}
# Options that llama.cpp takes several of, separated by commas.
_MANY = frozenset(
    {"lora", "lora-scaled", "control-vector", "control-vector-scaled", "override-tensor", "override-kv", "spec-type"}
)

_ELSEWHERE = "clients reach every model at config.yaml's listen"
_SSL = "put a proxy that speaks TLS in front of llama-router"
_KEYS = "a model answers llama-router alone; for clients use llama-router key create, or web: {api_key_file: …}"
_INSTEAD = {
    "host": _ELSEWHERE,
    "port": _ELSEWHERE,
    "reuse-port": _ELSEWHERE,
    "api-prefix": _ELSEWHERE,
    "api-key": _KEYS,
    "api-key-file": _KEYS,
    "ssl-key-file": _SSL,
    "ssl-cert-file": _SSL,
    "tags": "llama-router has no tags; write them into description",
    "models-dir": "write models_dir: into config.yaml",
    "models-preset": "import that file too",
    "models-max": "write max_models: into config.yaml",
    "models-autoload": "write autoload: into config.yaml",
}
_DOWNLOADS = frozenset({"hf-repo", "hf-file", "model-url", "docker-repo"})
_READY_MADE = ("embd-gemma-", "fim-qwen-", "gpt-oss-", "vision-gemma-")


@dataclass(frozen=True)
class Setting:
    """One option and its `value`: text if it takes one, else whether it is on.

    `written` is its name in the imported file, `line` and `field` are where that is.
    """

    option: Option
    value: str | bool
    written: str
    line: int
    field: str


Settings = dict[str, Setting]


@dataclass
class Parsed:
    """A command line's settings, its other arguments with why they mean nothing, and settings with two values."""

    settings: Settings
    strays: list[tuple[str, str]]
    pairs: list[str]


def parse(arguments: Sequence[str], line: int, field: str) -> Parsed:
    """The settings of `arguments`, a llama-server's without its program, all written in `line` at `field`."""
    parsed = Parsed({}, [], [])
    rest = iter(_with_next(arguments))
    for argument, following in rest:
        spelling = by_argument(argument)
        if spelling is None:
            unknown = "llama-server has no such option; write it into options: if yours has it"
            parsed.strays.append(
                (argument, unknown if argument.startswith("-") else "it belongs to no option; remove it")
            )
            continue
        option = spelling.option
        if option.values == 0:
            value: str | bool = not spelling.is_negated
        elif following is None or (option.is_optional and by_argument(following)):
            if not option.is_optional:
                parsed.strays.append((argument, "its value is missing; write it into options:"))
                continue
            value = "on"
        else:
            value = following
            for _ in range(option.values):
                next(rest, None)
        if option.values == 2:
            parsed.pairs.append(argument)
        elif option.name in _MANY and option.name in parsed.settings:
            value = f"{parsed.settings[option.name].value},{value}"
        elif option.name in parsed.settings and parsed.settings[option.name].value != value:
            parsed.strays.append((parsed.settings[option.name].written, "it is given again, and the last counts"))
        parsed.settings[option.name] = Setting(option, value, argument, line, field)
    return parsed


def _with_next(arguments: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    return itertools.zip_longest(arguments, arguments[1:])


def setting(spelling: Spelling, key: str, value: str, line: int, field: str) -> Setting:
    """What `key = value` of a models.ini means; see parse_bool_arg and to_args of llama.cpp's common/preset.cpp."""
    option = spelling.option
    if option.values:
        return Setting(option, value, key, line, field)
    if spelling.is_negated:
        return Setting(option, not is_truthy(value), key, line, field)
    return Setting(option, value not in ("off", "disabled", "false", "0"), key, line, field)


def is_truthy(value: str) -> bool:
    """What llama.cpp takes for true in a models.ini."""
    return value in ("on", "enabled", "true", "1")


def downloads(settings: Mapping[str, Setting]) -> list[Setting]:
    """The settings that name a model which llama-server downloads by itself."""
    return [each for name, each in settings.items() if name in _DOWNLOADS or name.startswith(_READY_MADE)]


def remark_on(settings: Mapping[str, Setting], found: Imported) -> None:
    """Say which of the settings neither `keys` nor `arguments` has, and which not every llama-server has."""
    for name, each in settings.items():
        if newer := successor(_older_name(each)):
            why = f"newer builds of llama-server have no {each.written!r}; with one of those, write {newer} in options"
            found.remark(each.line, each.field, why)
        if name in _INSTEAD and not _is_usual(each):
            found.remark(each.line, each.field, f"cannot carry over {each.written!r}: {_INSTEAD[name]}")


def _older_name(setting: Setting) -> str:
    """What is in the preset, as a name that says whether it is switched off."""
    name = setting.option.name
    return f"no-{name}" if setting.value is False else name


def keys(settings: Mapping[str, Setting], base: PurePath) -> Written:
    """The keys of a preset with backend llama-server. Relative paths count from `base`.

    A key is None where llama-server is told to decide, whatever a file's defaults say.
    """
    written: Written = {}
    options: Written = {}
    for name, each in settings.items():
        if name in _INSTEAD:
            continue
        if name in _WHOLE:
            key, least = _WHOLE[name]
            written[key] = _whole(name, str(each.value), least)
            if written[key] is None and not _is_left_open(str(each.value)):
                options |= _option(each, base)
        elif name in _FILES:
            written[_FILES[name]] = absolute(str(each.value), base)
        elif name == "embeddings":
            written["embedding"] = bool(each.value)
        elif name == "sleep-idle-seconds":
            number = str(each.value)
            written["idle_timeout"] = seconds(int(number)) if _NUMBER.fullmatch(number) and int(number) > 0 else "never"
        else:
            options |= _option(each, base)
    return {**written, "options": options} if options else written


def arguments(settings: Mapping[str, Setting], base: PurePath) -> list[str]:
    """A command line for these settings, without the program and without where to listen."""
    line = []
    for name, each in settings.items():
        if name in _INSTEAD:
            continue
        if isinstance(each.value, str):
            line += [f"--{name}", absolute(each.value, base) if each.option.is_path else each.value]
        elif each.value:
            line.append(f"--{name}")
        elif each.option.negated:
            line.append(f"--{each.option.negated}")
    return line


def absolute(path: str, base: PurePath) -> str:
    """`path` as it is if it is absolute, empty, a list or begins with "~"; else below `base`."""
    return path if not path or path[0] in "/~" or "," in path else str(base / path)


def scalar(text: str) -> Any:
    """The number that `text` is and that is written so again; else the text."""
    if _NUMBER.fullmatch(text) and text != "-0":
        return int(text)
    return float(text) if _FRACTION.fullmatch(text) and repr(float(text)) == text else text


def _is_usual(each: Setting) -> bool:
    """Whether nobody misses it: llama-router makes a model listen on a port of its own, for this machine alone."""
    return each.value == PORT or (each.option.name == "host" and each.value in _LOOPBACK) or each.value is False


def _whole(name: str, text: str, least: int) -> int | None:
    if name == "n-gpu-layers" and (text == "all" or (_NUMBER.fullmatch(text) and int(text) < -1)):
        return -1
    return int(text) if _NUMBER.fullmatch(text) and int(text) >= least else None


def _is_left_open(text: str) -> bool:
    return text == "auto" or _NUMBER.fullmatch(text) is not None


def _option(each: Setting, base: PurePath) -> Written:
    if isinstance(each.value, str):
        return {each.option.name: absolute(each.value, base) if each.option.is_path else scalar(each.value)}
    if each.value:
        return {each.option.name: True}
    return {each.option.negated: True} if each.option.negated else {}
