"""How scripts word times: as the server does, and once more while the page is open."""

from __future__ import annotations

from playwright.sync_api import Page

from admin.words import ago, duration

SECONDS = [-3.0, 0.0, 0.9, 0.99949, 0.9996, 9.99, 9.9961, 59.9, 59.96, 60.0, 119.0, 3599.7, 7260.0, 86399.0, 1e6]
WORDS = """async ([name, seconds]) => {
  const live = await import('/static/live.js');
  return seconds.map(live[name]);
}"""
TICK = """async ago => {
  const { tick } = await import('/static/live.js');
  const root = document.createElement('div');
  for (const name of ['', 'ago']) {
    const time = document.createElement('time');
    time.className = name;
    time.dateTime = new Date(Date.now() - ago * 1000).toISOString();
    time.textContent = '0 s';
    root.append(time, '|');
  }
  tick(root);
  return root.textContent;
}"""


def test_scripts_use_the_words_of_the_server(page: Page) -> None:
    assert page.evaluate(WORDS, ["ago", SECONDS]) == [ago(each) for each in SECONDS]
    assert page.evaluate(WORDS, ["duration", SECONDS]) == [duration(each) for each in SECONDS]


def test_times_grow(page: Page) -> None:
    assert page.evaluate(TICK, 150) == "2 min|2 min ago|"
