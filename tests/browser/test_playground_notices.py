"""What the playground tells, to those who see and to those who listen: as long as it is true, and no longer."""

from __future__ import annotations

import re

from playing import CHAT, answers, ask, expect_done, opened, scripted
from playwright.sync_api import Route, expect
from served import MODEL, Served
from visiting import Open


def test_an_answer_is_announced_where_it_belongs(visit: Open, router: Served) -> None:
    page = opened(visit(router, f"{CHAT}?model={MODEL}"))
    scripted(page, "an answer")
    announced = page.locator("#announce")
    ask(page, "one")
    expect(announced).to_have_text("an answer")
    page.evaluate(
        "window.said = []; const place = document.getElementById('announce');"
        "new MutationObserver(() => said.push(place.textContent)).observe(place, { childList: true })"
    )
    ask(page, "two")  # the same words are told again
    expect_done(page, 2)
    page.wait_for_function("said.includes('an answer')")
    page.get_by_role("button", name="New chat").click()
    expect(announced).to_be_empty()


def test_how_long_ago_it_was_grows(visit: Open, router: Served) -> None:
    page = opened(visit(router, f"{CHAT}?model={MODEL}"))
    scripted(page, "an answer")
    ask(page, "one")
    about = page.locator("#list .open .soft")
    expect(about).to_have_text(re.compile(rf"^{MODEL} · [0-4] s ago$"))
    expect(about).to_have_text(re.compile(rf"^{MODEL} · ([5-9]|1[0-9]) s ago$"))


def test_a_load_that_nobody_answered_is_told_until_llama_router_is_back(visit: Open, router: Served) -> None:
    router.call("unload", model=MODEL)
    page = opened(visit(router, f"{CHAT}?model={MODEL}", allowed=("ERR_FAILED",)))
    expect(page.locator("#state")).to_have_text("stopped")
    page.route("**/ui/playground/*", lambda route: route.abort())
    page.get_by_role("button", name="Load", exact=True).click()
    expect(page.locator("#trouble")).to_contain_text(f"{MODEL} was not loaded: llama-router does not answer")
    page.unroute_all()
    router.serve("other", "gemma")  # something happens, so the page asks
    expect(page.locator("#trouble .notice")).to_have_count(0)
    expect(page.locator("#state")).to_have_text("stopped")
    router.remove("other")


def test_what_could_not_be_attached_is_told_until_it_is_sent_or_left(visit: Open, router: Served) -> None:
    page = opened(visit(router, f"{CHAT}?model={MODEL}"))
    notes = page.locator("#notes p")
    bad = [{"name": name, "mimeType": "text/plain", "buffer": b"\xff\xfe"} for name in ("a.txt", "b.txt")]
    scripted(page, "an answer")
    for leave in ("send", "new"):
        page.locator("#file").set_input_files(bad)  # type: ignore[arg-type]
        expect(notes).to_contain_text("a.txt is no text in UTF-8; b.txt is no text in UTF-8")
        if leave == "send":
            ask(page, "without them")
        else:
            page.get_by_role("button", name="New chat").click()
        expect(notes).to_have_count(0)


def test_what_no_model_takes_is_told_whichever_is_found(visit: Open, router: Served) -> None:
    page = visit(router, "/ui/login")
    gate: list[Route] = []
    page.route("**/ui/playground/models*", lambda route: gate.append(route))
    with page.expect_request("**/ui/playground/models*"):
        page.goto(f"{CHAT}?model={MODEL}")
    opened(page)
    bad = {"name": "a.txt", "mimeType": "text/plain", "buffer": b"\xff"}
    page.locator("#file").set_input_files([bad])  # type: ignore[list-item]
    expect(page.locator("#notes")).to_contain_text("a.txt is no text")
    found = gate[0].fetch().json()
    for each in found["models"]:
        each["inputs"] = ["image"]
    gate[0].fulfill(json=found)
    expect(page.locator("#add-image")).to_be_visible()
    expect(page.locator("#notes")).to_contain_text("a.txt is no text")


def test_who_decides_on_what_is_left_empty(visit: Open, router: Served) -> None:
    router.serve("decided", request={"set": {"temperature": 0.2, "stop": ["END"]}, "remove": ["seed"]})
    page = opened(visit(router, f"{CHAT}?model=decided"))
    page.get_by_role("button", name="Settings").click()
    temperature, seed, top = (page.get_by_label(re.compile(name)) for name in ("^Temperature", "^Seed", "^Top-p"))
    expect(temperature).not_to_be_editable()
    expect(temperature).to_have_accessible_description("the preset sets 0.2")
    expect(seed).to_have_accessible_description("the preset leaves it out")
    expect(page.get_by_label("Stop at")).to_have_accessible_description('the preset sets ["END"]')
    expect(top).to_have_attribute("placeholder", "default")
    expect(top).to_be_editable()
    expect(page.locator("#settings")).to_contain_text("the model server's default counts")
    page.get_by_label("Model", exact=True).select_option(MODEL)
    expect(temperature).to_be_editable()
    expect(temperature).to_have_attribute("placeholder", "default")
    router.remove("decided")


def test_a_conversation_that_can_t_be_kept_does_not_hide_that_it_is_lost(visit: Open, router: Served) -> None:
    """Each cause has a line of its own."""
    page = visit(router, "/ui/login")
    page.add_init_script("indexedDB.open = () => { throw new DOMException('not allowed here', 'SecurityError') }")
    page.goto(CHAT)
    opened(page)
    page.locator("#file").set_input_files([{"name": "a.txt", "mimeType": "text/plain", "buffer": b"\xff"}])
    expect(page.locator("#notes p")).to_have_text(
        [re.compile("^Conversations are lost"), re.compile("^a.txt is no text")]
    )
    page.get_by_role("button", name="Dismiss").first.click()
    expect(page.locator("#notes p")).to_have_text(re.compile("^a.txt is no text"))


def test_an_answer_to_another_conversation_is_not_announced(visit: Open, router: Served) -> None:
    page = opened(visit(router, f"{CHAT}?model={MODEL}"))
    gate: list[Route] = []
    page.route("**/v1/chat/completions", lambda route: gate.append(route))
    with page.expect_request("**/v1/chat/completions"):
        ask(page, "one")
    page.get_by_role("button", name="New chat").click()
    expect(answers(page)).to_have_count(0)
    gate[0].fulfill(json={"choices": [{"message": {"content": "late"}, "finish_reason": "stop"}]})
    page.locator("#list .open").click()
    expect(answers(page).locator(".markdown")).to_have_text("late")
    expect(page.locator("#announce")).to_be_empty()
