"""What the tests of pages share."""

from __future__ import annotations

from collections.abc import Callable

from playwright.sync_api import Page

# The fixture `visit`.
Open = Callable[..., Page]
