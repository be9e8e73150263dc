"""What is to be loaded, and the room that is made for it: acts on the steps that `placement` finds."""

from __future__ import annotations

from collections.abc import Iterable

from supervisor.core.commands import Announce, Prefetch
from supervisor.core.fleet_state import Model
from supervisor.core.lifecycle import Lifecycle
from supervisor.core.llama_options import cached_files
from supervisor.core.operators import Operators
from supervisor.core.placement import Claim, MakeRoom, NeverFits, Start, Wait, claim_of, next_step
from supervisor.core.policy import Policy
from supervisor.core.reasons import EndReason, Kind
from supervisor.core.scheduler import Scheduler


class Loading:
    """The claims of all models, by name. `chosen` is the model for which room is being made; `due` when time alone may
    change what is next. `prefetched` are the files that were last asked to be read ahead of a load."""

    def __init__(self, lifecycle: Lifecycle, scheduler: Scheduler, operators: Operators) -> None:
        self.chosen: str | None = None
        self.due: float | None = None
        self.prefetched: tuple[str, ...] = ()
        self._claims: dict[str, Claim] = {}
        self._lifecycle = lifecycle
        self._scheduler = scheduler
        self._operators = operators

    @property
    def claims(self) -> list[Claim]:
        """What is to be started."""
        return list(self._claims.values())

    def restore(
        self, claims: Iterable[Claim], chosen: str | None, due: float | None, prefetched: tuple[str, ...]
    ) -> None:
        """Go on where another program left off."""
        self._claims = {claim.model.name: claim for claim in claims}
        self.chosen, self.due, self.prefetched = chosen, due, prefetched

    @property
    def claimants(self) -> list[str]:
        """The models of which something is to be started."""
        return list(self._claims)

    def consider(self, model: Model) -> None:
        """Look again at what of the model is to be started."""
        claim = claim_of(model)
        if claim is None:
            self._claims.pop(model.name, None)
        else:
            self._claims[model.name] = claim

    def forget(self, name: str) -> None:
        """The model is gone, or nothing more is to be loaded."""
        self._claims.pop(name, None)

    def place(self, models: dict[str, Model], policy: Policy, now: float) -> list[str]:
        """Start what there is room for, and make room. Returns the models to look at again."""
        touched = self._keep_what_nobody_needs_gone(models)
        for claim in [claim for claim in self._claims.values() if claim.model.futile and not claim.further]:
            self._start(claim, now)  # it fails at once and takes no room, so none is made
            touched.append(claim.model.name)
        self.due = None
        following: Claim | None = None
        while step := next_step(self._claims.values(), models.values(), policy, self.chosen, now):
            match step:
                case Start():
                    self._start(step.claim, now)
                    touched.append(step.claim.model.name)
                case MakeRoom():
                    touched += self._make_room(step, models, now)
                case NeverFits():
                    self._refuse(step, now)
                    touched.append(step.claim.model.name)
                case Wait():
                    self.due, following = step.until, step.next
                    break
        self._prefetch(following, models)
        return touched

    def rest(self) -> None:
        """Nothing is loaded any more."""
        self.due = None
        self._prefetch(None, {})

    def _prefetch(self, claim: Claim | None, models: dict[str, Model]) -> None:
        """Have the files of the claim read from when running requests keep it from its room until it gets it. A server
        that nobody uses is gone too soon for that."""
        paths = () if claim is None else cached_files(claim.model.preset)
        if paths != self.prefetched and not any(each.draining for model in models.values() for each in model.replicas):
            paths = ()
        if paths != self.prefetched:
            self.prefetched = paths
            self._lifecycle.commands.append(Prefetch(paths))

    def _start(self, claim: Claim, now: float) -> None:
        model = claim.model
        if self.chosen == model.name:
            self.chosen = None
        del self._claims[model.name]
        claim.replica.terms, model.wanted = model.preset, True
        self._lifecycle.start(claim.replica, now)

    def _make_room(self, step: MakeRoom, models: dict[str, Model], now: float) -> list[str]:
        """Requests that came before the claim's are still served: it is a swap, not a jump of the queue."""
        self.chosen = step.claim.model.name
        names = list(dict.fromkeys(victim.model for victim in step.victims))
        for name in names:
            victims = [victim for victim in step.victims if victim.model == name]
            if len(victims) == len([each for each in models[name].occupying if not each.leaving]):
                models[name].unwant()
            for victim in victims:  # none of them leaves already, for a reason of its own
                self._lifecycle.stop(victim, EndReason(Kind.EVICTED, detail=self.chosen), now, patience=None)
                victim.drain_before = step.claim.since
        return names

    def _refuse(self, step: NeverFits, now: float) -> None:
        model = step.claim.model
        del self._claims[model.name]
        model.unwant()
        step.claim.replica.reason = EndReason(Kind.CANNOT_START, at=now, detail=step.why.message)
        self._scheduler.refuse_waiting(model, step.why)
        self._operators.reject(model, step.why)
        self._lifecycle.commands.append(Announce("queue", model.name, step.why.message))

    def _keep_what_nobody_needs_gone(self, models: dict[str, Model]) -> list[str]:
        """A claim whose clients all left needs no room, even if it is to start by itself once there is some: what
        drains for it goes on. Returns the models that do."""
        kept: list[str] = []
        if self.chosen is None or (self.chosen in self._claims and self._claims[self.chosen].may_evict):
            return kept
        for model in models.values():
            for replica in model.replicas:
                why = replica.ending if replica.draining else None
                if why is not None and why.kind is Kind.EVICTED and why.detail == self.chosen:
                    model.wanted = True
                    self._lifecycle.keep(replica)
                    kept.append(model.name)
        self.chosen = None
        return kept
