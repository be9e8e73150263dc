// Keeps the page true while it is open: the server says that something changed, the page fetches what changes and
// replaces only the rows and parts that differ, so that focus, open log lines and scroll positions stay. Requests come
// and go without an event, so the page looks by itself as well.

const AWAY = "supervisor away, reconnecting";
const RETRY_MS = 2000;
const TICK_MS = 5000;
const PARTS = ["summary", "room", "queue"];

const models = document.getElementById("models");
const live = document.getElementById("live");
let fetching = false;
let again = false;

function say(text, lost) {
  if (live.textContent !== text) live.textContent = text;
  live.classList.toggle("lost", lost);
}

function ago(seconds) {
  if (seconds < 60) return `${Math.max(0, Math.floor(seconds))} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86400)} d`;
}

function tick() {
  for (const time of models.querySelectorAll("time")) {
    time.textContent = ago((Date.now() - Date.parse(time.dateTime)) / 1000);
  }
}

// The element that had the focus, found again by what it is and which model it belongs to.
function focusOf(root) {
  const element = document.activeElement;
  if (!root.contains(element)) return () => {};
  const key = element.closest("[data-model]")?.dataset.model;
  const tag = element.tagName;
  return () => {
    if (element.isConnected || key === undefined) return;
    const row = root.querySelector(`[data-model="${CSS.escape(key)}"]`);
    (row?.querySelector(tag) ?? row?.querySelector("button"))?.focus({ preventScroll: true });
  };
}

// The same times in the same words: a difference of seconds is none.
function keepTimes(old, fresh) {
  const shown = old.querySelectorAll("time");
  fresh.querySelectorAll("time").forEach((time, index) => {
    if (time.dateTime === shown[index]?.dateTime) time.textContent = shown[index].textContent;
  });
}

function replaceRow(old, fresh) {
  keepTimes(old, fresh);
  const open = old.querySelector("details")?.open ?? false;
  if (open && fresh.querySelector("details")) fresh.querySelector("details").open = true;
  if (!old.isEqualNode(fresh)) old.replaceWith(fresh);
}

function replacePart(old, fresh) {
  keepTimes(old, fresh);
  if (old.isEqualNode(fresh)) return;
  const top = old.querySelector(".scroll")?.scrollTop ?? 0;
  const focused = document.activeElement.matches(".scroll") && old.contains(document.activeElement);
  old.replaceChildren(...fresh.childNodes);
  const scrolled = old.querySelector(".scroll");
  if (!scrolled) return;
  scrolled.scrollTop = top;
  if (focused) scrolled.focus({ preventScroll: true });
}

function swap(fragment) {
  const restore = focusOf(models);
  const oldRows = [...models.querySelectorAll("tr[data-model]")];
  const freshRows = [...fragment.querySelectorAll("tr[data-model]")];
  const names = (rows) => rows.map((row) => row.dataset.model).join("\n");
  if (oldRows.length > 0 && names(oldRows) === names(freshRows)) {
    oldRows.forEach((row, index) => replaceRow(row, freshRows[index]));
    for (const part of PARTS) replacePart(models.querySelector(`#${part}`), fragment.querySelector(`#${part}`));
  } else {
    const open = new Set([...models.querySelectorAll("details[open]")].map((element) => element.dataset.key));
    for (const element of fragment.querySelectorAll("details")) element.open = open.has(element.dataset.key);
    models.replaceChildren(...fragment.childNodes);
  }
  restore();
}

async function refresh() {
  again = fetching;
  if (fetching) return;
  fetching = true;
  try {
    const answer = await fetch("/ui/models");
    if (!answer.ok) throw new Error(answer.statusText);
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    swap(page.body);
    say("live", false);
  } catch {
    say(AWAY, true);
  } finally {
    fetching = false;
    if (again) refresh();
  }
}

function listen() {
  const events = new EventSource("/ui/events");
  events.addEventListener("open", refresh);
  events.addEventListener("models", refresh);
  events.addEventListener("error", () => {
    say(AWAY, true);
    // A browser tries again by itself after a broken connection, but gives up on an error answer.
    if (events.readyState === EventSource.CLOSED) setTimeout(listen, RETRY_MS);
  });
}

listen();
setInterval(() => {
  tick();
  if (!document.hidden) refresh();
}, TICK_MS);
