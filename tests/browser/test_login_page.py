"""Signing in and out in a real browser."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect
from served import Served
from visiting import Open

from supervisor import access

PASSWORD = "a pass phrase"
REFUSED = "the server responded with a status of 4"  # Chromium's word for a form that is shown again


@pytest.fixture(scope="module")
def router() -> Iterator[Served]:
    """Serves no model."""
    with Served() as supervisor:
        yield supervisor.start(until="READY=1")


def check(page: Page) -> None:
    """Nothing that assistive technology stumbles over, and no scrolling to the side."""
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        violations = [
            each for each in Axe().run(page).response["violations"] if each["impact"] in ("serious", "critical")
        ]
        assert violations == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def link(router: Served) -> str:
    token = access.new_link(router.directory / "state", router.runtime, print)
    return f"/ui/login?token={token}"


def test_the_link_then_a_password_then_out(visit: Open, router: Served) -> None:
    first = visit(router, link(router), allowed=(REFUSED,), role=None, viewport={"width": 375, "height": 800})
    expect(first.get_by_text("To sign in the next time, set a password")).to_be_visible()
    check(first)
    first.get_by_role("button", name="Sign in").click()
    expect(first.get_by_role("heading", name="No models yet")).to_be_visible()
    assert "token" not in first.url

    access.set_password(router.directory / "state", "admin", PASSWORD, print)
    page = visit(router, "/ui/models?a=b", allowed=(REFUSED,), role=None)
    expect(page).to_have_url(f"{router.url}/ui/login?next=%2Fui%2Fmodels%3Fa%3Db")
    check(page)
    page.keyboard.type("a wrong one")  # the field has the focus
    page.keyboard.press("Enter")
    field = page.get_by_label("Password")
    expect(page.get_by_role("alert")).to_have_text("That is not the password.")
    expect(field).to_be_focused()
    expect(field).to_have_accessible_description("That is not the password.")
    check(page)
    page.keyboard.type(PASSWORD)
    page.keyboard.press("Enter")
    expect(page).to_have_url(f"{router.url}/ui/models?a=b")
    page.goto("/")
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_label("Password")).to_be_visible()
    page.goto("/")
    expect(page.get_by_label("Password")).to_be_visible()


def test_a_link_that_was_used(visit: Open, router: Served) -> None:
    used = link(router)
    visit(router, used, role=None).get_by_role("button", name="Sign in").click()
    page = visit(router, used, role=None, allowed=(REFUSED,))
    expect(page.get_by_role("alert")).to_have_text(
        "This link has been used, or another link or a password was made since."
    )
    check(page)


def test_an_open_page_says_that_it_is_signed_out(visit: Open, router: Served) -> None:
    access.set_password(router.directory / "state", "viewer", "the viewers' one", print)
    page = visit(router, role="viewer", allowed=(REFUSED,), viewport={"width": 375, "height": 800})
    live = page.locator("#live")
    expect(live).to_have_text("live")
    access.remove_password(router.directory / "state", "viewer", print)
    router.call("reload")
    expect(live).to_have_text("signed out, sign in again", timeout=30_000)
    live.get_by_role("link").click()
    expect(page).to_have_url(f"{router.url}/ui/login?next=%2F")
