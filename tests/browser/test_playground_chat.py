"""The playground in a real browser, with a real model: chats."""

from __future__ import annotations

import json
import re

from playing import API, CHAT, answers, ask, events, expect_done, limit, opened, reload, scripted
from playwright.sync_api import expect
from served import MODEL, Served, make_corrupt
from visiting import Open

WATCH = """() => {
  const progress = document.getElementById('loading');
  window.seen = [];
  new MutationObserver(() => seen.push(progress.hidden)).observe(progress, { attributes: true });
}"""


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
    corrupt = make_corrupt(router.directory / "corrupt.gguf")
    router.write("corrupt", {"models": {"corrupt": {"model": str(corrupt)}}})
    router.call("reload")
    page = opened(visit(router, CHAT, allowed=("503",)))
    page.get_by_label("Model", exact=True).select_option("corrupt")
    trouble = page.locator("#trouble")
    expect(trouble).to_contain_text("corrupt failed: exited with code 65")
    trouble.locator("summary").click()
    expect(trouble.locator("pre")).to_contain_text("lhama")
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


def test_a_model_without_chat_is_not_offered(visit: Open, router: Served) -> None:
    router.serve("vectors", embedding=True)
    page = opened(visit(router, f"{CHAT}?model=vectors"))
    option = page.locator("#model option[value=vectors]")
    expect(option).to_be_disabled()
    expect(page.locator("#hint")).to_contain_text("does not chat")
    expect(page.get_by_role("button", name="Send")).to_be_disabled()
    router.remove("vectors")
