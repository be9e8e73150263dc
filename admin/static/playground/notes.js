// What is told above the thread: one line for each cause, until that is gone or the line is dismissed.

import { button } from "./message.js";

const BRIEF_MS = 6000;

export class Notes {
  constructor(place) {
    this.place = place;
    this.lines = new Map(); // by cause
  }

  // What is `brief` goes by itself.
  tell(cause, words, brief = false) {
    const known = this.lines.get(cause);
    if (known?.dataset.words === words && !brief) return;
    known?.remove();
    const line = document.createElement("p");
    line.className = "note";
    line.dataset.words = words;
    line.append(words, " ", button("Dismiss", () => this.settle(cause)));
    this.lines.set(cause, line);
    this.place.append(line);
    if (brief) setTimeout(() => line.remove(), BRIEF_MS);
  }

  // The causes are gone.
  settle(...causes) {
    for (const cause of causes) {
      this.lines.get(cause)?.remove();
      this.lines.delete(cause);
    }
  }
}
