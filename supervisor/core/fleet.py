"""The fleet: every model with its instance, the web tier, and what is wanted of them.

`handle(event, now)` is the whole of the core: it changes this state and returns the commands to execute. `now` is
monotonic. Nothing here acts, waits, logs or looks at a clock, so the same history gives the same decisions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from supervisor.core import events, refusals
from supervisor.core.commands import Announce, CloseListener, Command, DeclareReady, Exit
from supervisor.core.events import Event
from supervisor.core.fleet_state import WEB, Instance, Model, WebTier
from supervisor.core.lifecycle import Lifecycle
from supervisor.core.operators import Operators
from supervisor.core.placement import MakeRoom, NeverFits, Start, Wait, demand_since, is_claimant, next_step
from supervisor.core.policy import Policy
from supervisor.core.preset import Preset
from supervisor.core.reasons import EndReason, Kind
from supervisor.core.reload import changes, same_launch
from supervisor.core.scheduler import Scheduler
from supervisor.core.states import State

EX_SOFTWARE = 70
WEB_LEAVE_SECONDS = 5.0
PRESET_CHANGED = EndReason(Kind.PRESET_CHANGED)
SHUTDOWN = EndReason(Kind.SHUTDOWN)


class Fleet:
    """Start with `handle(Begin())`. `models` are by name; `aliases` lead to names."""

    def __init__(
        self, presets: Mapping[str, Preset], aliases: Mapping[str, str], policy: Policy, now: float = 0.0
    ) -> None:
        self.lifecycle = Lifecycle()
        self.scheduler = Scheduler(self.lifecycle.commands)
        self.policy = policy
        self._operators = Operators(self.lifecycle, self.scheduler)
        self._claimants: dict[str, Model] = {}
        self._making_room_for: str | None = None
        self._place_at: float | None = None
        self.models = {name: _model(preset, now) for name, preset in presets.items()}
        self.aliases = dict(aliases)
        self.web = Instance(WEB, WebTier(), since=now)
        self.stopping = False
        self._exit = Exit(0)
        self._touched: dict[str, None] = {}  # a set that keeps its order, or decisions would depend on hashes

    def handle(self, event: Event, now: float) -> list[Command]:
        """Take in one event; returns the commands it leads to, in order."""
        self._dispatch(event, now)
        self._settle_all(now)
        self._place_at = None
        if self.stopping:
            self._leave(now)
        elif self._claimants or self._making_room_for is not None:
            self._place(now)
            self._settle_all(now)
        commands = self.lifecycle.commands.copy()
        self.lifecycle.commands.clear()
        return commands

    def _settle_all(self, now: float) -> None:
        while self._touched:
            self._settle(self._touched.popitem()[0], now)

    def next_deadline(self) -> float | None:
        """When to send the next Tick; None if nothing is due."""
        due = [at for instance in self.lifecycle.timed.values() if (at := instance.next_deadline) is not None]
        due += [at for at in (self.scheduler.next_deadline(), self._place_at) if at is not None]
        return min(due, default=None)

    def resolve(self, name: str) -> Model | None:
        """The model of that name or alias, unless a reload took it away."""
        model = self.models.get(name) or self.models.get(self.aliases.get(name, ""))
        return None if model is None or model.removed else model

    def _dispatch(self, event: Event, now: float) -> None:
        match event:
            case events.LeaseAsked():
                self._lease_asked(event, now)
            case events.LeaseEnded():
                self._lease_ended(event, now)
            case events.Tick():
                self._tick(now)
            case events.Spawned() | events.Notified() | events.Probed() | events.Ended():
                self._process_event(event, now)
            case events.Asked():
                self._asked(event, now)
            case events.AskDropped():
                for model in self.models.values():
                    model.asks = [ask for ask in model.asks if ask.id != event.ask]
            case events.PresetsChanged():
                self._presets_changed(event, now)
            case events.Begin():
                self.lifecycle.start(self.web, now)
                self._want_autostart(self.models, now)
            case events.StopAsked():
                self._stop_asked(now)

    # Requests

    def _lease_asked(self, asked: events.LeaseAsked, now: float) -> None:
        name = asked.model or self.policy.fallback
        model = self.resolve(name) if name else None
        if not name:
            self.scheduler.refuse_ask(asked.lease, refusals.NO_MODEL_NAMED)
        elif model is None:
            self.scheduler.refuse_ask(asked.lease, refusals.unknown_model(name))
        elif self.stopping:
            self.scheduler.refuse_ask(asked.lease, refusals.STOPPING)
        else:
            self.scheduler.ask(model, asked, now, self.policy.queue_limit)
            self._touch(model)

    def _lease_ended(self, ended: events.LeaseEnded, now: float) -> None:
        lease = self.scheduler.end(ended.lease, self.models)
        if lease is None:
            return
        instance = self.lifecycle.launches.get(lease.launch or 0)
        if instance is not None:
            instance.leases.discard(lease.id)
            instance.served += ended.served
        self._touched[lease.model] = None

    # Processes and deadlines

    def _process_event(
        self, event: events.Spawned | events.Notified | events.Probed | events.Ended, now: float
    ) -> None:
        instance = self.lifecycle.launches.get(event.launch)
        if instance is None:
            return
        before = instance.state
        match event:
            case events.Spawned():
                self.lifecycle.spawned(instance, event.pid, now)
            case events.Notified():
                self.lifecycle.notified(instance, event, now)
            case events.Probed():
                self.lifecycle.probed(instance, event.healthy, now)
            case events.Ended():
                self._instance_ended(instance, event, now)
        if instance is self.web and instance.state is State.READY and before is not State.READY:
            self.lifecycle.commands.append(DeclareReady())
        if instance is not self.web:
            self._touched[instance.name] = None

    def _instance_ended(self, instance: Instance, event: events.Ended, now: float) -> None:
        reason = self.lifecycle.ended(instance, event.reason, now)
        if instance is self.web and instance.state is State.FAILED:
            self._exit = Exit(EX_SOFTWARE, instance.reason)
            self._stop_asked(now)
        elif instance.state is State.FAILED or (instance.state is State.STOPPED and not reason.intended):
            instance.wanted = instance.insists = False

    def _tick(self, now: float) -> None:
        for instance in list(self.lifecycle.timed.values()):
            if instance.probe_at is not None and instance.probe_at <= now:
                self.lifecycle.probe_due(instance)
            if instance.deadline is not None and instance.deadline <= now:
                self.lifecycle.deadline_passed(instance, now)
        self._touched.update(dict.fromkeys(self.scheduler.expire(self.models, now)))

    def _asked(self, asked: events.Asked, now: float) -> None:
        model = self.resolve(asked.model)
        self._operators.asked(asked, model, now, stopping=self.stopping)
        if model is not None:
            self._touch(model)

    def _want_autostart(self, names: Iterable[str], now: float) -> None:
        for name in names:
            if self.models[name].preset.autostart and not self.stopping:
                self._operators.load(self.models[name].instance, now, insists=False)
                self._touch(self.models[name])

    # Reload and stop

    def _presets_changed(self, event: events.PresetsChanged, now: float) -> None:
        old = {name: model.preset for name, model in self.models.items() if not model.removed}
        diff = changes(old, event.presets)
        self.aliases, self.policy = dict(event.aliases), event.policy
        for name in (*diff.added, *diff.changed, *diff.adjusted):
            self._renew(name, event.presets[name], now)
        for name in diff.removed:
            model = self.models[name]
            model.removed, model.instance.wanted, model.instance.insists = True, False, False
            self.scheduler.refuse_waiting(model, refusals.removed(name))
            self.lifecycle.stop(model.instance, PRESET_CHANGED, now, patience=None)
        newly = (*diff.added, *(n for n in (*diff.changed, *diff.adjusted) if not old[n].autostart))
        self._want_autostart(newly, now)
        self._touched.update(dict.fromkeys((*diff.added, *diff.changed, *diff.adjusted, *diff.removed)))
        self.lifecycle.commands.append(Announce("reload", None, f"configuration reloaded: {diff}"))

    def _renew(self, name: str, preset: Preset, now: float) -> None:
        """Give a model its new preset. A server that was started otherwise serves out its leases, then restarts."""
        model = self.models.setdefault(name, _model(preset, now))
        instance, started_with = model.instance, model.instance.terms
        model.preset, model.removed = preset, False
        if isinstance(started_with, Preset) and same_launch(started_with, preset):
            instance.terms = preset
            return
        self.lifecycle.stop(instance, PRESET_CHANGED, now, patience=None)
        self.lifecycle.reset(instance, now)

    def _stop_asked(self, now: float) -> None:
        """1. first time: no new requests, running ones may finish. 2. second time: end everything now."""
        if self.stopping:  # 2
            for instance in list(self.lifecycle.launches.values()):
                self.lifecycle.abort(instance, SHUTDOWN, now)
            return
        self.stopping = True  # 1
        self.lifecycle.commands.append(CloseListener())
        self.lifecycle.commands.append(Announce("supervisor", None, "stopping: running requests may finish"))
        for model in self.models.values():
            model.instance.wanted = model.instance.insists = False
            self.scheduler.refuse_waiting(model, refusals.STOPPING)
            self.lifecycle.stop(model.instance, SHUTDOWN, now, model.preset.stop_timeout)
            self._touch(model)
        if self.web.state is State.STARTING:  # it serves nobody, and gunicorn's workers are deaf to SIGTERM meanwhile
            self.lifecycle.abort(self.web, SHUTDOWN, now)
            return
        self.lifecycle.stop(self.web, SHUTDOWN, now, patience=None)
        if self.web.has_process:
            self.web.deadline = None

    def _leave(self, now: float) -> None:
        """The web tier outlasts the models, whose streams it carries; then the supervisor ends."""
        if any(model.instance.has_process for model in self.models.values()):
            return
        if not self.web.has_process:
            self.lifecycle.commands.append(self._exit)
        elif self.web.deadline is None:
            self.web.deadline = now + WEB_LEAVE_SECONDS

    # What follows

    def _settle(self, name: str, now: float) -> None:
        """What follows for one model, whatever happened to it."""
        model = self.models.get(name)
        if model is None:
            return
        instance = model.instance
        self._claimants.pop(name, None)
        if model.removed and not instance.has_process:
            del self.models[name]
        elif instance.state is State.FAILED and instance.reason is not None:
            self.scheduler.refuse_waiting(model, refusals.load_failed(name, instance.reason))
        elif is_claimant(model) and not self.stopping:
            self._claimants[name] = model
        self.scheduler.grant_waiting(model, now)
        if instance.draining and not instance.leases:
            self.lifecycle.drained(instance, now)
        self.lifecycle.rest_or_work(instance, now)
        self._operators.answer(model)

    def _place(self, now: float) -> None:
        """Load what is to be loaded, as far as there is room, and make room."""
        self._keep_what_nobody_needs_gone()
        while step := next_step(
            self._claimants.values(), self.models.values(), self.policy, self._making_room_for, now
        ):
            match step:
                case Start():
                    self._start(step.claimant, now)
                case MakeRoom():
                    self._evict(step.victim, step.claimant, now)
                case NeverFits():
                    self._refuse(step.claimant, step.holders)
                case Wait():
                    self._place_at = step.until
                    return

    def _start(self, model: Model, now: float) -> None:
        name = model.preset.name
        if self._making_room_for == name:
            self._making_room_for = None
        del self._claimants[name]
        model.instance.terms, model.instance.wanted = model.preset, True
        self.lifecycle.start(model.instance, now)

    def _evict(self, victim: Model, claimant: Model, now: float) -> None:
        """Requests that came before the claimant's are still served: it is a swap, not a jump of the queue."""
        self._making_room_for = claimant.preset.name
        instance = victim.instance
        instance.wanted = instance.insists = False
        self.lifecycle.stop(instance, EndReason(Kind.EVICTED, detail=claimant.preset.name), now, patience=None)
        instance.drain_before = demand_since(claimant)
        self._touch(victim)

    def _refuse(self, model: Model, holders: tuple[str, ...]) -> None:
        refusal = refusals.never_fits(model.preset.name, self.policy.max_models, holders)
        del self._claimants[model.preset.name]
        model.instance.wanted = model.instance.insists = False
        self.scheduler.refuse_waiting(model, refusal)
        self._operators.reject(model, refusal)

    def _keep_what_nobody_needs_gone(self) -> None:
        """A claimant whose clients all left needs no room: what drains for it goes on."""
        if self._making_room_for is None or self._making_room_for in self._claimants:
            return
        for model in self.models.values():
            ending = model.instance.ending
            if model.instance.draining and ending is not None and ending.detail == self._making_room_for:
                model.instance.wanted = True
                self.lifecycle.keep(model.instance)
                self._touch(model)
        self._making_room_for = None

    def _touch(self, model: Model) -> None:
        self._touched[model.preset.name] = None


def _model(preset: Preset, now: float) -> Model:
    return Model(preset, Instance(preset.name, preset, since=now))
