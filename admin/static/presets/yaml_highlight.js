// Tokens of YAML, line by line, for colours. What one line leaves open for the next (a block of text, a quoted string)
// is its state: a string, "" for none, so that a change is followed only as far as states differ.

const KEY = /^((?:[^\s#"'[\]{},&*!|>%@`-]|-(?=\S))(?:[^#:]|:(?=\S)|(?<=\S)#)*?)(\s*)(:)(?=\s|$)/;
const QUOTED_KEY = /^("(?:[^"\\]|\\.)*"|'(?:[^']|'')*')(\s*)(:)(?=\s|$)/;
const BLOCK = /^[|>][+-]?[0-9]?[+-]?\s*(?=#|$)/;
const NUMBER = /^[-+]?(?:[0-9]+(?:\.[0-9]*)?(?:[eE][-+]?[0-9]+)?|\.(?:inf|nan))$/i;
const BOOLEAN = /^(?:true|false|null|~)$/i;

const indentOf = (line) => line.length - line.trimStart().length;

// The end of a quoted string that begins or goes on in `text` from `from`; -1 if it is not on this line.
function endOf(text, quote, from) {
  for (let at = from; at < text.length; at += 1) {
    if (quote === '"' && text[at] === "\\") at += 1;
    else if (text[at] === quote) {
      if (quote === "'" && text[at + 1] === "'") at += 1;
      else return at + 1;
    }
  }
  return -1;
}

function plain(text, inFlow) {
  let end = text.length;
  for (let at = 0; at < text.length; at += 1) {
    const char = text[at];
    if (char === "#" && at > 0 && /\s/.test(text[at - 1])) { end = at; break; }
    if (char === ":" && (at + 1 === text.length || /\s/.test(text[at + 1]))) { end = at; break; }
    if (inFlow && ",[]{}".includes(char)) { end = at; break; }
  }
  return Math.max(end, 1);
}

function kindOf(word) {
  const trimmed = word.trim();
  if (NUMBER.test(trimmed)) return "number";
  return BOOLEAN.test(trimmed) ? "boolean" : "string";
}

// One line: [tokens, the state after it]; a token is [text, kind], its kind null for spaces and signs.
export function line(text, state) {
  const tokens = [];
  let rest = text;
  const take = (length, kind) => {
    if (length > 0) tokens.push([rest.slice(0, length), kind]);
    rest = rest.slice(length);
  };
  if (state.startsWith("|")) {
    if (text.trim() === "" || indentOf(text) > Number(state.slice(1))) return [[[text, "string"]], state];
    state = "";
  }
  if (state === '"' || state === "'") {
    const end = endOf(text, state, 0);
    if (end < 0) return [[[text, "string"]], state];
    take(end, "string");
    state = "";
  }
  const indent = indentOf(text);
  let depth = 0; // of flow collections that this line opens
  while (rest !== "") {
    const space = rest.length - rest.trimStart().length;
    if (space > 0) { take(space, null); continue; }
    const char = rest[0];
    const before = text[text.length - rest.length - 1];
    if (char === "#" && (before === undefined || /\s/.test(before))) { take(rest.length, "comment"); break; }
    if (/^-(\s|$)/.test(rest)) { take(1, "sign"); continue; }
    const block = BLOCK.exec(rest);
    if (block && depth === 0) { take(block[0].length, "sign"); state = `|${indent}`; continue; }
    const key = QUOTED_KEY.exec(rest) ?? (depth > 0 ? /^([\w.-]+)(\s*)(:)(?=\s|$)/.exec(rest) : KEY.exec(rest));
    if (key) { take(key[1].length, "key"); take(key[2].length, null); take(1, "sign"); continue; }
    if (char === '"' || char === "'") {
      const end = endOf(rest, char, 1);
      if (end < 0) { take(rest.length, "string"); state = char; break; }
      take(end, "string");
      continue;
    }
    if ("[]{},:".includes(char)) {
      if ("[{".includes(char)) depth += 1;
      if ("]}".includes(char)) depth -= 1;
      take(1, "sign");
      continue;
    }
    const anchor = /^(?:[&*][^\s,[\]{}]+|!\S*)/.exec(rest);
    if (anchor) { take(anchor[0].length, "anchor"); continue; }
    const end = plain(rest, depth > 0);
    const word = rest.slice(0, end);
    take(end, kindOf(word));
  }
  return [tokens, state];
}

// The states at the beginning of each line, kept true with as little work as a change allows.
export class States {
  #lines = [];
  #states = [""];

  update(lines) {
    const old = this.#lines;
    let first = 0;
    while (first < lines.length && first < old.length && lines[first] === old[first]) first += 1;
    let same = 0;
    while (same < lines.length - first && same < old.length - first && lines.at(-1 - same) === old.at(-1 - same)) same += 1;
    const states = this.#states.slice(0, first + 1);
    const shift = old.length - lines.length;
    for (let at = first; at < lines.length; at += 1) {
      if (at >= lines.length - same && states[at] === this.#states[at + shift]) {
        for (let rest = at + shift + 1; rest < this.#states.length; rest += 1) states.push(this.#states[rest]);
        break;
      }
      states.push(line(lines[at], states[at])[1]);
    }
    this.#lines = lines;
    this.#states = states;
  }

  at(index) {
    return this.#states[index] ?? "";
  }
}
