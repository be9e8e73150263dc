"""What an import found: presets not yet checked, remarks on what can't come along, and keys for config.yaml."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from supervisor.core.fields import complaints
from supervisor.core.preset import COMMAND_KEYS, LLAMA_KEYS, Preset
from supervisor.core.quantities import format_duration
from supervisor.errors import Problem

Written = dict[str, Any]


@dataclass
class Draft:
    """A model to be: `keys` as in YAML, and the line and dotted path (`place`) of the imported file it comes from.

    Without `is_usable` it lacks something that only a person knows, such as a model's file.
    """

    name: str
    line: int
    place: str
    keys: Written = field(default_factory=dict)
    is_usable: bool = True


@dataclass
class Imported:
    """`origin` is the program whose file it was; `config` are keys that config.yaml should have."""

    origin: str
    file: str
    drafts: list[Draft] = field(default_factory=list)
    defaults: Written = field(default_factory=dict)
    config: Written = field(default_factory=dict)
    remarks: list[Problem] = field(default_factory=list)
    _said: set[Problem] = field(default_factory=set, repr=False)

    def remark(self, line: int | None, where: str | None, message: str) -> None:
        """Note what does not come along, and what to do about it."""
        problem = Problem(self.file, line, where, message)
        if problem not in self._said:
            self._said.add(problem)
            self.remarks.append(problem)

    def finish(self) -> None:
        """Drop, with a remark, whatever no preset may have; put keys and remarks in order."""
        taken = {draft.name for draft in self.drafts}
        for draft in self.drafts:
            self._keep_aliases(draft, taken)
            self._keep_valid(draft)
            draft.keys = {key: draft.keys[key] for key in Preset.model_fields if key in draft.keys}
        self.remarks.sort(key=lambda remark: remark.line or 0)

    def _keep_aliases(self, draft: Draft, taken: set[str]) -> None:
        aliases = []
        for alias in draft.keys.pop("aliases", []):
            if alias == draft.name or alias in aliases:
                continue
            if alias in taken:
                why = f"cannot carry over alias {alias!r}: another model has it; choose one of them"
                self.remark(draft.line, draft.place, why)
                continue
            taken.add(alias)
            aliases.append(alias)
        if aliases:
            draft.keys["aliases"] = aliases

    def _keep_valid(self, draft: Draft) -> None:
        while found := self._complaints(draft):
            for key, message in found:
                self.remark(draft.line, draft.place, f"{key}: {message}" if key else message)
            wrong = {key for key, _ in found}
            # A key that a model needs, or its name, is a person's to correct.
            draft.is_usable = not wrong & {"", "backend", "model", "command"}
            own = draft.keys if wrong & draft.keys.keys() else self.defaults
            for key in wrong & own.keys():
                del own[key]

    def _complaints(self, draft: Draft) -> list[tuple[str, str]]:
        if not draft.is_usable:
            return []
        try:
            Preset.model_validate({**self._defaults_for(draft), **draft.keys, "name": draft.name})
        except ValidationError as error:
            return [
                (str(path[0]) if path and path[0] != "name" else "", message)
                for path, message in complaints(Preset, error)
            ]
        return []

    def _defaults_for(self, draft: Draft) -> Written:
        foreign = LLAMA_KEYS if draft.keys.get("backend") == "command" else COMMAND_KEYS
        return {key: value for key, value in self.defaults.items() if key not in foreign}


def seconds(number: float) -> str:
    """A length of time as YAML has it."""
    return format_duration(float(number))


def listed(words: Iterable[str], limit: int = 5) -> str:
    """Such as "a, b, c and 7 more"."""
    words = list(words)
    more = len(words) - limit
    return ", ".join(words[:limit]) + (f" and {more} more" if more > 0 else "")
