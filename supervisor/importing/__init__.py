"""Configurations of llama-server's router and of llama-swap, read into presets; what can't come along is remarked on.

Text in, presets and remarks out: no module of this package opens a file or starts anything.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePath

from supervisor import yaml_positions
from supervisor.errors import CannotImport, ConfigurationError, Problem
from supervisor.importing import ini, llama_swap, models_ini
from supervisor.importing.draft import Imported
from supervisor.yaml_positions import Document

LLAMA_SERVER = "llama-server"
LLAMA_SWAP = "llama-swap"
KINDS = (LLAMA_SERVER, LLAMA_SWAP)

_BOM = b"\xef\xbb\xbf"
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


def read(data: bytes, path: PurePath, kind: str | None, environment: Mapping[str, str]) -> Imported:
    """The presets in the file at `path` (absolute), whose content is `data`; a `kind` of None is told by the content.

    Relative paths in it count from its directory; `environment` is for llama-swap's ${env.NAME}.
    Raises CannotImport with all that keeps it from being read, if it is of neither kind or broken.
    """
    data = data.removeprefix(_BOM)
    file = str(path)
    if kind == LLAMA_SERVER or (kind is None and _is_ini(data)):
        return models_ini.read(_text(data, file), path)
    document = _document(data, file, kind)
    if kind is None and not _has_models(document):
        raise CannotImport([Problem(file, None, None, _neither("it has no 'models:' with names below it"))])
    return llama_swap.read(document, path, environment)


def _is_ini(data: bytes) -> bool:
    """Whether it starts as INI does, broken as it may be below."""
    sections, faults = ini.parse(data.decode(errors="replace"))
    entries = [entry.line for section in sections for entry in section.entries]
    headers = [section.line for section in sections if section.name != ini.BEFORE_SECTIONS]
    return bool(entries) and (not faults or min(entries + headers) < faults[0][0])


def _has_models(document: Document) -> bool:
    return isinstance(document.value, dict) and isinstance(document.value.get("models"), dict)


def _document(data: bytes, file: str, kind: str | None) -> Document:
    try:
        return yaml_positions.parse(data, file)
    except ConfigurationError as error:
        problems = list(error.problems)
        if kind is None:
            problems.append(Problem(file, None, None, _neither("it can't be read as YAML")))
        raise CannotImport(problems) from None


def _neither(why: str) -> str:
    return (
        f"cannot tell what this is: {why}, and it is no INI file either; "
        f"if it is one of them, say so with --from {LLAMA_SERVER} or --from {LLAMA_SWAP}"
    )


def _text(data: bytes, file: str) -> str:
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        what = f"cannot read byte 0x{data[error.start]:02x}: save the file as UTF-8 text"
        raise CannotImport([Problem(file, line, None, what)]) from None
    if found := _CONTROL.search(text):
        line = text.count("\n", 0, found.start()) + 1
        what = f"cannot read control character U+{ord(found[0]):04X}: save the file as UTF-8 text"
        raise CannotImport([Problem(file, line, None, what)])
    return text
