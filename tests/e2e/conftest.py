"""Fixtures: a supervisor that the tests of a module share, and one of a test's own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from served import MODEL, Served


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    """Serves smollm2 (alias gpt-4o-mini) and embedder, loaded on demand; shared by the tests of a module."""
    with Served() as supervisor:
        supervisor.serve(MODEL, aliases=["gpt-4o-mini"])
        supervisor.serve("embedder", embedding=True, context=1024)
        yield supervisor.start(until="READY=1")


@pytest.fixture
def own() -> Iterator[Served]:
    """A supervisor of the test's own, which it may harm."""
    with Served() as supervisor:
        supervisor.serve(MODEL)
        yield supervisor.start(until="READY=1")
