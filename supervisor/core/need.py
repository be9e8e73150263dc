"""How much memory a model takes, by device ("host", "gpu0", …), in bytes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from supervisor.core.quantities import readable_size

HOST = "host"
Bytes = Mapping[str, int]
Source = Literal["declared", "measured", "estimated", "unknown"]


@dataclass(frozen=True)
class Need:
    """What a model takes: `shared` once, however many replicas run, and `each` for every one of them.

    `parts` says what an estimate is made of, such as "weights 4.6 GiB, KV cache 1.0 GiB".
    """

    source: Source = "unknown"
    shared: Bytes = field(default_factory=dict)
    each: Bytes = field(default_factory=dict)
    parts: str = ""

    def total(self, replicas: int) -> dict[str, int]:
        """Of so many replicas together; nothing for none."""
        if not replicas:
            return {}
        devices = sorted(self.shared.keys() | self.each.keys())
        return {device: self.shared.get(device, 0) + replicas * self.each.get(device, 0) for device in devices}


UNKNOWN = Need()


def total(amounts: Iterable[Bytes]) -> dict[str, int]:
    """Their sum, device by device."""
    added: dict[str, int] = {}
    for amount in amounts:
        for device, size in amount.items():
            added[device] = added.get(device, 0) + size
    return added


def fits(amount: Bytes, budget: Bytes) -> bool:
    """True unless a device of the budget would be overdrawn; a device without a budget is not limited."""
    return all(amount.get(device, 0) <= most for device, most in budget.items())


def in_words(amount: Bytes) -> str:
    """Such as "5.6 GiB of host, 9.0 GiB of gpu0"."""
    return ", ".join(f"{readable_size(size)} of {device}" for device, size in sorted(amount.items())) or "nothing"


def sizes(amount: Bytes) -> list[str]:
    """Short, for each device: "5.6 GiB" is the host's, "gpu0 9.0 GiB" a GPU's."""
    return [f"{'' if name == HOST else f'{name} '}{readable_size(amount[name])}" for name in host_first(amount)]


def host_first(devices: Iterable[str]) -> list[str]:
    """The order in which people are shown them."""
    return sorted(devices, key=lambda device: (device != HOST, device))


def known(declared: Bytes | None, learned: Need) -> Need:
    """What is counted on: what the preset declares, as people may know better, else what was learned."""
    return learned if declared is None else Need("declared", each=dict(declared))


def learn(before: Need, seen: Need, *, served: bool) -> Need:
    """What is known after a look at the running servers.

    The most that was ever measured counts. An estimate stands until a request was `served`: before, a good part of the
    memory is reserved but not used. Of what is shared it stands as long as more was not seen: pages that servers of
    other models map as well count here by a part only.
    """
    if before.source == "measured":
        shared, each = _most(before.shared, seen.shared), _most(before.each, seen.each)
        return Need("measured", shared, each)
    if before.source == "estimated" and not served:
        return before
    return Need("measured", _most(before.shared, seen.shared), seen.each)


def _most(one: Bytes, other: Bytes) -> dict[str, int]:
    return {device: max(one.get(device, 0), other.get(device, 0)) for device in sorted(one.keys() | other.keys())}
