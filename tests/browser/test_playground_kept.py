"""Conversations that the browser keeps, in a real one: exported, imported, in two tabs, long, many, and not kept."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from playing import API, CHAT, answers, ask, events, expect_done, opened, reload, scripted
from playwright.sync_api import FilePayload, Route, expect
from served import MODEL, Served
from visiting import Open


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
    expect(page.locator("#notes")).to_contain_text(
        "Nothing was imported: the conversation of all.json was here already."
    )
    expect(page.locator("#list .title")).to_have_text(["Kept"])
    expect(page.locator(".said")).to_have_text("A question to keep")
    document["conversations"][0]["messages"][0]["content"] = "Another question"
    document["conversations"] *= 2
    (tmp_path / "all.json").write_text(json.dumps(document))
    for told in ("Imported 1 conversation of all.json; 1 was here already", "Nothing was imported: all 2"):
        page.locator("#import-file").set_input_files(tmp_path / "all.json")
        expect(page.locator("#notes")).to_contain_text(told)
        expect(page.locator("#list .title")).to_have_count(2)
    page.get_by_label("Search conversations").fill("kept")
    expect(page.locator("#list .title")).to_have_text(["Kept"])
    document["conversations"][0]["messages"][1]["role"] = "wizard"
    (tmp_path / "all.json").write_text(json.dumps(document))
    page.locator("#import-file").set_input_files(tmp_path / "all.json")
    expect(page.locator("#notes")).to_contain_text("Cannot import all.json: conversations[0].messages[1].role is")
    page.get_by_role("button", name="New chat").click()
    expect(page.locator("#notes p")).to_have_count(0)


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


def test_a_full_disk_is_told_until_there_is_room(visit: Open, router: Served) -> None:
    """And then all of the conversation is kept."""
    page = visit(router, "/ui/login")
    page.add_init_script(
        "const put = IDBObjectStore.prototype.put; IDBObjectStore.prototype.put = function (record) {"
        "  if (window.hasRoom) return put.call(this, record); throw new DOMException('full', 'QuotaExceededError') }"
    )
    page.goto(f"{CHAT}?model={MODEL}")
    opened(page)
    scripted(page, "fine")
    ask(page, "still works?")
    expect_done(page, 1)
    expect(page.locator("#notes")).to_contain_text("Not kept: the browser's storage is full")
    expect(page.locator("#list li")).to_have_count(0)
    page.evaluate("window.hasRoom = true")
    ask(page, "and now?")
    expect_done(page, 2)
    expect(page.locator("#notes p")).to_have_count(0)
    page.get_by_role("button", name="New chat").click()
    page.get_by_role("button", name="still works?").first.click()
    expect(page.locator(".said")).to_have_text(["still works?", "and now?"])
    expect(answers(page).locator(".markdown")).to_have_text(["fine", "fine"])


def test_a_database_that_is_closed_meanwhile_is_opened_again(visit: Open, router: Served) -> None:
    page = visit(router, "/ui/login")
    page.add_init_script(
        "const open = IDBFactory.prototype.open; IDBFactory.prototype.open = function (...given) {"
        "  const request = open.apply(this, given);"
        "  request.addEventListener('success', () => { window.database = request.result }); return request }"
    )
    page.goto(f"{CHAT}?model={MODEL}")
    opened(page)
    scripted(page, "fine")
    page.evaluate("window.database.close()")
    ask(page, "still works?")
    expect_done(page, 1)
    expect(page.locator("#list .title")).to_have_text("still works?")
    expect(page.locator("#notes p")).to_have_count(0)


def test_a_tab_that_is_closed_in_mid_answer(visit: Open, router: Served) -> None:
    page = opened(visit(router, f"{CHAT}?model={MODEL}"))
    stored = (
        "async () => { const { openStore } = await import('/static/playground/store.js');"
        " const store = await openStore();"
        " const [one] = await store.conversations(); if (!one) return '';"
        " return (await store.messages(one.id)).find(each => each.role === 'assistant')?.content ?? '' }"
    )
    ask(page, "Count to one thousand, with all the numbers in between.")
    part = page.wait_for_function(stored).json_value()
    assert page.locator(".message[aria-busy=true]").count() == 1
    context, url = page.context, page.url
    page.close()
    again = context.new_page()
    again.goto(url)
    opened(again)
    expect(answers(again).locator(".markdown")).to_contain_text(part[:10])
    expect(answers(again).locator(".stats")).to_contain_text("broken off")
    scripted(again, "better")
    again.get_by_role("button", name="Regenerate").click()
    expect(answers(again).locator(".markdown")).to_have_text("better")


def archive(conversations: list[dict[str, Any]]) -> FilePayload:
    document = {"format": "llama-router-conversations", "version": 1, "conversations": conversations}
    return {"name": "all.json", "mimeType": "application/json", "buffer": json.dumps(document).encode()}


def conversation(number: int, *contents: str) -> dict[str, Any]:
    messages = [
        {"id": str(n), "parent": str(n - 1) if n else None, "role": ("user", "assistant")[n % 2], "created": n}
        | {"content": content}
        for n, content in enumerate(contents)
    ]
    facts = {"title": f"chat {number}", "model": MODEL, "created": number, "updated": number}
    return facts | {"head": str(len(contents) - 1), "messages": messages}


def test_a_thousand_conversations(visit: Open, router: Served) -> None:
    page = opened(visit(router, CHAT))
    two = page.context.new_page()
    two.goto(CHAT)
    opened(two)
    page.bring_to_front()
    everything = archive([conversation(n, f"question {n}", "answer") for n in range(1000)])
    page.locator("#import-file").set_input_files(everything)
    expect(page.locator("#notes")).to_contain_text("Imported 1000 conversations")
    expect(page.locator("#list li")).to_have_count(200)
    expect(page.locator("#none")).to_have_text("and 800 older ones; search to find them")
    expect(two.locator("#list li")).to_have_count(200)
    page.get_by_label("Search conversations").fill("no such words")
    expect(page.locator("#none")).to_have_text("No conversation has these words.")
    page.get_by_label("Search conversations").fill("chat 77")
    expect(page.locator("#list li")).to_have_count(11)
    page.locator("#list .open").last.click()
    expect(page.locator(".said")).to_have_text("question 77")
    page.locator("#import-file").set_input_files(everything)
    expect(page.locator("#notes")).to_contain_text("all 1000 conversations of all.json were here already")


def test_ten_megabytes(visit: Open, router: Served) -> None:
    """In many messages, and in one."""
    page = opened(visit(router, f"{CHAT}?model={MODEL}"))
    many = conversation(1, *["some *words* of it\n\n" * 500] * 1000)
    large = conversation(2, "one question", "some *words* of one answer\n\n" * 380_000)
    page.locator("#import-file").set_input_files(archive([many, large]))
    expect(page.locator("#notes")).to_contain_text("Imported 2 conversations")
    for title, text in (("chat 1", "some words of it"), ("chat 2", "some words of one answer")):
        page.locator("#list").get_by_text(title).click()
        expect(answers(page).last).to_contain_text(text)
        scripted(page, "the end")
        ask(page, "more")
        expect(answers(page).last.locator(".markdown")).to_have_text("the end")
        page.unroute_all()
    expect(page.get_by_role("button", name=re.compile("^Show all 10,[0-9,]+ characters$"))).to_be_visible()


def test_a_long_conversation(visit: Open, router: Served) -> None:
    page = opened(visit(router, CHAT))
    long = conversation(1, *(f"message {n}\n\n" + "word " * 200 for n in range(2000)))
    page.locator("#import-file").set_input_files(archive([long]))
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
