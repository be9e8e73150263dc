// The playground: puts the conversations, the thread, the models and the composer together.

import { say, tick } from "../live.js";
import { Answering } from "./answering.js";
import { Unusable } from "./archive.js";
import { Attachments } from "./attachments.js";
import { Conversations } from "./conversations.js";
import { upload } from "./files.js";
import { Models } from "./models.js";
import { Notes } from "./notes.js";
import { requestOf } from "./request.js";
import { Settings } from "./settings.js";
import { newId, openStore } from "./store.js";
import { Thread } from "./thread.js";
import { Tree } from "./tree.js";
import { grow, wire } from "./wiring.js";

const TITLE_LENGTH = 60;
const TICK_MS = 5000; // as long as an answer of another tab may take to be called broken off
const LONGEST_TOLD = 2000; // characters of an answer that are announced
const UNDONE = { keep: "Not kept", list: "Conversations can't be read", import: "Not imported" };
const WIDE = matchMedia("(min-width: 64rem)");
const byId = (id) => document.getElementById(id);

class Chat {
  constructor(store) {
    this.store = store;
    this.notes = new Notes(byId("notes"));
    this.tree = new Tree();
    this.thread = new Thread({
      regenerate: (message) => this.answer(message.parent, message.error && !message.content ? message.id : newId()),
      edit: (message, text) => this.ask(text, message.attachments ?? [], message.parent),
      turn: (message, by) => this.turn(message, by),
    });
    this.answering = new Answering({
      shown: (message) => this.written(message),
      saved: (message, over) => this.keep(message, over ? { updated: Date.now() } : null, over),
    });
    this.conversations = new Conversations({
      open: (id) => this.open(id),
      rename: (id, title) => this.attempt("keep", () => this.store.change(id, { title })).then(() => this.list()),
      remove: (id) => this.remove(id),
    });
    this.settings = new Settings((settings) => this.change({ settings }));
    this.attachments = new Attachments((text) => this.insert(text), (words) => {
      if (words) this.notes.tell("attach", words);
      else this.notes.settle("attach");
    });
    this.models = new Models(() => this.modelChanged());
  }

  async start() {
    this.store.follow((change) => this.elsewhere(change));
    wire(this);
    const chosen = new URLSearchParams(location.search).get("model");
    const id = location.hash.slice(1);
    const { problem } = this.store;
    const lost = `Conversations are lost when this page is closed: the browser keeps nothing (${problem})`;
    if (problem) this.notes.tell("browser", lost);
    await this.list();
    if (!chosen && id && this.all.some((each) => each.id === id)) await this.open(id);
    else this.fresh(chosen ?? this.all[0]?.model ?? "");
    this.models.start();
    byId("playground").dataset.ready = "true";
    setInterval(() => this.tick(), TICK_MS);
  }

  // Times grow, and what another tab was writing may have been left unfinished.
  tick() {
    tick(byId("list"));
    for (const message of this.tree.path(this.head)) {
      const isOpen = message.role === "assistant" && !message.finish && !message.error;
      if (isOpen && !this.answering.running.has(message.id)) this.thread.update(this.tree, message);
    }
  }

  // Conversations

  fresh(model) {
    const now = Date.now();
    this.conversation = { id: newId(), title: "", model, settings: {}, head: null, created: now, updated: now };
    this.isKept = false;
    this.#opened([]);
  }

  async open(id) {
    const [conversation, messages] = await Promise.all([this.store.conversation(id), this.store.messages(id)]);
    if (!conversation) return;
    this.conversation = conversation;
    this.isKept = true;
    this.#opened(messages);
  }

  #opened(messages) {
    this.tree = new Tree(messages);
    for (const { message } of this.answering.running.values()) {
      if (message.conversation === this.conversation.id) this.tree.put(message);
    }
    this.notes.settle("attach", "import");
    byId("announce").textContent = "";
    const { id, head, model, settings } = this.conversation;
    this.head = this.tree.get(head) ? head : this.tree.newest();
    const chosen = model ? `?${new URLSearchParams({ model })}` : "";
    history.replaceState(null, "", location.pathname + (this.isKept ? `#${id}` : chosen));
    this.settings.show(settings);
    this.thread.clear();
    this.models.choose(model);
    this.conversations.show(this.all, id);
    this.panel("conversations", false);
    this.show();
    if (WIDE.matches) byId("text").focus();
  }

  async list() {
    this.all = (await this.attempt("list", () => this.store.conversations())) ?? [];
    this.conversations.show(this.all, this.conversation?.id);
  }

  // Another tab wrote something.
  async elsewhere({ conversation, message }) {
    if (message === null) await this.list();
    if (conversation !== this.conversation.id || !this.isKept) return;
    const now = await this.store.conversation(conversation);
    if (!now) {
      this.fresh(this.conversation.model);
      return;
    }
    if (conversation !== this.conversation.id) return;
    const found = message === null ? await this.store.messages(conversation) : [await this.store.message(message)];
    if (conversation !== this.conversation.id) return;
    for (const each of found) if (each && !this.answering.running.has(each.id)) this.tree.put(each);
    if (this.head) this.head = this.tree.tip(this.head);
    this.conversation = now;
    if (!byId("settings").contains(document.activeElement)) this.settings.show(now.settings);
    if (now.model !== this.models.name) this.models.choose(now.model);
    this.show();
  }

  async remove(id) {
    this.answering.stop(id);
    const removed = await this.attempt("keep", () => this.store.remove(id));
    if (!removed) return null;
    await this.list();
    if (id === this.conversation.id) this.fresh(this.conversation.model);
    return async () => {
      await this.attempt("keep", () => this.store.add([removed]));
      await this.list();
      await this.open(id);
    };
  }

  // What the user sets of the conversation is kept with it; of a new one, with its first message.
  async change(changes) {
    Object.assign(this.conversation, changes);
    if (this.isKept) await this.attempt("keep", () => this.store.change(this.conversation.id, changes));
  }

  // Messages

  // Ask a question below `parent`, and have it answered.
  async ask(content, attachments, parent) {
    const message = { id: newId(), conversation: this.conversation.id, parent, role: "user", content };
    message.created = Date.now();
    if (attachments.length > 0) message.attachments = attachments;
    this.tree.put(message);
    this.head = message.id;
    this.thread.atEnd = true;
    await this.answer(message.id, newId(), this.#keepQuestion(message));
  }

  // With the first question that can be kept, the conversation is; while it can't, it is tried again with the next one.
  async #keepQuestion(message) {
    const conversation = this.conversation;
    const changes = { head: message.id, model: this.models.name, updated: Date.now() };
    if (this.isKept) {
      await this.keep(message, changes);
      return;
    }
    conversation.title ||= titleOf(message.content || message.attachments?.[0]?.name || "");
    Object.assign(conversation, changes);
    const messages = [...this.tree.messages.values()].filter(({ id }) => !this.answering.running.has(id));
    const kept = await this.attempt("keep", () => this.store.add([{ conversation, messages }]));
    if (!kept) return;
    if (conversation === this.conversation) {
      this.isKept = true;
      history.replaceState(null, "", `${location.pathname}#${conversation.id}`);
      this.#controls();
    }
    await this.list();
  }

  // Have the question `parent` answered, once more if it was before. An answer of that `id` gives way to the new one.
  // It is asked for when the question is `kept`; until then the page shows it, and may be turned to another branch.
  async answer(parent, id = newId(), kept = Promise.resolve()) {
    if (this.answering.in(this.conversation.id)) return;
    const { name, model } = this.models;
    const now = Date.now();
    const message = { id, conversation: this.conversation.id, parent, role: "assistant", model: name, content: "" };
    Object.assign(message, { finish: null, created: now, updated: now });
    this.tree.put(message);
    this.head = message.id;
    byId("announce").textContent = "";
    const body = requestOf(name, this.conversation.settings, this.tree.path(parent), model?.inputs ?? []);
    const writing = this.answering.write(message, body, async () => {
      await kept;
      const head = this.conversation.id === message.conversation ? this.head : message.id;
      await this.keep(message, { head, model: name, updated: Date.now() });
    });
    this.show();
    await writing;
  }

  turn(message, by) {
    const siblings = this.tree.siblings(message.id);
    const id = siblings[siblings.indexOf(message.id) + by];
    this.head = this.tree.tip(id);
    this.thread.atEnd = false;
    this.show();
    byId("messages").querySelector(`[data-id="${id}"] .turn button:not(:disabled)`)?.focus();
    this.change({ head: this.head });
  }

  // A change of an answer that is written.
  written(message) {
    const isShown = message.conversation === this.conversation.id;
    const over = !this.answering.running.has(message.id);
    if (isShown) this.thread.update(this.tree, message, this.runs(message.id));
    if (isShown && over) {
      const words = message.error ?? (message.content.slice(0, LONGEST_TOLD) || "The answer is empty.");
      byId("announce").textContent = words;
    }
    if (over || !message.content) this.#controls();
  }

  runs(id) {
    if (!this.answering.running.has(id)) return undefined;
    const { model, name } = this.models;
    if (!model || model.state === "ready") return { waiting: "Waiting for the first word…" };
    const percent = model.percent === null ? "" : `, ${model.percent} %`;
    return { waiting: `Waiting for ${name} to load${percent}…` };
  }

  async keep(message, changes = null, relist = changes !== null) {
    const there = await this.attempt("keep", () => this.store.save(message, changes));
    if (there && relist) await this.list();
  }

  // Do something with the store; what went wrong is told until the same has worked. undefined then.
  async attempt(cause, work) {
    try {
      const result = await work();
      if (result) this.notes.settle(cause);
      return result;
    } catch (error) {
      const isFull = error.name === "QuotaExceededError";
      const words = isFull ? "the browser's storage is full. Delete conversations, or export this one." : error.message;
      this.notes.tell(cause, error instanceof Unusable ? error.message : `${UNDONE[cause]}: ${words}`);
      return undefined;
    }
  }

  // The page

  show() {
    this.thread.show(this.tree, this.head, (id) => this.runs(id));
    this.#controls();
  }

  modelChanged() {
    const { model, name } = this.models;
    if (name && name !== this.conversation.model) this.change({ model: name });
    this.attachments.allow(model?.inputs ?? []);
    this.settings.of(name);
    for (const { message } of this.answering.running.values()) this.written(message);
    this.#controls();
  }

  #controls() {
    const running = this.answering.in(this.conversation.id) !== undefined;
    const { model, name } = this.models;
    const focused = document.activeElement === byId("stop") || document.activeElement === byId("send");
    byId("send").hidden = running;
    byId("stop").hidden = !running;
    if (focused) byId("text").focus();
    byId("send").disabled = !name || model?.chat === false;
    byId("export").disabled = !this.isKept;
    byId("welcome").hidden = this.head !== null;
    byId("greeting").textContent = name ? `Chat with ${name}` : "Choose a model";
    const noChat = "This model computes embeddings or ranks; it does not chat.";
    byId("hint").textContent = model?.chat === false ? noChat : (model?.description ?? "");
    this.#context();
  }

  // How much of the context the conversation takes, where the server told.
  #context() {
    const place = byId("context");
    const last = this.tree.path(this.head).findLast((message) => Number.isFinite(message.stats?.prompt));
    const most = this.models.model?.context;
    place.hidden = !last || !most;
    if (place.hidden) return;
    const used = last.stats.prompt + last.stats.tokens;
    const meter = document.createElement("meter");
    meter.max = most;
    meter.high = most * 0.9;
    meter.value = used;
    meter.setAttribute("aria-label", "Context used");
    place.replaceChildren(meter, ` ${used} of ${most} tokens`);
  }

  insert(text) {
    const field = byId("text");
    field.setRangeText(text, field.selectionStart, field.selectionEnd, "end");
    grow(field);
    field.focus();
  }

  panel(id, open) {
    const panel = byId(id);
    const opener = byId(`open-${id}`);
    const was = opener.getAttribute("aria-expanded") === "true";
    if (id === "settings") panel.hidden = !open;
    else panel.classList.toggle("open", open);
    opener.setAttribute("aria-expanded", open);
    if (open && id === "settings") this.settings.look();
    if (open) panel.querySelector("input:not([hidden]), textarea, button").focus();
    else if (was) opener.focus();
  }

  submit() {
    const field = byId("text");
    const text = field.value.trim();
    if (this.answering.in(this.conversation.id) || byId("send").disabled) return;
    const attached = this.attachments.take();
    if (!text && attached.length === 0) return;
    field.value = "";
    grow(field);
    this.ask(text, attached, this.head);
  }

  async import(file) {
    const found = await this.attempt("import", () => upload(this.store, file));
    if (!found) return;
    const { added, known } = found;
    await this.list();
    if (added.length + known.length === 1) await this.open([...added, ...known][0]);
    this.notes.tell("import", importWords(file.name, added.length, known.length), true);
  }
}

// Such as "Imported 2 conversations of a.json; 1 was here already."
function importWords(name, added, known) {
  const count = (number) => `${number} ${number === 1 ? "conversation" : "conversations"}`;
  const here = known === 1 ? "was here already" : "were here already";
  if (added === 0 && known > 0) return `Nothing was imported: ${known === 1 ? "the conversation" : `all ${count(known)}`} of ${name} ${here}.`;
  return `Imported ${count(added)} of ${name}${known === 0 ? "" : `; ${known} ${here}`}.`;
}

function titleOf(text) {
  const line = text.trim().split("\n", 1)[0].replaceAll(/\s+/g, " ");
  return line.length <= TITLE_LENGTH ? line : `${line.slice(0, TITLE_LENGTH).replace(/\s+\S*$/, "")}…`;
}

say(true);
new Chat(await openStore()).start();
