"""YAML text to plain values that know their lines; made for files that a person edits and a stranger may have written.

Values are read as YAML 1.2 does, as far as all readers agree: only true and false are booleans (`no`, `on` and `1:30`
stay text), and numbers are those that JSON has, so that `022` or `0x1F` reach a program as they are written.
Mapping keys are always text. Anchors, aliases and `<<` work; of the tags only `!!str` does.

Events are read instead of nodes composed: so nesting and size can be limited before libyaml's composer, which recurses
in C, has run out of stack or memory.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

import yaml

from supervisor.core.quantities import shown
from supervisor.errors import ConfigurationError, Problem

MAX_DEPTH = 64
# Nodes of one file, and values once its aliases are followed.
MAX_VALUES = 200_000
MAX_PROBLEMS = 100

Path = tuple[str | int, ...]

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_NULL = re.compile(r"~|null|Null|NULL|")
_BOOL = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INT = re.compile(r"0|-?[1-9][0-9]{0,63}")
_FLOAT = re.compile(
    r"[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
)
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_TAGS = (None, "!", *(f"tag:yaml.org,2002:{kind}" for kind in ("str", "seq", "map")))
_WITH_TAG = (yaml.ScalarEvent, yaml.CollectionStartEvent)
_MERGE = "<<"


@dataclass(frozen=True)
class Document:
    """`value` is made of dict (text keys), list, str, int, float, bool and None; `lines` has the line of every path."""

    value: object
    lines: dict[Path, int]

    def known(self, path: Path) -> Path:
        """The longest start of `path` that is written in the file."""
        while path not in self.lines:
            path = path[:-1]
        return path


@dataclass(slots=True)
class _Scalar:
    line: int
    text: str
    is_plain: bool


@dataclass(slots=True)
class _Sequence:
    line: int
    items: list[_Node] = field(default_factory=list)
    is_complete: bool = False


@dataclass(slots=True)
class _Mapping:
    line: int
    pairs: list[tuple[_Scalar, _Node]] = field(default_factory=list)
    is_complete: bool = False


_Node = _Scalar | _Sequence | _Mapping


class _Unreadable(Exception):
    def __init__(self, line: int | None, message: str) -> None:
        super().__init__(message)
        self.line = line


def parse(data: bytes, file: str) -> Document:
    """The one document in `data`, which is UTF-8; a file of comments only has the value None.

    Raises ConfigurationError, whose problems name `file` and lines.
    """
    try:
        text = _decode(data)
        composer = _Composer(yaml.parse(text, Loader=_LOADER))
        root = composer.document()
    except _Unreadable as error:
        raise ConfigurationError([Problem(file, error.line, None, str(error))]) from None
    except yaml.MarkedYAMLError as error:
        raise ConfigurationError([_syntax_problem(error, text, file)]) from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        # The pure Python scanner lets chr() raise for escapes outside Unicode.
        raise ConfigurationError([Problem(file, None, None, f"cannot read as YAML: {error}")]) from None
    if composer.duplicates:
        raise ConfigurationError([Problem(file, line, None, message) for line, message in composer.duplicates])
    builder = _Builder()
    try:
        value = builder.value(root, ()) if root is not None else None
    except _Unreadable as error:
        raise ConfigurationError([Problem(file, error.line, None, str(error))]) from None
    return Document(value, builder.lines)


def _decode(data: bytes) -> str:
    if not data.strip():
        raise _Unreadable(None, "cannot use an empty file: was it cut off? Remove it, or write at least a comment")
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise _Unreadable(line, f"cannot read byte 0x{data[error.start]:02x}: save the file as UTF-8 text") from None
    if found := _UNPRINTABLE.search(text):
        line = text.count("\n", 0, found.start()) + 1
        raise _Unreadable(line, f"cannot read control character U+{ord(found[0]):04X}: save the file as UTF-8 text")
    return text


def _syntax_problem(error: yaml.MarkedYAMLError, text: str, file: str) -> Problem:
    mark = error.problem_mark or error.context_mark
    reason = ", ".join(part for part in (error.context, error.problem) if part)
    lines = text.splitlines()
    # What is missing at the end of a file is reported for the line behind it.
    line = min(mark.line + 1, len(lines)) if mark else None
    hint = ""
    if line and re.match(r" *\t", lines[line - 1]):
        hint = "; indent with spaces instead of tabs"
    elif "mapping values are not allowed" in reason:
        hint = "; check the indentation, and put text that holds ': ' in quotes"
    elif "cannot start any token" in reason:
        hint = "; put the text in quotes"
    return Problem(file, line, None, f"cannot read as YAML: {reason}{hint}")


class _Composer:
    """Nodes out of the parser's events. Raises _Unreadable; `duplicates` holds the keys that a mapping has twice."""

    def __init__(self, events: Iterator[yaml.Event]) -> None:
        self.duplicates: list[tuple[int, str]] = []
        self._events = events
        self._anchors: dict[str, _Node] = {}
        self._count = 0

    def document(self) -> _Node | None:
        root = None
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                if root is not None:
                    raise _Unreadable(_line(event), "cannot use a second document: remove the line '---'")
                root = self._node(next(self._events), 0)
        return root

    def _node(self, event: yaml.Event, depth: int) -> _Node:
        line = _line(event)
        self._count += 1
        _check_limits(line, self._count, depth)
        # The parser's grammar leaves nothing else where a node is due.
        assert isinstance(event, yaml.NodeEvent)
        if isinstance(event, yaml.AliasEvent):
            return self._anchored(event.anchor or "", line)
        assert isinstance(event, _WITH_TAG)
        if event.tag not in _TAGS:
            raise _Unreadable(line, f"cannot use tag {shown(event.tag)}: remove it")
        node: _Node
        if isinstance(event, yaml.ScalarEvent):
            node = _Scalar(line, event.value, is_plain=event.tag is None and event.implicit[0])
            if not _is_unicode(node.text):
                raise _Unreadable(line, f"cannot use {shown(node.text)}: it is not valid Unicode")
        else:
            node = _Mapping(line) if isinstance(event, yaml.MappingStartEvent) else _Sequence(line)
        if event.anchor is not None:
            self._anchors[event.anchor] = node
        if not isinstance(node, _Scalar):
            self._fill(node, depth + 1)
        return node

    def _anchored(self, anchor: str, line: int) -> _Node:
        node = self._anchors.get(anchor)
        if node is None:
            raise _Unreadable(line, f"cannot find anchor '&{anchor}': define it above its use")
        if not isinstance(node, _Scalar) and not node.is_complete:
            raise _Unreadable(line, f"cannot use '*{anchor}' inside '&{anchor}' itself")
        return node

    def _fill(self, node: _Sequence | _Mapping, depth: int) -> None:
        first_lines: dict[str, int] = {}
        while not isinstance(event := next(self._events), yaml.CollectionEndEvent):
            inner = self._node(event, depth)
            if isinstance(node, _Sequence):
                node.items.append(inner)
                continue
            if not isinstance(inner, _Scalar):
                raise _Unreadable(inner.line, "cannot use a list or mapping as a key: put it in quotes")
            if inner.text in first_lines:
                self._note_duplicate(inner, first_lines[inner.text])
            first_lines.setdefault(inner.text, inner.line)
            node.pairs.append((inner, self._node(next(self._events), depth)))
        node.is_complete = True

    def _note_duplicate(self, key: _Scalar, first: int) -> None:
        if len(self.duplicates) < MAX_PROBLEMS:
            message = f"cannot use key {shown(key.text)} twice: it is also in line {first}; remove one"
            self.duplicates.append((key.line, message))


class _Builder:
    """Values out of nodes; `lines` tells where each is written. Raises _Unreadable."""

    def __init__(self) -> None:
        self.lines: dict[Path, int] = {(): 1}
        self._count = 0

    def value(self, node: _Node, path: Path, line: int | None = None) -> object:
        """The value of `node`; `line` is that of the key in front of it."""
        self._spend(node, len(path))
        self.lines[path] = line or node.line
        if isinstance(node, _Scalar):
            return _resolve(node)
        if isinstance(node, _Sequence):
            return [self.value(item, (*path, index)) for index, item in enumerate(node.items)]
        return {
            name: self.value(inner, (*path, name), key.line)
            for name, (key, inner) in self._merged(node, len(path)).items()
        }

    def _merged(self, node: _Mapping, depth: int) -> dict[str, tuple[_Scalar, _Node]]:
        """The mapping's pairs; those that `<<` brings in come last and give way to the mapping's own."""
        own: dict[str, tuple[_Scalar, _Node]] = {}
        sources: list[_Node] = []
        for key, inner in node.pairs:
            if key.is_plain and key.text == _MERGE:
                sources += inner.items if isinstance(inner, _Sequence) else [inner]
            else:
                own[key.text] = (key, inner)
        for source in sources:
            if not isinstance(source, _Mapping):
                raise _Unreadable(source.line, "cannot merge this with '<<': it must be a mapping or a list of them")
            self._spend(source, depth, len(source.pairs))
            for name, pair in self._merged(source, depth + 1).items():
                own.setdefault(name, pair)
        return own

    def _spend(self, node: _Node, depth: int, count: int = 1) -> None:
        self._count += count
        _check_limits(node.line, self._count, depth)


def _resolve(node: _Scalar) -> object:
    text = node.text
    if not node.is_plain:
        return text
    if _NULL.fullmatch(text):
        return None
    if text in _BOOL:
        return _BOOL[text]
    if _INT.fullmatch(text):
        return int(text)
    return float(re.sub(r"\.(?=[inIN])", "", text)) if _FLOAT.fullmatch(text) else text


def _check_limits(line: int, count: int, depth: int) -> None:
    if count > MAX_VALUES:
        raise _Unreadable(line, f"cannot use more than {MAX_VALUES} values, aliases followed: split the file")
    if depth > MAX_DEPTH:
        raise _Unreadable(line, f"cannot use values nested more than {MAX_DEPTH} deep")


def _is_unicode(text: str) -> bool:
    """Whether `text` can be encoded: the pure Python scanner lets "\\ud800" through."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _line(event: yaml.Event) -> int:
    return int(getattr(event.start_mark, "line", 0)) + 1
