"""The fleet: every model with its instance, the web tier, and what is wanted of them.

`handle(event, now)` is the whole of the core: it changes this state and returns the commands to execute. `now` is
monotonic. Nothing here acts, waits, logs or looks at a clock, so the same history gives the same decisions.
"""

from __future__ import annotations

from collections.abc import Mapping

from supervisor.core import events, refusals
from supervisor.core.commands import Announce, Answer, CloseListener, Command, DeclareReady, Exit, Reject
from supervisor.core.events import Event, Goal
from supervisor.core.fleet_state import Ask, Instance, Model, WebTier
from supervisor.core.lifecycle import Lifecycle
from supervisor.core.preset import Preset
from supervisor.core.reasons import EndReason, Kind
from supervisor.core.refusals import Refusal
from supervisor.core.reload import changes, same_launch
from supervisor.core.scheduler import Scheduler
from supervisor.core.states import State

EX_SOFTWARE = 70
WEB_LEAVE_SECONDS = 5.0
REQUESTED = EndReason(Kind.REQUESTED)
PRESET_CHANGED = EndReason(Kind.PRESET_CHANGED)
SHUTDOWN = EndReason(Kind.SHUTDOWN)


class Fleet:
    """Start with `handle(Begin())`. `models` are by name; `aliases` lead to names."""

    def __init__(self, presets: Mapping[str, Preset], aliases: Mapping[str, str], now: float = 0.0) -> None:
        self.lifecycle = Lifecycle()
        self.scheduler = Scheduler(self.lifecycle.commands)
        self.models = {name: _model(preset, now) for name, preset in presets.items()}
        self.aliases = dict(aliases)
        self.web = Instance(WebTier().name, WebTier(), since=now)
        self.stopping = False
        self._exit = Exit(0)
        self._touched: dict[str, None] = {}  # a set that keeps its order, or decisions would depend on hashes

    def handle(self, event: Event, now: float) -> list[Command]:
        """Take in one event; returns the commands it leads to, in order."""
        self._dispatch(event, now)
        while self._touched:
            self._settle(self._touched.popitem()[0], now)
        if self.stopping:
            self._leave(now)
        commands = self.lifecycle.commands.copy()
        self.lifecycle.commands.clear()
        return commands

    def next_deadline(self) -> float | None:
        """When to send the next Tick; None if nothing is due."""
        due = [at for instance in self.lifecycle.timed.values() if (at := instance.next_deadline) is not None]
        if (at := self.scheduler.next_deadline()) is not None:
            due.append(at)
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
        model = self.resolve(asked.model) if asked.model else None
        if not asked.model:
            self.scheduler.refuse_ask(asked.lease, refusals.NO_MODEL_NAMED)
        elif model is None:
            self.scheduler.refuse_ask(asked.lease, refusals.unknown_model(asked.model))
        elif self.stopping:
            self.scheduler.refuse_ask(asked.lease, refusals.STOPPING)
        else:
            self.scheduler.ask(model, asked, now)
            self._touched[model.preset.name] = None

    def _lease_ended(self, ended: events.LeaseEnded, now: float) -> None:
        lease = self.scheduler.end(ended.lease, self.models)
        if lease is None:
            return
        instance = self.lifecycle.launches.get(lease.launch or 0)
        if instance is not None:
            instance.leases.discard(lease.id)
            instance.served += ended.served
            if instance.draining and not instance.leases:
                self.lifecycle.drained(instance, now)
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
            instance.wanted = False

    def _tick(self, now: float) -> None:
        for instance in list(self.lifecycle.timed.values()):
            if instance.probe_at is not None and instance.probe_at <= now:
                self.lifecycle.probe_due(instance)
            if instance.deadline is not None and instance.deadline <= now:
                self.lifecycle.deadline_passed(instance, now)
        self._touched.update(dict.fromkeys(self.scheduler.expire(self.models, now)))

    # Operators

    def _asked(self, asked: events.Asked, now: float) -> None:
        model = self.resolve(asked.model)
        refusal = self._operator_refusal(asked, model)
        if refusal is not None or model is None:
            self.lifecycle.commands.append(Reject(asked.ask, refusal or refusals.unknown_to_operator(asked.model)))
            return
        instance, terms = model.instance, model.preset
        match asked.goal:
            case Goal.LOAD:
                self._load(instance, now)
            case Goal.UNLOAD:
                instance.wanted = False
                self.scheduler.refuse_waiting(model, refusals.unloaded(terms.name))
                self.lifecycle.stop(instance, REQUESTED, now, terms.stop_timeout)
            case Goal.RESTART:
                self.lifecycle.stop(instance, REQUESTED, now, terms.stop_timeout)
                self._load(instance, now)
            case Goal.RESET:
                self.lifecycle.reset(instance, now)
        if asked.wait and asked.goal is not Goal.RESET:
            model.asks.append(Ask(asked.ask, asked.goal))
        else:
            self.lifecycle.commands.append(Answer(asked.ask, terms.name))
        self._touched[terms.name] = None

    def _operator_refusal(self, asked: events.Asked, model: Model | None) -> Refusal | None:
        if model is None:
            return refusals.unknown_to_operator(asked.model)
        if self.stopping:
            return refusals.STOPPING
        running = model.instance.has_process or model.instance.state is State.BACKOFF
        if asked.strict and asked.goal is Goal.LOAD and running and model.instance.wanted:
            return refusals.ALREADY_RUNNING
        if asked.strict and asked.goal is Goal.UNLOAD and not running:
            return refusals.NOT_RUNNING
        return None

    def _load(self, instance: Instance, now: float) -> None:
        """An explicit load forgives past failures and does not wait for a back-off."""
        self.lifecycle.reset(instance, now)
        instance.wanted = True
        if instance.state is State.BACKOFF:
            self.lifecycle.start(instance, now)

    def _want_autostart(self, names: Mapping[str, Model] | tuple[str, ...], now: float) -> None:
        for name in names:
            if self.models[name].preset.autostart and not self.stopping:
                self._load(self.models[name].instance, now)
                self._touched[name] = None

    # Reload and stop

    def _presets_changed(self, event: events.PresetsChanged, now: float) -> None:
        old = {name: model.preset for name, model in self.models.items() if not model.removed}
        diff = changes(old, event.presets)
        self.aliases = dict(event.aliases)
        for name in (*diff.added, *diff.changed, *diff.adjusted):
            self._renew(name, event.presets[name], now)
        for name in diff.removed:
            model = self.models[name]
            model.removed, model.instance.wanted = True, False
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
            model.instance.wanted = False
            self.scheduler.refuse_waiting(model, refusals.STOPPING)
            self.lifecycle.stop(model.instance, SHUTDOWN, now, model.preset.stop_timeout)
            self._touched[model.preset.name] = None
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

    # What follows for one model

    def _settle(self, name: str, now: float) -> None:
        model = self.models.get(name)
        if model is None:
            return
        instance = model.instance
        if model.removed and not instance.has_process:
            del self.models[name]
        elif instance.state is State.FAILED and instance.reason is not None:
            self.scheduler.refuse_waiting(model, refusals.load_failed(name, instance.reason))
        elif instance.state is State.STOPPED and not self.stopping:
            self._answer_asks(model)  # an unload is done even if someone wants the model back right away
            instance.terms = model.preset
            instance.wanted |= bool(model.waiting)
            if instance.wanted:
                self.lifecycle.start(instance, now)
        self.scheduler.grant_waiting(model, now)
        self._answer_asks(model)

    def _answer_asks(self, model: Model) -> None:
        unmet = []
        for ask in model.asks:
            outcome = self._outcome(ask, model)
            if outcome is None:
                unmet.append(ask)
            else:
                self.lifecycle.commands.append(outcome)
        model.asks = unmet

    def _outcome(self, ask: Ask, model: Model) -> Answer | Reject | None:
        """1. reached 2. can't be reached any more 3. not yet."""
        instance, name = model.instance, model.preset.name
        at_rest = instance.state in (State.STOPPED, State.FAILED)
        loaded = instance.state is State.READY and not instance.draining
        if at_rest if ask.goal is Goal.UNLOAD else loaded:  # 1
            return Answer(ask.id, name)
        if at_rest and not instance.wanted:  # 2
            failed = instance.state is State.FAILED and instance.reason is not None
            reason = instance.reason
            why = refusals.load_failed(name, reason) if failed and reason else refusals.unloaded(name)
            return Reject(ask.id, why)
        return None  # 3


def _model(preset: Preset, now: float) -> Model:
    return Model(preset, Instance(preset.name, preset, since=now))
