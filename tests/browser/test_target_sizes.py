"""What people click and tap is large enough on every page: WCAG 2.2, 2.5.8 (AA), 24 by 24 CSS pixels."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import expect
from served import MODEL, Served
from visiting import Open

LEAST = 24
PATHS = {
    "models": "/",
    "model": f"/ui/model/{MODEL}",
    "a failed model": "/ui/model/broken",
    "playground": "/ui/playground",
    "presets": "/ui/presets?file=broken.yaml",
    "new preset": "/ui/presets?new=smollm2",
    "activity": "/ui/activity",
    "filtered activity": f"/ui/activity?model={MODEL}",
    "a request": "/ui/activity/request/1",
    "events": f"/ui/activity/events?model={MODEL}",
    "queue": "/ui/activity/queue",
    "system": "/ui/system",
}

NOT_LIVE = ("new=", "/request/")

# What is too small, in words. Excepted, as the criterion has it, are links within a sentence; a label counts with its
# control, and what is hidden from sight until it has the focus does not count.
TOO_SMALL = """least => {
  const pointed = "a[href], button, input:not([type=hidden]), select, textarea, summary, [role=tab], [role=button]";
  const isSeen = each => each.checkVisibility({ visibilityProperty: true, opacityProperty: true })
    && !each.matches(".hidden, .skip") && !each.closest(".hidden") && each.getBoundingClientRect().width > 1;
  const isInText = each => each.matches("a") && getComputedStyle(each).display === "inline"
    && [...each.parentElement.childNodes].some(node => node.nodeType === Node.TEXT_NODE && node.textContent.trim());
  const sizes = each => {
    const label = each.matches("input[type=checkbox], input[type=radio]") ? each.closest("label") ?? each : each;
    return label.getBoundingClientRect();
  };
  return [...document.querySelectorAll(pointed)].filter(each => isSeen(each) && !isInText(each)).flatMap(each => {
    const { width, height } = sizes(each);
    if (width >= least - 0.01 && height >= least - 0.01) return [];
    const called = each.getAttribute("aria-label") ?? each.textContent.trim().slice(0, 30);
    return [`${each.tagName.toLowerCase()}.${each.className} ${called}: ${width.toFixed(1)} x ${height.toFixed(1)}`];
  });
}"""


@pytest.fixture(scope="module")
def used(router: Served) -> Served:
    """With a model that has failed, one that was asked something, and a file that is no model."""
    broken: Any = {"backend": "command", "command": ["sh", "-c", "echo 'error: no'; exit 65", "{port}"]}
    router.write("broken", {"models": {"broken": broken}})
    (router.directory / "models").mkdir(exist_ok=True)
    (router.directory / "models" / "half.gguf").write_bytes(b"GGUF")
    router.call("reload")
    router.call("load", model="broken")
    router.watch("broken").state("failed")
    router.openai().completions.create(model=MODEL, prompt="One", max_tokens=2)
    return router


@pytest.mark.parametrize("width", [375, 1440])
@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
def test_targets_are_large_enough(visit: Open, used: Served, path: str, width: int) -> None:
    page = visit(used, path, viewport={"width": width, "height": 900})
    if not any(part in path for part in NOT_LIVE):
        expect(page.locator("#live")).to_have_text("live")
    for closed in page.locator("main details:not([open]) > summary").all():
        if closed.is_visible():
            closed.click()
    assert page.evaluate(TOO_SMALL, LEAST) == []


def test_the_login_page(visit: Open, used: Served) -> None:
    page = visit(used, "/ui/login", role=None)
    assert page.evaluate(TOO_SMALL, LEAST) == []


def test_what_is_too_small_is_found(visit: Open, used: Served) -> None:
    page = visit(used)
    page.evaluate("document.querySelector('main').append(document.createElement('button'))")
    page.evaluate("document.querySelector('main > button').style.minWidth = '20px'")
    assert len(page.evaluate(TOO_SMALL, LEAST)) == 1
