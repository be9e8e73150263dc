"""`make screenshots`: every page of the dashboard, wide and narrow, light and dark, in docs/screenshots."""

from __future__ import annotations

import concurrent.futures
import shutil
from pathlib import Path

from playwright.sync_api import Browser, Page, expect, sync_playwright
from served import MODEL, Served, gguf

from admin import sessions
from supervisor.access import known

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "screenshots"
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--force-color-profile=srgb"]
SIZES = {"wide": (1280, 800), "narrow": (375, 800)}
PAGES = {
    "models": "/",
    "model": f"/ui/model/{MODEL}",
    "playground": "/ui/playground",
    "presets": "/ui/presets?file=chat.yaml",
    "activity": "/ui/activity",
    "system": "/ui/system",
}
CHAT = """\
# Models for chat.
defaults:
  idle_timeout: 15min

models:
  smollm2:
    description: small and quick
    aliases: [gpt-4o-mini]
    model: {0}/smollm2.gguf
    context: 2048

  gemma-3-270m:
    description: another one
    model: {0}/gemma.gguf
    context: 4096
    restart: {{policy: on-failure, limit: 3}}
"""
BROKEN = """\
models:
  transcriber:
    description: writes down what is said
    backend: command
    command: [sh, -c, "echo 'error: cannot read whisper.bin: no such file'; exit 66", "{port}"]
"""


def main() -> None:
    """Take them."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    with Served() as router, sync_playwright() as playwright:
        (router.directory / "smollm2.gguf").symlink_to(gguf())
        (router.directory / "gemma.gguf").symlink_to(gguf("gemma"))
        router.write("chat", CHAT.format(router.directory))
        router.write("speech", BROKEN)
        router.start(until="READY=1")
        use(router)
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=ARGUMENTS)
        for scheme in ("light", "dark"):
            for size in SIZES:
                for name, path in PAGES.items():
                    shoot(browser, router, f"{name}-{size}-{scheme}", path)
        browser.close()


def use(router: Served) -> None:
    """Have something to show: requests of two clients, and a model that fails."""
    router.call("load", model="transcriber")
    router.watch("transcriber").state("failed")
    client = router.openai()

    def ask(number: int) -> None:
        client.completions.create(model=MODEL, prompt=f"{number} is a number that", max_tokens=8 + 5 * (number % 7))

    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        list(pool.map(ask, range(24)))


def shoot(browser: Browser, router: Served, name: str, path: str) -> None:
    """One picture, of what is seen without scrolling."""
    _, size, scheme = name.split("-")
    width, height = SIZES[size]
    if name.startswith("system"):
        height = 510  # below are the paths of this machine
    context = browser.new_context(
        base_url=router.url,
        color_scheme="dark" if scheme == "dark" else "light",
        viewport={"width": width, "height": height},
    )
    value = sessions.sealed("admin", known(router.directory / "state", print))
    cookie = f"{sessions.COOKIE}_{router.url.rpartition(':')[2]}"
    context.add_cookies([{"name": cookie, "value": value, "url": router.url}])
    page = context.new_page()
    page.goto(path)
    expect(page.locator("#live")).to_have_text("live")
    if path.endswith("/playground"):
        chat(page)
    page.screenshot(path=FOLDER / f"{name}.png")
    context.close()


def chat(page: Page) -> None:
    """A question, and the real answer to it."""
    page.get_by_label("Model", exact=True).select_option(MODEL)
    page.locator("#text").fill("Write a Python function that reverses a string, and say how it works.")
    page.keyboard.press("Enter")
    page.wait_for_selector(".message.assistant[aria-busy=false]", timeout=60_000)


if __name__ == "__main__":
    main()
