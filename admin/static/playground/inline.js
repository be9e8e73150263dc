// The text of a Markdown block: emphasis, code, links, breaks. Builds DOM by createElement and text nodes only.
//
// The time it takes grows with the length of the text, whatever the text is: each character is looked at once, a bracket
// or delimiter is paired with a stack (CommonMark, "An algorithm for parsing nested emphasis and links"), and the depth
// of what is built is bounded.

const MOST_NESTED = 12;
const LONGEST_TARGET = 2048;
const PROTOCOLS = new Set(["http:", "https:", "mailto:"]);
const SPECIAL = /[\\`*_~[\]!<&\n]|h(?=ttps?:\/\/)/g;
const ESCAPABLE = /[!-/:-@[-`{-~]/;
const PUNCTUATION = /[\p{P}\p{S}]/u;
const BARE = /https?:\/\/[^\s<>"`[\]]+/y;
const ANGLED = /<(?:(https?:\/\/[^\s<>]{1,2048})|([^\s<>@]{1,64}@[^\s<>@]{1,255}))>|<br ?\/?>/iy;
const ENTITY = /&(?:(amp|lt|gt|quot|apos|nbsp)|#(\d{1,7})|#x([0-9a-f]{1,6}));/iy;
const ENTITIES = { amp: "&", lt: "<", gt: ">", quot: '"', apos: "'", nbsp: "\u00a0" };
const TARGET =
  /^\(\s*(?:<([^<>\n]*)>|((?:[^\s()\\]|\\.|\((?:[^\s()\\]|\\.)*\))*))(?:\s+(?:"[^"]*"|'[^']*'))?\s*\)/;

// The address of a link, null unless it is one that may be followed.
export function safeUrl(text) {
  try {
    const url = new URL(text);
    return PROTOCOLS.has(url.protocol) ? url.href : null;
  } catch {
    return null;
  }
}

// Append `text` to `parent`.
export function inline(text, parent) {
  build(new Scan(text).items(), parent);
}

class Scan {
  constructor(text) {
    this.text = text;
    this.found = [];
    this.delimiters = [];
    this.brackets = [];
    this.openable = 0; // brackets below are in front of a link, and can't become one around it
    this.ticks = null;
  }

  items() {
    const { text } = this;
    let at = 0;
    while (at < text.length) {
      SPECIAL.lastIndex = at;
      const next = SPECIAL.exec(text)?.index ?? text.length;
      if (next > at) this.found.push({ text: text.slice(at, next) });
      at = next < text.length ? this.special(next) : next;
    }
    pair(this.delimiters, 0);
    return this.found;
  }

  // Take what begins at a special character; returns where it ends.
  special(at) {
    switch (this.text[at]) {
      case "\n":
        return this.push({ element: "br" }, at + 1);
      case "\\":
        return this.escape(at);
      case "`":
        return this.code(at);
      case "h":
        return this.bare(at);
      case "<":
        return this.angled(at);
      case "&":
        return this.entity(at);
      case "!":
      case "[":
        return this.bracket(at);
      case "]":
        return this.close(at);
      default:
        return this.delimiter(at);
    }
  }

  push(item, end) {
    this.found.push(item);
    return end;
  }

  escape(at) {
    const next = this.text[at + 1] ?? "";
    if (next === "\n") return at + 1;
    return ESCAPABLE.test(next) ? this.push({ text: next }, at + 2) : this.push({ text: "\\" }, at + 1);
  }

  code(at) {
    this.ticks ??= tickRuns(this.text);
    const { end, closer } = this.ticks.get(at);
    if (closer === undefined) return this.push({ text: this.text.slice(at, end) }, end);
    let code = this.text.slice(end, closer).replaceAll("\n", " ");
    if (code.startsWith(" ") && code.endsWith(" ") && code.trim()) code = code.slice(1, -1);
    return this.push({ element: "code", text: code }, closer + end - at);
  }

  bare(at) {
    BARE.lastIndex = at;
    const match = /\w/.test(this.text[at - 1] ?? "") ? null : BARE.exec(this.text);
    if (!match) return this.push({ text: "h" }, at + 1);
    let end = match[0].length;
    const trailing = match[0].includes("(") ? ".,;:!?'*_~" : ".,;:!?'*_~)";
    while (trailing.includes(match[0][end - 1])) end -= 1;
    const url = match[0].slice(0, end);
    return this.push({ link: safeUrl(url), text: url }, at + end);
  }

  angled(at) {
    ANGLED.lastIndex = at;
    const match = ANGLED.exec(this.text);
    if (!match) return this.push({ text: "<" }, at + 1);
    const [whole, url, mail] = match;
    const link = url ?? (mail && `mailto:${mail}`);
    return this.push(link ? { link: safeUrl(link), text: url ?? mail } : { element: "br" }, at + whole.length);
  }

  entity(at) {
    ENTITY.lastIndex = at;
    const match = ENTITY.exec(this.text);
    if (!match) return this.push({ text: "&" }, at + 1);
    const [whole, name, decimal, hexadecimal] = match;
    const number = decimal ? Number(decimal) : parseInt(hexadecimal, 16);
    const isCharacter = number > 0 && number <= 0x10ffff;
    const text = name ? ENTITIES[name.toLowerCase()] : isCharacter ? String.fromCodePoint(number) : "\ufffd";
    return this.push({ text }, at + whole.length);
  }

  bracket(at) {
    const image = this.text[at] === "!";
    if (image && this.text[at + 1] !== "[") return this.push({ text: "!" }, at + 1);
    this.brackets.push({ item: this.found.length, delimiters: this.delimiters.length, image });
    return image ? this.push({ text: "![" }, at + 2) : this.push({ text: "[" }, at + 1);
  }

  close(at) {
    const opener = this.brackets.pop();
    const usable = opener && (opener.image || this.brackets.length >= this.openable);
    this.openable = Math.min(this.openable, this.brackets.length);
    const rest = usable && this.text[at + 1] === "(" ? this.text.slice(at + 1, at + 1 + LONGEST_TARGET) : "";
    const match = TARGET.exec(rest);
    if (!match) return this.push({ text: "]" }, at + 1);
    const target = match[1] ?? match[2].replace(/\\([!-/:-@[-`{-~])/g, "$1");
    pair(this.delimiters, opener.delimiters);
    this.delimiters.length = opener.delimiters;
    // What an image shows would be fetched from elsewhere: it is a link, named by its description.
    this.found[opener.item] = { opens: ["a"], link: safeUrl(target) };
    if (!opener.image) this.openable = this.brackets.length;
    return this.push({ closes: ["a"] }, at + 1 + match[0].length);
  }

  delimiter(at) {
    const { text } = this;
    const mark = text[at];
    let end = at;
    while (text[end] === mark) end += 1;
    const count = end - at;
    const before = at === 0 ? " " : text[at - 1];
    const after = end === text.length ? " " : String.fromCodePoint(text.codePointAt(end));
    const spaceBefore = /\s/.test(before);
    const spaceAfter = /\s/.test(after);
    const signBefore = PUNCTUATION.test(before);
    const signAfter = PUNCTUATION.test(after);
    const left = !spaceAfter && (!signAfter || spaceBefore || signBefore);
    const right = !spaceBefore && (!signBefore || spaceAfter || signAfter);
    const item = { text: text.slice(at, end), opens: [], closes: [], mark, count, length: count };
    item.canOpen = mark === "_" ? left && (!right || signBefore) : left;
    item.canClose = mark === "_" ? right && (!left || signAfter) : right;
    if (mark !== "~" || count === 2) this.delimiters.push(item);
    return this.push(item, end);
  }
}

// For each run of backticks by where it begins: its end, and where the next one of that length begins.
function tickRuns(text) {
  const runs = new Map();
  const next = new Map();
  const all = [...text.matchAll(/`+/g)].reverse();
  for (const { index, 0: run } of all) {
    runs.set(index, { end: index + run.length, closer: next.get(run.length) });
    next.set(run.length, index);
  }
  return runs;
}

// Pair the delimiters from that index on. For each kind of closer, it is remembered below which height of the stack it
// has no opener, so that none is looked at twice.
function pair(delimiters, from) {
  const stack = [];
  const bottoms = new Map();
  for (let index = from; index < delimiters.length; index += 1) {
    const closer = delimiters[index];
    const kind = `${closer.mark}${closer.canOpen}${closer.length % 3}`;
    while (closer.canClose && closer.count > 0) {
      const bottom = bottoms.get(kind) ?? 0;
      let height = stack.length - 1;
      while (height >= bottom && !match(stack[height], closer)) height -= 1;
      if (height < bottom) {
        bottoms.set(kind, stack.length);
        break;
      }
      const opener = stack[height];
      const used = Math.min(2, opener.count, closer.count);
      const name = closer.mark === "~" ? "del" : used === 2 ? "strong" : "em";
      opener.opens.unshift(name);
      closer.closes.push(name);
      opener.count -= used;
      closer.count -= used;
      stack.length = opener.count > 0 ? height + 1 : height;
      for (const [key, value] of bottoms) if (value > stack.length) bottoms.set(key, stack.length);
    }
    if (closer.canOpen && closer.count > 0) stack.push(closer);
  }
}

function match(opener, closer) {
  if (opener.mark !== closer.mark) return false;
  const either = opener.canClose || closer.canOpen;
  return !either || (opener.length + closer.length) % 3 !== 0 || (opener.length % 3 === 0 && closer.length % 3 === 0);
}

function anchor(href, text = "") {
  const link = document.createElement("a");
  link.href = href;
  link.target = "_blank";
  link.rel = "noopener noreferrer";
  link.append(text);
  return link;
}

// What lies deeper than MOST_NESTED is shown without its marks.
function build(items, parent) {
  const open = [parent];
  let words = [];
  let tooDeep = 0;
  let links = 0;
  const put = (...nodes) => {
    if (words.length > 0) open.at(-1).append(words.join(""));
    words = [];
    open.at(-1).append(...nodes);
  };
  const enter = (name, link) => {
    if (open.length > MOST_NESTED || tooDeep > 0) {
      tooDeep += 1;
      return;
    }
    const isText = name === "a" && (!link || links > 0);
    const element = name === "a" && !isText ? anchor(link) : document.createElement(isText ? "span" : name);
    if (name === "a") links += 1;
    put(element);
    open.push(element);
  };
  const leave = (name) => {
    if (tooDeep > 0) {
      tooDeep -= 1;
      return;
    }
    put();
    open.pop();
    if (name === "a") links -= 1;
  };
  for (const item of items) {
    for (const name of item.closes ?? []) leave(name);
    if (item.count !== undefined) words.push(item.mark.repeat(item.count));
    else if (item.element) put(leaf(item));
    else if (item.link && !item.opens && links === 0) put(anchor(item.link, item.text));
    else if (item.text) words.push(item.text);
    for (const name of item.opens ?? []) enter(name, item.link);
  }
  put();
}

function leaf({ element, text }) {
  const made = document.createElement(element);
  if (text) made.textContent = text;
  return made;
}
