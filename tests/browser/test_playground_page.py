"""What is attached in the playground, and whether everybody can use it."""

from __future__ import annotations

import struct
import zlib

import pytest
from axe_playwright_python.sync_playwright import Axe
from playing import CHAT, ask, expect_done, opened, scripted
from playwright.sync_api import Page, Route, expect
from served import MODEL, Served
from visiting import Open

SERIOUS = {"serious", "critical"}


def dot() -> bytes:
    """An image of one white pixel, as PNG."""
    parts = [
        (b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)),
        (b"IDAT", zlib.compress(b"\0\xff")),
        (b"IEND", b""),
    ]
    chunks = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def models_take(page: Page, inputs: list[str]) -> None:
    def answer(route: Route) -> None:
        document = route.fetch().json()
        for model in document["models"]:
            model["inputs"] = inputs
        route.fulfill(json=document)

    page.route("**/ui/playground/models", answer)


def test_attachments(visit: Open, router: Served) -> None:
    page = visit(router, "/ui/login")
    models_take(page, ["text", "image"])
    page.goto(f"{CHAT}?model={MODEL}")
    opened(page)
    asked = scripted(page, "a pixel")
    expect(page.get_by_role("button", name="Image…")).to_be_visible()
    expect(page.get_by_role("button", name="Audio…")).to_be_hidden()
    file = page.locator("#file")
    file.set_input_files([{"name": "dot.png", "mimeType": "image/png", "buffer": dot()}])
    expect(page.get_by_role("img", name="dot.png")).to_be_visible()
    file.set_input_files([{"name": "note.txt", "mimeType": "text/plain", "buffer": b"a ``` b"}])
    expect(page.get_by_label("Message", exact=True)).to_have_value("note.txt:\n````\na ``` b\n````\n")
    file.set_input_files([{"name": "bad.txt", "mimeType": "text/plain", "buffer": b"\xff\xfe"}])
    expect(page.locator("#notes")).to_contain_text("bad.txt is no text in UTF-8")
    file.set_input_files([{"name": "bad.png", "mimeType": "image/png", "buffer": b"no"}])
    expect(page.locator("#notes")).to_contain_text("bad.png is no image that this browser can read")
    ask(page, "What is it?")
    expect_done(page, 1)
    [image, text] = asked[0]["messages"][0]["content"]
    assert image["image_url"]["url"].startswith("data:image/png;base64,")
    assert text == {"type": "text", "text": "What is it?"}
    expect(page.locator(".message.user img")).to_be_visible()


def test_images_are_made_smaller(visit: Open, router: Served) -> None:
    page = opened(visit(router, CHAT))
    size = page.evaluate("""async () => {
      const { imageOf } = await import('/static/playground/attachments.js');
      const canvas = new OffscreenCanvas(3000, 1500);
      canvas.getContext('2d').fillRect(0, 0, 3000, 1500);
      const file = new File([await canvas.convertToBlob()], 'x.png', { type: 'image/png' });
      const image = new Image();
      image.src = (await imageOf(file)).url;
      await image.decode();
      return [image.width, image.height];
    }""")
    assert size == [1024, 512]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1440, 375])
def test_accessible_at_every_size(visit: Open, router: Served, scheme: str, width: int) -> None:
    page = opened(visit(router, f"{CHAT}?model={MODEL}", viewport={"width": width, "height": 800}, color_scheme=scheme))
    scripted(page, "# Title\n\n```py\ncode " + "x" * 300 + "\n```\n\n|a|b|\n|-|-|\n|" + "y" * 200 + "|z|\n")
    ask(page, "https://example.org/" + "w" * 300)
    expect_done(page, 1)
    page.get_by_role("button", name="Settings").click()
    for _ in range(2):
        found = [each for each in Axe().run(page).response["violations"] if each["impact"] in SERIOUS]
        assert found == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.get_by_role("button", name="Close the settings").click() if page.locator(
            "#settings"
        ).is_visible() else None
    if width == 375:
        page.get_by_role("button", name="Chats").click()
        expect(page.locator("#list .open")).to_be_visible()
        page.keyboard.press("Escape")
        expect(page.get_by_role("button", name="Chats")).to_be_focused()
