// A textarea with colours, line numbers and marks: what is coloured lies behind it, in the same font, and holds only the
// lines that can be seen, so that the length of a file does not matter.

import { States, line } from "./yaml_highlight.js";

const INDENT = "  ";
const BEYOND = 12; // lines drawn above and below those in sight
const LONGEST = 4000; // characters of a line; a text with a longer one has no colours, for they are drawn by whole lines

export class Editor {
  #root;
  #area;
  #colours;
  #gutter;
  #states = new States();
  #lines = [""];
  #problems = new Map(); // line from 1 → [message]
  #lineHeight;
  #leaving = false;
  #drawing = false;

  // `changed` is called after each change of the text.
  constructor(root, changed) {
    this.#root = root;
    this.#area = root.querySelector("textarea");
    this.#colours = root.querySelector(".colours");
    this.#gutter = root.querySelector(".gutter");
    root.classList.add("drawn");
    this.#lineHeight = parseFloat(getComputedStyle(this.#area).lineHeight);
    this.#area.addEventListener("input", () => { this.#read(); changed(); });
    this.#area.addEventListener("scroll", () => this.#later());
    this.#area.addEventListener("keydown", (event) => this.#key(event));
    new ResizeObserver(() => this.#later()).observe(this.#area);
    this.#read();
  }

  get area() { return this.#area; }
  get text() { return this.#area.value; }
  get lines() { return this.#lines; }
  get lineHeight() { return this.#lineHeight; }

  // Line and column of the caret, from 0.
  get caret() {
    const before = this.#area.value.slice(0, this.#area.selectionStart);
    const row = before.split("\n").length - 1;
    return { row, column: before.length - (before.lastIndexOf("\n") + 1) };
  }

  // Replace what is selected, or all of the text, so that Ctrl-Z takes it back.
  insert(text) {
    this.#area.focus();
    if (text === "") document.execCommand("delete");
    else document.execCommand("insertText", false, text);
  }

  replaceAll(text) {
    this.#area.focus();
    this.#area.select();
    this.insert(text);
    this.#area.setSelectionRange(0, 0);
    this.#area.scrollTop = 0;
  }

  // Replace the text with what is on disk, which is no edit.
  load(text) {
    this.#area.value = text;
    this.#read();
  }

  // Mark lines: [{line, message}].
  mark(problems) {
    this.#problems = new Map();
    for (const { line: number, message } of problems) {
      if (!number) continue;
      this.#problems.set(number, [...(this.#problems.get(number) ?? []), message]);
    }
    this.#later();
  }

  goTo(number) {
    const at = this.#lines.slice(0, number - 1).reduce((sum, each) => sum + each.length + 1, 0);
    this.#area.focus();
    this.#area.setSelectionRange(at, at + (this.#lines[number - 1] ?? "").length);
    const top = (number - 1) * this.#lineHeight;
    if (top < this.#area.scrollTop || top > this.#area.scrollTop + this.#area.clientHeight - 3 * this.#lineHeight) {
      this.#area.scrollTop = Math.max(0, top - this.#area.clientHeight / 2);
    }
    this.#area.scrollLeft = 0;
  }

  #read() {
    this.#lines = this.#area.value.split("\n");
    const isLong = this.#lines.some((each) => each.length > LONGEST);
    this.#root.classList.toggle("plain", isLong);
    this.#states.update(isLong ? [] : this.#lines);
    this.#later();
  }

  // Before the next picture is painted: to ask a long text for its layout more often is what would make typing slow.
  #later() {
    if (this.#drawing) return;
    this.#drawing = true;
    requestAnimationFrame(() => { this.#drawing = false; this.#draw(); });
  }

  #draw() {
    const { scrollTop, scrollLeft, clientHeight } = this.#area;
    const first = Math.max(0, Math.floor(scrollTop / this.#lineHeight) - BEYOND);
    const last = Math.min(this.#lines.length, Math.ceil((scrollTop + clientHeight) / this.#lineHeight) + BEYOND);
    const isPlain = this.#root.classList.contains("plain");
    const rows = [];
    const numbers = [];
    for (let at = first; at < last; at += 1) {
      const messages = this.#problems.get(at + 1);
      if (!isPlain) rows.push(this.#row(at, messages));
      numbers.push(this.#number(at, messages));
    }
    const down = first * this.#lineHeight - scrollTop;
    this.#colours.replaceChildren(...rows);
    this.#colours.style.transform = `translate(${-scrollLeft}px, ${down}px)`;
    const box = document.createElement("div");
    box.style.transform = `translateY(${down}px)`;
    box.append(...numbers);
    this.#gutter.style.width = `${Math.max(2, String(this.#lines.length).length) + 3}.5ch`;
    this.#gutter.replaceChildren(box);
  }

  #row(at, messages) {
    const row = document.createElement("div");
    const [tokens] = line(this.#lines[at], this.#states.at(at));
    for (const [text, kind] of tokens) {
      if (kind === null) { row.append(text); continue; }
      const span = document.createElement("span");
      span.className = kind;
      span.textContent = text;
      row.append(span);
    }
    if (messages) {
      row.className = "wrong";
      const beside = document.createElement("span");
      beside.className = "beside";
      beside.textContent = messages.length > 1 ? `${messages[0]} (and ${messages.length - 1} more)` : messages[0];
      row.append(beside);
    }
    if (row.childNodes.length === 0) row.append("\u200b");
    return row;
  }

  #number(at, messages) {
    const number = document.createElement("div");
    number.textContent = messages ? `! ${at + 1}` : String(at + 1);
    if (messages) {
      number.className = "wrong";
      number.title = messages.join("\n");
    }
    return number;
  }

  #key(event) {
    if (event.defaultPrevented || this.#area.readOnly || event.isComposing) return;
    if (event.key === "Escape") { this.#leaving = true; return; }
    const leaving = this.#leaving;
    if (event.key !== "Shift") this.#leaving = false;
    if (event.key === "Tab" && !leaving && !event.ctrlKey && !event.altKey && !event.metaKey) {
      event.preventDefault();
      this.#indent(event.shiftKey);
    } else if (event.key === "Enter" && !event.ctrlKey && !event.metaKey && !event.altKey) {
      event.preventDefault();
      this.#newLine();
    }
  }

  #newLine() {
    const { row, column } = this.caret;
    const before = this.#lines[row].slice(0, column);
    const indent = /^ */.exec(before)[0];
    this.insert(`\n${indent}${/:\s*(#.*)?$/.test(before) && before.trim() !== "" ? INDENT : ""}`);
    this.#reveal();
  }

  // Where keys are handled here, a browser does not follow the caret by itself.
  #reveal() {
    const bottom = (this.caret.row + 2) * this.#lineHeight;
    if (bottom > this.#area.scrollTop + this.#area.clientHeight) this.#area.scrollTop = bottom - this.#area.clientHeight;
    this.#area.scrollLeft = 0;
  }

  // The selected lines by one step, or the caret's rest of the line.
  #indent(out) {
    const { selectionStart: start, selectionEnd: end, value } = this.#area;
    const several = value.slice(start, end).includes("\n");
    if (!several && !out) { this.insert(INDENT.slice((this.caret.column) % INDENT.length)); return; }
    const from = value.lastIndexOf("\n", start - 1) + 1;
    const next = value.indexOf("\n", end);
    const to = end > start && value[end - 1] === "\n" ? end - 1 : next < 0 ? value.length : next;
    const old = value.slice(from, to).split("\n");
    const fresh = old.map((each) => (out ? each.replace(/^ {1,2}/, "") : each && INDENT + each));
    if (fresh.join("\n") === old.join("\n")) return;
    const first = fresh[0].length - old[0].length;
    const all = fresh.join("\n").length - (to - from);
    this.#area.setSelectionRange(from, to);
    this.insert(fresh.join("\n"));
    this.#area.setSelectionRange(Math.max(from, start + first), Math.max(from, end + all));
  }
}
