"""The playground's Markdown, in the browser that runs it: whatever a model says is text."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page

MARKDOWN = """async text => {
  const { render } = await import('/static/playground/markdown.js');
  const root = document.createElement('div');
  render(text, root);
  return root.innerHTML;
}"""


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
    found = page.evaluate(JUDGED, text)
    assert found["depth"] <= 40
    assert set(found["elements"]) <= ALLOWED


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
    """A megabyte takes about sixteen times as long as a sixteenth of it, when nothing else keeps the machine busy."""
    small, large = (piece * (size // len(piece)) for size in (65_536, 1_048_576))

    def is_right() -> bool:
        least: float = max(page.evaluate(TIMED, small), 25)
        taken: float = page.evaluate(TIMED, large)
        return taken < 16 * least * 4

    assert any(is_right() for _ in range(5))


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
