// Conversations to a file, and from one.

import { Unusable, exported, imported, isIn } from "./archive.js";
import { newId } from "./store.js";

const KEPT_MS = 60_000; // a download may take its time to begin
const LONGEST_NAME = 60;

// Have the browser save the conversations of these ids.
export async function download(store, ids, name) {
  const pairs = [];
  for (const id of ids) pairs.push({ conversation: await store.conversation(id), messages: await store.messages(id) });
  const document = exported(pairs.filter(({ conversation }) => conversation), Date.now());
  const link = window.document.createElement("a");
  link.href = URL.createObjectURL(new Blob([JSON.stringify(document, null, 1)], { type: "application/json" }));
  link.download = `${name.replace(/[^\p{L}\p{N} _-]+/gu, "").trim().slice(0, LONGEST_NAME) || "conversation"}.json`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), KEPT_MS);
}

// Add what a file holds to the store, all of it or nothing, beside what is there; what is there already is not added
// again. Returns the ids of the conversations that were `added` and `known`. Throws Unusable, or what the store throws.
export async function upload(store, file) {
  let pairs;
  try {
    pairs = imported(await file.text(), newId);
  } catch (error) {
    throw new Unusable(`Cannot import ${file.name}: ${error.message}`);
  }
  const there = await store.conversations();
  const added = [];
  const known = [];
  for (const pair of pairs) {
    const id = await twin(store, there, pair) ?? added.find((each) => isIn(pair.messages, each.messages))?.conversation.id;
    if (id === undefined) added.push(pair);
    else known.push(id);
  }
  if (added.length > 0) await store.add(added.map(({ conversation, messages }) => ({ conversation, messages })));
  return { added: added.map(({ conversation }) => conversation.id), known };
}

// The id of the conversation that has all messages of that which was read. Only those of the same id or the same time are
// looked into: conversations may be large, and many.
async function twin(store, there, { from, conversation, messages }) {
  for (const each of there) {
    if (each.id !== from && each.created !== conversation.created) continue;
    if (isIn(messages, await store.messages(each.id))) return each.id;
  }
  return undefined;
}
