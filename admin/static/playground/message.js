// A message of the thread: what was said, and what can be done with it.

import { duration } from "../live.js";
import { shown } from "./attachments.js";
import { copyButton } from "./copy.js";
import { Writer } from "./markdown.js";

const MOST = 200_000; // characters of a message that are shown unasked: a browser takes seconds to lay out a megabyte
const WRITTEN_MS = 5000; // an answer that another tab writes was saved less long ago

function make(name, className = "", text = "") {
  const element = document.createElement(name);
  if (className) element.className = className;
  if (text) element.textContent = text;
  return element;
}

export function button(text, pressed, { label = "", className = "text" } = {}) {
  const made = make("button", className, text);
  made.type = "button";
  if (label) made.setAttribute("aria-label", label);
  made.addEventListener("click", pressed);
  return made;
}

// Such as "43 tokens · 21.3 tokens/s · first after 412 ms".
export function statsWords(stats) {
  if (!stats || !stats.tokens) return "";
  const words = [`${stats.exact ? "" : "about "}${stats.tokens} ${stats.tokens === 1 ? "token" : "tokens"}`];
  if (Number.isFinite(stats.rate)) words.push(`${stats.rate.toFixed(stats.rate < 100 ? 1 : 0)} tokens/s`);
  if (Number.isFinite(stats.first)) words.push(`first after ${duration(stats.first / 1000)}`);
  return words.join(" · ");
}

// Why an answer is not whole; "" if it is.
function ending({ finish, updated, error }) {
  if (error) return "";
  if (finish === "stopped") return "stopped";
  if (finish === "length") return "cut off: max tokens or the context is used up";
  if (finish) return "";
  return Date.now() - (updated ?? 0) < WRITTEN_MS ? "being written in another tab" : "broken off";
}

// `actions`: regenerate(message), edit(message, text), turn(message, by).
export class MessageView {
  constructor(message, actions) {
    this.actions = actions;
    this.message = message;
    this.element = make("article", `message ${message.role}`);
    this.element.dataset.id = message.id;
    this.element.setAttribute("aria-label", message.role === "user" ? "You" : `Answer of ${message.model ?? "a model"}`);
    this.body = make("div", "body");
    this.foot = make("div", "foot");
    this.writer = null;
    this.thoughts = null;
    this.more = make("p", "more");
    this.isWhole = false;
    this.element.append(this.body, this.foot);
    if (message.role === "user") this.#question();
  }

  // Show the newest state. `place` is [index, count] among its alternatives, `waiting` what a running answer that has no
  // words yet waits for.
  update(message, place, { running = false, waiting = "" } = {}) {
    this.message = message;
    if (message.role === "assistant") this.#answer(running, waiting);
    const state = JSON.stringify([place, running, Boolean(message.content), message.finish, message.error, message.stats, ending(message)]);
    if (state === this.state) return;
    this.state = state;
    this.#foot(place, running);
  }

  #question() {
    const { content, attachments = [] } = this.message;
    this.body.replaceChildren(...attachments.filter(Boolean).map(shown));
    if (content) this.body.append(make("p", "said", this.#shown(content)), this.more);
  }

  // As much of a text as is to be seen; where that is not all, a button shows the rest.
  #shown(text) {
    const isCut = text.length > MOST && !this.isWhole;
    this.more.hidden = !isCut;
    if (!isCut) return text;
    if (!this.more.hasChildNodes()) this.more.append(button("", () => this.#showAll(), { className: "quiet small" }));
    this.more.firstChild.textContent = `Show all ${text.length.toLocaleString("en")} characters`;
    return text.slice(0, MOST);
  }

  #showAll() {
    this.isWhole = true;
    const { role, content } = this.message;
    if (role === "user") this.#question();
    else this.writer.show(this.#shown(content));
  }

  #answer(running, waiting) {
    const { content, reasoning, calls = [], error } = this.message;
    if (!this.writer) {
      this.thoughts = make("details", "thoughts");
      this.thoughts.append(make("summary", "", "Reasoning"), make("pre"));
      this.thoughts.lastChild.tabIndex = 0;
      this.waits = make("p", "waits");
      this.text = make("div", "markdown");
      this.calls = make("div");
      this.broke = make("div");
      this.body.append(this.thoughts, this.waits, this.text, this.more, this.calls, this.broke);
      this.writer = new Writer(this.text);
    }
    this.thoughts.hidden = !reasoning;
    const thinking = running && reasoning && !content;
    this.thoughts.firstChild.textContent = thinking ? "Reasoning…" : "Reasoning";
    if (this.thoughts.lastChild.textContent !== (reasoning ?? "")) this.thoughts.lastChild.textContent = reasoning ?? "";
    this.waits.textContent = running && !content && !reasoning ? waiting : "";
    this.waits.hidden = !this.waits.textContent;
    this.writer.show(this.#shown(content));
    this.element.classList.toggle("running", running);
    this.element.setAttribute("aria-busy", running);
    this.calls.replaceChildren(...calls.map(({ name, arguments: given }) => {
      const block = make("div", "code");
      const pre = make("pre");
      pre.tabIndex = 0;
      pre.append(make("code", "", given));
      const head = make("div", "code-head");
      head.append(make("span", "", `Tool call: ${name}`));
      block.append(head, pre);
      return block;
    }));
    if (this.broke.dataset.error !== (error ?? "")) this.#error(error ?? "");
  }

  #error(error) {
    this.broke.dataset.error = error;
    this.broke.replaceChildren();
    if (!error) return;
    const notice = make("div", "notice");
    const retry = button("Retry", () => this.actions.regenerate(this.message), { className: "quiet small" });
    notice.append(make("p", "", error), retry);
    this.broke.append(notice);
  }

  #foot([index, count], running) {
    const { message, actions } = this;
    const focused = this.foot.contains(document.activeElement) ? document.activeElement.textContent : null;
    const parts = [];
    if (count > 1) {
      const turn = make("span", "turn");
      const back = button("‹", () => actions.turn(message, -1), { label: "Previous version" });
      const on = button("›", () => actions.turn(message, 1), { label: "Next version" });
      back.disabled = index === 0;
      on.disabled = index === count - 1;
      turn.append(back, make("span", "", `${index + 1}/${count}`), on);
      parts.push(turn);
    }
    if (!running) {
      const what = message.role === "user" ? "question" : "answer";
      if (message.content) parts.push(copyButton(() => message.content, what));
      if (message.role === "user") parts.push(button("Edit", () => this.#edit()));
      else if (!message.error) parts.push(button("Regenerate", () => actions.regenerate(message)));
      const told = message.role === "assistant" ? [ending(message), statsWords(message.stats)] : [];
      const words = told.filter(Boolean).join(" · ");
      if (words) parts.push(make("span", "stats", words));
    }
    this.foot.replaceChildren(...parts);
    const again = [...this.foot.querySelectorAll("button:not(:disabled)")].find((each) => each.textContent === focused);
    again?.focus();
  }

  // The question becomes a field; what is sent from it is another version.
  #edit() {
    const form = make("form", "edit");
    const field = make("textarea");
    field.value = this.message.content;
    field.setAttribute("aria-label", "Edit the question");
    field.rows = Math.min(12, field.value.split("\n").length + 1);
    const stop = () => {
      form.replaceWith(this.body);
      this.foot.hidden = false;
      [...this.foot.querySelectorAll("button")].find((each) => each.textContent === "Edit")?.focus();
    };
    const line = make("div", "line");
    const send = make("button", "small", "Send");
    line.append(send, button("Cancel", stop, { className: "quiet small" }));
    form.append(field, line);
    field.addEventListener("keydown", (event) => {
      if (event.key === "Escape") stop();
      if (event.key === "Enter" && !event.shiftKey && !event.isComposing) form.requestSubmit();
      else if (event.key !== "Escape") return;
      event.preventDefault();
      event.stopPropagation();
    });
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      const text = field.value.trim();
      if (!text && !this.message.attachments?.length) return;
      stop();
      this.actions.edit(this.message, text);
    });
    this.body.replaceWith(form);
    this.foot.hidden = true;
    field.focus();
  }
}
