// The models that can be chosen, kept true by the event stream; choosing one that is not loaded loads it.

import { follow, say } from "../live.js";
import { wordsOf } from "./sse.js";

const OURS = "/ui/playground";
const ASK_MS = 10_000;
const byId = (id) => document.getElementById(id);

// Nobody answers.
class Away extends Error {}

// A request to the dashboard's own routes. Throws an Error with the server's words, or Away.
export async function ask(path, options = {}) {
  const headers = { Accept: "application/json" };
  const answer = await fetch(OURS + path, { ...options, headers, signal: AbortSignal.timeout(ASK_MS) }).catch(() => {
    throw new Away("llama-router does not answer");
  });
  if (answer.ok) return answer;
  const body = await answer.json().catch(() => null);
  throw new Error(wordsOf(body, `${answer.status} ${answer.statusText}`));
}

function element(name, className, text) {
  const made = document.createElement(name);
  made.className = className;
  made.textContent = text;
  return made;
}

export class Models {
  // `changed()` is called when the chosen model or what is known of it is another.
  constructor(changed) {
    this.changed = changed;
    this.all = null; // by name, once they are known
    this.autoload = true;
    this.name = "";
    this.refused = null; // why the chosen model could not be asked to load, {words, of: circumstances, isAway}
    this.fetching = false;
    this.again = false;
    this.select = byId("model");
    this.select.addEventListener("change", () => this.pick(this.select.value));
    byId("load").addEventListener("click", () => this.load());
  }

  start() {
    follow(() => this.refresh());
  }

  // What is known of the chosen model, undefined if nothing is.
  get model() {
    return this.all?.get(this.name);
  }

  // Show `name` as chosen without loading it: for a conversation that is opened, or a link.
  choose(name) {
    const known = [...(this.all?.values() ?? [])].find((each) => each.name === name || each.aliases.includes(name));
    this.name = known?.name ?? name;
    this.refused = null;
    this.show();
  }

  // The user's choice.
  pick(name) {
    this.choose(name);
    if (this.model?.state === "stopped" && this.autoload) this.load();
  }

  async load() {
    const failed = this.model?.state === "failed";
    try {
      await ask(failed ? "/retry" : "/load", { method: "POST", body: new URLSearchParams({ model: this.name }) });
      this.refused = null;
    } catch (error) {
      const words = `${this.name} was not loaded: ${error.message}`;
      this.refused = { words, of: this.#circumstances, isAway: error instanceof Away };
    }
    this.refresh();
  }

  // Once they are others, what was refused may not be any more.
  get #circumstances() {
    return `${this.model?.state} ${this.autoload}`;
  }

  async refresh() {
    this.again = this.fetching;
    if (this.fetching) return;
    this.fetching = true;
    try {
      const { models, autoload } = await (await ask("/models")).json();
      this.autoload = autoload;
      this.all = new Map(models.map((model) => [model.name, model]));
      if (this.refused?.isAway) this.refused = null;
      if (!this.model) this.choose(this.name || this.first());
      say(true);
    } catch {
      say(false);
    } finally {
      this.fetching = false;
    }
    this.show();
    if (this.again) this.refresh();
  }

  // What a new conversation begins with: a model that is ready, else the first that chats.
  first() {
    const chatting = [...this.all.values()].filter((model) => model.chat);
    return (chatting.find((model) => model.state === "ready") ?? chatting[0])?.name ?? "";
  }

  show() {
    if (!this.all) return;
    this.#options();
    const { model } = this;
    if (this.refused && this.refused.of !== this.#circumstances) this.refused = null;
    const badge = byId("state");
    const label = model ? model.label : this.name ? "unknown" : "";
    if (badge.textContent !== label) badge.textContent = label;
    badge.className = `state-of badge ${model?.state ?? "stopped"}`;
    badge.hidden = !label;
    const loading = model?.state === "starting";
    byId("loading").hidden = !loading;
    if (loading) this.#progress(model);
    byId("load").hidden = !model?.chat || model.state !== "stopped";
    this.#trouble(model);
    this.changed();
  }

  #progress({ name, percent, words }) {
    const bar = byId("progress");
    bar.setAttribute("aria-label", `Loading ${name}`);
    if (percent === null) bar.removeAttribute("value");
    else bar.value = percent;
    byId("percent").textContent = [percent === null ? null : `${percent} %`, words].filter(Boolean).join(", ");
  }

  // Options change only where they differ: a list that is open stays as it is.
  #options() {
    const wanted = [...this.all.values()].map(({ name, chat, state, label }) => {
      const isPlain = state === "stopped" || name === this.name;
      const about = !chat ? " · embeddings or ranks, no chat" : isPlain ? "" : ` · ${label}`;
      return { value: name, disabled: !chat, text: name + about };
    });
    if (!this.all.has(this.name)) {
      const none = wanted.length > 0 ? "Choose a model" : "No models yet";
      const text = this.name ? `${this.name} · not among the models` : none;
      wanted.unshift({ value: this.name, disabled: false, text });
    }
    while (this.select.options.length > wanted.length) this.select.lastElementChild.remove();
    for (const [index, facts] of wanted.entries()) {
      const option = this.select.options[index] ?? this.select.appendChild(document.createElement("option"));
      for (const [key, value] of Object.entries(facts)) if (option[key] !== value) option[key] = value;
    }
    if (this.select.value !== this.name) this.select.value = this.name;
  }

  #trouble(model) {
    const place = byId("trouble");
    const ended = model && (model.state === "failed" || model.state === "backoff");
    const words = ended ? `${model.name} ${model.label}: ${model.words ?? "no reason is known"}` : this.refused?.words;
    const key = JSON.stringify([words, ended && model.lines]);
    if (place.dataset.key === key) return;
    place.dataset.key = key;
    place.replaceChildren();
    if (!words) return;
    const notice = element("div", "notice", "");
    notice.append(element("p", "", words));
    if (ended && model.lines.length > 0) {
      const details = element("details", "", "");
      const lines = element("pre", "", model.lines.join("\n"));
      lines.tabIndex = 0;
      details.append(element("summary", "", "Last log lines"), lines);
      notice.append(details);
    }
    if (model?.state === "failed") {
      const again = element("button", "quiet small", "Try again");
      again.type = "button";
      again.addEventListener("click", () => this.load());
      notice.append(again);
    }
    place.append(notice);
  }
}
