// Markdown shown by createElement and text nodes only: whatever a model says is text.

import { parse } from "./blocks.js";
import { copyButton } from "./copy.js";
import { inline } from "./inline.js";

function make(name, className = "") {
  const element = document.createElement(name);
  if (className) element.className = className;
  return element;
}

function rich(name, text) {
  const element = make(name);
  inline(text, element);
  return element;
}

const SHOWN = {
  paragraph: ({ text }) => rich("p", text),
  // The page's own headings stand above those of a message.
  heading: ({ level, text }) => rich(`h${Math.min(6, level + 2)}`, text),
  rule: () => make("hr"),
  quote: ({ blocks }) => filled(make("blockquote"), blocks),
  list: showList,
  table: showTable,
  code: showCode,
};

// One by one: as arguments of a single call they may be more than the stack holds.
function add(parent, elements) {
  for (const element of elements) parent.append(element);
  return parent;
}

function filled(element, blocks) {
  return add(element, blocks.map((block) => SHOWN[block.kind](block)));
}

function showList({ ordered, first, items }) {
  const list = make(ordered ? "ol" : "ul");
  if (ordered && first !== 1) list.start = first;
  for (const { blocks, done } of items) {
    const entry = make("li", done === null ? "" : "task");
    if (done !== null) entry.append(done ? "☑ " : "☐ ");
    const [head, ...rest] = blocks;
    if (head?.kind === "paragraph") inline(head.text, entry);
    list.append(filled(entry, head?.kind === "paragraph" ? rest : blocks));
  }
  return list;
}

function showTable({ align, head, rows }) {
  const row = (name, texts) => {
    const line = make("tr");
    for (const [index, className] of align.entries()) {
      const cell = rich(name, texts[index] ?? "");
      if (className) cell.className = className;
      if (name === "th") cell.scope = "col";
      line.append(cell);
    }
    return line;
  };
  const table = make("table");
  const top = make("thead");
  top.append(row("th", head));
  const body = add(make("tbody"), rows.map((texts) => row("td", texts)));
  table.append(top, body);
  const frame = make("div", "wide");
  frame.tabIndex = 0;
  frame.setAttribute("role", "region");
  frame.setAttribute("aria-label", "Table");
  frame.append(table);
  return frame;
}

function showCode({ language, text }) {
  const block = make("div", "code");
  const head = make("div", "code-head");
  const name = make("span");
  name.textContent = language.slice(0, 40) || "text";
  const code = make("code");
  code.textContent = text;
  const pre = make("pre");
  pre.tabIndex = 0;
  pre.setAttribute("role", "region");
  pre.setAttribute("aria-label", `Code, ${name.textContent}`);
  pre.append(code);
  head.append(name, copyButton(() => code.textContent, "code"));
  block.append(head, pre);
  return block;
}

// Shows a text that grows. Only its last blocks are built anew: where the last line is not whole, up to two blocks in
// front of it may still become something else.
export class Writer {
  constructor(root) {
    this.root = root;
    this.text = "";
    this.settled = 0; // characters that belong to blocks which stay as they are
    this.open = []; // [block, element] of the others
  }

  show(text) {
    if (!text.startsWith(this.text)) {
      this.settled = 0;
      this.open = [];
      this.root.replaceChildren();
    } else if (text === this.text) return;
    this.text = text;
    const lines = text.slice(this.settled).split("\n");
    const blocks = parse(lines.map((line) => (line.endsWith("\r") ? line.slice(0, -1) : line)));
    const shown = blocks.map((block, index) => [block, this.#element(block, this.open[index])]);
    const changed = shown.findIndex(([, element], index) => element !== this.open[index]?.[1]);
    const kept = changed < 0 ? shown.length : changed;
    for (const [, element] of this.open.slice(kept)) element.remove();
    add(this.root, shown.slice(kept).map(([, element]) => element));
    let first = Math.max(0, shown.length - 1);
    while (first > 0 && shown[first][0].line > lines.length - 3) first -= 1;
    const line = shown[first]?.[0].line ?? 0;
    this.settled += lines.slice(0, line).reduce((sum, each) => sum + each.length + 1, 0);
    this.open = shown.slice(first);
  }

  // The element of the block that was there, if it is the same or code that grew: scrolled and focused as it was.
  #element(block, before) {
    if (before) {
      const [old, element] = before;
      const same = (key) => old[key] === block[key];
      if (block.kind === "code" && same("kind") && same("language")) {
        if (!same("text")) element.querySelector("code").textContent = block.text;
        return element;
      }
      if (block.kind === "paragraph" && same("kind") && same("text")) return element;
    }
    return SHOWN[block.kind](block);
  }
}

// Show a whole text.
export function render(text, root) {
  new Writer(root).show(text);
}
