"""llama-server's models.ini (--models-preset) as presets; its [*] becomes `defaults`.

Source: common/preset.cpp and tools/server/server-models.cpp of llama.cpp build b11434.
"""

from __future__ import annotations

import re
from pathlib import PurePath

from supervisor.core.fields import unknown_key
from supervisor.errors import CannotImport, Problem
from supervisor.importing import ini, server_options, server_settings
from supervisor.importing.draft import Draft, Imported, Written, seconds
from supervisor.importing.server_settings import SLOTS, Setting, Settings

GLOBAL = "*"

_LOAD, _STOP, _DEDUP = "load-on-startup", "stop-timeout", "dedup-cache-models"
_PRESET_ONLY = (_LOAD, _STOP, _DEDUP)
_IGNORED = "version"
_HINTS = 100
# Of one model, even if [*] has them.
_NEVER_SHARED = frozenset({"model", "mmproj", "alias", "hf-repo", "hf-file", "model-url", "docker-repo"})
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+(?::[\w.-]+)?", re.ASCII)
_TAG = re.compile(r"[-.]([A-Za-z0-9_]+)$")


class _Section:
    """A section's settings and preset-only keys; what of them means nothing is remarked on."""

    def __init__(self, section: ini.Section, found: Imported) -> None:
        self.line = section.line
        self.written = section.name
        self.name = _name(section.name)
        self.settings: Settings = {}
        self.only: dict[str, ini.Entry] = {}
        # llama.cpp reads a section's keys in alphabetical order, and the last that names an option counts.
        for entry in sorted({entry.key: entry for entry in section.entries}.values(), key=lambda entry: entry.key):
            self._take(entry, found)
        last = {entry.key: entry.line for entry in section.entries}
        for entry in section.entries:
            if last[entry.key] != entry.line:
                self.remark(found, entry.line, entry.key, f"is given again in line {last[entry.key]}, which counts")

    def remark(self, found: Imported, line: int, key: str, message: str) -> None:
        found.remark(line, self.field(key), message)

    def field(self, key: str) -> str:
        return f"[{self.written}].{key}"

    def _take(self, entry: ini.Entry, found: Imported) -> None:
        if entry.key in _PRESET_ONLY:
            self.only[entry.key] = entry
            return
        spelling = server_options.by_key(entry.key)
        if spelling is None:
            if entry.key != _IGNORED:
                self.remark(found, entry.line, entry.key, f"{_unknown(entry.key, found)}; llama-server refuses it")
            return
        if spelling.option.values and not entry.value:
            self.remark(found, entry.line, entry.key, "has no value; write one, or remove the line")
            return
        if spelling.option.values > 1:
            self.remark(found, entry.line, entry.key, "takes two values, which llama-server cannot read here either")
            return
        name = spelling.option.name
        if name in self.settings:
            other = self.settings[name]
            why = f"means the same as {entry.key!r} in line {entry.line}, which counts"
            self.remark(found, other.line, other.written, why)
        self.settings[name] = server_settings.setting(
            spelling, entry.key, entry.value, entry.line, self.field(entry.key)
        )


def read(text: str, path: PurePath) -> Imported:
    """The presets of the models.ini at `path`. Raises CannotImport with every line that can't be read."""
    sections, faults = ini.parse(text)
    if not faults and not any(section.entries for section in sections):
        faults = [(1, "cannot find any key = value in it")]
    if faults:
        raise CannotImport([Problem(str(path), line, None, message) for line, message in faults])
    found = Imported("llama-server", str(path))
    by_name: dict[str, _Section] = {}
    for section in sections:
        read_section = _Section(section, found)
        if read_section.name in by_name and section.name != ini.BEFORE_SECTIONS:
            earlier = by_name[read_section.name].line
            found.remark(earlier, f"[{section.name}]", f"is given again in line {section.line}, which counts")
        by_name[read_section.name] = read_section
    shared = by_name.pop(GLOBAL, None)
    if ini.BEFORE_SECTIONS in by_name and not by_name[ini.BEFORE_SECTIONS].settings:
        del by_name[ini.BEFORE_SECTIONS]
    _Reading(found, path.parent, shared, list(by_name.values())).read()
    found.finish()
    return found


class _Reading:
    """Turns sections into drafts, and what [*] has for all of them into defaults."""

    def __init__(self, found: Imported, base: PurePath, shared: _Section | None, sections: list[_Section]) -> None:
        self._found = found
        self._base = base
        self._shared = shared
        self._sections = sections
        self._all = shared.settings if shared else {}
        # A flag that a model switches the other way has another name there, and would be given both ways.
        overridden = {name for section in sections for name in section.settings}
        self._defaults = {
            name: each
            for name, each in self._all.items()
            if name not in _NEVER_SHARED and not (name in overridden and isinstance(each.value, bool))
        }

    def read(self) -> None:
        server_settings.remark_on(self._all, self._found)
        keys = server_settings.keys(self._defaults, self._base)
        self._found.defaults = {"backend": "llama-server"} | {key: keys[key] for key in keys if keys[key] is not None}
        for section in self._sections:
            server_settings.remark_on(section.settings, self._found)
            self._found.drafts.append(self._draft(section))

    def _draft(self, section: _Section) -> Draft:
        draft = Draft(section.name, section.line, f"[{section.written}]")
        everything = {**self._all, **section.settings}
        self._name_repository(section, everything)
        aliases = self._aliases(everything)
        if section.name != section.written:
            aliases.append(section.written)
        draft.keys = {"aliases": aliases, **self._only(section)}
        if downloading := server_settings.downloads(everything):
            self._run_by_command(draft, section, everything, downloading[0])
            return draft
        own = {**{name: each for name, each in self._all.items() if name not in self._defaults}, **section.settings}
        own.pop("alias", None)
        draft.keys |= server_settings.keys(own, self._base)
        default = self._found.defaults
        draft.keys = {key: value for key, value in draft.keys.items() if value is not None or key in default}
        if draft.keys.get("parallel", default.get("parallel")) is None:
            draft.keys["max_concurrency"] = SLOTS
        if "model" not in draft.keys:
            draft.is_usable = False
            why = (
                "names no model; llama-server looks for it in --models-dir. Write model: with the path of its GGUF file"
            )
            self._found.remark(section.line, f"[{section.written}]", why)
        return draft

    def _name_repository(self, section: _Section, settings: Settings) -> None:
        """A section without a model is named like one in llama-server's cache, which comes from Hugging Face."""
        spelling = server_options.by_key("hf-repo")
        given = "model" in settings or server_settings.downloads(settings)
        if spelling and not given and _REPOSITORY.fullmatch(section.name):
            settings["hf-repo"] = Setting(
                spelling.option, section.name, section.name, section.line, f"[{section.written}]"
            )

    def _run_by_command(self, draft: Draft, section: _Section, settings: Settings, download: Setting) -> None:
        settings.pop("alias", None)
        arguments = server_settings.arguments(settings, self._base)
        draft.keys |= {
            "backend": "command",
            "command": ["llama-server", *arguments, "--port", server_settings.PORT],
            "ready": {"http": "/health"},
            "max_concurrency": _slots(settings),
        }
        why = (
            f"llama-server downloads this model by itself ({download.option.name} {download.value}), so it became a "
            "command; for estimates of memory, download the file, and write backend: llama-server and model: PATH"
        )
        self._found.remark(section.line, f"[{section.written}]", why)

    def _only(self, section: _Section) -> Written:
        given = {**(self._shared.only if self._shared else {}), **section.only}
        keys: Written = {}
        if (load := given.get(_LOAD)) and server_settings.is_truthy(load.value):
            keys["autostart"] = True
        if stop := given.get(_STOP):
            if re.fullmatch(r"[0-9]{1,9}", stop.value):
                keys["stop_timeout"] = seconds(int(stop.value))
            else:
                section.remark(self._found, stop.line, _STOP, f"cannot read {stop.value!r} as seconds; left at 10s")
        if (dedup := given.get(_DEDUP)) and server_settings.is_truthy(dedup.value):
            why = "cannot carry over: llama-router lists presets only, and no cache of downloads"
            section.remark(self._found, dedup.line, _DEDUP, why)
        return keys

    @staticmethod
    def _aliases(settings: Settings) -> list[str]:
        alias = settings.get("alias")
        return [name for part in str(alias.value).split(",") if (name := part.strip())] if alias else []


def _unknown(key: str, found: Imported) -> str:
    """What to say of a key; to look for a similar one takes milliseconds, and is no help to whoever has hundreds."""
    known = (*server_options.all_keys(), *_PRESET_ONLY) if len(found.remarks) < _HINTS else ()
    return unknown_key(key, known).partition(": known are")[0]


def _slots(settings: Settings) -> int:
    parallel = settings.get("parallel")
    text = str(parallel.value) if parallel else ""
    return int(text) if re.fullmatch(r"[1-9][0-9]{0,8}", text) else SLOTS


def _name(section: str) -> str:
    """The name llama-server lists a section under: what follows the last colon is a quantization, in capitals."""
    start, colon, tag = section.rpartition(":")
    if not colon or section == GLOBAL:
        return section
    found = _TAG.search(tag)
    return f"{start}:{(found[1] if found else tag).upper()}"
