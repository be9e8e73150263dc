"""The presets page in a real browser, with a real model."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator

import pytest
from axe_playwright_python.sync_playwright import Axe
from editing import PATH, TEXT, put_back
from playwright.sync_api import Page, expect
from served import MODEL, Served, gguf
from visiting import Open


@pytest.fixture(scope="module")
def router() -> Iterator[Served]:
    with Served(config="models_dir: models\n") as supervisor:
        (supervisor.directory / "models").mkdir()
        shutil.copy(gguf(), supervisor.directory / "models" / "small.gguf")
        supervisor.write(MODEL, TEXT.format(gguf()))
        yield supervisor.start(until="READY=1")


@pytest.fixture(autouse=True)
def _as_it_was(router: Served) -> Iterator[None]:
    yield
    put_back(router)


def type_at_the_end(page: Page, text: str) -> None:
    area = page.locator("#text")
    area.focus()
    page.keyboard.press("Control+End")
    page.keyboard.type(text)


def test_an_error_is_shown_fixed_previewed_saved_and_the_model_restarts(visit: Open, router: Served) -> None:
    before = router.load(MODEL)["pid"]
    page = visit(router, PATH)
    type_at_the_end(page, "    thread: 1")
    page.keyboard.press("Escape")
    expect(page.locator(".colours .beside")).to_contain_text("did you mean 'threads'?")
    expect(page.locator(".gutter .wrong")).to_have_text("! 5")
    page.locator("#problems").get_by_role("link", name="line 5").click()
    page.keyboard.type("    threads: 1")
    page.keyboard.press("Escape")
    expect(page.locator("#outcome")).to_have_text(f"A save would: restart {MODEL}; leave 1 untouched")
    watch = router.watch(MODEL)
    watch.state("ready")
    page.locator("#text").press("Control+s")
    expect(page.locator("#outcome")).to_have_text(f"Saved: restarts {MODEL}; left 1 untouched")
    expect(page.locator("#saved")).to_have_text("")
    watch.state("ready")
    assert router.model(MODEL)["pid"] != before
    assert "threads: 1" in (router.presets / f"{MODEL}.yaml").read_text()
    page.get_by_text(re.compile("^History .1")).click()
    page.get_by_role("button", name="Compare").first.click()
    expect(page.locator(".diff ins")).to_have_text("+     threads: 1\n")
    expect(page.locator(".legend").last).to_have_text(
        re.compile("^− 0 only before the save of .*, . 1 only in the editor$")
    )
    page.get_by_role("button", name="Restore this version").click()
    expect(page.locator("#saved")).to_have_text(re.compile("^what it was before .*; not saved$"))
    expect(page.locator("#text")).to_have_value(TEXT.format(gguf()))
    page.locator("#text").press("Control+z")
    expect(page.locator("#text")).to_have_value(re.compile("threads: 1"))


def test_completion_by_keyboard(visit: Open, router: Served) -> None:
    page = visit(router, PATH)
    page.wait_for_function("() => performance.getEntriesByName(`${location.origin}/ui/presets/schema`).length > 0")
    area = page.locator("#text")
    type_at_the_end(page, "    back")
    options = page.get_by_role("option")
    expect(options).to_have_count(1)
    expect(area).to_have_attribute("aria-activedescendant", "completion-0")
    page.keyboard.press("Enter")
    page.keyboard.press("Control+Space")
    expect(options).to_have_text(["llama-cpp-python", "llama-server", "command"])
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.keyboard.type("restart")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.keyboard.type("lim")
    page.keyboard.press("Enter")
    page.keyboard.type("3")
    wanted = "    backend: llama-cpp-python\n    restart:\n      limit: 3"
    expect(area).to_have_value(TEXT.format(gguf()) + wanted)
    expect(page.locator("#outcome")).to_contain_text("A save would")
    for _ in wanted:
        page.keyboard.press("Control+z")
    expect(area).to_have_value(TEXT.format(gguf()))
    page.keyboard.press("Escape")
    page.keyboard.press("Tab")
    expect(area).not_to_be_focused()


def test_a_new_model_in_three_clicks(visit: Open, router: Served) -> None:
    page = visit(router, "/ui/presets")
    page.get_by_text("New model").click()
    page.get_by_role("link", name=re.compile("^small .*MiB.* tokens$")).click()
    expect(page.locator("#outcome")).to_contain_text("A save would")
    page.get_by_role("button", name="Save").click()
    expect(page.locator("#outcome")).to_contain_text("Saved:")
    assert router.model("small")["file"] == "presets.d/small.yaml"
    expect(page.locator("#files .chosen")).to_contain_text("small.yaml")
    assert page.url.endswith("?file=small.yaml")


def test_what_runs_programs_is_refused(visit: Open, router: Served) -> None:
    page = visit(router, PATH)
    type_at_the_end(page, "    env: {LD_PRELOAD: /tmp/x.so}")
    expect(page.locator(".colours .beside")).to_contain_text("edit_commands: true")
    save = page.get_by_role("button", name="Save")
    expect(save).to_be_disabled()
    expect(save).to_have_accessible_description("Fix the problems first.")
    expect(page.locator("#outcome")).to_contain_text("1 problem")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url.rpartition("/")[2]))
    page.locator("#text").press("Control+s")
    expect(page.locator("#saved")).to_have_text("not saved: Fix the problems first.")
    assert asked == ["try"]
    assert (router.presets / f"{MODEL}.yaml").read_text() == TEXT.format(gguf())


def test_without_javascript(visit: Open, router: Served) -> None:
    page = visit(router, PATH, java_script_enabled=False, allowed=("422",))
    page.locator("#text").fill(TEXT.format(gguf()) + "    thread: 1\n")
    page.get_by_role("button", name="Save").click()
    expect(page.locator("#problems")).to_contain_text("line 5: ")
    page.locator("#text").fill(TEXT.format(gguf()) + "    threads: 1\n")
    page.get_by_role("button", name="Check").click()
    expect(page.locator("#outcome")).to_contain_text("A save would")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text(re.compile("^History .[1-9]"))).to_be_visible()
    assert "threads: 1" in (router.presets / f"{MODEL}.yaml").read_text()


def test_five_thousand_lines_are_drawn_as_fast_as_ten(visit: Open, router: Served) -> None:
    router.write("long", "models:\n" + "# a comment\n" * 5000)
    router.call("reload")
    page = visit(router, "/ui/presets?file=long.yaml")
    page.locator("#text").focus()
    page.keyboard.press("Control+Home")
    typing = """() => {
            const began = performance.now();
            for (let key = 0; key < 20; key += 1) document.execCommand("insertText", false, "# ");
            return (performance.now() - began) / 20;
        }"""
    spent = []
    while not spent or (min(spent) >= 60 and len(spent) < 5):  # the machine may be busy
        spent.append(page.evaluate(typing))
    assert min(spent) < 60, f"{spent} ms a keystroke"
    assert page.locator(".colours > div").count() < 200
    page.keyboard.press("Control+End")
    page.keyboard.type("  # the end\n")
    expect(page.locator(".gutter > div > div").last).to_have_text("5003")
    expect(page.locator(".gutter > div > div").last).to_be_in_viewport()


COLOURS = r"""async () => {
    const { States, line } = await import("/static/presets/yaml_highlight.js");
    const { diff } = await import("/static/presets/line_diff.js");
    const parts = ["a:", " ", "  ", "- ", '"', "'", "#", " # x", "{", "}", "[", "]", ",", "|", ">-", "&b", "*b", "!t",
        "1.5", "true", "\\", ":", "-", "?", "<<: ", "é", "😀", "\t", "http://x", "null"];
    let seed = 7;
    const random = (below) => { seed = (seed * 48271) % 2147483647; return seed % below; };
    const text = () => Array.from({ length: random(9) }, () => parts[random(parts.length)]).join("");
    const states = new States();
    let lines = [];
    const wrong = [];
    for (let round = 0; round < 2000; round += 1) {
        const fresh = [...lines];
        fresh.splice(random(lines.length + 1), random(3), ...Array.from({ length: random(4) }, text));
        states.update(fresh);
        let state = "";
        fresh.forEach((each, at) => {
            if (states.at(at) !== state) wrong.push(["state", fresh, at]);
            const [tokens, next] = line(each, state);
            if (tokens.map(([part]) => part).join("") !== each) wrong.push(["tokens", each]);
            state = next;
        });
        const [old, now] = [[...lines, "end"].join("\n"), [...fresh, "end"].join("\n")];
        const rows = diff(old, now);
        const side = (without) => rows.filter(([kind]) => kind !== without).map(([, part]) => part).join("\n");
        if (side("new") !== old || side("gone") !== now) wrong.push(["diff", old, now]);
        lines = fresh.slice(-12);
    }
    const kinds = (each) => line(each, "")[0].filter(([, kind]) => kind).map(([part, kind]) => `${kind}:${part}`);
    const known = ['  key: "a: b" # c', "{a: 1, b: x y} #", "- http://x: true"];
    return [wrong.slice(0, 3), ...known.map((each) => kinds(each).join(" "))];
}"""


def test_colours_and_differences_leave_nothing_out(visit: Open, router: Served) -> None:
    assert visit(router, PATH).evaluate(COLOURS) == [
        [],
        'key:key sign:: string:"a: b" comment:# c',
        "sign:{ key:a sign:: number:1 sign:, key:b sign:: string:x y sign:} comment:#",
        "sign:- key:http://x sign:: boolean:true",
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_serious_is_wrong_for_screen_readers(visit: Open, router: Served, scheme: str) -> None:
    page = visit(router, PATH, color_scheme=scheme, viewport={"width": 375, "height": 800})
    type_at_the_end(page, "    thread: 1")
    expect(page.locator(".colours .beside")).to_be_visible()
    serious = [
        (violation["id"], [node["html"][:200] for node in violation["nodes"]])
        for violation in Axe().run(page).response["violations"]
        if violation["impact"] in ("serious", "critical")
    ]
    assert serious == []
    assert page.evaluate("document.documentElement.scrollWidth") <= 375
