"""A model's page in a real browser."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect
from served import MODEL, Served
from visiting import Open

SERIOUS = ("serious", "critical")
ODD = 'it\'s "odd" $(a)/☃ {0}'
AT_THE_END = (
    "() => (({ scrollHeight, scrollTop, clientHeight }) => scrollHeight - scrollTop - clientHeight < 5)(window.log)"
)
# Says that it is ready over sd_notify and answers nothing; writes as it is told in the file that it is given.
TALKER = """
import os, socket, sys, time
listener = socket.socket(socket.AF_UNIX); listener.bind(sys.argv[1]); listener.listen()
notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
notify.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"])
with open(sys.argv[2]) as told:
    for line in told:
        print(eval(line), flush=True)
time.sleep(1000)
"""


@pytest.fixture(scope="module")
def busy(router: Served) -> Served:
    """A loaded model with requests behind it, and one that can't be loaded."""
    router.call("load", model=MODEL, wait=True)
    message = {"role": "user", "content": "Hi"}
    router.openai().chat.completions.create(model=MODEL, messages=[message], max_tokens=8)  # type: ignore[list-item]
    fails = ["sh", "-c", "echo 'error: <b>no such file</b>' >&2; exit 65", "{port}"]
    router.write("broken", {"models": {"broken": {"backend": "command", "command": fails}}})
    router.serve(ODD.replace("/", "-"), aliases=[ODD])
    return router


class Talker:
    """A model that writes into its log what it is told."""

    def __init__(self, router: Served, name: str) -> None:
        self.name = name
        pipe = router.directory / f"{name}.fifo"
        script = router.directory / "talker.py"
        script.write_text(TALKER)
        subprocess.run(["mkfifo", str(pipe)], check=True)
        command = [sys.executable, "-IS", str(script), "{socket}", str(pipe)]
        router.write(name, {"models": {name: {"backend": "command", "command": command, "ready": "notify"}}})
        router.call("reload")
        router.call("load", model=name, wait=True)
        self._file = os.open(pipe, os.O_WRONLY)

    def say(self, *expressions: str) -> None:
        """Have it print the values of Python expressions."""
        os.write(self._file, "".join(f"{each}\n" for each in expressions).encode())

    def close(self) -> None:
        """It has nothing more to say."""
        os.close(self._file)


def page_of(name: str) -> str:
    return f"/ui/model/{quote(name)}"


def test_state_and_history_are_live(visit: Open, busy: Served) -> None:
    page = visit(busy, page_of(MODEL))
    page.evaluate("window.stays = true")
    expect(page.locator("#state .badge")).to_have_text("ready")
    expect(page.locator("#state")).to_contain_text(f"Process{busy.model(MODEL)['pid']}")
    page.get_by_role("button", name="Unload").press("Enter")
    expect(page.locator("#state .badge")).to_have_text("stopped")
    assert page.evaluate("document.activeElement !== document.body")  # what had the focus is not there any more
    expect(page.locator("#history-section tbody tr").first).to_contain_text("unloaded on request")
    page.get_by_role("button", name="Load").click()
    expect(page.locator("#state .badge")).to_have_text("ready")
    first = page.locator("#history-section tbody tr").first
    expect(first).to_contain_text("ready after")
    expect(first).to_contain_text("until now")
    pid = busy.model(MODEL)["pid"]
    expect(page.locator("#log .note").last).to_contain_text(f"process {pid}, from ")
    assert page.evaluate("window.stays") is True


PATIENCE_MS = 30_000  # the page reads what was recorded now and then


def test_memory_of_a_model_that_was_asked_nothing(visit: Open, router: Served) -> None:
    router.serve("unasked")
    router.call("reload")
    router.load("unasked")
    page = visit(router, page_of("unasked"))
    memory = page.locator("figure.chart", has=page.get_by_role("heading", name="Memory"))
    expect(memory.locator("svg")).to_have_attribute(
        "aria-label", re.compile("used: largest [0-9.]+ MiB"), timeout=PATIENCE_MS
    )
    expect(page.locator("#charts-empty")).to_have_text("No requests in the last hour.")


def test_why_a_model_failed(visit: Open, busy: Served) -> None:
    page = visit(busy, page_of("broken"))
    page.get_by_role("button", name="Load").click()
    expect(page.locator("#state .badge")).to_have_text("failed")
    expect(page.locator("#state .words")).to_contain_text("exited with code 65")
    expect(page.locator("#state .cause")).to_have_text("error: <b>no such file</b>")
    expect(page.locator("#state pre")).to_have_text("error: <b>no such file</b>")
    expect(page.locator("#log .line .text").last).to_have_text("error: <b>no such file</b>")
    expect(page.locator("#charts-empty")).to_have_text("No requests in the last hour.")


def test_the_preset_says_where_values_come_from(visit: Open, busy: Served) -> None:
    page = visit(busy, page_of(MODEL))
    rows = page.locator("#preset-section table.preset").first.locator("tbody tr")
    expect(rows.filter(has_text="context")).to_contain_text(f"2048 presets.d/{MODEL}.yaml line")
    link = rows.filter(has_text="context").get_by_role("link")
    assert link.get_attribute("href") == f"/ui/presets?file={MODEL}.yaml&line={busy.model(MODEL)['line']}"
    late = page.locator("#preset-section table.preset").nth(1).get_by_role("row").filter(has_text="start_timeout")
    expect(late).to_be_hidden()
    page.locator("#preset-section > details > summary").click()
    expect(late).to_contain_text("5min llama-router's default")
    busy.write(MODEL, {"defaults": {"stop_timeout": "7s"}, "models": {MODEL: busy_preset(busy)}})
    expect(rows.filter(has_text="stop_timeout")).to_contain_text(f"7s defaults of presets.d/{MODEL}.yaml line")


def busy_preset(router: Served) -> dict[str, object]:
    """What is written of the model."""
    preset: dict[str, object] = json.loads((router.presets / f"{MODEL}.yaml").read_text())["models"][MODEL]
    return preset


@pytest.fixture
def talker(router: Served, request: pytest.FixtureRequest) -> Iterator[Talker]:
    """A loaded model that talks, of a name of its own."""
    made = Talker(router, f"talker-{request.node.name[:20]}")
    yield made
    made.close()


def test_the_log_live_paused_searched_and_downloaded(visit: Open, router: Served, talker: Talker) -> None:
    page = visit(router, page_of(talker.name))
    lines = page.locator("#log .line .text")
    talker.say("'one Needle'", r"'\x1b[31mred\x1b[0m \u202e<b>needle</b>'", "'x' * 3000")
    expect(lines.nth(2)).to_have_text("x" * 3000)
    expect(lines.nth(1)).to_have_text("red \ufffd<b>needle</b>")
    page.get_by_role("button", name="Pause").click()
    talker.say("'while paused'")
    expect(page.locator("#log-state")).to_have_text("Paused; 1 new lines")
    expect(lines).to_have_count(3)
    page.get_by_role("button", name="Pause").click()
    expect(lines).to_have_count(4)
    page.locator("#log-search").fill("NEEDLE")
    expect(page.locator("#log-found")).to_have_text("2 of 2")  # the first one in sight, and the end is
    page.locator("#log-search").press("Shift+Enter")
    expect(page.locator("#log-found")).to_have_text("1 of 2")
    page.get_by_role("button", name="Previous match").click()
    expect(page.locator("#log-found")).to_have_text("2 of 2")
    page.locator("#log-search").press("Enter")
    expect(page.locator("#log-found")).to_have_text("1 of 2")
    page.locator("#log-search").press("Enter")
    expect(page.locator("mark.current")).to_have_text("needle")
    talker.say("'a third needle'")
    expect(page.locator("#log-found")).to_have_text("2 of 3")
    page.locator("#log-search").fill("(")
    expect(page.locator("#log-found")).to_have_text("nothing found")
    page.get_by_role("button", name="Times").click()
    expect(page.locator("#log .line .time").first).to_be_visible()
    with page.expect_download() as told:
        page.get_by_role("link", name="Download").click()
    text = Path(told.value.path()).read_text()
    assert told.value.suggested_filename == f"{talker.name}.log.txt"
    written = [line.partition("] ")[2] for line in text.splitlines()]
    assert (written[0], written[-1], len(written)) == ("one Needle", "a third needle", 5)


def test_a_flood_of_lines_leaves_the_page_usable(visit: Open, router: Served, talker: Talker) -> None:
    page = visit(router, page_of(talker.name))
    talker.say("'ready'")
    expect(page.locator("#log .line")).to_have_count(1)
    page.evaluate(
        """() => {
          window.longest = 0;
          let last = performance.now();
          const look = (now) => { window.longest = Math.max(window.longest, now - last); last = now;
                                  requestAnimationFrame(look); };
          requestAnimationFrame(look);
        }"""
    )
    talker.say(r"'\n'.join(f'line {n} of a usual length, as a model server would write it' for n in range(20000))")
    talker.say("'the end'")
    expect(page.locator("#log .line .text").last).to_have_text("the end")
    assert page.locator("#log .line").count() <= 5100
    talker.say("'z' * 2**20")
    expect(page.locator("#log .line .text").last).to_have_text("z" * 4096)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.evaluate("window.longest") < 1000  # ms, on a machine that others use as well
    page.wait_for_function(AT_THE_END)
    page.locator("#log").focus()
    page.keyboard.press("Home")
    expect(page.get_by_role("button", name="Follow")).to_have_attribute("aria-pressed", "false")
    talker.say("'after'")
    expect(page.locator("#log .line .text").last).to_have_text("after")
    page.wait_for_function("() => document.getElementById('log').scrollTop < 1000")  # it scrolls for a while
    page.get_by_role("button", name="Follow").click()
    page.wait_for_function(AT_THE_END)


def test_the_example_works(visit: Open, busy: Served) -> None:
    name = ODD.replace("/", "-")
    page = visit(busy, page_of(ODD))
    expect(page.get_by_role("heading", level=1)).to_have_text(name)  # an alias leads here
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Copy curl").click()
    expect(page.get_by_role("button", name="Copy curl")).to_have_text("Copied")
    copied = page.evaluate("navigator.clipboard.readText()")
    answer = subprocess.run(["sh", "-c", f"{copied} -s -m 60"], capture_output=True, check=True)
    assert json.loads(answer.stdout)["choices"][0]["message"]["content"]
    page.get_by_role("tab", name="curl").press("ArrowRight")
    python = page.locator("#use-python code").inner_text()
    answer = subprocess.run([sys.executable, "-c", python], capture_output=True, check=True, timeout=60)
    assert answer.stdout.strip()


def test_charts_in_words_in_numbers_and_by_keyboard(visit: Open, busy: Served) -> None:
    page = visit(busy, page_of(MODEL))
    speed = page.locator("figure.chart", has=page.get_by_role("heading", name="Tokens a second"))
    expect(speed.get_by_role("img")).to_have_attribute("aria-label", re.compile(r"largest [\d.]+ tokens/s"))
    expect(speed.locator(".mark").first).to_be_visible()
    speed.get_by_role("button", name="Tokens a second as a table").click()
    expect(speed.locator("tbody td").first).to_contain_text("tokens/s")
    speed.get_by_role("slider").focus()
    page.keyboard.press("ArrowLeft")
    expect(speed.get_by_role("slider")).to_have_attribute("aria-valuetext", re.compile(r": (unknown|[\d.]+ tokens/s)$"))
    page.get_by_role("button", name="24 h").click()
    expect(page.get_by_role("button", name="24 h")).to_have_attribute("aria-pressed", "true")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [375, 1440])
def test_it_is_accessible_and_fits(visit: Open, busy: Served, scheme: str, width: int) -> None:
    page = visit(busy, page_of(MODEL), color_scheme=scheme, viewport={"width": width, "height": 900})
    expect(page.locator("figure.chart svg[role=img]").first).to_be_visible()
    expect(page.locator("#log .line").first).to_be_visible()
    found = Axe().run(page).response["violations"]
    assert [(each["id"], each["nodes"][0]["html"]) for each in found if each["impact"] in SERIOUS] == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_a_viewer_has_no_buttons_and_an_unknown_model_no_page(visit: Open, busy: Served) -> None:
    page = visit(busy, page_of(MODEL), role="viewer", allowed=("404",))
    expect(page.locator("#log .line").first).to_be_visible()
    expect(page.locator("#state button")).to_have_count(0)
    page.goto(page_of("nothing"))
    page.get_by_role("link", name="To the models").click()
    expect(page.locator("tr[data-model]").first).to_be_visible()


def test_the_supervisor_goes_away_and_its_log_goes_on(visit: Open, busy: Served) -> None:
    page = visit(busy, page_of(MODEL), allowed=("net::ERR", "503"))
    expect(page.locator("#live")).to_have_text("live")
    before = lines(page)
    listen = busy.status()["listen"]
    busy.stop()
    expect(page.locator("#live")).to_have_text("supervisor away, reconnecting")
    config = busy.config.read_text()
    busy.config.write_text(config.replace("listen: 127.0.0.1:0", f"listen: {listen}"))
    busy.start(until="READY=1")
    expect(page.locator("#live")).to_have_text("live")
    busy.call("load", model=MODEL, wait=True)
    expect(page.locator("#state .badge")).to_have_text("ready")
    expect(page.locator("#log .line")).to_have_count(len(before) + len(busy.logs(MODEL)))
    assert lines(page)[: len(before)] == before


def lines(page: Page) -> list[str]:
    """What the log shows, whole."""
    expect(page.locator("#log .line").first).to_be_attached()
    return page.locator("#log .line .text").all_text_contents()
