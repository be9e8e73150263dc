"""The models page in a real browser."""

from __future__ import annotations

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect
from served import MODEL, Served
from visiting import Open

SAYS = "echo 'error: no such cheese'; echo bye; exit 1"
SERIOUS = ("serious", "critical")


@pytest.fixture(scope="module")
def many(router: Served) -> Served:
    """Models enough to filter, one of which can't be loaded."""
    for number in range(20):
        router.serve(f"other-{number}", aliases=[f"alias-{number}"])
    broken = {"backend": "command", "command": ["sh", "-c", SAYS, "{port}"], "restart": {"limit": 0}}
    router.write("broken", {"models": {"broken": broken}})
    router.call("reload")
    return router


def names(page: Page) -> list[str]:
    """Of the rows that are shown, in order."""
    return page.locator("tr[data-model]:visible .name").all_inner_texts()


def test_load_restart_and_unload_without_a_reload_of_the_page(visit: Open, router: Served) -> None:
    page = visit(router)
    page.evaluate("window.stays = true")
    model = page.locator(f"tr[data-model={MODEL}]")
    model.get_by_role("button", name=f"Load {MODEL}").click()
    expect(model.locator(".badge")).to_have_text("ready")
    pid = router.model(MODEL)["pid"]
    model.get_by_role("button", name=f"Restart {MODEL}").click()
    router.watch(MODEL).text("starting")
    expect(model.locator(".badge")).to_have_text("ready")
    router.eventually(lambda: router.model(MODEL)["pid"] not in (pid, None), "it runs again")
    model.get_by_role("button", name=f"Unload {MODEL}").click()
    expect(model.locator(".badge")).to_have_text("stopped")
    assert page.evaluate("window.stays") is True


def test_filter_and_order_are_kept_in_the_address(visit: Open, many: Served) -> None:
    page = visit(many)
    page.keyboard.press("/")
    page.keyboard.type("other alias-1")
    expect(page.locator("#shown")).to_have_text("11 of 22 shown")
    page.get_by_role("button", name="Model", exact=True).click()
    assert names(page)[:3] == ["other-19", "other-18", "other-17"]
    page.reload()
    expect(page.locator("#shown")).to_have_text("11 of 22 shown")
    assert names(page)[:3] == ["other-19", "other-18", "other-17"]
    expect(page.locator("th[data-sort=model]")).to_have_attribute("aria-sort", "descending")
    page.locator("#state").select_option("failed")
    expect(page.locator("#shown")).to_have_text("0 of 22 shown")


def test_a_model_that_fails_says_why_and_is_reset(visit: Open, many: Served) -> None:
    page = visit(many, "/?q=broken")
    broken = page.locator("tr[data-model=broken]")
    many.call("load", model="broken")
    expect(broken.locator(".badge")).to_have_text("failed")
    expect(broken.locator(".words")).to_contain_text("exited with code 1")
    expect(broken.locator(".cause")).to_have_text("error: no such cheese")
    broken.get_by_role("button", name="Reset broken").click()
    expect(broken.locator(".badge")).to_have_text("stopped")
    expect(broken.locator(".words")).to_contain_text("reset; its last end: exited with code 1")
    expect(broken.locator(".cause")).to_have_count(0)


def test_what_is_refused_is_told(visit: Open, router: Served) -> None:
    page = visit(router, allowed=("404",))
    page.route("**/ui/models/load", lambda route: route.continue_(post_data="model=nothing"))
    page.get_by_role("button", name=f"Load {MODEL}").click()
    expect(page.locator("#error")).to_contain_text("nothing")


def test_by_keyboard(visit: Open, many: Served) -> None:
    page = visit(many)
    page.locator("#filter").focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    expect(page.locator("tr[data-model=other-0] a")).to_be_focused()
    page.keyboard.press("l")
    expect(page.locator("tr[data-model=other-0] .badge")).to_have_text("ready")
    expect(page.locator("tr[data-model=other-0] a")).to_be_focused()
    page.keyboard.press("u")
    expect(page.locator("tr[data-model=other-0] .badge")).to_have_text("stopped")


HIDE = "Object.defineProperty(document, 'hidden', {value: %s, configurable: true})"


def test_a_page_in_the_background_holds_no_connection(visit: Open, many: Served) -> None:
    page = visit(many)
    expect(page.locator("#live")).to_have_text("live")
    closed: list[str] = []
    page.on("requestfinished", lambda request: closed.append(request.url))
    page.on("requestfailed", lambda request: closed.append(request.url))
    page.evaluate(f"{HIDE % 'true'}; document.dispatchEvent(new Event('visibilitychange'))")
    with page.expect_request("**/ui/events"):
        page.evaluate(f"{HIDE % 'false'}; document.dispatchEvent(new Event('visibilitychange'))")
    assert [url.rpartition("/")[2] for url in closed if "/ui/events" in url] == ["events"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [375, 1440])
def test_it_is_accessible_and_fits(visit: Open, many: Served, scheme: str, width: int) -> None:
    page = visit(many, color_scheme=scheme, viewport={"width": width, "height": 900})
    found = Axe().run(page).response["violations"]
    assert [each["id"] for each in found if each["impact"] in SERIOUS] == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_the_supervisor_goes_away_and_comes_back(visit: Open, many: Served) -> None:
    page, address = visit(many, allowed=("net::ERR", "503")), many.status()["listen"]
    expect(page.locator("#live")).to_have_text("live")
    many.stop()
    expect(page.locator("#live")).to_have_text("supervisor away, reconnecting")
    page.get_by_role("button", name=f"Load {MODEL}").click()
    expect(page.locator("#error")).to_contain_text("does not answer")
    many.config.write_text(many.config.read_text().replace("127.0.0.1:0", address))
    many.start()
    expect(page.locator("#live")).to_have_text("live")
    expect(page.locator(f"tr[data-model={MODEL}] .badge")).to_have_text("stopped")
    expect(page.locator("#error")).to_be_hidden()
