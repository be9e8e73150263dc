// Answers that are being written: asks the API, follows its stream, keeps what came so far.

import { Answer } from "./answer.js";
import { ApiError, answered } from "./sse.js";

const SAVE_MS = 1000;
const API = "/v1/chat/completions";
const AWAY = "llama-router does not answer; is it running, and is the network there?";

export class Answering {
  // `shown(message)` after each change that should be seen, at most one a frame; `saved(message, over)` to keep it.
  constructor({ shown, saved }) {
    this.shown = shown;
    this.saved = saved;
    this.running = new Map(); // by the id of the message: {message, controller}
  }

  // The answer that is written in that conversation, undefined if none is.
  in(conversation) {
    return [...this.running.values()].find(({ message }) => message.conversation === conversation);
  }

  stop(conversation) {
    this.in(conversation)?.controller.abort();
  }

  // Call `keep`, send `body` and fill in `message` until the end, whatever that is; it is told in `finish` or `error`.
  async write(message, body, keep) {
    const controller = new AbortController();
    this.running.set(message.id, { message, controller });
    const answer = new Answer(performance.now());
    let kept = performance.now();
    let frame = null;
    const draw = () => {
      frame = null;
      this.shown(Object.assign(message, answer.message));
    };
    this.shown(message);
    try {
      await keep();
      const response = await fetch(API, {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify(body),
        signal: controller.signal,
      });
      for await (const chunk of answered(response)) {
        answer.take(chunk, performance.now());
        frame ??= requestAnimationFrame(draw);
        if (performance.now() - kept < SAVE_MS) continue;
        kept = performance.now();
        this.saved({ ...Object.assign(message, answer.message), updated: Date.now() }, false);
      }
      message.finish = answer.finish ?? "stop";
    } catch (error) {
      if (controller.signal.aborted) message.finish = "stopped";
      else message.error = error instanceof ApiError ? error.message : AWAY;
    }
    if (frame !== null) cancelAnimationFrame(frame);
    Object.assign(message, answer.message, { updated: Date.now() });
    // What is shown as done is kept: a page that is left right then loses nothing.
    try {
      await this.saved(message, true);
    } finally {
      this.running.delete(message.id);
      this.shown(message);
    }
  }
}
