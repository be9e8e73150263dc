"""Fixtures: whether a systemd can be booted here."""

from __future__ import annotations

from pathlib import Path

import pytest
from booted import why_not


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All tests of this directory are for `make systemd`."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("systemd")


@pytest.fixture(scope="session", autouse=True)
def bootable() -> None:
    """Skips, and says why, where nothing can be booted."""
    if why := why_not():
        pytest.skip(why)
