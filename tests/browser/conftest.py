"""Fixtures: Debian's Chromium, and pages of a router that runs real models.

A page fails its test when its console shows an error, a script throws or the Content-Security-Policy stops something.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, sync_playwright
from served import MODEL, Served
from visiting import Open

from admin import sessions
from supervisor.access import known
from supervisor.core.access import RoleName

ARGUMENTS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
)
PATIENCE_MS = 20_000


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All tests of this directory are for `make browser`."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("browser")


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """One browser for all tests."""
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("there is no chromium: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=list(ARGUMENTS))
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def router() -> Iterator[Served]:
    """Serves smollm2, loaded on demand; shared by the tests of a module."""
    with Served() as supervisor:
        supervisor.serve(MODEL, description="a small model")
        yield supervisor.start(until="READY=1")


@pytest.fixture(scope="module")
def page(router: Served, chromium: Browser) -> Iterator[Page]:
    """A page under the dashboard's Content-Security-Policy, for what its modules do without a page of theirs."""
    context = chromium.new_context(base_url=router.url)
    page = context.new_page()
    page.goto("/ui/login")
    yield page
    context.close()


@pytest.fixture
def visit(chromium: Browser) -> Iterator[Open]:
    """visit(router, path="/", role="admin", **context): a page in a browser of its own, signed in unless role is None.

    `allowed` are parts of console errors that the test causes on purpose.
    """
    contexts = []
    errors: list[str] = []

    def open_page(
        router: Served,
        path: str = "/",
        allowed: tuple[str, ...] = (),
        role: RoleName | None = "admin",
        **options: Any,
    ) -> Page:
        context = chromium.new_context(base_url=router.url, **options)
        contexts.append(context)
        if role is not None:
            value = sessions.sealed(role, known(router.directory / "state", print))
            name = f"{sessions.COOKIE}_{router.url.rpartition(':')[2]}"
            context.add_cookies([{"name": name, "value": value, "url": router.url}])
        context.set_default_timeout(PATIENCE_MS)
        page = context.new_page()

        def heard(message: ConsoleMessage) -> None:
            if message.type == "error" and not any(part in message.text for part in allowed):
                errors.append(f"{message.text} ({message.location.get('url')})")

        page.on("console", heard)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(path)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert errors == []
