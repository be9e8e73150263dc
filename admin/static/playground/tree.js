// The messages of a conversation as a tree: an edited question or a second answer is a branch. Pure.
//
// A message has `id`, `parent` (an id, or null for a first message) and `created` (milliseconds). A conversation is
// shown as the path to one message, its head.

const byAge = (one, other) => one.created - other.created || (one.id < other.id ? -1 : 1);

export class Tree {
  constructor(messages = []) {
    this.messages = new Map();
    this.children = new Map(); // by the parent's id
    for (const message of messages) this.put(message);
  }

  get(id) {
    return this.messages.get(id);
  }

  // Add a message, or take the newer state of one that is there.
  put(message) {
    const known = this.messages.has(message.id);
    this.messages.set(message.id, message);
    if (known) return;
    const siblings = this.children.get(message.parent) ?? [];
    siblings.push(message.id);
    this.children.set(message.parent, siblings);
  }

  // The ids of a message and its alternatives, oldest first.
  siblings(id) {
    const ids = this.children.get(this.get(id).parent);
    return ids.map((each) => this.get(each)).sort(byAge).map((message) => message.id);
  }

  // The messages from the first to `head`; none if there is no such message.
  path(head) {
    const path = [];
    for (let message = this.get(head); message; message = this.get(message.parent)) path.push(message);
    return path.reverse();
  }

  // The newest end of the branches that go through a message.
  tip(id) {
    let newest = null;
    const below = [id];
    while (below.length > 0) {
      const each = below.pop();
      const children = this.children.get(each);
      if (children) for (const child of children) below.push(child);
      else if (newest === null || byAge(this.get(each), this.get(newest)) > 0) newest = each;
    }
    return newest;
  }

  // The newest message, null if there is none.
  newest() {
    let newest = null;
    for (const message of this.messages.values()) if (!newest || byAge(message, newest) > 0) newest = message;
    return newest?.id ?? null;
  }
}
