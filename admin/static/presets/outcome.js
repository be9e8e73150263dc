// What the server says of the text: what a save would do or has done, and what is wrong with it.

import { element } from "./asking.js";

const CHECKING = "Checking …";

export class Outcome {
  #place = document.getElementById("outcome");
  #problems = document.getElementById("problems");
  #editor;

  constructor(editor) {
    this.#editor = editor;
  }

  // An answer of try or save. Its `words` are null where there are problems.
  tell({ problems, notices, words }) {
    const here = problems.filter((problem) => problem.here);
    this.#editor.mark(here);
    const count = problems.length === 1 ? "1 problem" : `${problems.length} problems`;
    const text = words ?? (here.length > 0 ? `${count}: fix what is marked before it can be saved.` : `${count} in other files.`);
    this.#say(text, words === null ? "wrong" : "preview");
    this.#problems.replaceChildren(...[...problems, ...notices].map((each) => this.#item(each, notices.includes(each))));
    this.#editor.area.setAttribute("aria-invalid", String(here.length > 0));
  }

  // There is nothing to be said, but `words`.
  clear(words = "") {
    this.tell({ problems: [], notices: [], words });
  }

  checking() {
    if (!this.#place.textContent) this.#place.textContent = CHECKING;
  }

  fail(message) {
    this.#say(message, "wrong");
  }

  // The same again is not said twice.
  #say(text, className) {
    if (text === "") this.#place.replaceChildren();
    else if (this.#place.textContent !== text) this.#place.replaceChildren(element("p", text, { className }));
  }

  #item(problem, isNotice) {
    const item = element("li", "", { className: isNotice ? "notice-line" : "problem" });
    if (problem.here && problem.line) {
      const link = element("a", `line ${problem.line}`, { href: "#text" });
      link.addEventListener("click", (event) => { event.preventDefault(); this.#editor.goTo(problem.line); });
      item.append(link, ": ");
    } else if (!problem.here) item.append(`${problem.file}${problem.line ? `, line ${problem.line}` : ""}: `);
    if (problem.field) item.append(element("code", problem.field), " ");
    item.append(isNotice ? `notice: ${problem.message}` : problem.message);
    return item;
  }
}
