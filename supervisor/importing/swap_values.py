"""Values of llama-swap's config.yaml, taken with their types; whatever is of another one is remarked on where it is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from supervisor.core.fields import as_flag
from supervisor.core.quantities import shown
from supervisor.importing import draft, macros, server_settings
from supervisor.importing.draft import Imported
from supervisor.importing.macros import CannotExpand, Macros
from supervisor.importing.server_settings import Settings
from supervisor.yaml_positions import Document, Path

MAX_FIELD = 200


class Values:
    """The document's values by path, and the remarks about them."""

    def __init__(self, found: Imported, document: Document) -> None:
        self._found = found
        self._document = document

    def line(self, path: Path) -> int:
        """The line of what is written at `path`, or above it."""
        return self._document.lines[self._document.known(path)]

    def remark(self, path: Path, message: str) -> None:
        """Note what does not come along of what is written at `path`."""
        self._found.remark(self.line(path), field(path), message)

    def lose(self, path: Path, value: object, instead: str) -> None:
        """The same for a key without counterpart, unless its value asks for nothing."""
        if value not in (None, False, 0, "", [], {}, "false"):
            self.remark(path, f"cannot carry over: {instead}")

    def remark_on(self, settings: Settings) -> None:
        """Say which of a llama-server's settings can't come along."""
        server_settings.remark_on(settings, self._found)

    def written(self, path: Path) -> Any:
        """What is at `path`; None if there is nothing."""
        value: Any = self._document.value
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
        return value

    @staticmethod
    def first_use(text: str, root: Mapping[str, Any]) -> Path:
        """Where `text` is first written below `root`; () if nowhere."""
        pending: list[tuple[Path, Any]] = [((), root)]
        while pending:
            path, value = pending.pop()
            if isinstance(value, str) and text in value:
                return path
            if isinstance(value, dict):
                pending += [((*path, key), entry) for key, entry in reversed(value.items())]
            elif isinstance(value, list):
                pending += [((*path, index), value[index]) for index in reversed(range(len(value)))]
        return ()

    def expand(self, path: Path, known: Macros, change: Callable[[str], str] = str) -> Any:
        """What is at `path`, its macros replaced, after `change` if it is text; None if that can't be."""
        written = self.written(path)
        try:
            value = known.expand(change(written) if isinstance(written, str) else written)
        except CannotExpand as error:
            self.remark(path, f"cannot carry over: {error}")
            return None
        names = [name for name in macros.unresolved(value) if not name.startswith("${env.")]
        if names:
            self.remark(path, f"cannot replace {draft.listed(names)}: no macro has that name; write its value")
        return value

    def macros(self, path: Path) -> dict[str, Any]:
        """The macros that the mapping at `path` defines, without those llama-swap refuses."""
        written = self.mapping((*path, "macros"), self.written((*path, "macros")))
        found: dict[str, Any] = {}
        for name, value in written.items():
            why = macros.fault(name, value)
            if why is None and len(found) == macros.MAX_MACROS:
                why = f"more than {macros.MAX_MACROS} of them are not read"
            if why is None:
                found[name] = value
            else:
                self.remark((*path, "macros", name), f"cannot use macro {shown(name)}: {why}")
        return found

    def known_keys(self, path: Path, value: Any, known: Iterable[str]) -> list[str]:
        """Those keys of a mapping that are `known`; the others are remarked on."""
        written = self.mapping(path, value)
        for key in written.keys() - set(known):
            self.remark((*path, key), f"cannot carry over {shown(key)}: llama-swap has no such key either")
        return [key for key in written if key in known]

    def mapping(self, path: Path, value: Any) -> Mapping[str, Any]:
        """A mapping; {} for nothing or something else."""
        if value is None or isinstance(value, dict):
            return value or {}
        self._mistyped(path, value, "a mapping")
        return {}

    def text(self, path: Path, value: Any) -> str:
        """Text, or a number's digits; "" for nothing or something else."""
        if value is None or isinstance(value, str):
            return value or ""
        if isinstance(value, int | float) and not isinstance(value, bool):
            return str(value)
        self._mistyped(path, value, "text")
        return ""

    def texts(self, path: Path, value: Any) -> list[tuple[int, str]]:
        """A list of texts with their places in it."""
        if value is None:
            return []
        if not isinstance(value, list):
            self._mistyped(path, value, "a list")
            return []
        return [(index, self.text((*path, index), entry)) for index, entry in enumerate(value)]

    def whole(self, path: Path, value: Any) -> int | None:
        """A whole number from 0 on, which may be in quotes; None for nothing, -1 ("the default") or something else."""
        if isinstance(value, str) and value.strip().isascii() and value.strip().isdigit() and len(value) < 18:
            value = int(value)
        if isinstance(value, int) and not isinstance(value, bool) and value >= -1:
            return None if value == -1 else value
        if value is not None:
            self._mistyped(path, value, "a whole number")
        return None

    def flag(self, path: Path, value: Any, otherwise: bool) -> bool:
        """A boolean, or a word for one."""
        try:
            return otherwise if value is None else as_flag(value)
        except ValueError:
            self._mistyped(path, value, "true or false")
            return otherwise

    seconds = staticmethod(draft.seconds)

    def _mistyped(self, path: Path, value: object, kind: str) -> None:
        self.remark(path, f"cannot read {shown(value)} as {kind}; it is left out")


def field(path: Path) -> str | None:
    """A path with dots."""
    return ".".join(str(part)[:MAX_FIELD] for part in path) or None
