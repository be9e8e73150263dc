"""Configurations of other programs read from text, and what came of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

from supervisor import importing
from supervisor.importing import written, yaml_check
from supervisor.importing.draft import Imported


def read(text: str | bytes, kind: str | None = None, environment: Mapping[str, str] | None = None) -> Imported:
    data = text.encode() if isinstance(text, str) else text
    found = importing.read(data, PurePath("/etc/x/file"), kind, environment or {})
    yaml_check.check(found, Path("/etc/x"))
    return found


def swap(cmd: str, **keys: Any) -> Imported:
    """A llama-swap with the one model "a"."""
    return read(written.dump({"models": {"a": {"cmd": cmd, **keys}}}))


def section(*lines: str) -> Imported:
    """A models.ini with the one section "a"."""
    return read("\n".join(["[a]", "model = /m.gguf", *lines]))


def keys(found: Imported, name: str = "a") -> dict[str, Any]:
    """The keys of one draft over the defaults."""
    draft = next(draft for draft in found.drafts if draft.name == name)
    return {**found.defaults, **draft.keys}


def said(found: Imported, *about: str) -> list[str]:
    """The remarks, but for those on files of models that are not there."""
    texts = [str(remark).removeprefix("/etc/x/file:") for remark in found.remarks]
    texts = [text for text in texts if "No such file" not in text]
    return [text for text in texts if all(part in text for part in about)]
