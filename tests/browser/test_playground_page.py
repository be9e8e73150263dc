"""The playground in a real browser, with a real model."""

from __future__ import annotations

import json
import re
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Locator, Page, Route, expect
from served import MODEL, Served, gguf
from visiting import Open

ANSWER_MS = 60_000
expect.set_options(timeout=20_000)
CHAT = "/ui/playground"
API = "**/v1/chat/completions"
WATCH = """() => {
  const progress = document.getElementById('loading');
  window.seen = [];
  new MutationObserver(() => seen.push(progress.hidden)).observe(progress, { attributes: true });
}"""
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


def test_choose_load_ask_stop_and_find_it_again(visit: Open, router: Served) -> None:
    router.serve("other", "gemma")
    page = opened(visit(router, f"{CHAT}?model=other"))
    expect(page.locator("#state")).to_have_text("stopped")
    page.evaluate(WATCH)
    page.get_by_label("Model", exact=True).select_option(MODEL)
    expect(page.locator("#state")).to_have_text("ready")
    assert page.evaluate("seen.includes(false)")  # progress was shown
    ask(page, "Tell me a very long story about a lighthouse keeper.")
    expect(answers(page).locator(".markdown")).to_contain_text(re.compile(r"\w"))
    expect(page.get_by_role("button", name="Send")).to_be_hidden()
    page.keyboard.press("Escape")
    expect(answers(page).locator(".stats")).to_contain_text("stopped")
    part = answers(page).locator(".markdown").inner_text()
    assert part.strip()
    expect(page.get_by_label("Message", exact=True)).to_be_focused()
    reload(page)
    opened(page)
    expect(answers(page).locator(".markdown")).to_have_text(part, use_inner_text=True)
    expect(page.get_by_label("Model", exact=True)).to_have_value(MODEL)
    limit(page, 12)
    ask(page, "Say hello.")
    expect_done(page, 2)
    expect(answers(page).last.locator(".stats")).to_contain_text("tokens/s")
    expect(page.locator("#context")).to_contain_text("of 2048 tokens")
    expect(page.locator("#announce")).to_contain_text(answers(page).last.locator(".markdown").inner_text()[:5])


def test_branches(visit: Open, router: Served) -> None:
    page = opened(visit(router, CHAT))
    limit(page, 8)
    ask(page, "Name a colour.")
    expect_done(page, 1)
    page.get_by_role("button", name="Regenerate").click()
    expect(answers(page).locator(".turn")).to_have_text("‹2/2›")
    expect_done(page, 1)
    page.get_by_role("button", name="Previous version").click()
    expect(answers(page).locator(".turn")).to_have_text("‹1/2›")
    expect(page.get_by_role("button", name="Next version")).to_be_focused()
    ask(page, "And another.")
    expect_done(page, 2)
    page.get_by_role("button", name="Edit").first.click()
    field = page.get_by_label("Edit the question")
    expect(field).to_be_focused()
    field.fill("Name a fruit.")
    field.press("Enter")
    expect_done(page, 1)
    expect(page.locator(".message.user .said")).to_have_text(["Name a fruit."])
    page.get_by_role("button", name="Previous version").click()
    expect(page.locator(".message.user .said")).to_have_text(["Name a colour.", "And another."])
    reload(page)
    opened(page)
    expect(page.locator(".message.user .said")).to_have_text(["Name a colour.", "And another."])


def test_what_is_sent_is_what_is_set(visit: Open, router: Served) -> None:
    page = opened(visit(router, f"{CHAT}?model={MODEL}"))
    asked = scripted(page, "**yes**", " and <b>no</b>")
    page.get_by_role("button", name="Settings").click()
    page.get_by_label("System prompt").fill("Be brief.")
    page.get_by_label("Temperature").fill("9")
    expect(page.locator("#wrong-temperature")).to_have_text("not between 0 and 5")
    page.get_by_label("Seed").fill("7")
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Settings (3)")).to_be_focused()
    ask(page, "one")
    expect_done(page, 1)
    assert asked[0] == {
        "model": MODEL,
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "one"}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "seed": 7,
    }
    assert answers(page).locator(".markdown").inner_html() == "<p><strong>yes</strong> and &lt;b&gt;no&lt;/b&gt;</p>"
    page.get_by_label("Message", exact=True).fill("two")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("lines")
    page.keyboard.press("Enter")
    expect_done(page, 2)
    assert asked[1]["messages"][1:] == [
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "**yes** and <b>no</b>"},
        {"role": "user", "content": "two\nlines"},
    ]


def test_a_model_that_fails(visit: Open, router: Served) -> None:
    corrupt = router.directory / "corrupt.gguf"
    corrupt.write_bytes(gguf().read_bytes()[:5_000_000])
    router.write("corrupt", {"models": {"corrupt": {"model": str(corrupt)}}})
    router.call("reload")
    page = opened(visit(router, CHAT, allowed=("503",)))
    page.get_by_label("Model", exact=True).select_option("corrupt")
    trouble = page.locator("#trouble")
    expect(trouble).to_contain_text("corrupt failed: exited with code 65")
    trouble.locator("summary").click()
    expect(trouble.locator("pre")).to_contain_text("corrupt.gguf")
    ask(page, "Are you there?")
    expect(answers(page).locator(".notice")).to_contain_text("'corrupt' has failed: exited with code 65")
    page.get_by_label("Model", exact=True).select_option(MODEL)
    limit(page, 4)
    answers(page).get_by_role("button", name="Retry").click()
    expect_done(page, 1)
    expect(answers(page).locator(".notice")).to_have_count(0)
    expect(answers(page).locator(".markdown")).not_to_be_empty()
    router.remove("corrupt")


def test_an_answer_that_breaks_off_keeps_its_part(visit: Open, router: Served) -> None:
    page = opened(visit(router, f"{CHAT}?model={MODEL}"))
    broken = events("half of").partition("data: {")[2].partition("\n\n")[0]
    error = json.dumps({"error": {"message": "the server of 'm' died", "code": 503, "type": "x"}})
    body = f"data: {{{broken}\n\ndata: {error}\n\n"
    page.route(API, lambda route: route.fulfill(content_type="text/event-stream", body=body))
    ask(page, "x")
    expect(answers(page).locator(".notice")).to_contain_text("the server of 'm' died")
    expect(answers(page).locator(".markdown")).to_have_text("half of")


def test_the_supervisor_is_away(visit: Open, router: Served) -> None:
    page = opened(visit(router, f"{CHAT}?model={MODEL}", allowed=("503",)))
    scripted(page, "kept")
    ask(page, "before")
    expect_done(page, 1)
    words = "llama-router's supervisor is not answering"
    away = {"error": {"code": 503, "message": words, "type": "server_error"}}
    page.unroute(API)
    for path in (API, "**/ui/playground/models", "**/ui/events"):
        page.route(path, lambda route: route.fulfill(status=503, json=away))
    reload(page)
    opened(page)
    expect(page.locator("#live")).to_have_text("supervisor away, reconnecting")
    expect(answers(page).locator(".markdown")).to_have_text("kept")
    ask(page, "now")
    expect(answers(page).last.locator(".notice")).to_contain_text(words)
    page.unroute_all()
    expect(page.locator("#live")).to_have_text("live")
    scripted(page, "back")
    answers(page).last.get_by_role("button", name="Retry").click()
    expect(answers(page).last.locator(".markdown")).to_have_text("back")
    expect(page.locator(".turn")).to_have_count(0)


def test_a_viewer_chats(visit: Open, router: Served) -> None:
    page = opened(visit(router, f"{CHAT}?model={MODEL}", role="viewer"))
    limit(page, 3)
    ask(page, "Hello")
    expect_done(page, 1)
    expect(answers(page).locator(".stats")).to_contain_text("3 tokens")


def test_export_delete_undo_import(visit: Open, router: Served, tmp_path: Path) -> None:
    page = opened(visit(router, f"{CHAT}?model={MODEL}"))
    scripted(page, "an answer")
    ask(page, "A question to keep")
    expect_done(page, 1)
    with page.expect_download() as download:
        page.get_by_role("button", name="Export all").click()
    download.value.save_as(tmp_path / "all.json")
    document = json.loads((tmp_path / "all.json").read_text())
    assert (document["format"], document["version"]) == ("llama-router-conversations", 1)
    [conversation] = document["conversations"]
    assert [each["content"] for each in conversation["messages"]] == ["A question to keep", "an answer"]
    page.get_by_role("button", name="Rename A question").click()
    page.keyboard.type("Kept")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Delete Kept").click()
    expect(page.locator("#list li")).to_have_count(0)
    expect(answers(page)).to_have_count(0)
    page.get_by_role("button", name="Undo").click()
    expect(page.locator("#list .title")).to_have_text("Kept")
    expect(answers(page).locator(".markdown")).to_have_text("an answer")
    page.locator("#import-file").set_input_files(tmp_path / "all.json")
    expect(page.locator("#list .title")).to_have_count(2)
    expect(page.locator(".said")).to_have_text("A question to keep")
    page.get_by_label("Search conversations").fill("kept")
    expect(page.locator("#list .title")).to_have_text(["Kept"])
    document["conversations"][0]["messages"][1]["role"] = "wizard"
    (tmp_path / "all.json").write_text(json.dumps(document))
    page.locator("#import-file").set_input_files(tmp_path / "all.json")
    expect(page.locator("#notes")).to_contain_text("Cannot import all.json: conversations[0].messages[1].role is")


def test_two_tabs_lose_nothing(visit: Open, router: Served) -> None:
    one = opened(visit(router, f"{CHAT}?model={MODEL}"))
    scripted(one, "answer one")
    ask(one, "first")
    expect_done(one, 1)
    two = one.context.new_page()
    two.goto(one.url)
    opened(two)
    scripted(two, "answer two")
    expect(two.locator(".said")).to_have_text(["first"])
    gate: list[Route] = []
    one.unroute(API)
    one.route(API, lambda route: gate.append(route))
    ask(one, "from one")
    expect(two.locator(".said")).to_have_text(["first", "from one"])
    two.get_by_role("button", name="Edit").last.click()
    two.get_by_label("Edit the question").fill("from two")
    two.keyboard.press("Enter")
    expect(answers(two).last.locator(".markdown")).to_have_text("answer two")
    expect_done(two, 2)
    gate[0].fulfill(content_type="text/event-stream", body=events("late answer"))
    expect(answers(one).last.locator(".markdown")).to_have_text("late answer")
    reload(two)
    opened(two)
    expect(two.locator(".turn").last).to_have_text("‹2/2›")
    expect(answers(two).locator(".markdown")).to_have_text(["answer one", "answer two"])
    two.get_by_role("button", name="Previous version").last.click()
    expect(answers(two).locator(".markdown")).to_have_text(["answer one", "late answer"])


NO_STORE = {
    "blocked": "indexedDB.open = () => { throw new DOMException('not allowed here', 'SecurityError') }",
    "refused": "IDBFactory.prototype.open = () => { const request = new EventTarget(); request.error = new "
    "DOMException('not allowed here'); setTimeout(() => request.dispatchEvent(new Event('error'))); return request }",
}


@pytest.mark.parametrize("script", NO_STORE.values(), ids=NO_STORE)
def test_a_browser_that_keeps_nothing(visit: Open, router: Served, script: str) -> None:
    page = visit(router, "/ui/login")
    page.add_init_script(script)
    page.goto(f"{CHAT}?model={MODEL}")
    opened(page)
    expect(page.locator("#notes")).to_contain_text("lost when this page is closed")
    expect(page.locator("#notes")).to_contain_text("not allowed here")
    scripted(page, "fine")
    ask(page, "still works?")
    expect_done(page, 1)
    page.get_by_role("button", name="New chat").click()
    page.locator("#list .open").click()
    expect(answers(page).locator(".markdown")).to_have_text("fine")


def test_a_full_disk_is_told_and_the_chat_goes_on(visit: Open, router: Served) -> None:
    page = visit(router, "/ui/login")
    page.add_init_script(
        "IDBObjectStore.prototype.put = () => { throw new DOMException('full', 'QuotaExceededError') }"
    )
    page.goto(f"{CHAT}?model={MODEL}")
    opened(page)
    scripted(page, "fine")
    ask(page, "still works?")
    expect(answers(page).locator(".markdown")).to_have_text("fine")
    expect(page.locator("#notes")).to_contain_text("Not kept: the browser's storage is full")


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


def test_a_model_without_chat_is_not_offered(visit: Open, router: Served) -> None:
    router.serve("vectors", embedding=True)
    page = opened(visit(router, f"{CHAT}?model=vectors"))
    option = page.locator("#model option[value=vectors]")
    expect(option).to_be_disabled()
    expect(page.locator("#hint")).to_contain_text("does not chat")
    expect(page.get_by_role("button", name="Send")).to_be_disabled()
    router.remove("vectors")


def test_a_long_conversation(visit: Open, router: Served) -> None:
    page = opened(visit(router, CHAT))
    messages = [
        {"id": str(n), "parent": str(n - 1) if n else None, "role": ("user", "assistant")[n % 2], "created": n}
        | {"content": f"message {n}\n\n" + "word " * 200}
        for n in range(2000)
    ]
    conversation = {"title": "long", "model": MODEL, "created": 1, "updated": 2, "head": "1999", "messages": messages}
    document = {"format": "llama-router-conversations", "version": 1, "conversations": [conversation]}
    data = json.dumps(document).encode()
    page.locator("#import-file").set_input_files({"name": "long.json", "mimeType": "application/json", "buffer": data})
    expect(page.locator(".message")).to_have_count(60)
    expect(page.locator(".message").last).to_be_in_viewport()
    page.get_by_role("button", name="Show earlier messages").click()
    expect(page.locator(".message")).to_have_count(120)
    page.locator("#thread").evaluate("thread => thread.scrollTop = 0")
    scripted(page, "at the end")
    page.get_by_role("button", name="To the latest").click()
    expect(page.locator(".message").last).to_be_in_viewport()
    ask(page, "more")
    expect(answers(page).last.locator(".markdown")).to_have_text("at the end")
    expect(page.locator(".message").last).to_be_in_viewport()


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
