"""Fixtures: one supervisor that many tests share, and supervisors for tests that stop or harm theirs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from harness import Supervisor

Start = Callable[..., Supervisor]


@pytest.fixture(scope="session")
def _shared() -> Iterator[list[Supervisor]]:
    """At most one; a test takes it out while it uses it, and puts it back unharmed."""
    idle: list[Supervisor] = []
    yield idle
    for supervisor in idle:
        with supervisor:
            pass


@pytest.fixture
def supervisor(_shared: list[Supervisor]) -> Iterator[Supervisor]:
    """A running supervisor whose presets are this test's alone, and which must come through the test."""
    with ExitStack() as stack:
        shared = stack.enter_context(_shared.pop() if _shared else Supervisor().start())
        yield shared
        shared.clear()
        stack.pop_all()
        _shared.append(shared)


@pytest.fixture
def supervisors() -> Iterator[Start]:
    """Makes supervisors that are not started yet."""
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(Supervisor(**options))
