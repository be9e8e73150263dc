"""What a reload changes, in one sentence for people: for the command line, the journal and whoever else shows it."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

NAMES_SHOWN = 20

When = Literal["idle", "at_once", "not_running"]


@dataclass(frozen=True)
class Outcome:
    """What happens to a model whose server has to end: it does so "at_once", or once it is "idle" (its `in_flight`
    requests are done), or there is none ("not_running")."""

    when: str
    in_flight: int = 0

    @property
    def words(self) -> str:
        """Such as "when its 2 requests are done"."""
        match self.when:
            case "idle":
                return f"when its {'request is' if self.in_flight == 1 else f'{self.in_flight} requests are'} done"
            case "not_running":
                return "not running"
            case _:
                return "at once"


@dataclass(frozen=True)
class Told:
    """The `changes` of the protocol: names of models, and keys of config.yaml.

    `settings` apply at once; what `needs_reexec` waits for `llama-router reexec`, what `needs_restart` until
    llama-router is started again.
    """

    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    adjusted: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    unchanged: int = 0
    outcomes: Mapping[str, Outcome] = field(default_factory=dict)
    settings: tuple[str, ...] = ()
    needs_restart: tuple[str, ...] = ()
    needs_reexec: tuple[str, ...] = ()

    @property
    def nothing(self) -> bool:
        """True when everything stays as it is."""
        return not (self.added or self.changed or self.adjusted or self.removed or self.settings)


class Needs(Protocol):
    """What a Told has, and the status too."""

    @property
    def needs_restart(self) -> tuple[str, ...]:
        """Keys of config.yaml."""

    @property
    def needs_reexec(self) -> tuple[str, ...]:
        """The same."""


def outcome(model: Mapping[str, Any] | None) -> Outcome:
    """What happens to a model of the status object if its preset is removed, or changed so that it has to restart."""
    if model is None or model["state"] in ("stopped", "failed", "backoff"):
        return Outcome("not_running")
    in_flight = model["in_flight"]
    return Outcome("idle", in_flight) if in_flight else Outcome("at_once")


def would(told: Told) -> str:
    """Such as "a reload would: add a; restart b (at once); leave 5 untouched"."""
    if told.nothing:
        return "a reload would change nothing"
    return f"a reload would: {_sentence(told, 'add', 'restart', 'change', 'adjust', 'remove', 'leave')}"


def did(told: Told) -> str:
    """Such as "reloaded: added a; restarts b (at once); left 5 untouched"."""
    if told.nothing:
        return "reloaded: nothing changed"
    return f"reloaded: {_sentence(told, 'added', 'restarts', 'changed', 'adjusted', 'removed', 'left')}"


def later(needs: Needs, only: Container[str] | None = None) -> list[str]:
    """A line for each key of config.yaml whose change does not count yet, or of those for each of `only`."""
    ways = [(needs.needs_restart, "a restart of llama-router"), (needs.needs_reexec, "llama-router reexec")]
    told = [(key, way) for keys, way in ways for key in keys if only is None or key in only]
    return [f"{key} changed in config.yaml: takes effect after {way}" for key, way in told]


def _sentence(told: Told, add: str, restart: str, change: str, adjust: str, remove: str, leave: str) -> str:
    running = [name for name in told.changed if _when(told, name) != "not_running"]
    resting = [name for name in told.changed if _when(told, name) == "not_running"]
    parts = [
        (add, told.added, ""),
        (restart, _explained(told, running), ""),
        (change, resting, " (not running)" if len(resting) == 1 else " (none of them running)"),
        (adjust, told.adjusted, " (without a restart)"),
        (remove, _explained(told, told.removed), ""),
        (change, [f"{key} in config.yaml" for key in told.settings], ""),
    ]
    said = [f"{verb} {_listed(names)}{remark}" for verb, names, remark in parts if names]
    if told.unchanged:
        said.append(f"{leave} {told.unchanged} untouched")
    return "; ".join(said)


def _when(told: Told, name: str) -> str:
    return told.outcomes[name].when if name in told.outcomes else "at_once"


def _explained(told: Told, names: Iterable[str]) -> list[str]:
    """Names with when it happens to them, where that is worth a word."""
    waiting = {name: told.outcomes[name] for name in names if _when(told, name) == "idle"}
    return [f"{name} ({waiting[name].words})" if name in waiting else name for name in names]


def _listed(names: Iterable[str]) -> str:
    shown = list(names)
    rest = len(shown) - NAMES_SHOWN
    return f"{', '.join(shown[:NAMES_SHOWN])} and {rest} more" if rest > 0 else ", ".join(shown)
