"""What the tests of the playground share: to ask, to be answered as told, to wait."""

from __future__ import annotations

import json
from typing import Any

from playwright.sync_api import Locator, Page, Route, expect

ANSWER_MS = 60_000
expect.set_options(timeout=20_000)
CHAT = "/ui/playground"
API = "**/v1/chat/completions"


def opened(page: Page) -> Page:
    """The page, once it has read its store."""
    page.locator("#playground[data-ready]").wait_for()
    return page


def ask(page: Page, text: str) -> None:
    field = page.get_by_label("Message", exact=True)
    field.fill(text)
    field.press("Enter")


def answers(page: Page) -> Locator:
    return page.locator(".message.assistant")


def expect_done(page: Page, count: int) -> None:
    """So many answers are shown, and none is being written."""
    expect(answers(page)).to_have_count(count)
    expect(page.locator(".message[aria-busy=true]")).to_have_count(0, timeout=ANSWER_MS)


def reload(page: Page) -> None:
    """Once all is kept: what is read of the store comes after what was being written to it."""
    page.evaluate(
        "import('/static/playground/store.js').then(({ openStore }) => openStore()).then((s) => s.conversations())"
    )
    page.reload()


def limit(page: Page, tokens: int) -> None:
    page.get_by_role("button", name="Settings", exact=False).first.click()
    page.get_by_label("Max tokens").fill(str(tokens))
    page.get_by_label("Temperature").fill("0")
    page.get_by_role("button", name="Close the settings").click()


def events(*deltas: str, usage: dict[str, int] | None = None) -> str:
    """The body of a streamed answer."""
    chunks: list[Any] = [{"choices": [{"delta": {"content": text}}]} for text in deltas]
    chunks.append({"choices": [{"delta": {}, "finish_reason": "stop"}]})
    if usage:
        chunks.append({"choices": [], "usage": usage})
    return "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"


def scripted(page: Page, *deltas: str) -> list[Any]:
    """Answer every chat with these words; returns the requests, as they come."""
    asked: list[Any] = []

    def answer(route: Route) -> None:
        asked.append(route.request.post_data_json)
        route.fulfill(content_type="text/event-stream", body=events(*deltas))

    page.route(API, answer)
    return asked
