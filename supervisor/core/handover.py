"""The fleet as plain JSON values, for another program to go on with: what it decides then, this one would have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from pydantic import TypeAdapter

from supervisor.core.fleet import Fleet
from supervisor.core.fleet_state import Instance, Lease, Model
from supervisor.core.placement import Claim
from supervisor.core.policy import Policy

Plain = dict[str, Any]


@dataclass
class _Record:
    """A fleet between two events. `granted` are the leases that no model's queue has, `timed` the names of the
    instances that have deadlines, `claims` those of models and their replicas, and whether it is a further one, and
    `prefetched` the files that are read ahead."""

    policy: Policy
    aliases: dict[str, str]
    models: list[Model]
    web: Instance
    earlier_webs: list[Instance]
    renewing: bool
    granted: list[Lease]
    timed: list[str]
    claims: list[tuple[str, str, bool]]
    chosen: str | None
    due: float | None
    prefetched: tuple[str, ...]
    last_launch: int


def record(fleet: Fleet) -> Plain:
    """A fleet that is not stopping. Raises ValueError for one that can't be told in full."""
    plain: Plain = _adapter().dump_python(
        _Record(
            policy=fleet.policy,
            aliases=fleet.aliases,
            models=list(fleet.models.values()),
            web=fleet.web,
            earlier_webs=fleet.web_tiers.earlier,
            renewing=fleet.web_tiers.renewing,
            granted=[lease for lease in fleet.scheduler.leases.values() if lease.launch is not None],
            timed=list(fleet.lifecycle.timed),
            claims=[(claim.model.name, claim.replica.name, claim.further) for claim in fleet.loading.claims],
            chosen=fleet.loading.chosen,
            due=fleet.loading.due,
            prefetched=fleet.loading.prefetched,
            last_launch=fleet.lifecycle.last_launch,
        ),
        mode="json",
    )
    for replica in [replica for model in plain["models"] for replica in model["replicas"]]:
        replica["leases"].sort()  # a set's order would be another one each time
    return plain


def restored(plain: Mapping[str, Any]) -> Fleet:
    """The fleet of a record. Raises ValueError for what is none, or was written by a program that knows more or less
    of a fleet than this one."""
    told = _adapter().validate_python(plain)
    fleet = Fleet({}, told.aliases, told.policy)
    fleet.models = {model.name: model for model in told.models}
    fleet.web_tiers.restore(told.web, told.earlier_webs, renewing=told.renewing)
    instances = [told.web, *told.earlier_webs, *(replica for model in told.models for replica in model.replicas)]
    by_name = {instance.name: instance for instance in instances}
    try:
        fleet.lifecycle.restore([by_name[name] for name in told.timed], instances, told.last_launch)
        fleet.scheduler.restore([*told.granted, *(lease for model in told.models for lease in model.waiting)])
        claims = [Claim(fleet.models[name], by_name[replica], further) for name, replica, further in told.claims]
    except KeyError as error:
        raise ValueError(f"nothing is named {error}") from None
    fleet.loading.restore(claims, told.chosen, told.due, told.prefetched)
    if record(fleet) != plain:
        raise ValueError("it tells of more or of less than is known here of a fleet")
    return fleet


@cache
def _adapter() -> TypeAdapter[_Record]:
    return TypeAdapter(_Record)
