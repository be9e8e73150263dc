// What may be written where the caret is, by the JSON Schema of the file and by the indentation around it.

const KEY_LINE = /^( *)("[^"]*"|'[^']*'|[^\s#:][^#:]*?)\s*:(?:\s|$)/;
const unquoted = (key) => key.replace(/^(["'])(.*)\1$/, "$2");
const indentOf = (text) => text.length - text.trimStart().length;

// The keys above a line at `row` whose text begins at `indent`, outermost first.
function pathTo(lines, row, indent) {
  const path = [];
  for (let at = row - 1, limit = indent; at >= 0 && limit > 0; at -= 1) {
    const match = KEY_LINE.exec(lines[at]);
    if (match && match[1].length < limit) {
      path.unshift(unquoted(match[2]));
      limit = match[1].length;
    }
  }
  return path;
}

// The keys that are beside that line already.
function siblings(lines, row, indent) {
  const found = new Set();
  for (const step of [-1, 1]) {
    for (let at = row + step; at >= 0 && at < lines.length; at += step) {
      if (lines[at].trim() === "" || lines[at].trim().startsWith("#")) continue;
      if (indentOf(lines[at]) < indent) break;
      const match = KEY_LINE.exec(lines[at]);
      if (match && match[1].length === indent) found.add(unquoted(match[2]));
    }
  }
  return found;
}

// Where the caret is: {path, word, from, wants: "key" | "value", taken}; null where nothing can be completed.
export function placeOf(lines, row, column) {
  const before = lines[row].slice(0, column);
  if (/(^|\s)#/.test(before)) return null;
  const flow = /^( *)([\w-]+):\s*\{([^{}]*)$/.exec(before);
  if (flow) {
    const path = [...pathTo(lines, row, flow[1].length), flow[2]];
    const part = flow[3].slice(flow[3].lastIndexOf(",") + 1);
    const taken = new Set([...flow[3].matchAll(/([\w-]+)\s*:/g)].map((match) => match[1]));
    const value = /^\s*([\w-]+):\s+([\w.+-]*)$/.exec(part);
    if (value) return { path: [...path, value[1]], word: value[2], from: column - value[2].length, wants: "value", taken };
    const key = /^\s*([\w-]*)$/.exec(part);
    return key && { path, word: key[1], from: column - key[1].length, wants: "key", taken };
  }
  const key = /^( *)([\w-]*)$/.exec(before);
  if (key) {
    const indent = key[1].length;
    const taken = siblings(lines, row, indent);
    return { path: pathTo(lines, row, indent), word: key[2], from: column - key[2].length, wants: "key", taken };
  }
  const value = /^( *)([\w-]+):\s+([\w.+-]*)$/.exec(before);
  if (!value) return null;
  const path = [...pathTo(lines, row, value[1].length), value[2]];
  return { path, word: value[3], from: column - value[3].length, wants: "value", taken: new Set() };
}

function resolved(schema, root) {
  if (!schema) return [];
  if (schema.$ref) return resolved(root.$defs[schema.$ref.split("/").at(-1)], root);
  return schema.anyOf ? schema.anyOf.flatMap((each) => resolved(each, root)) : [schema];
}

// All schemas that hold for what is at `path`.
function at(root, path) {
  let schemas = resolved(root, root);
  for (const key of path) {
    schemas = schemas.flatMap((schema) => resolved(schema.properties?.[key] ?? schema.additionalProperties, root));
  }
  return schemas;
}

function holdsMapping(schema, root) {
  return resolved(schema, root).some((each) => each.type === "object" || each.type?.includes?.("object"));
}

function keysOf(root, place) {
  return at(root, place.path).flatMap((schema) => Object.entries(schema.properties ?? {}))
    .filter(([name]) => !place.taken.has(name))
    .map(([name, schema]) => ({ name, about: schema.description ?? "", opens: holdsMapping(schema, root) }));
}

function valuesOf(root, place) {
  const found = new Map();
  for (const schema of at(root, place.path)) {
    const words = schema.enum ?? (schema.const === undefined ? schema.examples ?? [] : [schema.const]);
    for (const word of schema.type === "boolean" ? ["true", "false"] : words) found.set(String(word), word === null ? "nothing" : "");
  }
  return [...found].map(([name, about]) => ({ name, about, opens: false }));
}

// What fits at a place, best first: {name, about, opens}; `opens` says that keys follow below it.
export function completions(root, place) {
  const all = place.wants === "key" ? keysOf(root, place) : valuesOf(root, place);
  const word = place.word.toLowerCase();
  const begins = all.filter(({ name }) => name.toLowerCase().startsWith(word));
  const holds = all.filter(({ name }) => !begins.some((each) => each.name === name) && name.toLowerCase().includes(word));
  return [...begins, ...holds];
}
