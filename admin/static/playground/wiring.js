// What the keys and buttons around the thread do.

import { download } from "./files.js";

const byId = (id) => document.getElementById(id);

// Have the page's controls act on `chat`.
export function wire(chat) {
  const field = byId("text");
  byId("composer").addEventListener("submit", (event) => {
    event.preventDefault();
    chat.submit();
  });
  field.addEventListener("input", () => grow(field));
  field.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    chat.submit();
  });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    if (byId("conversations").classList.contains("open")) chat.panel("conversations", false);
    else if (byId("settings").contains(document.activeElement)) chat.panel("settings", false);
    else chat.answering.stop(chat.conversation.id);
  });
  byId("stop").addEventListener("click", () => chat.answering.stop(chat.conversation.id));
  byId("new").addEventListener("click", () => chat.fresh(chat.models.name));
  for (const id of ["conversations", "settings"]) {
    const opener = byId(`open-${id}`);
    opener.addEventListener("click", () => chat.panel(id, opener.getAttribute("aria-expanded") !== "true"));
    document.querySelector(`[data-close=${id}]`).addEventListener("click", () => chat.panel(id, false));
  }
  byId("export").addEventListener("click", () => download(chat.store, [chat.conversation.id], chat.conversation.title));
  byId("export-all").addEventListener("click", () => download(chat.store, chat.all.map(({ id }) => id), "conversations"));
  const file = byId("import-file");
  byId("import").addEventListener("click", () => file.click());
  file.addEventListener("change", async () => {
    for (const each of file.files) await chat.import(each);
    file.value = "";
  });
}

// As many rows as the text has lines, within reason; browsers that know field-sizing count wrapped ones too.
export function grow(field) {
  field.rows = Math.min(10, field.value.split("\n").length);
}
