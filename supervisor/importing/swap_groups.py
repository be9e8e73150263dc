"""llama-swap's groups: which members were never unloaded, and how many models could be loaded at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from supervisor.core.quantities import shown
from supervisor.importing.draft import Draft, Imported
from supervisor.importing.swap_values import Values
from supervisor.yaml_positions import Path

_GROUP_KEYS = ("swap", "exclusive", "persistent", "members")
_BY_ROOM = "llama-router unloads the least recently used model when max_models or memory: has no room for another"


@dataclass(frozen=True)
class _Group:
    members: frozenset[str]
    swap: bool
    exclusive: bool
    persistent: bool

    @property
    def most(self) -> int:
        """How many of them can be loaded at once."""
        return min(1, len(self.members)) if self.swap else len(self.members)


def read_groups(values: Values, settings: Mapping[str, Any], found: Imported, real: Mapping[str, str]) -> None:
    """Pin the members of persistent groups, and suggest max_models; `real` is the model each name means."""
    place, written = _place(values, settings)
    if place is None:
        return
    drafts = {draft.name: draft for draft in found.drafts}
    groups = [
        _group(values, (*place, name), values.mapping((*place, name), group), drafts, real)
        for name, group in written.items()
    ]
    found.config["max_models"] = _most(groups, drafts.keys() - {name for group in groups for name in group.members})


def _place(values: Values, settings: Mapping[str, Any]) -> tuple[Path | None, Mapping[str, Any]]:
    """Where the groups are written, and they; None if models are chosen by a matrix."""
    routing = values.mapping(("routing",), settings.get("routing"))
    for key in values.known_keys(("routing",), routing, ("router", "scheduler")):
        if key == "scheduler":
            values.lose(("routing", key), routing[key], "requests are served in the order in which they came")
    router = values.mapping(("routing", "router"), routing.get("router"))
    values.known_keys(("routing", "router"), router, ("use", "settings"))
    inner = values.mapping(("routing", "router", "settings"), router.get("settings"))
    values.known_keys(("routing", "router", "settings"), inner, ("groups", "matrix"))
    matrix: dict[Path, Any] = {
        ("matrix",): settings.get("matrix"),
        ("routing", "router", "settings", "matrix"): inner.get("matrix"),
    }
    for path, value in matrix.items():
        values.lose(path, value, f"{_BY_ROOM}; set them so that what shall run together fits")
    if settings.get("matrix") or router.get("use") == "matrix":
        return None, {}
    if settings.get("groups") is not None:
        return ("groups",), values.mapping(("groups",), settings["groups"])
    path = ("routing", "router", "settings", "groups")
    return path, values.mapping(path, inner.get("groups"))


def _group(
    values: Values, path: Path, written: Mapping[str, Any], drafts: Mapping[str, Draft], real: Mapping[str, str]
) -> _Group:
    values.known_keys(path, written, _GROUP_KEYS)
    members = values.texts((*path, "members"), written.get("members"))
    for index, name in members:
        if name not in real:
            values.remark((*path, "members", index), f"no imported model is called {shown(name)}")
    group = _Group(
        members=frozenset(real[name] for _, name in members if name in real),
        swap=values.flag((*path, "swap"), written.get("swap"), True),
        exclusive=values.flag((*path, "exclusive"), written.get("exclusive"), True),
        persistent=values.flag((*path, "persistent"), written.get("persistent"), False),
    )
    if group.persistent:
        for name in group.members:
            drafts[name].keys["pinned"] = True
    kept = "its models became pinned, which also keeps them when idle; but " if group.persistent else ""
    values.remark(path, f"cannot carry over this group: {kept}{_BY_ROOM}")
    return group


def _most(groups: list[_Group], others: set[str]) -> int:
    """How many models llama-swap would have loaded at once, at most; those in no group swap with each other."""
    exclusive = [group.most for group in groups if group.exclusive and not group.persistent]
    together = sum(group.most for group in groups if not group.exclusive or group.persistent)
    return together + max([*exclusive, min(1, len(others))]) or 1
