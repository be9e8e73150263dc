// The blocks of a Markdown text, as models write it. Pure.
//
// A subset of GitHub's: headings, paragraphs, fenced code, quotes, lists, tables, rules. HTML is text, and so is what is
// nested deeper than MOST_NESTED. Each level of nesting looks at each line once: the time grows with the text.

const MOST_NESTED = 8;
const MOST_COLUMNS = 64;
const FENCE = /^( {0,12})(`{3,}|~{3,})([^`]*)$/;
const HEADING = /^ {0,3}(#{1,6})(?:[ \t]+|$)/;
const MARKER = /^([ \t]*)([-*+]|\d{1,9}[.)])([ \t]+|$)/;
const RULE = /^ {0,3}(?:(?:-[ \t]*){3,}|(?:\*[ \t]*){3,}|(?:_[ \t]*){3,})$/;
const LONGEST_RULE = 200;
const QUOTE = /^ {0,3}> ?/;
const TASK = /^\[([ xX])\][ \t]+/;
const DASHES = /^:?-+:?$/;

const isBlank = (line) => line.trim() === "";
const isRule = (line) => line.length < LONGEST_RULE && RULE.test(line);
const width = (space) => space.replaceAll("\t", "    ").length;
const indentOf = (line) => width(/^[ \t]*/.exec(line)[0]);
const dedent = (line, columns) => {
  const indent = indentOf(line);
  return " ".repeat(Math.max(0, indent - columns)) + line.trimStart();
};

// The blocks of lines, each with the number of its first `line`. Pure.
export function parse(lines, depth = 0) {
  const blocks = [];
  let at = 0;
  while (at < lines.length) {
    if (isBlank(lines[at])) {
      at += 1;
      continue;
    }
    const [block, end] = blockAt(lines, at, depth);
    blocks.push({ ...block, line: at });
    at = end;
  }
  return blocks;
}

function blockAt(lines, at, depth) {
  const line = lines[at];
  const fence = FENCE.exec(line);
  if (fence) return codeAt(lines, at, fence);
  const heading = HEADING.exec(line);
  if (heading) return headingAt(line, at, heading);
  if (isRule(line)) return [{ kind: "rule" }, at + 1];
  if (depth < MOST_NESTED) {
    if (QUOTE.test(line)) return quoteAt(lines, at, depth);
    if (MARKER.test(line)) return listAt(lines, at, depth);
    if (isTable(lines, at)) return tableAt(lines, at);
  }
  return paragraphAt(lines, at, depth);
}

// The marks at its end are none of its text.
function headingAt(line, at, [start, marks]) {
  let text = line.slice(start.length).trim();
  let end = text.length;
  while (end > 0 && text[end - 1] === "#") end -= 1;
  if (end === 0 || /\s/.test(text[end - 1])) text = text.slice(0, end).trim();
  return [{ kind: "heading", level: marks.length, text }, at + 1];
}

// An unclosed fence goes on to the end: while an answer arrives, every fence is unclosed for a while.
function codeAt(lines, at, [, indent, marks, info]) {
  const code = [];
  let end = at + 1;
  for (; end < lines.length; end += 1) {
    const line = lines[end].trim();
    if (line.length >= marks.length && line.startsWith(marks) && line === marks[0].repeat(line.length)) break;
    code.push(dedentCode(lines[end], indent.length));
  }
  return [{ kind: "code", language: info.trim().split(/\s/, 1)[0], text: code.join("\n") }, end + 1];
}

function dedentCode(line, columns) {
  let at = 0;
  while (at < columns && line[at] === " ") at += 1;
  return line.slice(at);
}

function quoteAt(lines, at, depth) {
  const inner = [];
  let end = at;
  for (; end < lines.length && QUOTE.test(lines[end]); end += 1) inner.push(lines[end].replace(QUOTE, ""));
  return [{ kind: "quote", blocks: parse(inner, depth + 1) }, end];
}

function listAt(lines, at, depth) {
  const [, space, marker] = MARKER.exec(lines[at]);
  const base = width(space);
  const kind = marker.at(-1);
  const items = [];
  let end = at;
  for (;;) {
    const match = end < lines.length && !isRule(lines[end]) ? MARKER.exec(lines[end]) : null;
    if (!match || width(match[1]) > base + 1 || width(match[1]) < base || match[2].at(-1) !== kind) break;
    const [inner, next] = itemAt(lines, end, base, match);
    items.push(item(inner, depth));
    end = next;
  }
  const ordered = marker.length > 1;
  return [{ kind: "list", ordered, first: ordered ? parseInt(marker, 10) : 1, items }, end];
}

// The lines of an item without its marker and indentation. Less indentation than CommonMark wants will do: models
// nest by two columns whatever the marker.
function itemAt(lines, at, base, [whole, , marker]) {
  const content = base + marker.length + 1;
  const inner = [lines[at].slice(whole.length)];
  let end = at + 1;
  let blanks = 0;
  for (; end < lines.length; end += 1) {
    const line = lines[end];
    if (isBlank(line)) {
      blanks += 1;
      continue;
    }
    const isInside = indentOf(line) > base + 1;
    const goesOn = blanks === 0 && !MARKER.test(line) && !interrupts(line) && !isTable(lines, end);
    if (!isInside && !goesOn) break;
    while (blanks > 0) {
      inner.push("");
      blanks -= 1;
    }
    inner.push(dedent(line, content));
  }
  // Blank lines in front of another item are none of this list's end.
  const next = end < lines.length && MARKER.test(lines[end]) ? end : end - blanks;
  return [inner, next];
}

function item(lines, depth) {
  const task = TASK.exec(lines[0]);
  if (task) lines[0] = lines[0].slice(task[0].length);
  return { blocks: parse(lines, depth + 1), done: task ? task[1] !== " " : null };
}

// The cells of a table's row; a "|" in code or behind a backslash is text.
function cells(line) {
  const found = [];
  let cell = "";
  let ticks = false;
  const text = line.trim();
  for (let at = text.startsWith("|") ? 1 : 0; at < text.length; at += 1) {
    const character = text[at];
    if (character === "\\" && text[at + 1] === "|") {
      cell += "|";
      at += 1;
    } else if (character === "|" && !ticks) {
      found.push(cell.trim());
      cell = "";
    } else {
      if (character === "`") ticks = !ticks && text.indexOf("`", at + 1) > 0;
      cell += character;
    }
  }
  if (cell.trim() || !text.endsWith("|")) found.push(cell.trim());
  return found;
}

function isTable(lines, at) {
  const next = lines[at + 1]?.trim() ?? "";
  if (!/^[|:-]/.test(next) || !lines[at].includes("|") || next.length > 100 * MOST_COLUMNS) return false;
  const rules = cells(next);
  if (rules.length > MOST_COLUMNS || !rules.every((cell) => DASHES.test(cell))) return false;
  return cells(lines[at]).length === rules.length;
}

function tableAt(lines, at) {
  const align = cells(lines[at + 1]).map((cell) => (!cell.endsWith(":") ? "" : cell.startsWith(":") ? "center" : "right"));
  const rows = [];
  let end = at + 2;
  for (; end < lines.length && lines[end].includes("|"); end += 1) rows.push(cells(lines[end]).slice(0, align.length));
  return [{ kind: "table", align, head: cells(lines[at]), rows }, end];
}

function interrupts(line) {
  if (!/^[ \t]*[-*+_`~>#\d]/.test(line)) return false;
  const marker = MARKER.exec(line);
  if (marker) return marker[2].length === 1 || parseInt(marker[2], 10) === 1 || indentOf(line) > 0;
  return FENCE.test(line) || HEADING.test(line) || QUOTE.test(line) || isRule(line);
}

function paragraphAt(lines, at, depth) {
  const ends = (line, index) => depth < MOST_NESTED && (interrupts(line) || isTable(lines, index));
  let end = at + 1;
  while (end < lines.length && !isBlank(lines[end]) && !ends(lines[end], end)) end += 1;
  return [{ kind: "paragraph", text: lines.slice(at, end).map((line) => line.trim()).join("\n") }, end];
}
