// The list of conversations: search, rename, delete with undo.

import { tick } from "../live.js";
import { button } from "./message.js";

const UNDO_MS = 10_000;
const MOST_SHOWN = 200;
const byId = (id) => document.getElementById(id);

// `actions`: open(id), rename(id, title), remove(id) → a function that undoes it, null if it is still there.
export class Conversations {
  constructor(actions) {
    this.actions = actions;
    this.all = [];
    this.current = null;
    this.renaming = null;
    byId("search").addEventListener("input", () => this.#show());
  }

  show(all, current) {
    this.all = all;
    this.current = current;
    this.#show();
  }

  #show() {
    if (this.renaming) return; // shown anew when that is over
    const words = byId("search").value.trim().toLowerCase();
    const found = this.all.filter(({ title, model }) => `${title}\n${model}`.toLowerCase().includes(words));
    const list = byId("list");
    const key = list.contains(document.activeElement) ? document.activeElement.dataset.key : null;
    list.replaceChildren(...found.slice(0, MOST_SHOWN).map((each) => this.#entry(each)));
    tick(list);
    if (key) list.querySelector(`[data-key="${CSS.escape(key)}"]`)?.focus({ preventScroll: true });
    const none = this.all.length === 0 ? "No conversations yet. They are kept in this browser only." : "No conversation has these words.";
    const more = `and ${found.length - MOST_SHOWN} older ones; search to find them`;
    byId("none").textContent = found.length === 0 ? none : found.length > MOST_SHOWN ? more : "";
    byId("export-all").hidden = this.all.length === 0;
    byId("search").hidden = this.all.length === 0;
  }

  #entry({ id, title, model, updated }) {
    const entry = document.createElement("li");
    const open = button("", () => this.actions.open(id), { className: "open" });
    open.dataset.key = `open ${id}`;
    const name = document.createElement("span");
    name.className = "title";
    name.textContent = title || "Untitled";
    const about = document.createElement("span");
    about.className = "soft";
    const time = document.createElement("time");
    time.dateTime = new Date(Math.min(Math.max(updated, 0), Date.now())).toISOString();
    about.append(model ? `${model} · ` : "", time, " ago");
    open.append(name, about);
    if (id === this.current) open.setAttribute("aria-current", "true");
    const tools = document.createElement("span");
    tools.className = "tools";
    const rename = button("Rename", () => this.#rename(entry, id, title), { label: `Rename ${name.textContent}` });
    const remove = button("Delete", () => this.#remove(id, name.textContent), { label: `Delete ${name.textContent}` });
    rename.dataset.key = `rename ${id}`;
    tools.append(rename, remove);
    entry.append(open, tools);
    return entry;
  }

  #rename(entry, id, title) {
    const field = document.createElement("input");
    field.value = title;
    field.maxLength = 200;
    field.setAttribute("aria-label", "Title of the conversation");
    this.renaming = id;
    const end = async (keep) => {
      if (this.renaming !== id) return;
      this.renaming = null;
      if (keep && field.value.trim() && field.value !== title) await this.actions.rename(id, field.value.trim());
      this.#show();
      byId("list").querySelector(`[data-key="rename ${CSS.escape(id)}"]`)?.focus();
    };
    field.addEventListener("keydown", (event) => {
      if (event.key === "Enter") end(true);
      if (event.key === "Escape") end(false);
      if (event.key === "Enter" || event.key === "Escape") event.stopPropagation();
    });
    field.addEventListener("blur", () => end(true));
    entry.replaceChildren(field);
    field.select();
  }

  async #remove(id, title) {
    const undo = await this.actions.remove(id);
    if (!undo) return;
    const place = byId("undo");
    const words = document.createElement("span");
    words.textContent = `Deleted “${title}” `;
    const back = button("Undo", async () => {
      place.replaceChildren();
      await undo();
      byId("list").querySelector(`[data-key="open ${CSS.escape(id)}"]`)?.focus();
    });
    place.replaceChildren(words, back);
    back.focus();
    setTimeout(() => {
      if (back.isConnected) place.replaceChildren();
    }, UNDO_MS);
  }
}
