// The presets page: what is typed is checked by the server, saved with a word on what happens to the models, and told of
// when the file changes on disk.

import { follow, say, tick } from "../live.js";
import { Completion } from "./completion.js";
import { Editor } from "./editor.js";
import { shown } from "./line_diff.js";

const QUIET_MS = 300;
const TICK_MS = 10000;
const CHECKING = "Checking …";

document.documentElement.classList.add("scripted");
const form = document.getElementById("edit");

async function ask(path, body) {
  const options = { headers: { Accept: "application/json" } };
  if (body !== undefined) {
    options.method = "POST";
    options.headers["Content-Type"] = "application/json";
    options.body = JSON.stringify(body);
  }
  const answer = await fetch(path, options);
  const said = await answer.json();
  if (!answer.ok) throw new Error(said.error?.message ?? answer.statusText);
  return said;
}

function element(tag, text, fields = {}) {
  const made = document.createElement(tag);
  made.textContent = text;
  return Object.assign(made, fields);
}

class Page {
  #editor = new Editor(document.getElementById("editor"), () => this.#changed());
  #base = document.getElementById("base").value || null;
  #outcome = document.getElementById("outcome");
  #problems = document.getElementById("problems");
  #conflict = document.getElementById("conflict");
  #state = document.getElementById("saved");
  #save = document.getElementById("save");
  #readOnly = form.dataset.readOnly === "yes";
  #saved = form.dataset.new || form.dataset.restored ? null : this.#editor.text; // what is on disk, as far as known
  #timer = null;
  #asking = null; // the check that is under way
  #stale = false;
  #saving = false;
  #theirs = null; // what the last conflict showed

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
    document.getElementById("name").addEventListener("input", () => this.#changed());
    window.addEventListener("beforeunload", (event) => { if (this.#dirty) event.preventDefault(); });
    for (const button of form.querySelectorAll(".compare")) button.addEventListener("click", () => this.#compare(button));
    ask("/ui/presets/schema").then((schema) => new Completion(this.#editor, document.getElementById("editor"), schema), () => {});
    if (this.#saved === null) this.#changed();
  }

  get #file() {
    return form.dataset.new ? document.getElementById("name").value : form.dataset.file;
  }

  get #dirty() {
    return !this.#readOnly && this.#editor.text !== this.#saved;
  }

  #show() {
    if (this.#readOnly) return;
    this.#state.classList.toggle("dirty", this.#dirty);
    this.#state.textContent = this.#dirty ? "not saved" : "";
    this.#save.disabled = !this.#dirty || this.#saving;
  }

  #changed() {
    this.#show();
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#check(), QUIET_MS);
  }

  // One check at a time; what was typed meanwhile is checked next.
  async #check() {
    if (this.#asking) { this.#stale = true; return; }
    if (!this.#dirty) { this.#tell({ problems: [], notices: [], words: "" }); return; }
    const text = this.#editor.text;
    if (!this.#outcome.textContent) this.#outcome.textContent = CHECKING;
    try {
      this.#asking = ask("/ui/presets/try", { file: this.#file, text });
      const answer = await this.#asking;
      if (this.#editor.text === text && !this.#saving) this.#tell(answer);
    } catch (error) {
      if (!this.#saving) this.#fail(`Not checked: ${error.message}`);
    } finally {
      this.#asking = null;
      if (this.#stale) { this.#stale = false; this.#check(); }
    }
  }

  #tell({ problems, notices, words }) {
    const here = problems.filter((problem) => problem.here);
    this.#editor.mark(here);
    const count = problems.length === 1 ? "1 problem" : `${problems.length} problems`;
    const text = words ?? (here.length > 0 ? `${count}: fix what is marked before it can be saved.` : `${count} in other files.`);
    const line = element("p", text, { className: words === null ? "wrong" : "preview" });
    if (text === "") this.#outcome.replaceChildren();
    else if (this.#outcome.textContent !== text) this.#outcome.replaceChildren(line);
    this.#problems.replaceChildren(...[...problems, ...notices].map((each) => this.#item(each, notices.includes(each))));
    this.#editor.area.setAttribute("aria-invalid", String(here.length > 0));
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

  #fail(message) {
    this.#outcome.replaceChildren(element("p", message, { className: "wrong" }));
  }

  #submit(event) {
    event.preventDefault();
    if (event.submitter?.id === "delete") this.#remove();
    else this.save();
  }

  async save() {
    if (this.#saving || !this.#dirty || !form.reportValidity()) return;
    const text = this.#editor.text;
    await this.#put(text, (answer) => {
      this.#base = answer.sha;
      this.#saved = text;
      this.#theirs = null;
      this.#conflict.replaceChildren();
      this.#tell({ ...answer, words: answer.words ?? "Saved, but not in use: other files have problems." });
      if (form.dataset.new) this.#settle();
      this.#refreshFiles();
    });
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
      else if (answer.outcome === "conflict") this.#conflicts(answer, text);
      else this.#tell(answer);
    } catch (error) {
      this.#fail(`Not saved: ${error.message}`);
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

  #conflicts({ text, sha }, mine) {
    this.#theirs = sha;
    const box = element("section", "", { className: "notice conflict" });
    box.setAttribute("role", "alert");
    const gone = text === null;
    box.append(element("p", gone ? "The file was removed on disk meanwhile." : "The file changed on disk meanwhile. What you wrote is not saved."));
    const take = element("button", gone ? "Discard mine" : "Take the file's", { type: "button", className: "quiet" });
    const keep = element("button", "Keep mine", { type: "button" });
    take.addEventListener("click", () => this.#take(text, sha));
    keep.addEventListener("click", () => {
      this.#base = sha;
      this.#conflict.replaceChildren();
      this.#saved = null;
      this.save();
    });
    box.append(keep, " ", take);
    if (!gone) box.append(element("p", "− only in the file, + only in yours:", { className: "legend" }), shown(text, mine ?? "", "Difference between the file and your text"));
    this.#conflict.replaceChildren(box);
  }

  #take(text, sha) {
    this.#conflict.replaceChildren();
    if (text === null) {
      this.#saved = this.#editor.text;
      location.assign("/ui/presets");
      return;
    }
    this.#base = sha;
    this.#saved = text;
    this.#theirs = null;
    this.#editor.replaceAll(text);
    this.#show();
    this.#check();
  }

  async #compare(button) {
    const box = document.getElementById("compared");
    try {
      const { text } = await ask(`/ui/presets/file/${encodeURIComponent(this.#file)}?at=${button.dataset.at}`);
      const restore = element("button", "Put this version into the editor", { type: "button", className: "quiet" });
      restore.addEventListener("click", () => { this.#editor.replaceAll(text); box.replaceChildren(); });
      box.replaceChildren(
        element("p", "− only in that version, + only in the editor:", { className: "legend" }),
        shown(text, this.#editor.text, "Difference between that version and the editor"), restore,
      );
    } catch (error) {
      box.replaceChildren(element("p", error.message, { className: "wrong" }));
    }
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
      for (const button of fresh.querySelectorAll(".compare")) button.addEventListener("click", () => this.#compare(button));
    };
    swap("files");
    swap("history");
  }

  // Where a link of a model's page leads.
  goTo(line) {
    if (line > 0) this.#editor.goTo(line);
  }

  // Something changed: the models, or the file on disk.
  async look() {
    if (this.#saving) return;
    if (form.dataset.new || this.#readOnly) { await ask("/ui/presets/schema"); return; }
    const before = this.#base;
    const { text, sha } = await ask(`/ui/presets/file/${encodeURIComponent(this.#file)}`);
    if (sha === this.#base || before !== this.#base || this.#saving || sha === this.#theirs) return;
    if (this.#dirty || text === null) {
      this.#conflicts({ text, sha }, this.#editor.text);
      return;
    }
    this.#base = sha;
    this.#saved = text;
    this.#editor.load(text);
    this.#show();
    this.#tell({ problems: [], notices: [], words: "The file changed on disk; this is what it holds now." });
    this.#refreshFiles();
  }
}

const page = form ? new Page() : null;
page?.goTo(Number(new URLSearchParams(location.search).get("line")));

follow(() => {
  Promise.resolve(page?.look()).then(() => say(true), () => say(false));
});
setInterval(() => tick(document.body), TICK_MS);
