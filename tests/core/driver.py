"""Drives a Fleet by hand: a clock that only moves when told, and the commands of each step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from supervisor.core import events
from supervisor.core.commands import Command, Grant, Refuse, Spawn
from supervisor.core.events import Asked, Ended, Event, Goal, LeaseAsked, LeaseEnded, Notified, Spawned
from supervisor.core.fleet import Fleet
from supervisor.core.fleet_state import WEB, Instance, Model
from supervisor.core.need import Need
from supervisor.core.policy import Policy
from supervisor.core.preset import Preset
from supervisor.core.reasons import EndReason, Kind

C = TypeVar("C", bound=Command)


def preset(name: str, **keys: Any) -> Preset:
    """A preset of backend llama-cpp-python with the given keys."""
    return Preset.model_validate({"name": name, "model": f"/models/{name}.gguf", **keys})


class Driver:
    """A fleet of `presets` whose web tier is up."""

    def __init__(self, *presets: Preset, policy: Policy | None = None, needs: Mapping[str, Need] | None = None) -> None:
        self.now = 1000.0
        aliases = {alias: p.name for p in presets for alias in p.aliases}
        self.policy = policy or Policy()
        self.fleet = Fleet({p.name: p for p in presets}, aliases, self.policy, self.now, needs)
        self.history: list[Command] = []
        self.step: list[Command] = []
        self._lease = 0
        self.send(events.Begin())
        self.ready(WEB)

    def send(self, event: Event) -> list[Command]:
        """Deliver one event now."""
        self.step = self.fleet.handle(event, self.now)
        self.history += self.step
        return self.step

    def tick(self, seconds: float) -> list[Command]:
        """Let time pass, waking up at every deadline on the way; returns all commands."""
        end, commands = self.now + seconds, list[Command]()
        while (at := self.fleet.next_deadline()) is not None and at <= end:
            self.now = max(self.now, at)
            commands += self.send(events.Tick())
        self.now = end
        return commands

    def instance(self, name: str) -> Instance:
        """The instance of that name: a replica, of which the first has its model's name, or the web tier."""
        replicas = [each for model in self.fleet.models.values() for each in model.replicas]
        return next(each for each in [self.fleet.web, *replicas] if each.name == name)

    def model(self, name: str) -> Model:
        """The model of that name."""
        return self.fleet.models[name]

    def launch(self, name: str) -> int:
        """Its running launch."""
        launch = self.instance(name).launch
        assert launch is not None
        return launch

    def ready(self, name: str) -> list[Command]:
        """Its process appears and says it is ready."""
        self.send(Spawned(self.launch(name), 4000 + self.launch(name)))
        return self.send(Notified(self.launch(name), ready=True))

    def ends(self, name: str, **how: Any) -> list[Command]:
        """Its process ends: code=…, or signal=…."""
        kind = Kind.KILLED if "signal" in how else Kind.EXITED
        return self.send(Ended(self.launch(name), EndReason(kind, **how)))

    def lease(self, model: str | None, **how: Any) -> int:
        """Ask for a lease; returns its number."""
        self._lease += 1
        self.send(LeaseAsked(self._lease, model, **how))
        return self._lease

    def release(self, lease: int) -> list[Command]:
        """Give a lease back."""
        return self.send(LeaseEnded(lease, served=True))

    def ask(self, goal: Goal, model: str, number: int = 9000, **how: Any) -> list[Command]:
        """An operator asks."""
        return self.send(Asked(number, goal, model, **how))

    def last(self, kind: type[C]) -> list[C]:
        """The commands of that kind in the last step."""
        return [command for command in self.step if isinstance(command, kind)]

    def spawned(self) -> list[str]:
        """Names of the instances that the last step launched."""
        return [command.instance for command in self.last(Spawn)]

    def granted(self) -> list[int]:
        """Leases that the last step granted."""
        return [command.lease for command in self.last(Grant)]

    def refused(self) -> list[tuple[int, int]]:
        """Leases that the last step refused, with their HTTP status."""
        return [(command.lease, command.refusal.status) for command in self.last(Refuse)]
