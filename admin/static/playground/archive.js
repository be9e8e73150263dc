// Conversations as a JSON file. Pure.
//
//   {"format": "llama-router-conversations", "version": 1, "exported": ISO 8601, "conversations": [
//     {"id"?: str, "title": str, "model": str, "settings": {…as they are sent, and "system"}, "created": ms, "updated": ms,
//      "head": id | null, "messages": [
//        {"id": str, "parent": id of an earlier message | null, "role": "user" | "assistant", "content": str,
//         "created": ms, "attachments"?: [{"kind": "image" | "audio", "name": str, "url": "data:…", "format"?: str}],
//         and of an answer "model"?: str, "reasoning"?: str, "calls"?: [{"name": str, "arguments": str}], "stats"?: {…},
//         "finish"?: str | null, "error"?: str}]}]}

import { NUMBERS } from "./request.js";

export const FORMAT = "llama-router-conversations";
export const VERSION = 1;
const MOST_PROBLEMS = 8;
const KINDS = ["image", "audio"];
const ANSWER = ["model", "reasoning", "calls", "stats", "finish", "error"];

// A file that can't be used; the message says what is wrong with it.
export class Unusable extends Error {}

// The document for [{conversation, messages}, …]. `now` in milliseconds.
export function exported(pairs, now) {
  const conversations = pairs.map(({ conversation, messages }) => ({
    ...conversation,
    messages: inOrder(messages).map(({ conversation, updated, ...rest }) => rest),
  }));
  return { format: FORMAT, version: VERSION, exported: new Date(now).toISOString(), conversations };
}

// Parents before their children, whatever the clocks said.
function inOrder(messages) {
  const below = new Map();
  for (const message of messages) {
    if (!below.has(message.parent)) below.set(message.parent, []);
    below.get(message.parent).push(message);
  }
  const known = new Set(messages.map((message) => message.id));
  const orphans = messages.filter(({ parent }) => parent !== null && !known.has(parent));
  const ordered = [...(below.get(null) ?? []), ...orphans.map((orphan) => ({ ...orphan, parent: null }))];
  for (let at = 0; at < ordered.length; at += 1) for (const child of below.get(ordered[at].id) ?? []) ordered.push(child);
  return ordered;
}

// Whether all of `messages` are among `others`, whatever their ids. The same time and the same words are the same message:
// what is imported gets ids of its own.
export function isIn(messages, others) {
  const key = ({ role, content, created, attachments = [] }) => JSON.stringify([role, content, created, attachments]);
  const known = new Set(others.map(key));
  return messages.every((message) => known.has(key(message)));
}

// What a file's text holds, as [{conversation, messages, from}, …] with ids of their own; `from` is the id that the
// conversation had where it was exported. Throws Unusable.
export function imported(text, newId) {
  let document;
  try {
    document = JSON.parse(text);
  } catch (error) {
    throw new Unusable(`it is no JSON: ${error.message}`);
  }
  if (document?.format !== FORMAT) throw new Unusable(`"format" is not "${FORMAT}"`);
  if (document.version !== VERSION) {
    throw new Unusable(`"version" is ${JSON.stringify(document.version) ?? "missing"}, not ${VERSION}`);
  }
  if (!Array.isArray(document.conversations)) throw new Unusable('"conversations" is no list');
  const check = new Check();
  const pairs = document.conversations.map((each, index) => check.conversation(each, `conversations[${index}]`, newId));
  if (check.problems.length > 0) {
    const more = check.problems.length - MOST_PROBLEMS;
    throw new Unusable(check.problems.slice(0, MOST_PROBLEMS).join("; ") + (more > 0 ? `; and ${more} more` : ""));
  }
  return pairs;
}

const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value);

class Check {
  problems = [];

  // Note a problem unless `right`; returns `right`.
  that(right, path, must) {
    if (!right) this.problems.push(`${path} ${must}`);
    return right;
  }

  text(value, path) {
    return this.that(typeof value === "string", path, "is no text") ? value : "";
  }

  time(value, path) {
    return this.that(Number.isFinite(value), path, "is no time in milliseconds") ? value : 0;
  }

  conversation(given, path, newId) {
    if (!this.that(isObject(given), path, "is no object")) return null;
    const id = newId();
    const ids = new Map(); // theirs → ours
    const list = this.that(Array.isArray(given.messages), `${path}.messages`, "is no list") ? given.messages : [];
    const messages = list.map((each, index) => this.message(each, `${path}.messages[${index}]`, id, ids, newId));
    const conversation = {
      id,
      title: this.text(given.title, `${path}.title`).slice(0, 200),
      model: this.text(given.model, `${path}.model`),
      settings: this.settings(given.settings ?? {}, `${path}.settings`),
      head: ids.get(given.head) ?? null,
      created: this.time(given.created, `${path}.created`),
      updated: this.time(given.updated, `${path}.updated`),
    };
    return { conversation, messages, from: given.id };
  }

  settings(given, path) {
    if (!this.that(isObject(given), path, "is no object")) return {};
    const settings = {};
    if (given.system !== undefined) settings.system = this.text(given.system, `${path}.system`);
    for (const { name, least, most } of NUMBERS) {
      if (given[name] === undefined) continue;
      const right = Number.isFinite(given[name]) && given[name] >= least && given[name] <= most;
      if (this.that(right, `${path}.${name}`, `is no number between ${least} and ${most}`)) settings[name] = given[name];
    }
    if (given.stop !== undefined) {
      const right = Array.isArray(given.stop) && given.stop.every((each) => typeof each === "string");
      if (this.that(right, `${path}.stop`, "is no list of texts")) settings.stop = given.stop;
    }
    return settings;
  }

  message(given, path, conversation, ids, newId) {
    if (!this.that(isObject(given), path, "is no object")) return null;
    const { id, parent = null, role } = given;
    const named = this.that(typeof id === "string" && !ids.has(id), `${path}.id`, "is no text, or not the only one");
    this.that(parent === null || ids.has(parent), `${path}.parent`, "is not the id of an earlier message");
    this.that(role === "user" || role === "assistant", `${path}.role`, 'is neither "user" nor "assistant"');
    const message = {
      id: newId(),
      conversation,
      parent: parent === null ? null : ids.get(parent),
      role,
      content: this.text(given.content, `${path}.content`),
      created: this.time(given.created, `${path}.created`),
    };
    if (named) ids.set(id, message.id);
    if (given.attachments !== undefined) message.attachments = this.attachments(given.attachments, `${path}.attachments`);
    if (role === "assistant") this.answer(given, path, message);
    return message;
  }

  answer(given, path, message) {
    for (const key of ANSWER) if (given[key] !== undefined && given[key] !== null) message[key] = given[key];
    for (const key of ["model", "reasoning", "finish", "error"]) {
      if (key in message) this.text(message[key], `${path}.${key}`);
    }
    message.finish ??= message.error ? null : "stop";
    this.that(!("stats" in message) || isObject(message.stats), `${path}.stats`, "is no object");
    const calls = message.calls ?? [];
    const isCall = (call) => isObject(call) && typeof call.name === "string" && typeof call.arguments === "string";
    const right = Array.isArray(calls) && calls.every(isCall);
    this.that(right, `${path}.calls`, 'is no list of {"name": text, "arguments": text}');
  }

  // Anything but data: could make the browser fetch something.
  attachments(given, path) {
    if (!this.that(Array.isArray(given), path, "is no list")) return [];
    return given.map((each, index) => {
      const { kind, url, name, format } = isObject(each) ? each : {};
      const right = KINDS.includes(kind) && typeof url === "string" && url.startsWith(`data:${kind}/`);
      if (!this.that(right, `${path}[${index}]`, "is no image or audio with a data: address")) return null;
      const attachment = { kind, url, name: String(name ?? kind).slice(0, 200) };
      return kind === "audio" ? { ...attachment, format: String(format ?? "wav") } : attachment;
    });
  }
}
