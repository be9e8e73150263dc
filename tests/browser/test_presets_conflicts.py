"""The presets page where others write the same files, and where nobody answers."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from editing import PATH, TEXT, put_back
from playwright.sync_api import Page, Route, expect
from served import MODEL, Served, gguf
from visiting import Open

WOULD = f"A save would: change {MODEL}"


@pytest.fixture(scope="module")
def router() -> Iterator[Served]:
    with Served() as supervisor:
        supervisor.write(MODEL, TEXT.format(gguf()))
        yield supervisor.start(until="READY=1")


@pytest.fixture(autouse=True)
def _as_it_was(router: Served) -> Iterator[None]:
    yield
    put_back(router)


def edited(page: Page, more: str = "    threads: 1") -> Page:
    page.locator("#text").focus()
    page.keyboard.press("Control+End")
    page.keyboard.type(more)
    page.keyboard.press("Escape")
    expect(page.locator("#outcome")).to_contain_text("A save would")
    return page


def content(router: Served, name: str = MODEL) -> str:
    return (router.presets / f"{name}.yaml").read_text()


def save(page: Page) -> None:
    page.get_by_role("button", name="Save").click()


def test_a_file_that_changes_meanwhile(visit: Open, router: Served) -> None:
    page = edited(visit(router, PATH))
    theirs = TEXT.format(gguf()) + "    pinned: true\n"
    router.write(MODEL, theirs)
    expect(page.get_by_role("alert")).to_contain_text("The file changed on disk meanwhile.")
    expect(page.locator(".diff del")).to_have_text(["−     pinned: true\n"])
    expect(page.locator("#save")).to_have_accessible_description("Choose first whose text it is to be.")
    page.get_by_role("button", name="Keep mine").click()
    expect(page.locator("#outcome")).to_contain_text("A save would: ")
    expect(page.get_by_role("button", name="Save")).to_be_focused()
    assert content(router) == theirs  # told, not done
    page.keyboard.press("Enter")
    expect(page.locator("#outcome")).to_contain_text("Saved:")
    assert "pinned" not in content(router)
    router.write(MODEL, theirs)  # and with nothing to lose it is just shown
    expect(page.locator("#text")).to_have_value(theirs)


def test_two_tabs_save(visit: Open, router: Served) -> None:
    one = visit(router, PATH)
    two = one.context.new_page()
    two.goto(PATH)
    edited(one)
    edited(two, "    threads: 2")
    two.route("**/ui/presets/file/*", lambda route: route.abort())  # it learns of it by saving
    save(one)
    expect(one.locator("#outcome")).to_contain_text("Saved:")
    two.bring_to_front()
    save(two)
    expect(two.get_by_role("alert")).to_contain_text("The file changed on disk meanwhile.")
    expect(two.locator(".diff del")).to_have_text(["−     threads: 1\n"])
    assert "threads: 1" in content(router)
    two.get_by_role("button", name="Take the file's").click()
    expect(two.locator("#text")).to_have_value(content(router))
    expect(two.locator("#saved")).to_have_text("")


def test_a_file_that_is_renamed(visit: Open, router: Served) -> None:
    page = edited(visit(router, PATH))
    (router.presets / f"{MODEL}.yaml").rename(router.presets / "renamed.yaml")
    save(page)
    expect(page.get_by_role("alert")).to_contain_text(f"{MODEL}.yaml was removed or renamed on disk meanwhile.")
    page.get_by_role("button", name="Keep mine").click()
    expect(page.locator("#problems")).to_contain_text("renamed.yaml")
    expect(page.locator("#save")).to_be_disabled()
    (router.presets / "renamed.yaml").unlink()
    page.locator("#text").press("Control+s")  # the problem is gone, and nothing had to be typed for that
    expect(page.locator("#outcome")).to_contain_text("Saved:")
    assert "threads: 1" in content(router)


def test_a_file_that_comes_back_as_it_was_is_no_conflict(visit: Open, router: Served) -> None:
    page = edited(visit(router, PATH))
    path = router.presets / f"{MODEL}.yaml"
    path.rename(router.directory / "elsewhere.yaml")
    save(page)
    expect(page.get_by_role("alert")).to_contain_text("was removed or renamed")
    (router.directory / "elsewhere.yaml").rename(path)
    page.locator("#text").press("Control+s")
    expect(page.locator("#outcome")).to_contain_text("Saved:")
    expect(page.get_by_role("alert")).to_have_count(0)
    assert "threads: 1" in content(router)


@pytest.mark.parametrize("kind", ["symbolic link", "[Dd]irectory"])
def test_a_file_that_becomes_something_else(visit: Open, router: Served, kind: str) -> None:
    page = edited(visit(router, PATH, allowed=("409", "500")))
    path = router.presets / f"{MODEL}.yaml"
    path.rename(router.directory / "elsewhere.yaml")
    if "irectory" in kind:
        path.mkdir()
    else:
        path.symlink_to(router.directory / "elsewhere.yaml")
    save(page)
    expect(page.locator("#outcome")).to_contain_text(re.compile(kind))
    expect(page.locator("#live")).to_have_text("live")
    assert (router.directory / "elsewhere.yaml").read_text() == TEXT.format(gguf())
    path.rmdir() if "irectory" in kind else path.unlink()
    (router.directory / "elsewhere.yaml").rename(path)
    save(page)
    expect(page.locator("#outcome")).to_contain_text("Saved:")


def test_somebody_else_makes_the_same_file(visit: Open, router: Served) -> None:
    page = visit(router, "/ui/presets?new=")
    expect(page.locator("#outcome")).to_have_text("A save would change nothing")
    expect(page.locator("#problems li")).to_have_count(0)
    page.get_by_label("File name").fill("made.yaml")
    router.write("made", "models: {}\n")
    save(page)
    expect(page.get_by_role("alert")).to_contain_text("Somebody else has made made.yaml meanwhile.")
    assert content(router, "made") == "models: {}\n"
    page.get_by_label("File name").fill("other.yaml")
    expect(page.get_by_role("alert")).to_have_count(0)
    save(page)
    expect(page.locator("#files .chosen")).to_contain_text("other.yaml")
    assert "#  my-model:" in content(router, "other")


def test_a_save_that_nobody_answers(visit: Open, router: Served) -> None:
    page = edited(visit(router, PATH, allowed=("ERR_FAILED", "ERR_CONNECTION")))
    page.route("**/ui/presets/*", lambda route: route.abort())
    save(page)
    expect(page.locator("#outcome")).to_contain_text("llama-router does not answer. What you wrote is still here.")
    expect(page.locator("#outcome")).to_contain_text("Whether it was saved is not known yet")
    expect(page.locator("#text")).to_have_value(TEXT.format(gguf()) + "    threads: 1")
    page.unroute_all()
    router.call("load", model=MODEL)  # something happens, so the page looks
    expect(page.locator("#outcome")).to_contain_text("A save would")


def test_a_save_whose_answer_is_lost(visit: Open, router: Served) -> None:
    page = edited(visit(router, PATH, allowed=("ERR_FAILED",)))

    def lose(route: Route) -> None:
        route.fetch()
        route.abort()

    page.route("**/ui/presets/save", lose)
    save(page)
    expect(page.locator("#outcome")).to_have_text("Saved: the file holds what is here.")
    expect(page.locator("#saved")).to_have_text("")
    assert "threads: 1" in content(router)


@pytest.mark.parametrize(
    "text", ["models:\n" + "# a comment of some words\n" * 38_000, "models:\n# " + "x" * 2**20], ids=["lines", "line"]
)
def test_a_megabyte_can_be_edited(visit: Open, router: Served, text: str) -> None:
    """As fast as ten lines, but for what the browser's own field needs."""
    text = text[: 2**20 - 100]
    (router.presets / "large.yaml").write_text(text)
    router.call("reload")
    page = visit(router, "/ui/presets?file=large.yaml")
    page.locator("#text").focus()
    page.keyboard.press("Control+Home")
    page.keyboard.press("ArrowDown")
    page.keyboard.type("# seen")
    assert page.locator("#text").input_value().startswith("models:\n# seen#")
    assert page.locator(".colours span").count() < 400
    expect(page.locator("#outcome")).to_contain_text("A save would")
    page.locator("#text").press("Control+s")
    expect(page.locator("#outcome")).to_contain_text("Saved:")
    assert content(router, "large").startswith("models:\n# seen#")
    page.keyboard.type("# mine ")
    (router.presets / "large.yaml").write_text("models:\n" + "# other words\n" * 50_000)
    page.evaluate("window.dispatchEvent(new Event('focus'))")
    expect(page.get_by_role("alert")).to_contain_text("The file changed on disk meanwhile.")
    expect(page.locator(".diff")).to_contain_text("more lines, not shown")
    assert page.locator(".diff > *").count() < 2010
