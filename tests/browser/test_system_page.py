"""The system page in a real browser."""

from __future__ import annotations

from playwright.sync_api import expect
from served import MODEL, Served
from visiting import Open

AWAY = "Failed to load resource"


def test_processes_come_and_go(visit: Open, router: Served) -> None:
    page = visit(router, "/ui/system")
    expect(page.locator("#live")).to_have_text("live")
    row = page.locator(".processes tr", has=page.get_by_role("rowheader", name=MODEL))
    expect(row).to_have_count(0)
    router.call("load", model=MODEL, wait=True)
    expect(row).to_have_count(1)
    expect(page.locator("[data-part=disks]")).to_contain_text("1 model file")
    router.call("unload", model=MODEL, wait=True)
    expect(row).to_have_count(0)


def test_it_says_when_it_is_not_true(visit: Open, router: Served) -> None:
    page = visit(router, "/ui/system", allowed=(AWAY,))
    expect(page.locator("#live")).to_have_text("live")
    page.route("**/ui/system/now", lambda route: route.fulfill(status=503, body="away"))
    expect(page.locator("#live")).to_have_class("live lost")
    page.unroute("**/ui/system/now")
    expect(page.locator("#live")).to_have_text("live")
