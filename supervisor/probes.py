"""The readiness probes that are on their way."""

from __future__ import annotations

from supervisor.core.events import Probed
from supervisor.loop import READ, WRITE, Loop
from supervisor.probe import Outcome, Probing


class Probes:
    """Delivers one Probed for every `start`."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._under_way: dict[int, Probing] = {}
        loop.timed.append(self)

    def start(self, launch: int, address: str | None, path: str | None, now: float) -> None:
        """Ask the launch at `address` (None: its process is gone) once."""
        if address is None:
            self._loop.deliver(Probed(launch, healthy=False))
            return
        if launch in self._under_way:
            self._finish(self._under_way[launch], healthy=False)
        try:
            probing = Probing(launch, address, path, now)
        except OSError:  # out of descriptors at the moment
            self._loop.deliver(Probed(launch, healthy=False))
            return
        self._under_way[launch] = probing
        self._step(probing)

    def handed_over(self) -> list[tuple[int, str | None]]:
        """The launches that are being asked, and for which path: another program has to ask anew."""
        return [(launch, probing.path) for launch, probing in self._under_way.items()]

    def due(self) -> float | None:
        """When the oldest probe is given up."""
        return min((probing.deadline for probing in self._under_way.values()), default=None)

    def fire(self, now: float) -> None:
        """Give up probes that got no answer."""
        for probing in [probing for probing in self._under_way.values() if probing.deadline <= now]:
            self._finish(probing, healthy=False)

    def _step(self, probing: Probing) -> None:
        outcome = probing.step()
        if outcome is Outcome.WAITING:
            self._loop.watch(probing, lambda: self._step(probing), READ if probing.connected else WRITE)
        else:
            self._finish(probing, outcome is Outcome.HEALTHY)

    def _finish(self, probing: Probing, healthy: bool) -> None:
        self._loop.unwatch(probing)
        probing.close()
        del self._under_way[probing.launch]
        self._loop.deliver(Probed(probing.launch, healthy, probing.ailment))
