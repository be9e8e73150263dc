// A model's log as it grows. Lines come in batches and are put on the page once a frame, a few hundred at most; blocks of
// lines that are out of sight cost no layout, and the oldest go when there are more than MOST_LINES.

const MOST_LINES = 5000;
const BLOCK_LINES = 100;
const FRAME_LINES = 250;
const MOST_MARKS = 2000;
const AT_BOTTOM_PX = 24;
const RETRY_MS = 2000;
const SEARCH_MS = 120;
const BY_HAND_MS = 500;

const element = (id) => document.getElementById(id);
const log = element("log");
const state = element("log-state");
const search = element("log-search");
const found = element("log-found");
const buttons = { follow: element("log-follow"), pause: element("log-pause"), wrap: element("log-wrap"), times: element("log-times") };

const marks = log.getElementsByTagName("mark"); // keeps itself up to date
const launches = new Set();
let waiting = []; // lines that are not on the page yet
let skipped = 0;
let count = 0;
let last = 0; // the number of the last line that came
let frame = 0;
let query = null;
let current = null;
let stream = null;
let retry = 0;

const isOn = (button) => button.getAttribute("aria-pressed") === "true";
const press = (button, on) => button.setAttribute("aria-pressed", on);

function tell(text) {
  if (state.textContent !== text) state.textContent = text;
  state.hidden = !text;
}

// --- lines

function clock(at) {
  const date = new Date(at * 1000);
  const part = (number, digits = 2) => String(number).padStart(digits, "0");
  return `${part(date.getHours())}:${part(date.getMinutes())}:${part(date.getSeconds())}.${part(date.getMilliseconds(), 3)}`;
}

function span(kind, text) {
  const made = document.createElement("span");
  made.className = kind;
  made.textContent = text;
  return made;
}

function note(text) {
  const made = document.createElement("div");
  made.className = "note";
  made.textContent = text;
  return made;
}

function lineOf([, at, , instance, text, pid]) {
  const made = document.createElement("div");
  made.className = "line";
  made.dataset.at = at;
  if (pid) made.dataset.pid = pid;
  made.append(span("time", clock(at)));
  const replica = instance.lastIndexOf("#");
  if (replica >= 0) made.append(span("tag", instance.slice(replica)));
  const words = span("text", text);
  if (query) mark(words);
  made.append(words);
  return made;
}

function add(made) {
  let block = log.lastElementChild;
  if (!block || block.childElementCount >= BLOCK_LINES) {
    block?.classList.add("full");
    block = document.createElement("div");
    block.className = "block";
    log.append(block);
  }
  block.append(made);
  count += 1;
}

function put(line) {
  const [, at, launch, instance, , pid] = line;
  if (!launches.has(launch)) {
    launches.add(launch);
    const replica = instance.lastIndexOf("#");
    const whose = replica >= 0 ? ` of ${instance.slice(replica)}` : "";
    add(note(`${pid ? `process ${pid}` : "another process"}${whose}, from ${new Date(at * 1000).toLocaleString()}`));
  }
  add(lineOf(line));
}

function trim() {
  while (count > MOST_LINES && log.childElementCount > 1) {
    count -= log.firstElementChild.childElementCount;
    log.firstElementChild.remove();
  }
}

const isAtBottom = () => log.scrollHeight - log.scrollTop - log.clientHeight < AT_BOTTOM_PX;

function toBottom() {
  log.scrollTop = log.scrollHeight;
}

function render() {
  frame = 0;
  if (isOn(buttons.pause)) return;
  if (waiting.length > MOST_LINES) {
    skipped += waiting.length - MOST_LINES;
    waiting = waiting.slice(-MOST_LINES);
  }
  if (skipped) add(note(`${skipped} lines came too fast to be shown`));
  skipped = 0;
  for (const line of waiting.splice(0, FRAME_LINES)) put(line);
  trim();
  if (isOn(buttons.follow)) toBottom();
  if (query) showFound();
  if (waiting.length) frame = requestAnimationFrame(render);
}

function schedule() {
  if (isOn(buttons.pause)) {
    if (waiting.length > MOST_LINES) {
      skipped += waiting.length - MOST_LINES;
      waiting = waiting.slice(-MOST_LINES);
    }
    tell(waiting.length ? `Paused; ${waiting.length + skipped} new lines` : "Paused");
  } else if (!frame) {
    frame = requestAnimationFrame(render);
  }
}

// --- search

const escaped = (text) => text.replace(/[.*+?^${}()|[\]\\/]/g, "\\$&");

// Put each match of the query within <mark>, as long as there are not too many for the page.
function mark(words) {
  const text = words.textContent;
  const parts = [];
  let from = 0;
  for (const match of text.matchAll(query)) {
    if (marks.length + parts.length / 2 >= MOST_MARKS) break;
    const made = document.createElement("mark");
    made.textContent = match[0];
    parts.push(text.slice(from, match.index), made);
    from = match.index + match[0].length;
  }
  if (parts.length) words.replaceChildren(...parts, text.slice(from));
}

function unmark() {
  for (const words of new Set([...marks].map((each) => each.parentElement))) words.textContent = words.textContent;
  current = null;
}

function showFound() {
  if (current && !current.isConnected) current = null;
  const total = marks.length >= MOST_MARKS ? `${MOST_MARKS} or more` : String(marks.length);
  const place = current ? [...marks].indexOf(current) + 1 : 0;
  const text = !query ? "" : !marks.length ? "nothing found" : place ? `${place} of ${total}` : `${total} found`;
  for (const button of [element("log-previous"), element("log-next")]) button.disabled = !marks.length;
  if (found.textContent !== text) found.textContent = text;
}

function find() {
  unmark();
  const text = search.value;
  query = text ? new RegExp(escaped(text), "giu") : null;
  if (query) for (const words of log.querySelectorAll(".text")) mark(words);
  if (marks.length) choose(firstInSight());
  else showFound();
}

// The first match that is not above what is seen of the log, or the last one.
function firstInSight() {
  const top = log.getBoundingClientRect().top;
  const all = [...marks];
  return all.find((each) => each.getBoundingClientRect().bottom > top) ?? all.at(-1);
}

function choose(match) {
  current?.classList.remove("current");
  current = match;
  current.classList.add("current");
  press(buttons.follow, false);
  current.scrollIntoView({ block: "center", inline: "nearest" });
  showFound();
}

function go(step) {
  if (!marks.length) return;
  const all = [...marks];
  const from = current?.isConnected ? all.indexOf(current) : step > 0 ? -1 : 0;
  choose(all.at((from + step) % all.length));
}

let searching = 0;
search.addEventListener("input", () => {
  clearTimeout(searching);
  searching = setTimeout(find, SEARCH_MS);
});
search.addEventListener("keydown", (event) => {
  if (event.key !== "Enter") return;
  event.preventDefault();
  if (query?.source !== escaped(search.value)) find();
  else go(event.shiftKey ? -1 : 1);
});
element("log-next").addEventListener("click", () => go(1));
element("log-previous").addEventListener("click", () => go(-1));

// --- switches

function remember(name, on) {
  try {
    localStorage.setItem(`log-${name}`, on);
  } catch {
    // a browser that keeps nothing asks again
  }
}

function remembered(name, otherwise) {
  try {
    return (localStorage.getItem(`log-${name}`) ?? String(otherwise)) === "true";
  } catch {
    return otherwise;
  }
}

function toggle(name, on) {
  press(buttons[name], on);
  log.classList.toggle(name, on);
  remember(name, on);
}

buttons.wrap.addEventListener("click", () => toggle("wrap", !isOn(buttons.wrap)));
buttons.times.addEventListener("click", () => toggle("times", !isOn(buttons.times)));
buttons.follow.addEventListener("click", () => {
  press(buttons.follow, !isOn(buttons.follow));
  if (isOn(buttons.follow)) toBottom();
});
buttons.pause.addEventListener("click", () => {
  press(buttons.pause, !isOn(buttons.pause));
  tell(isOn(buttons.pause) ? "Paused" : "");
  schedule();
});
// Words for all lines would take longer than to show them.
log.addEventListener("pointerover", (event) => {
  const line = event.target.closest(".line");
  if (!line || line.title) return;
  const written = new Date(line.dataset.at * 1000).toLocaleString();
  line.title = line.dataset.pid ? `${written}, process ${line.dataset.pid}` : written;
});

// Whoever scrolls up wants to read, and whoever comes back to the end to follow. The log scrolls by itself as well: what
// a person does begins with one of these events.
let byHand = 0;
let held = false;
for (const kind of ["wheel", "touchmove", "keydown"]) {
  log.addEventListener(kind, () => (byHand = performance.now() + BY_HAND_MS), { passive: true });
}
log.addEventListener("pointerdown", () => (held = true));
addEventListener("pointerup", () => {
  held = false;
  byHand = performance.now() + BY_HAND_MS;
});
log.addEventListener("scroll", () => {
  if (held || performance.now() < byHand) press(buttons.follow, isAtBottom());
});

// --- where lines come from

function heard(event) {
  const told = JSON.parse(event.data);
  last = told.lines.at(-1)[0];
  skipped += told.skipped;
  waiting.push(...told.lines);
  if (state.textContent && !isOn(buttons.pause)) tell("");
  schedule();
}

function connect(address) {
  const query = new URLSearchParams({ lines: 500, follow: 1, after: last });
  stream = new EventSource(`${address}?${query}`);
  const events = stream;
  events.addEventListener("lines", heard);
  events.addEventListener("open", () => {
    if (!isOn(buttons.pause)) tell(count || waiting.length ? "" : "Nothing was written yet.");
  });
  events.addEventListener("error", () => {
    if (events.readyState !== EventSource.CLOSED) return;
    retry = setTimeout(connect, RETRY_MS, address);
  });
}

// Browsers have six connections for all tabs of a router, and each stream takes one: a tab that nobody looks at has none.
function look(address) {
  clearTimeout(retry);
  stream?.close();
  if (!document.hidden) connect(address);
}

// Show the log of `address` and follow it.
export function openLog(address) {
  toggle("wrap", remembered("wrap", true));
  toggle("times", remembered("times", false));
  element("log-tools").hidden = log.hidden = false;
  look(address);
  document.addEventListener("visibilitychange", () => look(address));
}
