// The history of a file: what it held before each save, compared with the editor or put into it.

import { ask, element } from "./asking.js";
import { changed, shown } from "./line_diff.js";

const DATE = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });

// `restored(words)` is told once a version has been put into the editor.
export class Versions {
  #form;
  #editor;
  #file;
  #restored;

  constructor(form, editor, file, restored) {
    this.#form = form;
    this.#editor = editor;
    this.#file = file;
    this.#restored = restored;
    this.dates();
    form.addEventListener("click", (event) => {
      const button = event.target.closest(".compare, .restore");
      if (!button) return;
      event.preventDefault();
      this.#look(button);
    });
  }

  // Word the dates in the reader's language and time zone.
  dates() {
    for (const date of this.#form.querySelectorAll(".date[data-at]")) {
      date.textContent = DATE.format(new Date(date.dataset.at));
    }
  }

  async #look(button) {
    const box = document.getElementById("compared");
    const date = button.closest("li").querySelector(".date").textContent;
    try {
      const { text } = await ask(`/ui/presets/file/${encodeURIComponent(this.#file())}?at=${button.dataset.at}`);
      if (button.classList.contains("restore")) this.#restore(text, date, box);
      else this.#compare(text, date, box);
    } catch (error) {
      box.replaceChildren(element("p", `Not shown: ${error.message}`, { className: "wrong" }));
    }
  }

  #compare(text, date, box) {
    const { gone, fresh } = changed(text, this.#editor.text);
    const words = gone + fresh === 0
      ? `The editor holds the same as before the save of ${date}.`
      : `− ${gone} only before the save of ${date}, + ${fresh} only in the editor`;
    const restore = element("button", "Restore this version", { type: "button", className: "quiet" });
    restore.addEventListener("click", () => this.#restore(text, date, box));
    const legend = element("p", words, { className: "legend" });
    legend.setAttribute("role", "status");
    box.replaceChildren(legend);
    if (gone + fresh > 0) box.append(shown(text, this.#editor.text, "Difference between that version and the editor"), restore);
  }

  #restore(text, date, box) {
    this.#editor.replaceAll(text);
    box.replaceChildren();
    this.#restored(`what it was before ${date}; not saved`);
  }
}
