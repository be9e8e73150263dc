"""The fleet: every model with its instance, the web tier, and what is wanted of them.

`handle(event, now)` is the whole of the core: it changes this state and returns the commands to execute. `now` is
monotonic. Nothing here acts, waits, logs or looks at a clock, so the same history gives the same decisions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from supervisor.core import events, refusals
from supervisor.core.commands import (
    Announce,
    CloseListener,
    Command,
    Exit,
    KeepVocabulary,
    Measure,
    Prefetch,
    Remember,
)
from supervisor.core.events import Event
from supervisor.core.fleet_state import WEB, Instance, Model, grow, new_model
from supervisor.core.lifecycle import Lifecycle
from supervisor.core.loading import Loading
from supervisor.core.need import UNKNOWN, Need, learn, total
from supervisor.core.operators import Operators
from supervisor.core.policy import Policy
from supervisor.core.preset import Preset
from supervisor.core.queue import why_waiting
from supervisor.core.reasons import EndReason, Kind
from supervisor.core.reload import changes, same_launch
from supervisor.core.scheduler import Scheduler
from supervisor.core.states import State
from supervisor.core.web_tiers import SHUTDOWN, WebTiers

EX_SOFTWARE = 70
MOST_TOLD = 50
MEASURE_SECONDS = 30.0  # between two looks at what a busy server uses
PRESET_CHANGED = EndReason(Kind.PRESET_CHANGED)
PRESET_REMOVED = EndReason(Kind.PRESET_CHANGED, detail="its preset was removed")


class Fleet:
    """Start with `handle(Begin())`. `models` are by name; `aliases` lead to names; `needs` is what is known of their
    memory."""

    def __init__(
        self,
        presets: Mapping[str, Preset],
        aliases: Mapping[str, str],
        policy: Policy,
        now: float = 0.0,
        needs: Mapping[str, Need] | None = None,
    ) -> None:
        self.lifecycle = Lifecycle()
        self.scheduler = Scheduler(self.lifecycle.commands)
        self.policy = policy
        self._operators = Operators(self.lifecycle, self.scheduler)
        self.loading = Loading(self.lifecycle, self.scheduler, self._operators)
        needs = needs or {}
        self.models = {name: new_model(preset, needs.get(name, UNKNOWN), now) for name, preset in presets.items()}
        self.aliases = dict(aliases)
        self.web_tiers = WebTiers(self.lifecycle, now)
        self.stopping = False
        self._exit = Exit(0)
        self._touched: dict[str, None] = {}  # sets that keep their order, or decisions would depend on hashes
        self._settled: dict[str, None] = {}

    @property
    def web(self) -> Instance:
        """The web tier that serves, or is to."""
        return self.web_tiers.current

    def handle(self, event: Event, now: float) -> list[Command]:
        """Take in one event; returns the commands it leads to, in order."""
        self._dispatch(event, now)
        self._settle_all(now)
        if self.stopping:
            self.loading.rest()
            self._leave(now)
        else:
            self._touched.update(dict.fromkeys(self.loading.place(self.models, self.policy, now)))
            self._settle_all(now)
        for name in self._settled:
            if name in self.models:
                self._operators.accept(self.models[name])
        self._tell_of_queues()
        self._settled.clear()
        # These fork; whom a lease is granted, or a model that is started, need not wait for that.
        forks = Measure | KeepVocabulary | Prefetch
        commands = sorted(self.lifecycle.commands, key=lambda command: isinstance(command, forks))
        self.lifecycle.commands.clear()
        return commands

    def _settle_all(self, now: float) -> None:
        while self._touched:
            name = self._touched.popitem()[0]
            self._settled[name] = None
            self._settle(name, now)

    def next_deadline(self) -> float | None:
        """When to send the next Tick; None if nothing is due."""
        due = [at for instance in self.lifecycle.timed.values() if (at := instance.next_deadline) is not None]
        due += [at for at in (self.scheduler.next_deadline(), self.loading.due) if at is not None]
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
            case events.Spawned() | events.Notified() | events.Probed() | events.Ended() | events.Measured():
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
            case events.TakenOver():
                self.web_tiers.renew(now)
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
            model.futile = asked.futile
            self.scheduler.ask(model, asked, now, self.policy.queue_limit)
            self._touch(model)

    def _lease_ended(self, ended: events.LeaseEnded, now: float) -> None:
        lease = self.scheduler.end(ended.lease, self.models)
        if lease is None:
            return
        instance = self.lifecycle.launches.get(lease.launch or 0)
        if instance is not None:
            instance.leases.discard(lease.id)
            first = ended.served and not instance.served_this_run  # it ends the estimate
            instance.served += ended.served
            instance.served_this_run += ended.served
            instance.free_since = now
            due = now >= (instance.measured_at or 0.0) + MEASURE_SECONDS
            if instance.state is State.READY and (first or due):
                self._measure(instance, now)
        self._touched[lease.model] = None

    # Processes and deadlines

    def _process_event(
        self,
        event: events.Spawned | events.Notified | events.Probed | events.Ended | events.Measured,
        now: float,
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
                self.lifecycle.probed(instance, event, now)
            case events.Measured():
                if instance.model != WEB:
                    self._measured(instance, event)
            case events.Ended():
                self._instance_ended(instance, event, now)
        became_ready = instance.state is State.READY and before is not State.READY
        if instance.model == WEB:
            if became_ready:
                self.web_tiers.became_ready(instance, now)
            return
        if became_ready:
            self._measure(instance, now)
        self._touched[instance.model] = None

    def _instance_ended(self, instance: Instance, event: events.Ended, now: float) -> None:
        if instance.model == WEB:
            self.web_tiers.ended(instance, event.reason, now)
            if self.web_tiers.beyond_hope and not self.stopping:
                self._exit = Exit(EX_SOFTWARE, self.web.reason)
                self._stop_asked(now)
            return
        model = self.models[instance.model]
        others = [other for other in self.models.values() if other is not model and not other.preset.pinned]
        more_room = model.wanted and any(other.occupying for other in others)
        terms = instance.terms
        reason = self.lifecycle.ended(instance, event.reason, now, more_room=more_room)
        if reason.kind is Kind.EVICTED and isinstance(terms, Preset) and not model.removed:
            self.lifecycle.commands.append(KeepVocabulary(terms))
        if model.occupying:
            return
        model.failed = instance.state is State.FAILED
        if model.failed or not (reason.intended or instance.needs_room):
            model.unwant()

    def _measure(self, instance: Instance, now: float) -> None:
        assert instance.launch is not None
        instance.measured_at = now
        self.lifecycle.commands.append(Measure(instance.launch))

    def _measured(self, instance: Instance, event: events.Measured) -> None:
        """Learn what the model needs: most of any replica alone, and what all of them share."""
        instance.used, instance.used_shared = event.alone, event.shared
        model = self.models[instance.model]
        measured = [each for each in model.replicas if each.measured_at is not None]
        devices = {device for each in measured for device in each.used}
        most = {device: max(each.used.get(device, 0) for each in measured) for device in sorted(devices)}
        seen = Need("measured", total(each.used_shared for each in measured), most)
        served = any(each.served_this_run for each in model.replicas)
        learned = learn(model.need, seen, served=served)
        if learned != model.need:
            model.need = learned
            self.lifecycle.commands.append(Remember(model.name, learned))

    def _tick(self, now: float) -> None:
        for instance in list(self.lifecycle.timed.values()):
            if instance.probe_at is not None and instance.probe_at <= now:
                self.lifecycle.probe_due(instance)
            if instance.alive_by is not None and instance.alive_by <= now:
                self.lifecycle.not_alive(instance, now)
            if instance.deadline is not None and instance.deadline <= now:
                if instance.serves and instance.model != WEB:
                    self.models[instance.model].unwant()
                self.lifecycle.deadline_passed(instance, now)
        self._touched.update(dict.fromkeys(self.scheduler.expire(self.models, now)))

    def _asked(self, asked: events.Asked, now: float) -> None:
        model = self.resolve(asked.model)
        if model is not None:
            model.futile = asked.futile
        self._operators.asked(asked, model, now, stopping=self.stopping)
        if model is not None:
            self._touch(model)

    def _want_autostart(self, names: Iterable[str], now: float) -> None:
        for name in names:
            if self.models[name].preset.autostart and not self.stopping:
                self._operators.load(self.models[name], now, insists=False)
                self._touch(self.models[name])

    # Reload and stop

    def _presets_changed(self, event: events.PresetsChanged, now: float) -> None:
        old = {name: model.preset for name, model in self.models.items() if not model.removed}
        diff = changes(old, event.presets)
        self.aliases, self.policy = dict(event.aliases), event.policy
        for name in (*diff.added, *diff.changed, *diff.adjusted):
            self._renew(name, event.presets[name], now)
        for name in event.presets:
            self.models[name].need = event.needs.get(name, UNKNOWN)
        for name in diff.removed:
            model = self.models[name]
            model.removed = True
            model.unwant()
            self.scheduler.refuse_waiting(model, refusals.removed(name))
            self._operators.reject(model, refusals.removed(name))
            self._operators.stop(model, PRESET_REMOVED, now, patience=None)
        newly = (*diff.added, *(n for n in (*diff.changed, *diff.adjusted) if not old[n].autostart))
        self._want_autostart(newly, now)
        self._touched.update(dict.fromkeys((*diff.added, *diff.changed, *diff.adjusted, *diff.removed)))
        self.lifecycle.commands.append(Announce("reload", None, f"configuration reloaded: {diff}"))

    def _renew(self, name: str, preset: Preset, now: float) -> None:
        """Give a model its new preset. Servers that were started otherwise serve out their leases, then restart."""
        model = self.models.setdefault(name, new_model(preset, UNKNOWN, now))
        model.preset, model.removed = preset, False
        for each in model.replicas:
            if isinstance(each.terms, Preset) and same_launch(each.terms, preset):
                each.terms = preset
            else:
                model.failed = False
                self.lifecycle.stop(each, PRESET_CHANGED, now, patience=None)
                self.lifecycle.reset(each, now)
        grow(model, now)
        for surplus in model.replicas[preset.replicas :]:
            self.lifecycle.stop(surplus, PRESET_CHANGED, now, patience=None)

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
            model.unwant()
            self.scheduler.refuse_waiting(model, refusals.STOPPING)
            self._operators.stop(model, SHUTDOWN, now, model.preset.stop_timeout)
            self._touch(model)
        self.web_tiers.stop(now)

    def _leave(self, now: float) -> None:
        """The web tier outlasts the models, whose streams it carries; then the supervisor ends."""
        if not any(model.has_process for model in self.models.values()) and self.web_tiers.leave(now):
            self.lifecycle.commands.append(self._exit)

    # What follows

    def _settle(self, name: str, now: float) -> None:
        """What follows for one model, whatever happened to it."""
        model = self.models.get(name)
        if model is None:
            return
        self._drop_surplus(model)
        if not model.occupying and not model.failed:  # one that failed beside others is as good as new when all rest
            for each in [each for each in model.replicas if each.state is State.FAILED]:
                self.lifecycle.reset(each, now)
        if model.removed and not model.has_process:
            del self.models[name]
            self.loading.forget(name)
            return
        if model.state is State.FAILED and model.last_reason is not None:
            self.scheduler.refuse_waiting(model, refusals.load_failed(name, model.last_reason))
        self.scheduler.grant_waiting(model, now)
        for each in model.replicas:
            if each.draining and not each.leases:
                self.lifecycle.drained(each, now)
        self.lifecycle.rest_or_work(model, now)
        self._operators.answer(model)
        if self.stopping:
            self.loading.forget(name)
        else:
            self.loading.consider(model)

    @staticmethod
    def _drop_surplus(model: Model) -> None:
        """Replicas that the preset has no more of go once they have stopped."""
        surplus = model.replicas[model.preset.replicas :]
        if surplus:
            model.replicas[model.preset.replicas :] = [each for each in surplus if each.occupies]

    def _tell_of_queues(self) -> None:
        """Announce why requests wait for a model that does not serve; a wait for a free slot is too common to tell."""
        claimants = self.loading.claimants[:MOST_TOLD]
        for name in dict.fromkeys([*self._settled, *claimants]):
            model = self.models.get(name)
            if model is None:
                continue
            if not model.waiting or any(each.serves for each in model.replicas):
                model.told = None
                continue
            why = why_waiting(model, self.models, self.loading.chosen, self.policy)
            if why != model.told:
                model.told = why
                self.lifecycle.commands.append(Announce("queue", name, f"{name}: requests wait: {why}"))

    def _touch(self, model: Model) -> None:
        self._touched[model.name] = None
