// Conversations to a file, and from one.

import { Unusable, exported, imported } from "./archive.js";
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

// Add what a file holds to the store, beside what is there; returns it. Throws Unusable, or what the store throws.
export async function upload(store, file) {
  let pairs;
  try {
    pairs = imported(await file.text(), newId);
  } catch (error) {
    throw new Unusable(`Cannot import ${file.name}: ${error.message}`);
  }
  for (const { conversation, messages } of pairs) await store.add(conversation, messages);
  return pairs;
}
