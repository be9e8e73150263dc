"""Fleets whose models take so much of a memory budget."""

from __future__ import annotations

from supervisor.core.commands import Terminate
from supervisor.core.need import Need
from supervisor.core.policy import Policy
from tests.core.driver import Driver, preset

GIB = 2**30
EIGHT = Policy(max_wait=10.0, budget={"host": 8 * GIB})


def estimated(gib: float, shared: float = 0.0) -> Need:
    return Need("estimated", {"host": int(shared * GIB)}, {"host": int(gib * GIB)}, "weights and the like")


def driver_with(policy: Policy = EIGHT, /, **needs: float) -> Driver:
    """A fleet of models by what they need in GiB."""
    return Driver(
        *(preset(name) for name in needs), policy=policy, needs={name: estimated(gib) for name, gib in needs.items()}
    )


def serve(driver: Driver, name: str) -> int:
    lease = driver.lease(name)
    if driver.model(name).state.value == "starting":
        driver.ready(name)
    assert driver.granted() == [lease]
    return lease


def use(driver: Driver, name: str) -> None:
    driver.release(serve(driver, name))
    driver.tick(1)


def terminated(driver: Driver) -> list[str]:
    return [driver.fleet.lifecycle.launches[command.launch].name for command in driver.last(Terminate)]


def states(driver: Driver) -> dict[str, str]:
    return {name: model.state.value for name, model in driver.fleet.models.items()}


def of(size: int) -> Need:
    """So many bytes of the host."""
    return Need("estimated", {}, {"host": size})
