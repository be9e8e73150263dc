"""What operators ask (load, unload, restart, reset), and when they are told that it is done."""

from __future__ import annotations

from supervisor.core import refusals
from supervisor.core.commands import Answer, Command, Reject
from supervisor.core.events import Asked, Goal
from supervisor.core.fleet_state import Ask, Model
from supervisor.core.lifecycle import Lifecycle
from supervisor.core.reasons import EndReason, Kind
from supervisor.core.refusals import Refusal
from supervisor.core.scheduler import Scheduler
from supervisor.core.states import State

REQUESTED = EndReason(Kind.REQUESTED)
RESTARTED = EndReason(Kind.REQUESTED, detail="restarted on request")


class Operators:
    """Acts through the lifecycle; adds answers to its commands."""

    def __init__(self, lifecycle: Lifecycle, scheduler: Scheduler) -> None:
        self._lifecycle = lifecycle
        self._scheduler = scheduler

    @property
    def _commands(self) -> list[Command]:
        return self._lifecycle.commands

    def asked(self, asked: Asked, model: Model | None, now: float, *, stopping: bool) -> None:
        """Take a wish: refuse it, answer it, or remember who waits for it."""
        if model is None:
            self._commands.append(Reject(asked.ask, refusals.unknown_to_operator(asked.model)))
            return
        if refusal := _refusal(asked, model, stopping):
            self._commands.append(Reject(asked.ask, refusal))
            return
        self._act(asked.goal, model, now)
        model.asks.append(Ask(asked.ask, asked.goal, wait=asked.wait and asked.goal is not Goal.RESET))

    def load(self, model: Model, now: float, *, insists: bool) -> None:
        """Want a model. That forgives past failures and does not wait for a back-off."""
        if not model.wanted:
            model.wanted_at = now
        model.wanted, model.failed = True, False
        model.insists |= insists
        for replica in model.replicas:
            self._lifecycle.reset(replica, now)
            if replica.state is State.BACKOFF:
                self._lifecycle.start(replica, now)

    def stop(self, model: Model, why: EndReason, now: float, patience: float | None) -> None:
        """End every replica; running requests get `patience` seconds (None: all the time they need)."""
        for replica in model.replicas:
            self._lifecycle.stop(replica, why, now, patience)

    def accept(self, model: Model) -> None:
        """Tell those who do not wait that their wish was acted on; by then it would have been rejected."""
        self._commands.extend(Answer(ask.id, model.name) for ask in model.asks if not ask.wait)
        model.asks = [ask for ask in model.asks if ask.wait]

    def answer(self, model: Model) -> None:
        """Tell those who wait whose wish is fulfilled, or can't be any more."""
        unmet = []
        for ask in model.asks:
            outcome = _outcome(ask, model) if ask.wait else None
            if outcome is None:
                unmet.append(ask)
            else:
                self._commands.append(outcome)
        model.asks = unmet

    def reject(self, model: Model, refusal: Refusal) -> None:
        """Tell everyone that it can't be done."""
        self._commands.extend(Reject(ask.id, refusal) for ask in model.asks)
        model.asks.clear()

    def _act(self, goal: Goal, model: Model, now: float) -> None:
        patience = model.preset.stop_timeout
        match goal:
            case Goal.LOAD:
                self.load(model, now, insists=True)
            case Goal.UNLOAD:
                model.unwant()
                self._scheduler.refuse_waiting(model, refusals.unloaded(model.name))
                self.stop(model, REQUESTED, now, patience)
            case Goal.RESTART:
                self.stop(model, RESTARTED, now, patience)
                self.load(model, now, insists=True)
            case Goal.RESET:
                model.failed = False
                for replica in model.replicas:
                    self._lifecycle.reset(replica, now)


def _refusal(asked: Asked, model: Model, stopping: bool) -> Refusal | None:
    if stopping:
        return refusals.STOPPING
    running = bool(model.occupying)
    if asked.strict and asked.goal is Goal.LOAD and running and model.wanted:
        return refusals.ALREADY_RUNNING
    if asked.strict and asked.goal is Goal.UNLOAD and not running:
        return refusals.NOT_RUNNING
    return None


def _outcome(ask: Ask, model: Model) -> Answer | Reject | None:
    """1. reached 2. can't be reached any more 3. not yet."""
    name = model.name
    at_rest = not model.occupying
    loaded = any(replica.serves for replica in model.replicas)
    if at_rest if ask.goal is Goal.UNLOAD else loaded:  # 1
        return Answer(ask.id, name)
    if ask.goal is Goal.UNLOAD and model.wanted:  # 2
        return Reject(ask.id, refusals.loaded_again(name))
    if at_rest and not model.wanted:
        failed, reason = model.state is State.FAILED, model.last_reason
        why = refusals.load_failed(name, reason) if failed and reason else refusals.unloaded(name)
        return Reject(ask.id, why)
    return None  # 3
