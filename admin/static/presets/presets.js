// The presets page: what is typed is checked by the server, saved with a word on what happens to the models, and told of
// when the file changes on disk.

import { follow, say, tick } from "../live.js";
import { Away, ask, element } from "./asking.js";
import { Completion } from "./completion.js";
import { conflictBox } from "./conflict.js";
import { Editor } from "./editor.js";
import { Outcome } from "./outcome.js";
import { Versions } from "./versions.js";

const QUIET_MS = 300;
const TICK_MS = 10000;
const KEPT = "What you wrote is still here.";

document.documentElement.classList.add("scripted");
const form = document.getElementById("edit");

class Page {
  #editor = new Editor(document.getElementById("editor"), () => this.#changed());
  #base = document.getElementById("base").value || null;
  #outcome = new Outcome(this.#editor);
  #conflict = document.getElementById("conflict");
  #state = document.getElementById("saved");
  #save = document.getElementById("save");
  #readOnly = form.dataset.readOnly === "yes";
  #saved = form.dataset.new || form.dataset.restored ? null : this.#editor.text; // what is on disk, as far as known
  #timer = null;
  #asking = null; // the check that is under way
  #judged = null; // what the last check was of, {file, text, savable}
  #saving = false;
  #unsure = false; // a save or a check was not answered, or the file could not be read
  #theirs; // the sha that the last conflict showed
  #restored = null; // which version of the history was put into the editor, {text, words}
  #versions;

  constructor() {
    this.#show();
    if (this.#readOnly) return;
    form.addEventListener("submit", (event) => this.#submit(event));
    this.#editor.area.addEventListener("keydown", (event) => {
      if ((event.ctrlKey || event.metaKey) && event.key === "s") {
        event.preventDefault();
        this.save();
      }
    });
    document.getElementById("name").addEventListener("input", () => this.#renamed());
    window.addEventListener("beforeunload", (event) => { if (this.#dirty) event.preventDefault(); });
    this.#versions = new Versions(form, this.#editor, () => this.#file, (words) => {
      this.#restored = { text: this.#editor.text, words };
      this.#show();
    });
    ask("/ui/presets/schema").then((schema) => new Completion(this.#editor, document.getElementById("editor"), schema), () => {});
    if (this.#saved === null) this.#changed();
  }

  get #file() {
    return form.dataset.new ? document.getElementById("name").value : form.dataset.file;
  }

  get #dirty() {
    return !this.#readOnly && this.#editor.text !== this.#saved;
  }

  // Why there is nothing to be saved; "" if there is. Save can be reached all the same, so that this can be read.
  get #whyNot() {
    if (this.#saving) return "It is being saved.";
    if (!this.#dirty) return "Nothing has changed.";
    if (this.#conflict.hasChildNodes()) return "Choose first whose text it is to be.";
    return this.#verdict?.savable === false ? "Fix the problems first." : "";
  }

  // The last check, if it was of what is there now.
  get #verdict() {
    const { file, text } = this.#judged ?? {};
    return file === this.#file && text === this.#editor.text ? this.#judged : null;
  }

  #show() {
    if (this.#readOnly) return;
    const why = this.#whyNot;
    this.#state.classList.toggle("dirty", this.#dirty);
    const isRestored = this.#restored?.text === this.#editor.text;
    this.#state.textContent = !this.#dirty ? "" : isRestored ? this.#restored.words : "not saved";
    this.#save.setAttribute("aria-disabled", String(why !== ""));
    this.#save.title = why;
    document.getElementById("why").textContent = why;
  }

  #changed() {
    this.#show();
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#check(), QUIET_MS);
  }

  // Another name of a new file is another file: whatever was there under the first one is of no interest.
  #renamed() {
    this.#base = null;
    this.#theirs = undefined;
    this.#conflict.replaceChildren();
    this.#changed();
  }

  // Have what is there now checked. One check at a time; what was typed meanwhile is checked next.
  async #check() {
    clearTimeout(this.#timer);
    const waits = this.#asking !== null;
    while (this.#asking) await this.#asking;
    if (waits && this.#verdict) return;
    if (!this.#dirty) { this.#outcome.clear(); return; }
    const [file, text] = [this.#file, this.#editor.text];
    this.#outcome.checking();
    this.#asking = this.#judge(file, text);
    await this.#asking;
    this.#asking = null;
    this.#show();
  }

  async #judge(file, text) {
    try {
      const answer = await ask("/ui/presets/try", { file, text });
      this.#judged = { file, text, savable: answer.savable };
      if (this.#verdict && !this.#saving) this.#outcome.tell(answer);
    } catch (error) {
      this.#judged = null;
      this.#unsure ||= error instanceof Away;
      if (!this.#saving) this.#outcome.fail(`Not checked: ${error.message}. ${KEPT}`);
    }
  }

  #submit(event) {
    event.preventDefault();
    if (event.submitter?.id === "delete") this.#remove();
    else this.save();
  }

  // What has not been found good is checked first: what is wrong may have been put right elsewhere meanwhile.
  async save() {
    if (this.#saving || !this.#dirty || !form.reportValidity()) return;
    if (this.#conflict.hasChildNodes()) await this.look().catch(() => {});
    if (!this.#conflict.hasChildNodes() && !this.#verdict?.savable) await this.#check();
    if (this.#whyNot) {
      this.#state.textContent = `not saved: ${this.#whyNot}`;
      return;
    }
    if (!this.#verdict) return; // it could not be checked, or was typed on
    const text = this.#editor.text;
    await this.#put(text, (answer) => {
      this.#kept(text, answer.sha);
      this.#outcome.tell({ ...answer, words: answer.words ?? "Saved, but not in use: other files have problems." });
    });
  }

  // The file holds that text.
  #kept(text, sha) {
    this.#base = sha;
    this.#saved = text;
    this.#theirs = undefined;
    this.#conflict.replaceChildren();
    if (form.dataset.new) this.#settle();
    this.#show();
    this.#refreshFiles();
  }

  async #remove() {
    const dialog = element("dialog", "", { className: "ask" });
    const box = element("form", "", { method: "dialog" });
    box.append(
      element("p", `Delete ${this.#file}? Its models end once their requests are done. The history keeps what it holds.`),
      element("button", "Delete", { value: "delete" }), " ",
      element("button", "Keep it", { className: "quiet", value: "", autofocus: true }),
    );
    dialog.append(box);
    document.body.append(dialog);
    dialog.addEventListener("close", () => {
      dialog.remove();
      if (dialog.returnValue !== "delete") return;
      this.#put(null, () => {
        this.#saved = this.#editor.text;
        location.assign("/ui/presets");
      });
    });
    dialog.showModal();
  }

  async #put(text, done) {
    this.#saving = true;
    this.#show();
    try {
      const answer = await ask("/ui/presets/save", { file: this.#file, text, base: this.#base });
      if (answer.outcome === "saved") done(answer);
      else if (answer.outcome === "conflict") this.#meet(answer);
      else {
        this.#outcome.tell(answer);
        if (text !== null) this.#judged = { file: this.#file, text, savable: false };
      }
    } catch (error) {
      const isAway = error instanceof Away;
      this.#unsure ||= isAway || error.status === 409; // what is there is no file
      const known = isAway ? "Whether it was saved is not known yet; this page looks once it is back." : "";
      this.#outcome.fail(isAway ? `${error.message}. ${KEPT} ${known}` : `Not saved: ${error.message}`);
    } finally {
      this.#saving = false;
      this.#show();
    }
  }

  // A new file has been saved: from now on it is one like the others.
  #settle() {
    form.dataset.file = this.#file;
    form.dataset.new = "";
    const name = document.getElementById("name");
    name.readOnly = true;
    history.replaceState(null, "", `/ui/presets?${new URLSearchParams({ file: form.dataset.file })}`);
    document.title = `${form.dataset.file} · llama-router`;
  }

  // The file is another one than that which is being edited: the same as what was written here, or a conflict.
  #meet({ text, sha }) {
    const mine = this.#editor.text;
    if (text === mine) {
      this.#kept(text, sha);
      this.#outcome.clear("Saved: the file holds what is here.");
      return;
    }
    this.#theirs = sha;
    const isNew = form.dataset.new !== "";
    const keep = () => this.#keep(text, sha);
    const take = () => this.#take(text, sha);
    this.#conflict.replaceChildren(conflictBox(this.#file, text, mine, isNew, { keep, take }));
    this.#show();
  }

  // Mine is to replace theirs: told like any save what it would do, and not done before Save is pressed.
  #keep(text, sha) {
    this.#base = sha;
    this.#saved = text;
    this.#conflict.replaceChildren();
    this.#judged = null;
    this.#outcome.clear();
    this.#changed();
    this.#save.focus();
  }

  #take(text, sha) {
    if (text === null) {
      this.#saved = this.#editor.text;
      location.assign("/ui/presets");
      return;
    }
    this.#editor.replaceAll(text);
    this.#kept(text, sha);
    this.#check();
  }

  async #refreshFiles() {
    const answer = await fetch(`/ui/presets?${new URLSearchParams({ file: form.dataset.file })}`);
    if (!answer.ok) return;
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const swap = (id) => {
      const [old, fresh] = [document.getElementById(id), page.getElementById(id)];
      if (!old || !fresh) return;
      if (old.tagName === "DETAILS") fresh.open = old.open;
      old.replaceWith(fresh);
    };
    swap("files");
    swap("history");
    this.#versions.dates();
  }

  // Where a link of a model's page leads.
  goTo(line) {
    if (line > 0) this.#editor.goTo(line);
  }

  // Something changed: the models, or the file on disk; or llama-router is back.
  async look() {
    if (this.#saving) return;
    if (this.#readOnly) { await ask("/ui/presets/schema"); return; }
    const before = this.#base;
    const found = await this.#found();
    if (found === null) return;
    const { text, sha } = found;
    const wasUnsure = this.#unsure;
    this.#unsure = false;
    const isStill = before === this.#base && !this.#saving;
    if (isStill && sha === this.#base && this.#theirs !== undefined) { // the file is again what was begun with
      this.#theirs = undefined;
      this.#conflict.replaceChildren();
      this.#changed();
    }
    const isNews = isStill && sha !== this.#base && sha !== this.#theirs;
    // Of a new file that others have made too, it is told when this one is saved.
    if (isNews && !(form.dataset.new && text !== this.#editor.text)) this.#met(text, sha);
    else if (wasUnsure) this.#check();
  }

  // The file on disk; null where that can't be edited, which is told.
  async #found() {
    try {
      return await ask(`/ui/presets/file/${encodeURIComponent(this.#file)}`);
    } catch (error) {
      if (error instanceof Away) throw error;
      this.#unsure = true;
      this.#outcome.fail(`${error.message}. ${KEPT}`);
      return null;
    }
  }

  #met(text, sha) {
    if (this.#dirty || text === null) {
      this.#meet({ text, sha });
      return;
    }
    this.#base = sha;
    this.#saved = text;
    this.#editor.load(text);
    this.#show();
    this.#outcome.clear("The file changed on disk; this is what it holds now.");
    this.#refreshFiles();
  }
}

const page = form ? new Page() : null;
page?.goTo(Number(new URLSearchParams(location.search).get("line")));

const look = () => Promise.resolve(page?.look()).then(() => say(true), () => say(false));
follow(look);
window.addEventListener("focus", look); // comments are no change of a model, and are often written in a terminal beside it
setInterval(() => tick(document.body), TICK_MS);
