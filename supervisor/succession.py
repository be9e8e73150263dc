"""Everything that one supervisor's program leaves to the next: gathered by the one, taken up by the other."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from supervisor import __version__, certificate, child, descriptors
from supervisor.backends import want_forkserver
from supervisor.core import handover as fleet_handover
from supervisor.core.commands import Announce, Measure, Probe
from supervisor.core.reasons import EndReason, Kind
from supervisor.core.states import State
from supervisor.errors import Refused
from supervisor.handover import VERSION, Handover

if TYPE_CHECKING:
    from supervisor.daemon import Daemon


class Succession:
    """Of one `daemon`."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._asker: tuple[int, str] | None = None  # of the reexec that led here, and the version before

    def why_not(self, asker: int) -> str | None:
        """What keeps it from being handed over right now; `asker` is the number of who asks for that."""
        daemon, fleet = self._daemon, self._daemon.loop.fleet
        if fleet.stopping:
            return "llama-router is stopping"
        if fleet.web.state is State.STARTING or fleet.web_tiers.renewing:
            return "its web tier is starting; try again when it is ready"
        asks = {ask.id for model in fleet.models.values() for ask in model.asks}
        if daemon.configured.busy or daemon.operations.due - asks - fleet.scheduler.leases.keys() - {asker}:
            return "configuration files are being read; try again"
        tls = daemon.configured.running.config.web.tls
        wrong_file = None if tls is None else certificate.problem(tls.certificate, tls.key)
        return None if wrong_file is None else wrong_file[1]

    def handed_over(self, asker: int) -> Handover:
        """What there is."""
        daemon = self._daemon
        return Handover(
            version=VERSION,
            program=__version__,
            asker=asker,
            since=daemon.started,
            mark=daemon.mark,
            limits=descriptors.given(),
            lock=daemon.lock,
            fleet=fleet_handover.record(daemon.loop.fleet),
            in_use=daemon.configured.handed_over(),
            revision=daemon.facts.revision(daemon.configured.running),
            answers=daemon.memory.answers,
            listener=daemon.listener.handed_over(),
            hashes=daemon.admission.hashes,
            notify=daemon.notify.handed_over(),
            control=daemon.control.handed_over(),
            connections=[each.handed_over() for each in daemon.control.connections],
            last_number=daemon.operations.last_number,
            guard=daemon.guard.handed_over(),
            processes=daemon.children.handed_over(),
            probing=daemon.probes.handed_over(),
            measuring=sorted(daemon.measuring.under_way),
            lines=daemon.logbook.handed_over(),
            records=daemon.announcements.handed_over(),
            unlogged=daemon.journal.handed_over(),
            links=daemon.links,
        )

    def environment(self) -> dict[str, str]:
        """What this program was started with, but for the mark: what has that in its environment dies with the pipe to
        the guard, and the next program ends in that way as well."""
        own = {name: value for name, value in os.environ.items() if name != child.SUPERVISOR_VARIABLE}
        return own | self._daemon.systemd.variables

    def leave(self) -> None:
        """End the forkserver and the keepers; what they were to fork is spawned. Raises Refused while a launch has no
        process."""
        daemon = self._daemon
        daemon.prefetching.close()
        daemon.forkserver.keep(False)
        daemon.keepers.drop_all()
        if daemon.children.launches != daemon.loop.fleet.lifecycle.launches.keys():
            raise Refused("a model server is being started; try again")
        self._tell_systemd(daemon.systemd.reloading)

    def stay(self) -> None:
        """Go on after all."""
        self._tell_systemd(lambda: self._daemon.systemd.notify("READY=1"))
        self.keep_forkserver()
        self._prefetch()

    def keep_forkserver(self) -> None:
        """Have it run if a preset in use wants it, and keepers as configured."""
        running = self._daemon.configured.running
        self._daemon.forkserver.keep(want_forkserver(running.presets.values()))
        self._daemon.keepers.use(running.config.keep_vocabularies, running.presets.values())

    def take_over(self, inherited: Handover) -> None:
        """Go on with what another program left, before the loop runs."""
        daemon = self._daemon
        daemon.journal.take_over(inherited.unlogged)
        daemon.logbook.take_over(inherited.lines)
        daemon.announcements.take_over(inherited.records)
        connections = [daemon.control.take_over(each) for each in inherited.connections]
        daemon.operations.take_over(connections, inherited.last_number)
        for process in inherited.processes:
            daemon.effects.take_over(process)
        daemon.links = inherited.links
        if inherited.asker is not None:
            self._asker = inherited.asker, inherited.program
        text = f"llama-router {__version__} goes on in the place of {inherited.program}"
        daemon.effects.execute(Announce("supervisor", None, text))
        self._tell_systemd(lambda: daemon.systemd.notify("READY=1"))
        daemon.children.reap_orphans()
        for launch, path in inherited.probing:
            daemon.effects.execute(Probe(launch, path))
        for launch in inherited.measuring:
            daemon.effects.execute(Measure(launch))
        self._prefetch()
        daemon.configured.take_over(inherited.in_use)

    def renewed(self, why: EndReason | None) -> None:
        """The web tier of this program has taken the place of the one before, or could not."""
        if self._asker is None:
            return
        (asker, before), self._asker = self._asker, None
        if why is None:
            self._daemon.operations.answer(asker, {"reexec": {"version": __version__, "before": before}})
            return
        if why.kind is Kind.SHUTDOWN:
            text = (
                f"llama-router {__version__} runs, and was asked to stop before its web tier was ready; it is stopping"
            )
            self._daemon.operations.answer(asker, Refused(text))
            return
        goes_on = "the one before it goes on serving, and another start is tried; see: llama-router logs @web"
        text = f"llama-router {__version__} runs, but its web tier {why.text}: {goes_on}"
        self._daemon.operations.answer(asker, Refused(text))

    def _prefetch(self) -> None:
        """Begin again with what is read ahead; what is in memory by now is skipped."""
        self._daemon.prefetching.read(self._daemon.loop.fleet.loading.prefetched)

    def _tell_systemd(self, tell: Callable[[], None]) -> None:
        """Unless that would be the first READY=1, which the web tier has to earn."""
        if self._daemon.loop.fleet.web.ever_ready:
            tell()
