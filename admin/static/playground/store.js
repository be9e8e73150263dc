// Conversations in the browser (IndexedDB). Each message is a record of its own, and what changes of a conversation is
// read and written in one transaction, so that two tabs lose nothing to each other; a BroadcastChannel tells them of it.
//
//   conversation: {id, title, model, settings, head, created, updated}   times in milliseconds
//   message: {id, conversation, parent, role: "user" | "assistant", content, created, attachments?, and of an answer
//             model, reasoning, calls, stats, finish (null while it is written), error, updated}

const NAME = "llama-router-playground";
const VERSION = 1;
const BLOCKED_MS = 4000;

// Ids are unique by chance; crypto.randomUUID is missing where the page is served without https from elsewhere.
export function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(12));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

// The store; one in memory where the browser keeps nothing, with the reason in `problem`.
export async function openStore(name = NAME) {
  try {
    return new Store(await open(name), name);
  } catch (error) {
    return new Store(null, name, `${error.message || error.name || error}`);
  }
}

function open(name) {
  return new Promise((resolve, reject) => {
    const request = indexedDB.open(name, VERSION);
    const late = setTimeout(() => reject(new Error("another tab holds an older version of it open")), BLOCKED_MS);
    request.addEventListener("upgradeneeded", () => {
      request.result.createObjectStore("conversations", { keyPath: "id" });
      const messages = request.result.createObjectStore("messages", { keyPath: "id" });
      messages.createIndex("conversation", "conversation");
    });
    request.addEventListener("success", () => {
      clearTimeout(late);
      // A newer page may change the database; this one can keep nothing then until it is reloaded.
      request.result.addEventListener("versionchange", () => request.result.close());
      resolve(request.result);
    });
    request.addEventListener("error", () => {
      clearTimeout(late);
      reject(request.error);
    });
  });
}

const done = (request) =>
  new Promise((resolve, reject) => {
    request.addEventListener("success", () => resolve(request.result));
    request.addEventListener("error", () => reject(request.error));
  });

class Store {
  constructor(database, name, problem = null) {
    this.database = database;
    this.name = name;
    this.problem = problem;
    this.memory = { conversations: inMemory(new Map()), messages: inMemory(new Map()) };
    this.channel = new BroadcastChannel(name);
  }

  // Call `changed({conversation, message})` with ids whenever another tab wrote a conversation (null: several) or, where
  // `message` is not null, one of its messages alone.
  follow(changed) {
    this.channel.addEventListener("message", ({ data }) => changed(data));
  }

  // All conversations, the one that was used last first.
  async conversations() {
    const all = await this.#do("readonly", (tables) => tables.conversations.all());
    return all.sort((one, other) => other.updated - one.updated);
  }

  conversation(id) {
    return this.#do("readonly", (tables) => tables.conversations.get(id));
  }

  message(id) {
    return this.#do("readonly", (tables) => tables.messages.get(id));
  }

  messages(conversation) {
    return this.#do("readonly", (tables) => tables.messages.of(conversation));
  }

  // Write new conversations, [{conversation, messages}, …], all or none; true.
  async add(pairs) {
    await this.#do("readwrite", async (tables) => {
      const messages = pairs.flatMap((pair) => pair.messages);
      await Promise.all([
        ...pairs.map(({ conversation }) => tables.conversations.put(conversation)),
        ...messages.map((message) => tables.messages.put(message)),
      ]);
    });
    this.#tell(pairs.length === 1 ? pairs[0].conversation.id : null);
    return true;
  }

  // Change some fields of a conversation; false if it was deleted meanwhile.
  async change(id, changes) {
    const there = await this.#do("readwrite", (tables) => patch(tables, id, changes));
    if (there) this.#tell(id);
    return there;
  }

  // Write a message, and fields of its conversation; false if that was deleted meanwhile.
  async save(message, changes = null) {
    const there = await this.#do("readwrite", async (tables) => {
      const found = await patch(tables, message.conversation, changes ?? {});
      if (found) await tables.messages.put(message);
      return found;
    });
    if (there) this.#tell(message.conversation, changes ? null : message.id);
    return there;
  }

  // Delete a conversation. Returns {conversation, messages}, which `add` brings back.
  async remove(id) {
    const removed = await this.#do("readwrite", async (tables) => {
      const conversation = await tables.conversations.get(id);
      const messages = await tables.messages.of(id);
      await Promise.all([tables.conversations.delete(id), ...messages.map((message) => tables.messages.delete(message.id))]);
      return { conversation, messages };
    });
    this.#tell(id);
    return removed;
  }

  #tell(conversation, message = null) {
    this.channel.postMessage({ conversation, message });
  }

  // A browser may close the database while the page is open, as when its user has site data cleared.
  async #transaction(mode) {
    const tables = ["conversations", "messages"];
    try {
      return this.database.transaction(tables, mode);
    } catch (error) {
      if (error.name !== "InvalidStateError") throw error;
      this.database = await open(this.name);
      return this.database.transaction(tables, mode);
    }
  }

  // Do `work` in one transaction. Throws what made it fail, such as a QuotaExceededError when the disk is full.
  async #do(mode, work) {
    if (!this.database) return work(this.memory);
    const transaction = await this.#transaction(mode);
    const over = new Promise((resolve, reject) => {
      transaction.addEventListener("complete", resolve);
      transaction.addEventListener("abort", () => reject(transaction.error ?? new Error("the browser gave up on it")));
    });
    over.catch(() => {}); // told by the await below
    try {
      const conversations = onDisk(transaction.objectStore("conversations"));
      const result = await work({ conversations, messages: onDisk(transaction.objectStore("messages")) });
      await over;
      return result;
    } catch (error) {
      if (!transaction.error) transaction.abort();
      throw error;
    }
  }
}

async function patch(tables, id, changes) {
  const conversation = await tables.conversations.get(id);
  if (!conversation) return false;
  await tables.conversations.put({ ...conversation, ...changes });
  return true;
}

function onDisk(table) {
  return {
    all: () => done(table.getAll()),
    get: (id) => done(table.get(id)),
    of: (conversation) => done(table.index("conversation").getAll(conversation)),
    put: (record) => done(table.put(record)),
    delete: (id) => done(table.delete(id)),
  };
}

function inMemory(table) {
  return {
    all: () => [...table.values()],
    get: (id) => table.get(id),
    of: (conversation) => [...table.values()].filter((message) => message.conversation === conversation),
    put: (record) => table.set(record.id, structuredClone(record)),
    delete: (id) => table.delete(id),
  };
}
