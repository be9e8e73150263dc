// The thread: the messages of the path that is shown. Elements stay while their messages do, only the newest are built,
// and it scrolls along only where the reader is at its end.

import { MessageView } from "./message.js";

const SHOWN = 60; // messages, and as many more at each wish
const NEAR_END = 48; // pixels

const byId = (id) => document.getElementById(id);

export class Thread {
  constructor(actions) {
    this.actions = actions;
    this.views = new Map();
    this.most = SHOWN;
    this.atEnd = true;
    this.frame = byId("thread");
    this.place = byId("messages");
    this.frame.addEventListener("scroll", () => this.#scrolled(), { passive: true });
    byId("latest").addEventListener("click", () => this.toEnd());
    this.top = 0;
    // Images arrive late, and what is beside the thread grows and shrinks as well.
    const resized = new ResizeObserver(() => this.#follow());
    resized.observe(this.frame);
    resized.observe(this.place);
    byId("earlier").addEventListener("click", () => this.#earlier());
  }

  // Forget what was shown, for another conversation.
  clear() {
    this.views.clear();
    this.most = SHOWN;
    this.atEnd = true;
    this.place.replaceChildren();
  }

  // Show the path to `head`. `runs(id)` tells what is being written: {waiting} or undefined.
  show(tree, head, runs) {
    this.last = [tree, head, runs];
    const path = tree.path(head);
    byId("earlier").hidden = path.length <= this.most;
    const shown = path.slice(-this.most);
    const viewOf = (message) => this.views.get(message.id) ?? new MessageView(message, this.actions);
    const views = new Map(shown.map((message) => [message.id, viewOf(message)]));
    this.views = views;
    for (const message of shown) this.#update(tree, message, runs(message.id));
    const wanted = [...views.values()].map((view) => view.element);
    for (const element of [...this.place.children]) if (!views.has(element.dataset.id)) element.remove();
    wanted.forEach((element, index) => {
      if (this.place.children[index] !== element) this.place.insertBefore(element, this.place.children[index] ?? null);
    });
    this.#follow();
  }

  // Show the newest state of one message.
  update(tree, message, running) {
    if (!this.views.has(message.id)) return;
    this.#update(tree, message, running);
    this.#follow();
  }

  toEnd() {
    this.atEnd = true;
    this.#follow();
  }

  #update(tree, message, running) {
    const siblings = tree.siblings(message.id);
    const options = running ? { running: true, waiting: running.waiting } : {};
    this.views.get(message.id).update(message, [siblings.indexOf(message.id), siblings.length], options);
  }

  #earlier() {
    const below = this.frame.scrollHeight - this.frame.scrollTop;
    this.most += SHOWN;
    this.atEnd = false;
    this.show(...this.last);
    this.frame.scrollTop = this.frame.scrollHeight - below;
    this.frame.focus({ preventScroll: true });
  }

  // Only who scrolls up leaves the end; growth moves it away from who is there.
  #scrolled() {
    const { scrollTop, scrollHeight, clientHeight } = this.frame;
    this.atEnd = scrollHeight - scrollTop - clientHeight < NEAR_END || (this.atEnd && scrollTop >= this.top);
    this.top = scrollTop;
    byId("latest").hidden = this.atEnd;
  }

  #follow() {
    if (this.atEnd) this.frame.scrollTop = this.frame.scrollHeight;
    byId("latest").hidden = this.atEnd || this.place.childElementCount === 0;
  }
}
