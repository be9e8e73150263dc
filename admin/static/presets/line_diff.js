// What differs between two texts, line by line: a longest common subsequence, of what is left between equal beginnings
// and ends.

import { element } from "./asking.js";

// Cells of the table; larger differences are shown as all gone and all new.
const MOST_CELLS = 4_000_000;

function middle(old, fresh) {
  const width = fresh.length + 1;
  if ((old.length + 1) * width > MOST_CELLS) {
    return [...old.map((text) => ["gone", text]), ...fresh.map((text) => ["new", text])];
  }
  const longest = new Uint32Array((old.length + 1) * width);
  for (let row = old.length - 1; row >= 0; row -= 1) {
    for (let column = fresh.length - 1; column >= 0; column -= 1) {
      const at = row * width + column;
      longest[at] = old[row] === fresh[column]
        ? longest[at + width + 1] + 1
        : Math.max(longest[at + width], longest[at + 1]);
    }
  }
  const rows = [];
  let row = 0;
  let column = 0;
  while (row < old.length || column < fresh.length) {
    const at = row * width + column;
    if (row < old.length && column < fresh.length && old[row] === fresh[column]) {
      rows.push(["same", old[row]]);
      row += 1;
      column += 1;
    } else if (column === fresh.length || (row < old.length && longest[at + width] >= longest[at + 1])) {
      rows.push(["gone", old[row]]);
      row += 1;
    } else {
      rows.push(["new", fresh[column]]);
      column += 1;
    }
  }
  return rows;
}

// Pairs [kind, line]: "same" in both, "gone" from `old`, "new" in `fresh`. Whether the last line is ended is no difference.
export function diff(old, fresh) {
  const [a, b] = [old, fresh].map((text) => text.replace(/\n$/, "").split("\n"));
  let head = 0;
  while (head < a.length && head < b.length && a[head] === b[head]) head += 1;
  let tail = 0;
  while (tail < a.length - head && tail < b.length - head && a.at(-1 - tail) === b.at(-1 - tail)) tail += 1;
  const same = (lines) => lines.map((text) => ["same", text]);
  return [
    ...same(a.slice(0, head)),
    ...middle(a.slice(head, a.length - tail), b.slice(head, b.length - tail)),
    ...same(a.slice(a.length - tail)),
  ];
}

// How many lines are only in `old` (gone) and only in `fresh`.
export function changed(old, fresh) {
  const kinds = diff(old, fresh).map(([kind]) => kind);
  return { gone: kinds.filter((kind) => kind === "gone").length, fresh: kinds.filter((kind) => kind === "new").length };
}

const SIGNS = { same: "  ", gone: "− ", new: "+ " };
const NEAR = 3;
const MOST_SHOWN = 2000; // lines

// The difference for people: changed lines, and as many equal ones around them as help to find one's way.
export function shown(old, fresh, label) {
  const rows = diff(old, fresh);
  const pre = document.createElement("pre");
  pre.className = "diff";
  pre.tabIndex = 0;
  pre.setAttribute("role", "region");
  pre.setAttribute("aria-label", label);
  const near = rows.map((_, at) => rows.slice(Math.max(0, at - NEAR), at + NEAR + 1).some(([kind]) => kind !== "same"));
  let skipped = 0;
  const tell = () => {
    if (skipped === 0) return;
    const span = document.createElement("span");
    span.className = "skipped";
    span.textContent = `… ${skipped} equal ${skipped === 1 ? "line" : "lines"}\n`;
    pre.append(span);
    skipped = 0;
  };
  let left = MOST_SHOWN;
  let unseen = 0;
  rows.forEach(([kind, text], at) => {
    if (!near[at]) { skipped += 1; return; }
    if (left === 0) { unseen += 1; return; }
    tell();
    left -= 1;
    const part = document.createElement(kind === "gone" ? "del" : kind === "new" ? "ins" : "span");
    part.textContent = `${SIGNS[kind]}${text}\n`;
    pre.append(part);
  });
  if (unseen === 0) tell();
  else pre.append(element("span", `… and ${unseen} more lines, not shown\n`, { className: "skipped" }));
  if (!rows.some(([kind]) => kind !== "same")) pre.textContent = "No line differs.";
  return pre;
}
