// The list of keys and values that fit where the caret is: a listbox that the text field points to, which keeps the focus.

import { completions, placeOf } from "./schema.js";

export class Completion {
  #editor;
  #schema;
  #list = document.createElement("ul");
  #told = document.createElement("p");
  #found = [];
  #place = null;
  #chosen = 0;
  #accepting = false;

  constructor(editor, root, schema) {
    this.#editor = editor;
    this.#schema = schema;
    const { area } = editor;
    this.#list.id = "completions";
    this.#list.className = "completions";
    this.#list.setAttribute("role", "listbox");
    this.#list.setAttribute("aria-label", "Completions");
    this.#list.hidden = true;
    this.#told.className = "hidden";
    this.#told.setAttribute("role", "status");
    root.append(this.#list, this.#told);
    area.setAttribute("aria-autocomplete", "list");
    area.setAttribute("aria-controls", this.#list.id);
    area.addEventListener("keydown", (event) => this.#key(event), { capture: true });
    area.addEventListener("input", (event) => this.#typed(event));
    area.addEventListener("blur", () => this.close());
    area.addEventListener("scroll", () => this.close());
    area.addEventListener("pointerdown", () => this.close());
    this.#list.addEventListener("pointerdown", (event) => {
      event.preventDefault(); // the text keeps the focus
      const option = event.target.closest("[role=option]");
      if (option) this.#accept(Number(option.dataset.index));
    });
  }

  close() {
    if (this.#list.hidden) return;
    this.#list.hidden = true;
    this.#editor.area.removeAttribute("aria-activedescendant");
    this.#told.textContent = "";
  }

  #typed(event) {
    if (this.#accepting) return;
    const { row, column } = this.#editor.caret;
    const isWord = event.inputType === "insertText" && /[\w-]$/.test(this.#editor.lines[row].slice(0, column));
    const deletes = event.inputType?.startsWith("delete") && !this.#list.hidden;
    if (isWord || deletes) this.#open(false);
    else this.close();
  }

  #open(asked) {
    const { row, column } = this.#editor.caret;
    this.#place = placeOf(this.#editor.lines, row, column);
    this.#found = this.#place ? completions(this.#schema, this.#place) : [];
    const exact = this.#place?.wants === "value" && this.#found[0]?.name === this.#place.word;
    if (this.#found.length === 0 || (exact && !asked)) {
      this.close();
      if (asked) this.#told.textContent = "nothing to complete here";
      return;
    }
    this.#chosen = 0;
    this.#list.replaceChildren(...this.#found.map((each, index) => this.#option(each, index)));
    this.#list.hidden = false;
    this.#choose(0);
    this.#put(row);
  }

  #option({ name, about }, index) {
    const option = document.createElement("li");
    option.id = `completion-${index}`;
    option.dataset.index = index;
    option.setAttribute("role", "option");
    const bold = document.createElement("b");
    bold.textContent = name;
    option.append(bold);
    if (about) {
      const words = document.createElement("span");
      words.textContent = ` ${about}`;
      option.append(words);
    }
    return option;
  }

  #choose(index) {
    const options = [...this.#list.children];
    options.forEach((option, at) => option.setAttribute("aria-selected", String(at === index)));
    this.#chosen = index;
    options[index].scrollIntoView({ block: "nearest" });
    this.#editor.area.setAttribute("aria-activedescendant", options[index].id);
    const { name, about } = this.#found[index];
    this.#told.textContent = `${name}${about ? `: ${about}` : ""} (${index + 1} of ${options.length})`;
  }

  // Below the caret's line, above it where there is no room.
  #put(row) {
    const { area, lineHeight } = this.#editor;
    const code = area.parentElement;
    const padding = parseFloat(getComputedStyle(area).paddingTop);
    const line = padding + row * lineHeight - area.scrollTop;
    const probe = document.createElement("span");
    probe.className = "probe";
    probe.textContent = this.#editor.lines[row].slice(0, this.#place.from);
    code.append(probe);
    const left = parseFloat(getComputedStyle(area).paddingLeft) + probe.getBoundingClientRect().width - area.scrollLeft;
    probe.remove();
    code.append(this.#list);
    const below = line + lineHeight + this.#list.offsetHeight <= area.clientHeight || line < this.#list.offsetHeight;
    this.#list.style.top = `${below ? line + lineHeight + 2 : line - this.#list.offsetHeight - 2}px`;
    this.#list.style.left = `${Math.max(0, Math.min(left, code.clientWidth - this.#list.offsetWidth - 4))}px`;
  }

  #accept(index) {
    const { name, opens } = this.#found[index];
    const { area } = this.#editor;
    const { row, column } = this.#editor.caret;
    const { from, wants } = this.#place;
    const rest = this.#editor.lines[row].slice(column);
    const isFlow = this.#editor.lines[row].slice(0, from).includes("{");
    const after = wants === "key" && !/^\s*:/.test(rest) ? (opens && !isFlow ? ":" : ": ") : "";
    this.#accepting = true;
    area.setSelectionRange(area.selectionStart - (column - from), area.selectionStart);
    this.#editor.insert(`${name}${after}`);
    this.#accepting = false;
    this.close();
  }

  #key(event) {
    if (event.isComposing || this.#editor.area.readOnly) return;
    if (event.ctrlKey && event.key === " ") {
      event.preventDefault();
      this.#open(true);
      return;
    }
    if (this.#list.hidden) return;
    const count = this.#found.length;
    if (event.key === "ArrowDown") this.#choose((this.#chosen + 1) % count);
    else if (event.key === "ArrowUp") this.#choose((this.#chosen + count - 1) % count);
    else if ((event.key === "Enter" || event.key === "Tab") && !event.shiftKey) this.#accept(this.#chosen);
    else if (event.key === "Escape") this.close();
    else {
      if (["ArrowLeft", "ArrowRight", "Home", "End", "PageUp", "PageDown"].includes(event.key)) this.close();
      return;
    }
    event.preventDefault();
    event.stopImmediatePropagation();
  }
}
