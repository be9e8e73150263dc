"""Presets as YAML that people go on editing: each model says where it came from, and what it still lacks."""

from __future__ import annotations

import re
import textwrap
from pathlib import PurePath
from typing import Any

import yaml

from supervisor.importing.draft import Draft, Imported

_PLAIN = re.compile(r"-{0,2}[A-Za-z/].*|(?:[0-9]+(?:ms|s|min|h|d))+")
_SHORT = 80


class _Dumper(yaml.SafeDumper):
    """Quotes what YAML 1.1 or 1.2 might take for something else than text; short lists stay on one line."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def text(self, value: str) -> yaml.ScalarNode:
        style = None if _PLAIN.fullmatch(value) else "'"
        return self.represent_scalar("tag:yaml.org,2002:str", value, '"' if not value.isprintable() else style)

    def items(self, value: list[Any]) -> yaml.SequenceNode:
        is_short = all(not isinstance(item, list | dict) for item in value) and len(str(value)) <= _SHORT
        return self.represent_sequence("tag:yaml.org,2002:seq", value, flow_style=is_short)


_Dumper.add_representer(str, _Dumper.text)
_Dumper.add_representer(list, _Dumper.items)


def to_yaml(found: Imported) -> str:
    """A file of presets with all that was found; drafts that are not usable are comments in it."""
    lines = [f"# Imported from {found.origin}'s {_comment(PurePath(found.file).name)} by llama-router import."]
    if found.config:
        lines += ["#", "# What llama-router's config.yaml should say:", *_commented(dump(found.config))]
    lines.append("")
    if found.defaults:
        lines += [dump({"defaults": found.defaults})]
    usable = [draft for draft in found.drafts if draft.is_usable]
    lines.append("models:" if usable else "models: {}")
    lines += [_model(draft, found) for draft in usable]
    lines += [_unusable(draft, found) for draft in found.drafts if not draft.is_usable]
    return "\n".join(lines)


def alone(draft: Draft, found: Imported) -> str:
    """The same with one model only."""
    return to_yaml(Imported(found.origin, found.file, [draft], found.defaults))


def dump(value: Any) -> str:
    """YAML that reads as `value` again."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=10**9, default_flow_style=False)


def _model(draft: Draft, found: Imported) -> str:
    text = f"# {_place(draft, found)}\n{dump({draft.name: draft.keys})}"
    return textwrap.indent(text, "  ")


def _unusable(draft: Draft, found: Imported) -> str:
    text = textwrap.indent(dump({draft.name: draft.keys}), "  ")
    return "\n".join([f"  # {_place(draft, found)}: complete this, and remove the '# '", *_commented(text), ""])


def _place(draft: Draft, found: Imported) -> str:
    return _comment(f"{PurePath(found.file).name}:{draft.line}")


def _commented(text: str) -> list[str]:
    return [f"# {line}" for line in text.splitlines()]


def _comment(text: str) -> str:
    """A file's name as one line: whatever could end a comment is left out."""
    return "".join(char if char.isprintable() else "?" for char in text)
