"""The options that a build of llama-server has, out of what it says to --help, and a preset's `options` as arguments.

They differ from build to build, and one that is unknown keeps the server from starting: so each build is asked.
The layout is that of common_arg::to_string in llama.cpp's common/arg.cpp: all names of an option, then what its value
is called, if it takes one; behind that or on the next line, from column 40 on, what it is for.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from supervisor.core.fields import as_flag
from supervisor.core.llama_renamed import SUCCESSORS, successor
from supervisor.core.quantities import shown

_COLUMN = 40
_NAME = r"--?[a-zA-Z][^\s,]*"
_HEAD = re.compile(rf"(?P<names>{_NAME}(?:, +{_NAME})*)(?: (?P<value>\S+(?: \S+)*))?(?: {{2,}}|$)(?P<words>.*)")
_OFF = re.compile("--no-|-n")
_REMOVED = "the argument has been removed"
# "flash-atn" is as like as this to "flash-attn"; "no-mmap" is not to "no-mmproj", which means something else.
_ALIKE = 0.8
_CAN_FETCH = "note: can download weights"

# What a preset says by keys of its own, and what would keep llama-router from reaching the server.
_LISTENING = "llama-router decides where it listens"
_REACHING = "llama-router could not ask it any more; only this user reaches its socket"
_ROUTING = "llama-router does that itself"
_FETCHING = "llama-router loads a file that is there; download it, or use backend: command"
_ENDING = "it prints something and ends"
REFUSED: Mapping[str, str] = {
    "--model": "write model: beside options",
    "--mmproj": "write mmproj: beside options",
    "--parallel": "write parallel: beside options",
    "--embedding": "write embedding: true beside options",
    "--alias": "it is the model's name; write aliases: beside options",
    **dict.fromkeys(("--host", "--port", "--reuse-port"), _LISTENING),
    **dict.fromkeys(("--api-key", "--api-key-file", "--ssl-key-file", "--ssl-cert-file", "--api-prefix"), _REACHING),
    **dict.fromkeys(("--models-dir", "--models-preset", "--models-max", "--models-autoload"), _ROUTING),
    **dict.fromkeys(("--hf-repo", "--hf-file", "--model-url", "--docker-repo"), _FETCHING),
    "--hf-token": "everybody could read it in the list of processes; write HF_TOKEN into env",
    **dict.fromkeys(("--help", "--version", "--cache-list", "--completion-bash", "--list-devices"), _ENDING),
}


@dataclass(frozen=True)
class Option:
    """`on` and `off` are its names with their dashes; `off` switches it off. `value` is what its value is called, ""
    for a switch, and `words` the first line of what it is for."""

    on: tuple[str, ...]
    off: tuple[str, ...]
    value: str
    words: str

    @property
    def refused(self) -> str | None:
        """Why a preset may not have it among its `options`; None if it may."""
        if self.words.startswith(_REMOVED):
            instead = self.words.removeprefix(_REMOVED).lstrip(". ").partition(" (env:")[0]
            return f"llama-server has removed it; {instead}"
        if _CAN_FETCH in self.words:
            return _FETCHING
        return next((why for name in self.on if (why := REFUSED.get(name))), None)


class Options:
    """The options of one build."""

    def __init__(self, text: str) -> None:
        """`text` is what it says to --help."""
        self._by_name: dict[str, Option] = {}
        for option in _parsed(text):
            for name in (*option.on, *option.off):
                self._by_name.setdefault(name, option)

    def __len__(self) -> int:
        return len(self._by_name)

    def get(self, name: str) -> Option | None:
        """The option that is called so, dashes included."""
        return self._by_name.get(name)

    def meant(self, key: str) -> Option | None:
        """The option that a preset's key means; None if there is none."""
        try:
            return self._by_name[self._name(key)]
        except ValueError:
            return None

    def arguments(self, key: str, value: Any) -> list[str]:
        """A preset's option as arguments. Raises ValueError, whose message begins with "cannot"."""
        name = self._name(key)
        option = self._by_name[name]
        if option.refused:
            raise ValueError(f"cannot be given: {option.refused}")
        if not option.value:
            return _switch(option, name, value)
        return _valued(option, name, value)

    def _name(self, key: str) -> str:
        """The name that a key means, with or without its dashes, "_" for "-" in it as llama.cpp has it."""
        dashed = key.replace("_", "-")
        candidates = [dashed if dashed.startswith("--") else key] if key.startswith("-") else [f"--{dashed}", f"-{key}"]
        for name in candidates:
            if name in self._by_name:
                return name
        raise ValueError(f"cannot be given: this llama-server has no such option; {self._instead(dashed.lstrip('-'))}")

    def _instead(self, name: str) -> str:
        newer, _ = SUCCESSORS.get(name, ("", ""))
        if f"--{newer}" in self._by_name:
            return f"write {successor(name)}"
        known = sorted({each.lstrip("-") for each in self._by_name})
        close = difflib.get_close_matches(name[:100], known, 1, cutoff=_ALIKE)
        return f"did you mean {close[0]!r}?" if close else "`llama-server --help` lists what it knows"


def _parsed(text: str) -> Iterator[Option]:
    match, words = None, ""
    for line in text.splitlines():
        head = _HEAD.fullmatch(line)
        if head is None and match is not None and not line[:_COLUMN].strip():
            words += f" {line.strip()}"
            continue
        if match is not None:
            yield _option(match, words)
        match, words = head, head["words"] if head else ""
    if match is not None:
        yield _option(match, words)


def _option(head: re.Match[str], words: str) -> Option:
    names, value = re.split(", +", head["names"]), head["value"] or ""
    start = 1 + next((at for at, name in enumerate(names[1:]) if not value and _OFF.match(name)), len(names))
    return Option(tuple(names[:start]), tuple(names[start:]), value, words.strip())


def _switch(option: Option, name: str, value: Any) -> list[str]:
    """`no-mmap:` without a value is on, as llama-server's own models.ini has it. Off is left out where it is usual."""
    try:
        is_on = True if value is None else as_flag(value)
    except ValueError:
        raise ValueError(f"cannot be {shown(value)}: it takes no value; write true or false") from None
    if is_on:
        return [name]
    opposite = option.on if name in option.off else option.off
    return [opposite[-1]] if opposite else []


def _valued(option: Option, name: str, value: Any) -> list[str]:
    if isinstance(value, bool):
        words = {"on|off": ("on", "off"), "0|1": ("1", "0")}
        for choices, (yes, no) in words.items():
            if choices in option.value:
                return [name, yes if value else no]
    if value is None or isinstance(value, bool):
        raise ValueError(f"cannot be {shown(value)}: it takes a value, {option.value}")
    if not isinstance(value, list | tuple):
        return [name, _text(value)]
    if any(isinstance(entry, list | tuple) or entry is None or isinstance(entry, bool) for entry in value):
        raise ValueError(f"cannot be {shown(value)}: write a list of texts or numbers")
    entries = [_text(entry) for entry in value]
    if " " in option.value and "<" not in option.value:  # such as START END
        if len(entries) != len(option.value.split()):
            raise ValueError(f"cannot be {shown(value)}: it takes {option.value}")
        return [name, *entries]
    if "," in option.value or "comma-separated" in option.words:
        return [name, ",".join(entries)] if entries else []
    return [argument for entry in entries for argument in (name, entry)]


def _text(value: Any) -> str:
    return json.dumps(value) if isinstance(value, Mapping) else str(value)
