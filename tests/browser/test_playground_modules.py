"""The playground's pure modules, in the browser that runs them: Markdown, streams, the tree of messages, archives."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page
from served import Served

Run = Callable[..., Any]

MARKDOWN = """async text => {
  const { render } = await import('/static/playground/markdown.js');
  const root = document.createElement('div');
  render(text, root);
  return root.innerHTML;
}"""


@pytest.fixture(scope="module")
def page(router: Served, chromium: Browser) -> Iterator[Page]:
    """A page under the dashboard's Content-Security-Policy, which imports its modules."""
    context = chromium.new_context(base_url=router.url)
    page = context.new_page()
    page.goto("/ui/login")
    yield page
    context.close()


def link(href: str, text: str) -> str:
    return f'<a href="{href}" target="_blank" rel="noopener noreferrer">{text}</a>'


def code(text: str, language: str = "text") -> str:
    return (
        f'<div class="code"><div class="code-head"><span>{language}</span><button type="button" class="text">Copy'
        f'<span class="hidden"> code</span></button></div><pre tabindex="0" role="region" '
        f'aria-label="Code, {language}"><code>{text}</code></pre></div>'
    )


INLINE = [
    ("plain", "plain"),
    ("*a* _b_ **c** __d__ ***e*** ~~f~~", "<em>a</em> <em>b</em> <strong>c</strong> <strong>d</strong> "
     "<em><strong>e</strong></em> <del>f</del>"),
    ("*a **b** c*", "<em>a <strong>b</strong> c</em>"),
    ("**a *b***", "<strong>a <em>b</em></strong>"),
    ("a*b*c snake_case_name 2 * 3 * 4", "a<em>b</em>c snake_case_name 2 * 3 * 4"),
    ("**open and *open", "**open and *open"),
    ("~one~ ~~~three~~~", "~one~ ~~~three~~~"),
    ("`a` ``b`c`` ` d", "<code>a</code> <code>b`c</code> ` d"),
    ("`*a*` *`b`*", "<code>*a*</code> <em><code>b</code></em>"),
    (r"\*a\* \` \x \[b](https://x.example)", r"*a* ` \x [b](" + link("https://x.example/", "https://x.example") + ")"),
    ("one\ntwo\\\nthree<br>four<br/>five", "one<br>two<br>three<br>four<br>five"),
    ("&amp; &lt;b&gt; &#65; &#x41; &unknown; &", "&amp; &lt;b&gt; A A &amp;unknown; &amp;"),
    ("[a](https://x.example/b_c)", link("https://x.example/b_c", "a")),
    ("[*a* b](<https://x.example/> 'title')", link("https://x.example/", "<em>a</em> b")),
    ("[a](https://x.example/(b))", link("https://x.example/(b)", "a")),
    ("[a [b](https://x.example/) c](https://y.example/)", "[a " + link("https://x.example/", "b") + " c]("
     + link("https://y.example/", "https://y.example/") + ")"),
    ("see https://x.example/a_b_c. (https://y.example)", "see " + link("https://x.example/a_b_c", "https://x.example/a_b_c")
     + ". (" + link("https://y.example/", "https://y.example") + ")"),
    ("<https://x.example> <a@b.example>", link("https://x.example/", "https://x.example") + " "
     + link("mailto:a@b.example", "a@b.example")),
    ("[https://x.example](https://y.example)", link("https://y.example/", "https://x.example")),
]  # fmt: skip

BLOCKS = [
    ("", ""),
    ("# A\n## B ##\ntext\n####### no", "<h3>A</h3><h4>B</h4><p>text<br>####### no</p>"),
    ("a\n\nb\r\n\r\nc", "<p>a</p><p>b</p><p>c</p>"),
    ("a\n***\nb\n---", "<p>a</p><hr><p>b</p><hr>"),
    ("```py x\na < b\n\n  c\n```\nd", code("a &lt; b\n\n  c", "py") + "<p>d</p>"),
    ("~~~\n```\n~~~", code("```")),
    ("text:\n````\n```\nopen", "<p>text:</p>" + code("```\nopen")),
    ("> a\n> > b\n\nc", "<blockquote><p>a</p><blockquote><p>b</p></blockquote></blockquote><p>c</p>"),
    ("- a\n- b\n  - c\n    d\n- e", "<ul><li>a</li><li>b<ul><li>c<br>d</li></ul></li><li>e</li></ul>"),
    ("1. a\n2. b\n\n   c\n3. d", "<ol><li>a</li><li>b<p>c</p></li><li>d</li></ol>"),
    ("7. a\n\ntext", '<ol start="7"><li>a</li></ol><p>text</p>'),
    ("* a\n\n* b\nlazy\n\nc", "<ul><li>a</li><li>b<br>lazy</li></ul><p>c</p>"),
    ("1. a\n  - b\n2. c", "<ol><li>a<ul><li>b</li></ul></li><li>c</li></ol>"),
    ("- ```\n  x\n  ```", "<ul><li>" + code("x") + "</li></ul>"),
    ("- [ ] a\n- [x] b", '<ul><li class="task">☐ a</li><li class="task">☑ b</li></ul>'),
    ("a\n- b\n\n2. c", '<p>a</p><ul><li>b</li></ul><ol start="2"><li>c</li></ol>'),
    ("In 1984.\n1984. was", "<p>In 1984.<br>1984. was</p>"),
]

TABLE = """Look:
| A | `a|b` |
|---|--:|
| 1 | *2* | 3 |
| \\| |
after | all
"""


@pytest.mark.parametrize("text, html", INLINE)
def test_inline(page: Page, text: str, html: str) -> None:
    assert page.evaluate(MARKDOWN, text) == f"<p>{html}</p>"


@pytest.mark.parametrize("text, html", BLOCKS)
def test_blocks(page: Page, text: str, html: str) -> None:
    assert page.evaluate(MARKDOWN, text) == html


def test_a_table(page: Page) -> None:
    assert page.evaluate(MARKDOWN, TABLE) == (
        '<p>Look:</p><div class="wide" tabindex="0" role="region" aria-label="Table"><table><thead><tr>'
        '<th scope="col">A</th><th class="right" scope="col"><code>a|b</code></th></tr></thead><tbody>'
        '<tr><td>1</td><td class="right"><em>2</em></td></tr><tr><td>|</td><td class="right"></td></tr>'
        '<tr><td>after</td><td class="right">all</td></tr></tbody></table></div>'
    )


HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<svg/onload=alert(1)>",
    "[a](javascript:alert(1))",
    "[a](JaVaScRiPt:alert(1))",
    "[a](&#106;avascript:alert(1))",
    "[a](java\tscript:alert(1))",
    "[a](<javascript:alert(1)>)",
    "[a](data:text/html,<script>alert(1)</script>)",
    "[a](vbscript:x) [b](file:///etc/passwd) [c](//evil.example) [d](/ui/models/load)",
    "![a](https://evil.example/?leak) ![b](javascript:alert(1)) ![c](data:image/svg+xml,x)",
    "<javascript:alert(1)> <https://x.example/\" onclick=alert(1)>",
    "https://x.example/\"onmouseover=alert(1)",
    "```\"><script>alert(1)</script>\n</code><script>\n```",
    "| <script> | <img onerror=x> |\n|---|---|\n| [a](javascript:x) | <b onclick=x> |",
    "# <iframe src=//evil.example>\n- <object data=x>\n> <style>*{display:none}</style>",
    "[![a](https://evil.example/i.png)](https://x.example \"><script>\")",
    "&lt;script&gt;alert(1)&lt;/script&gt; &#60;script&#62; &#0; &#1114112; &#x110000;",
]  # fmt: skip
ALLOWED = {"P", "DIV", "SPAN", "BR", "A", "CODE", "PRE", "BUTTON", "EM", "STRONG", "DEL", "UL", "OL", "LI", "HR", "H3"}
ALLOWED |= {"TABLE", "THEAD", "TBODY", "TR", "TH", "TD", "BLOCKQUOTE"}
ATTRIBUTES = {"href", "target", "rel", "class", "type", "tabindex", "role", "aria-label", "scope", "start"}

JUDGED = """async text => {
  const { render } = await import('/static/playground/markdown.js');
  const root = document.createElement('div');
  document.body.append(root);
  render(text, root);
  const all = [...root.querySelectorAll('*')];
  const depths = new Map([[root, 0]]);
  for (const each of all) depths.set(each, depths.get(each.parentNode) + 1);
  const found = {
    elements: [...new Set(all.map(each => each.tagName))],
    attributes: [...new Set(all.flatMap(each => each.getAttributeNames()))],
    links: all.filter(each => each.tagName === 'A').map(each => [each.protocol, each.rel]),
    depth: [...depths.values()].reduce((one, other) => Math.max(one, other)),
  };
  root.remove();
  return found;
}"""


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_markdown_is_text(page: Page, text: str) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    found = page.evaluate(JUDGED, text)
    assert set(found["elements"]) <= ALLOWED
    assert set(found["attributes"]) <= ATTRIBUTES
    for protocol, rel in found["links"]:
        assert protocol in ("http:", "https:", "mailto:")
        assert rel == "noopener noreferrer"
    assert [url for url in asked if "/static/" not in url] == []


DEEP = [
    "> " * 10_000,
    ">" * 10_000 + "a",
    "[" * 10_000,
    "*a _b " * 10_000,
    "- " * 10_000,
    "**" * 10_000 + "a" + "**" * 10_000,
]
DEEP += [
    "".join("  " * n + "- a\n" for n in range(300)),
    "[a](" * 10_000,
    "![" * 10_000 + "](https://x.example)" * 10_000,
]
DEEP += ["*_" * 5_000 + "a" + "_*" * 5_000, "[*" * 5_000 + "a" + "*](https://x.example)" * 5_000]


@pytest.mark.parametrize("text", DEEP, ids=lambda text: text[:12])
def test_deep_nesting_stays_shallow(page: Page, text: str) -> None:
    started = time.monotonic()
    found = page.evaluate(JUDGED, text)
    assert found["depth"] <= 40
    assert set(found["elements"]) <= ALLOWED
    assert time.monotonic() - started < 5


LINES = [
    "a",
    "*",
    "**a",
    "_a ",
    "`",
    "`a``b",
    "[",
    "[a](",
    "]",
    "![a](b",
    "<",
    "<a",
    "&",
    "h",
    "http",
    "https://x/ ",
    "\\",
    "~~",
]
LINES += [
    "|",
    "a|",
    "> ",
    "- ",
    "1. ",
    "# ",
    "\t",
    " ",
    "(",
    "a@b",
    "-",
    "=",
    "\n",
    "a\n",
    "|a|\n",
    "- a\n",
    "> a\n",
    "```\n",
]
LINES += [
    "|a|b|\n|-|-|\n",
    "  - a\n\n",
    "*a_",
    "[a](x) ",
    "[[a](https://x.example)",
    "a*b~~c",
    "1. a\n\n",
    "``` `\n",
    "* * * a\n",
]
TIMED = """async text => {
  const { render } = await import('/static/playground/markdown.js');
  const root = document.createElement('div');
  const started = performance.now();
  render(text, root);
  return performance.now() - started;
}"""


@pytest.mark.parametrize("piece", LINES)
def test_the_time_grows_with_the_text(page: Page, piece: str) -> None:
    """A megabyte takes about sixteen times as long as a sixteenth of it."""
    small, large = (piece * (size // len(piece)) for size in (65_536, 1_048_576))
    page.evaluate(TIMED, small)  # compiles
    least = max(page.evaluate(TIMED, small), 25)
    assert page.evaluate(TIMED, large) < 16 * least * 4


STREAMED = """async ([text, sizes]) => {
  const { Writer } = await import('/static/playground/markdown.js');
  const root = document.createElement('div');
  const whole = document.createElement('div');
  const writer = new Writer(root);
  for (let at = 0, n = 0; at < text.length; n += 1) {
    at += sizes[n % sizes.length];
    writer.show(text.slice(0, at));
    new Writer(whole).show(text.slice(0, at));
    if (root.innerHTML !== whole.innerHTML) return [text.slice(0, at), root.innerHTML, whole.innerHTML];
    whole.replaceChildren();
  }
  return null;
}"""


@pytest.mark.parametrize("sizes", [[1], [3, 1, 7]])
def test_a_text_that_grows_looks_like_the_whole(page: Page, sizes: list[int]) -> None:
    texts = [text for text, _ in BLOCKS] + [TABLE, "\n".join(text for text, _ in INLINE), *HOSTILE]
    texts += [
        "text\n-- no rule\n\n-a\n- b\n\n- c\n\nd",
        "a\nb|c\n--|--\n1|2\n\nx\ny|z\n--|--no",
        "- a\n\n  b\n\nc\n#no\n# yes",
    ]
    for text in ["\n\n".join(texts), *texts]:
        assert page.evaluate(STREAMED, [text, sizes]) is None


def test_what_is_finished_is_not_built_again(page: Page) -> None:
    kept = page.evaluate("""async () => {
      const { Writer } = await import('/static/playground/markdown.js');
      const root = document.createElement('div');
      const writer = new Writer(root);
      writer.show('a\\n\\nb\\n\\n```\\ncode\\n');
      const [first, second, code] = root.children;
      writer.show('a\\n\\nb\\n\\n```\\ncode\\nmore\\n```\\n\\nlast');
      return [root.children[0] === first, root.children[1] === second, root.children[2] === code, root.children.length];
    }""")
    assert kept == [True, True, True, 4]


CHUNKS = """async ([bytes, cuts, type, status]) => {
  const { answered } = await import('/static/playground/sse.js');
  const data = Uint8Array.from(bytes);
  const stream = new ReadableStream({ start(controller) {
    let at = 0;
    for (const cut of [...cuts, data.length]) { controller.enqueue(data.slice(at, cut)); at = cut; }
    controller.close();
  }});
  const found = [];
  try {
    const response = new Response(stream, { status, headers: { 'Content-Type': type } });
    for await (const chunk of answered(response)) found.push(chunk);
  } catch (error) { return [found, error.message, error.status]; }
  return [found, null, null];
}"""
EVENTS = "text/event-stream; charset=utf-8"


def chunks(page: Page, data: str, cuts: list[int], kind: str = EVENTS, status: int = 200) -> Any:
    return page.evaluate(CHUNKS, [list(data.encode()), cuts, kind, status])


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_stream_cut_anywhere(page: Page, end: str) -> None:
    data = end.join([": hello", 'data: {"a":"é🦙"}', "", "id: 1", 'data: {"b":', "data:1}", "", "data: [DONE]", "", ""])
    for cut in range(len(data.encode())):
        assert chunks(page, data, [cut]) == [[{"a": "é🦙"}, {"b": 1}], None, None]
    assert chunks(page, data, list(range(1, len(data.encode())))) == [[{"a": "é🦙"}, {"b": 1}], None, None]


BROKEN = [
    ('data: {"a":1}\n\ndata: {"error":{"message":"died","code":503}}\n\n', [{"a": 1}], "died"),
    ('data: {"a":1}\n\nevent: error\ndata: {"message":"gone"}\n\n', [{"a": 1}], "gone"),
    ('data: {"a":1}\n\n', [{"a": 1}], "the answer broke off: its connection ended too early"),
    ('data: {"a":1}\n\ndata: [DON', [{"a": 1}], "the answer broke off: its connection ended too early"),
    ("data: nonsense\n\n", [], "the answer has an event that is no JSON: nonsense"),
    ("", [], "the answer broke off: its connection ended too early"),
]


@pytest.mark.parametrize("data, found, words", BROKEN)
def test_a_stream_that_breaks(page: Page, data: str, found: Any, words: str) -> None:
    assert chunks(page, data, []) == [found, words, None]


def test_answers_that_are_no_stream(page: Page) -> None:
    error = json.dumps({"error": {"message": "it failed to load", "code": 503, "type": "x"}})
    assert chunks(page, error, [], "application/json", 503) == [[], "it failed to load", 503]
    assert chunks(page, "<h1>Bad Gateway</h1>", [], "text/html", 502) == [[], "502", 502]
    whole = json.dumps({"choices": [{"message": {"content": "hi"}, "finish_reason": "stop"}]})
    expected = [{"choices": [{"delta": {"content": "hi"}, "finish_reason": "stop"}]}]
    assert chunks(page, whole, [], "application/json") == [expected, None, None]


def test_the_longest_event_is_read_in_time(page: Page) -> None:
    data = 'data: {"a":"' + "x" * 1_000_000 + '"}\n\ndata: [DONE]\n\n'
    [found, error, _] = chunks(page, data, list(range(1000, 1_000_000, 1000)))
    assert (len(found[0]["a"]), error) == (1_000_000, None)


ANSWER = """async chunks => {
  const { Answer } = await import('/static/playground/answer.js');
  const answer = new Answer(1000);
  chunks.forEach((chunk, index) => answer.take(chunk, 1500 + 100 * index));
  return { ...answer.message, finish: answer.finish };
}"""


def delta(finish: str | None = None, **fields: Any) -> dict[str, Any]:
    return {"choices": [{"delta": fields, "finish_reason": finish}]}


def test_an_answer_is_counted(page: Page) -> None:
    told = [delta(role="assistant"), delta(content="a"), delta(content="b"), delta(content="c"), delta("length")]
    answer = page.evaluate(ANSWER, told)
    assert (answer["content"], answer["finish"]) == ("abc", "length")
    assert answer["stats"] == {"tokens": 3, "exact": False, "prompt": None, "rate": 10, "first": 600}
    usage = {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 11}}
    assert page.evaluate(ANSWER, [*told, usage])["stats"] == {
        "tokens": 11, "exact": True, "prompt": 7, "rate": 50, "first": 600,
    }  # fmt: skip
    timings = delta("stop") | {"timings": {"predicted_n": 3, "predicted_per_second": 42.5}}
    assert page.evaluate(ANSWER, [*told, timings])["stats"]["rate"] == 42.5


def test_reasoning_and_tool_calls(page: Page) -> None:
    answer = page.evaluate(ANSWER, [delta(reasoning_content="hm"), delta(content="yes")])
    assert (answer["reasoning"], answer["content"]) == ("hm", "yes")
    tags = ["<thi", "nk>\nhm", "\n</th", "ink>\n\nyes"]
    answer = page.evaluate(ANSWER, [delta(content=part) for part in tags])
    assert (answer["reasoning"], answer["content"]) == ("hm", "yes")
    assert page.evaluate(ANSWER, [delta(content="<think>hm")])["reasoning"] == "hm"
    assert page.evaluate(ANSWER, [delta(content="a <think>b</think>")])["content"] == "a <think>b</think>"
    first = {"index": 0, "id": "x", "function": {"name": "add", "arguments": ""}}
    rest = {"index": 0, "function": {"arguments": '{"a":1}'}}
    calls = page.evaluate(ANSWER, [delta(tool_calls=[first]), delta(tool_calls=[rest])])["calls"]
    assert calls == [{"name": "add", "arguments": '{"a":1}'}]


@pytest.mark.parametrize("chunk", [{}, {"choices": None}, {"choices": [{}]}, {"choices": [{"delta": {"content": 5}}]}])
def test_chunks_of_no_known_shape_are_nothing(page: Page, chunk: Any) -> None:
    assert page.evaluate(ANSWER, [chunk])["content"] == ""


REQUEST = """async ([settings, path, inputs]) => {
  const { requestOf } = await import('/static/playground/request.js');
  return requestOf('m', settings, path, inputs);
}"""


def test_a_request_has_what_is_set(page: Page) -> None:
    image = {"kind": "image", "name": "x", "url": "data:image/png;base64,AA"}
    sound = {"kind": "audio", "name": "y", "url": "data:audio/wav;base64,BB", "format": "wav"}
    path = [
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "", "error": "died"},
        {"role": "user", "content": "two", "attachments": [image, sound]},
    ]
    text = page.evaluate(REQUEST, [{"system": "be kind", "temperature": 0, "stop": ["x"]}, path, ["text"]])
    assert text == {
        "model": "m",
        "messages": [{"role": "system", "content": "be kind"}, {"role": "user", "content": "one\n\ntwo"}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0,
        "stop": ["x"],
    }
    seen = page.evaluate(REQUEST, [{}, path[2:], ["text", "image", "audio"]])["messages"]
    assert seen[0]["content"] == [
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}},
        {"type": "input_audio", "input_audio": {"data": "BB", "format": "wav"}},
        {"type": "text", "text": "two"},
    ]


SETTINGS = """async texts => {
  const { settingsOf } = await import('/static/playground/request.js');
  return settingsOf(texts);
}"""


def test_settings_from_fields(page: Page) -> None:
    given = {
        "system": " ",
        "temperature": "0.5",
        "top_p": "2",
        "top_k": "1.5",
        "min_p": "",
        "seed": "0",
        "stop": "a\n\nb",
    }
    assert page.evaluate(SETTINGS, given) == {"temperature": 0.5, "seed": 0, "stop": ["a", "b"]}


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
