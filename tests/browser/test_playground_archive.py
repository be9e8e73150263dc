"""Conversations as trees and as files, in the browser that runs it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from playwright.sync_api import Page

TREE = """async () => {
  const { Tree } = await import('/static/playground/tree.js');
  const message = (id, parent, created) => ({ id, parent, created });
  const tree = new Tree([message('a', null, 1), message('b', 'a', 2), message('c', 'b', 3)]);
  tree.put(message('d', 'a', 4));
  tree.put(message('e', null, 0));
  tree.put({ ...message('d', 'a', 4), content: 'new' });
  const ids = list => list.map(each => each.id).join('');
  const before = tree.tip('a');
  tree.put(message('f', 'c', 5));
  return [before, ids(tree.path('c')), ids(tree.path('x')), tree.siblings('b').join(''), tree.siblings('a').join(''),
          tree.tip('a'), tree.tip('b'), tree.newest(), tree.get('d').content, new Tree().newest()];
}"""


def test_the_tree(page: Page) -> None:
    assert page.evaluate(TREE) == ["d", "abc", "", "bd", "ea", "f", "f", "f", "new", None]


IMPORT = """async text => {
  const { imported, exported } = await import('/static/playground/archive.js');
  let next = 0;
  try {
    const pairs = imported(text, () => `new${next++}`);
    return [exported(pairs, 0), null];
  } catch (error) { return [null, error.message]; }
}"""


def archive(*messages: Any, **fields: Any) -> dict[str, Any]:
    facts = {"title": "t", "model": "m", "settings": {}, "created": 1, "updated": 2, "head": None}
    return {
        "format": "llama-router-conversations",
        "version": 1,
        "conversations": [facts | {"messages": list(messages)} | fields],
    }


def message(name: str, parent: str | None = None, **fields: Any) -> dict[str, Any]:
    return {"id": name, "parent": parent, "role": "user", "content": "x", "created": 1} | fields


def test_an_archive_comes_back_as_it_was(page: Page) -> None:
    image = {"kind": "image", "name": "i", "url": "data:image/png;base64,AA"}
    answer = {"role": "assistant", "model": "m", "reasoning": "r", "stats": {"tokens": 1}, "finish": "length"}
    given = archive(
        message("a", attachments=[image]),
        message("b", "a", **answer),
        message("c", "a", role="assistant", error="died", calls=[{"name": "f", "arguments": "{}"}]),
        settings={"system": "s", "temperature": 0.5, "stop": ["x"]},
        head="b",
    )
    [document, error] = page.evaluate(IMPORT, json.dumps(given))
    assert error is None
    [back], [was] = document["conversations"], given["conversations"]
    assert {key: back[key] for key in was if key not in ("messages", "head")} == {
        key: value for key, value in was.items() if key not in ("messages", "head")
    }
    names = {new["id"]: old["id"] for new, old in zip(back["messages"], was["messages"], strict=True)}
    assert names[back["head"]] == "b"
    assert [each | {"id": names[each["id"]], "parent": names.get(each["parent"])} for each in back["messages"]] == [
        was["messages"][0], was["messages"][1], was["messages"][2] | {"finish": None},
    ]  # fmt: skip


WRONG = [
    ("nonsense", "it is no JSON: "),
    ("null", '"format" is not'),
    (archive() | {"version": 2}, '"version" is 2, not 1'),
    (archive() | {"conversations": {}}, '"conversations" is no list'),
    (archive(5), "conversations[0].messages[0] is no object"),
    (archive(message("a"), message("a")), "messages[1].id is no text, or not the only one"),
    (archive(message("a", "b"), message("b")), "messages[0].parent is not the id of an earlier message"),
    (archive(message("a", role="system")), "messages[0].role is neither"),
    (archive(message("a", content=None)), "messages[0].content is no text"),
    (
        archive(message("a", attachments=[{"kind": "image", "url": "https://evil.example"}])),
        "attachments[0] is no image",
    ),
    (archive(message("a", attachments=[{"kind": "image", "url": "data:text/html,x"}])), "attachments[0] is no image"),
    (archive(message("a", role="assistant", calls=[1])), "messages[0].calls is no list"),
    (archive(settings={"temperature": "hot"}), "settings.temperature is no number between 0 and 5"),
    (archive(title=5, created="x"), "conversations[0].title is no text; conversations[0].created is no time"),
    (archive(*[5] * 20), "; and 12 more"),
]


@pytest.mark.parametrize("given, words", WRONG, ids=lambda value: value if isinstance(value, str) else "")
def test_an_archive_that_is_wrong_says_where(page: Page, given: Any, words: str) -> None:
    [document, error] = page.evaluate(IMPORT, given if isinstance(given, str) else json.dumps(given))
    assert document is None
    assert words in error
