// Keeps the activity pages true. New requests are asked for all the time, for they end without an event; events and
// the queue are fetched anew when the event stream says that something happened.

import { follow, say, tick } from "./live.js";

const POLL_MS = 500; // and activity.py writes what ended within WRITE_SECONDS
const NAMES_POLLS = 20; // a model that is added tells no request
const QUEUE_MS = 1000;
const MOST_ROWS = 500;

const table = document.getElementById("requests");
const changing = document.getElementById("changing");
const pause = document.getElementById("pause");
const form = document.getElementById("filter");

const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });
const day = new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric" });

async function fetched(path) {
  const answer = await fetch(path);
  if (answer.status === 204) return null;
  if (!answer.ok) throw new Error(answer.statusText);
  return new DOMParser().parseFromString(await answer.text(), "text/html");
}

// Times of this browser's zone; a day is told unless it is today.
function localise(root) {
  const today = new Date().toDateString();
  for (const time of root.querySelectorAll("time[datetime]:not(.ago)")) {
    const at = new Date(time.dateTime);
    const words = clock.format(at);
    time.textContent = at.toDateString() === today ? words : `${day.format(at)}, ${words}`;
    time.title = at.toString();
  }
}

// Rows that were put above what is looked at must not move it.
function keepingPlace(change) {
  const top = table.getBoundingClientRect().top;
  const before = document.documentElement.scrollHeight;
  change();
  if (top < 0) scrollBy(0, document.documentElement.scrollHeight - before);
}

function insert(page) {
  const rows = document.getElementById("rows");
  const fresh = [...page.querySelectorAll("#rows > tr")];
  table.dataset.seen = page.querySelector("[data-seen]").dataset.seen;
  document.getElementById("sums").textContent = page.getElementById("sums").textContent.trim();
  offer(page.getElementById("models"));
  if (fresh.length === 0) return;
  localise(page);
  keepingPlace(() => {
    rows.prepend(...fresh);
    table.hidden = false;
    document.getElementById("nothing")?.remove();
  });
  while (rows.children.length > MOST_ROWS) rows.lastElementChild.remove();
}

// The names to choose from, unless somebody is choosing.
function offer(fresh) {
  const names = document.getElementById("models");
  if (names === document.activeElement || names.isEqualNode(fresh)) return;
  const chosen = names.value;
  names.replaceChildren(...fresh.childNodes);
  names.value = chosen;
}

let polls = 0;

async function poll() {
  const query = new URLSearchParams(table.dataset.live);
  query.set("after", table.dataset.seen);
  if ("keys" in table.dataset) query.set("keys", "1");
  if (polls++ % NAMES_POLLS === 0) query.set("names", "1");
  const page = await fetched(`/ui/activity/rows?${query}`);
  if (page !== null) insert(page);
}

async function again() {
  const page = await fetched(location.href);
  const fresh = page.getElementById("changing");
  localise(fresh);
  if (!changing.isEqualNode(fresh)) changing.replaceChildren(...fresh.childNodes);
}

let asking = false;

async function refresh() {
  if (asking || document.hidden || pause?.getAttribute("aria-pressed") === "true") return;
  asking = true;
  try {
    await (changing ? again() : poll());
    say(true);
  } catch {
    say(false);
  } finally {
    asking = false;
  }
}

// A row's details, below it.
async function toggle(link) {
  const row = link.closest("tr");
  if (row.classList.contains("open")) {
    row.nextElementSibling.remove();
  } else {
    const page = await fetched(link.href);
    const below = document.createElement("tr");
    below.className = "details";
    const cell = document.createElement("td");
    cell.colSpan = row.cells.length;
    cell.append(page.getElementById("details"));
    below.append(cell);
    row.after(below);
  }
  link.setAttribute("aria-expanded", String(row.classList.toggle("open")));
}

function startRequests() {
  table.addEventListener("click", (event) => {
    const link = event.target.closest("tbody th a");
    if (link === null || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    toggle(link).catch(() => location.assign(link.href));
  });
  if (table.dataset.live === undefined) return;
  pause.hidden = false;
  pause.addEventListener("click", () => {
    const paused = pause.getAttribute("aria-pressed") !== "true";
    pause.setAttribute("aria-pressed", String(paused));
    pause.textContent = paused ? "Go on" : "Pause";
    document.getElementById("live").textContent = paused ? "paused" : "";
    refresh();
  });
  setInterval(refresh, POLL_MS);
  refresh();
}

function startChanging() {
  follow(refresh);
  setInterval(() => {
    tick(changing.querySelector(".waiters") ?? document.createElement("p"));
    if (changing.querySelector(".waiters")) refresh();
  }, QUEUE_MS);
}

form?.addEventListener("change", (event) => event.target.matches("select") && form.requestSubmit());
localise(document);
if (table) startRequests();
if (changing) startChanging();
document.addEventListener("visibilitychange", refresh);
