"""The activity pages in a real browser, of requests to a real model."""

from __future__ import annotations

import csv
import io
import re
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect
from served import MODEL, Served
from visiting import Open

ASKED = [{"role": "user", "content": "Say hi"}]
SERIOUS = ("serious", "critical")
FIRST_ROW = "#rows tr[data-id]"


def recorded(router: Served) -> int:
    """How many requests were served and recorded."""
    with urlopen(f"{router.url}/metrics", timeout=10) as answer:
        found = re.search(r'^llama_router_requests_total{.*code="200"} (\d+)$', answer.read().decode(), re.MULTILINE)
    return int(found[1]) if found else 0


def ask(router: Served, stream: bool = False) -> None:
    """A request that is recorded when this returns."""
    before = recorded(router)
    answer = router.openai().chat.completions.create(model=MODEL, messages=ASKED, max_tokens=4, stream=stream)  # type: ignore[call-overload]
    if stream:
        assert list(answer)
    router.eventually(lambda: recorded(router) == before + 1, "it is recorded")


@pytest.fixture(scope="module")
def asked(router: Served) -> Served:
    """Two requests were served."""
    ask(router)
    ask(router, stream=True)
    return router


def no_serious_violation(page: Page) -> None:
    violations = Axe().run(page).response["violations"]
    assert [each["id"] for each in violations if each["impact"] in SERIOUS] == []


def test_requests_appear_as_they_end(visit: Open, asked: Served) -> None:
    page = visit(asked, "/ui/activity")
    expect(page.locator("#live")).to_have_text("live")
    rows = page.locator(FIRST_ROW)
    before = rows.count()
    ask(asked)
    expect(rows).to_have_count(before + 1)
    expect(rows.first.locator(".badge")).to_have_text("200")
    expect(rows.first.locator("[data-label=Out]")).to_have_text("4")
    expect(page.locator("#sums")).to_contain_text(f"{before + 1} requests, 0 failed")


def test_a_paused_page_stands_still(visit: Open, asked: Served) -> None:
    page = visit(asked, "/ui/activity")
    expect(page.locator("#live")).to_have_text("live")
    page.get_by_role("button", name="Pause").click()
    rows = page.locator(FIRST_ROW)
    before = rows.count()
    other = visit(asked, "/ui/activity")
    ask(asked)
    expect(other.locator(FIRST_ROW)).to_have_count(before + 1)
    assert rows.count() == before
    page.get_by_role("button", name="Go on").click()
    expect(rows).to_have_count(before + 1)


def test_new_rows_do_not_move_what_is_read(visit: Open, asked: Served) -> None:
    page = visit(asked, "/ui/activity", viewport={"width": 1000, "height": 300})
    expect(page.locator("#live")).to_have_text("live")
    last = page.locator(FIRST_ROW).last
    last.scroll_into_view_if_needed()
    place = last.bounding_box()
    before = page.locator(FIRST_ROW).count()
    ask(asked)
    expect(page.locator(FIRST_ROW)).to_have_count(before + 1)
    moved = last.bounding_box()
    assert place is not None and moved is not None
    assert abs(moved["y"] - place["y"]) < 2


def test_filters_are_in_the_address_and_in_the_export(visit: Open, asked: Served) -> None:
    page = visit(asked, "/ui/activity")
    page.get_by_label("Search").fill("no such client")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="No request matches")).to_be_visible()
    assert "text=no+such+client" in page.url
    page.get_by_role("link", name="Show all").click()
    expect(page.locator(FIRST_ROW).first).to_be_visible()
    page.get_by_label("Outcome").select_option("served")
    page.wait_for_url("**outcome=served**")
    expect(page.locator(FIRST_ROW).first).to_be_visible()
    with page.expect_download() as download:
        page.get_by_role("link", name="CSV").click()
    rows = list(csv.DictReader(io.StringIO(download.value.path().read_text())))
    assert rows and {row["status"] for row in rows} == {"200"}


def test_a_refusal_tells_why_and_its_name_can_be_chosen(visit: Open, asked: Served) -> None:
    page = visit(asked, "/ui/activity")
    expect(page.locator("#live")).to_have_text("live")
    body = b'{"model": "nobody\'s"}'
    request = Request(f"{asked.url}/v1/chat/completions", body, {"Content-Type": "application/json"})
    with pytest.raises(HTTPError), urlopen(request, timeout=10):
        pass
    row = page.locator(FIRST_ROW).first
    expect(row.locator(".reason")).to_contain_text("nobody's")
    expect(row.locator(".status")).to_have_text(re.compile("40[04]\\s*refused"))
    expect(page.locator("#sums")).to_contain_text(" 0 failed, 1 refused")
    page.get_by_label("Model").select_option("nobody's")
    page.wait_for_url("**model=nobody**")
    expect(page.locator(FIRST_ROW)).to_have_count(1)
    expect(page.locator("#models optgroup option")).to_have_text("nobody's")


def test_details_by_keyboard(visit: Open, asked: Served) -> None:
    page = visit(asked, "/ui/activity")
    link = page.locator(f"{FIRST_ROW} th a").first
    link.focus()
    page.keyboard.press("Enter")
    expect(page.locator("tr.details")).to_contain_text("Request id")
    expect(link).to_have_attribute("aria-expanded", "true")
    page.keyboard.press("Enter")
    expect(page.locator("tr.details")).to_have_count(0)


def test_without_javascript(visit: Open, asked: Served) -> None:
    page = visit(asked, "/ui/activity", java_script_enabled=False)
    page.locator(f"{FIRST_ROW} th a").first.click()
    expect(page.locator("#details")).to_contain_text("Request id")
    page.get_by_role("link", name="Events").click()
    expect(page.locator("tbody tr").first).to_be_visible()
    page.get_by_role("link", name="Queue").click()
    expect(page.get_by_role("heading", name="Nobody waits")).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("path", ["/ui/activity", "/ui/activity/events", "/ui/system"])
def test_anybody_can_use_it_anywhere(visit: Open, asked: Served, path: str, scheme: str) -> None:
    for width in (1440, 375):
        page = visit(asked, path, color_scheme=scheme, viewport={"width": width, "height": 800})
        expect(page.locator("#live")).to_have_text("live")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        if path == "/ui/activity":
            page.locator(f"{FIRST_ROW} th a").first.click()
            expect(page.locator("tr.details")).to_be_visible()
        no_serious_violation(page)
