"""Fixtures: a supervisor that the tests of a module share, one of a test's own, and what a model server alone needs."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from served import MODEL, Served, gguf


@pytest.fixture(scope="session", name="gguf")
def _gguf() -> Path:
    """The weights of SmolLM2."""
    return gguf()


@pytest.fixture
def room() -> Iterator[Path]:
    """A directory whose path is short enough for a UNIX socket in it."""
    with tempfile.TemporaryDirectory(prefix="ms-") as folder:
        yield Path(folder)


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
