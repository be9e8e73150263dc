// Keeps the table true, sorted and filtered: the event stream says that something changed, the page fetches what changes
// and replaces only the rows and parts that differ, so that focus, open log lines and scroll positions stay. Requests come
// and go without an event, so the page looks by itself as well. Filter, state and order are kept in the address.

import { fetching, follow, keepTimes, send, tick } from "./live.js";

const TICK_MS = 5000;
const PARTS = ["summary", "room", "notices", "queue"];
const STATES = ["ready", "starting", "stopping", "backoff", "failed", "stopped"];
const KEYS = { l: "load", u: "unload", r: "restart" };

const models = document.getElementById("models");
const error = document.getElementById("error");
const tools = document.getElementById("tools");
const filter = document.getElementById("filter");
const state = document.getElementById("state");
const shown = document.getElementById("shown");
const chosen = new URLSearchParams(location.search);
const order = { key: "model", down: false };

const rowsOf = (root) => [...root.querySelectorAll("tr[data-model]")];

// --- what is shown, and in which order

function compare(one, other) {
  const [a, b] = [one.dataset[order.key], other.dataset[order.key]];
  let result;
  if (order.key === "model") result = 0;
  else if (order.key === "state") result = STATES.indexOf(a) - STATES.indexOf(b);
  else result = Number(a) - Number(b);
  if (result === 0) {
    const byName = one.dataset.model.localeCompare(other.dataset.model, undefined, { numeric: true });
    return order.key === "model" && order.down ? -byName : byName;
  }
  return order.down ? -result : result;
}

function applyFilter() {
  if (!tools) return;
  const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
  const rows = rowsOf(models);
  let count = 0;
  for (const row of rows) {
    const text = row.querySelector("th").textContent.toLowerCase();
    const matches = words.every((word) => text.includes(word)) && (!state.value || row.dataset.state === state.value);
    if (row.hidden === matches) row.hidden = !matches;
    count += matches;
  }
  const told = words.length > 0 || state.value ? `${count} of ${rows.length} shown` : "";
  if (shown.textContent !== told) shown.textContent = told;
}

function showOrder() {
  for (const head of models.querySelectorAll("th[data-sort]")) {
    const sorted = head.dataset.sort === order.key;
    if (sorted) head.setAttribute("aria-sort", order.down ? "descending" : "ascending");
    else head.removeAttribute("aria-sort");
    if (head.querySelector("button")) continue;
    const button = document.createElement("button");
    button.type = "button";
    button.className = "sort";
    button.textContent = head.textContent;
    head.replaceChildren(button);
  }
}

function remember() {
  const address = new URL(location.href);
  const sorted = order.key === "model" && !order.down ? "" : `${order.down ? "-" : ""}${order.key}`;
  for (const [key, value] of Object.entries({ q: filter.value, state: state.value, sort: sorted })) {
    if (value) address.searchParams.set(key, value);
    else address.searchParams.delete(key);
  }
  history.replaceState(null, "", address);
}

// --- what the server says

function updateRow(old, fresh) {
  keepTimes(old, fresh);
  const details = fresh.querySelector("details");
  if (details && old.querySelector("details")?.open) details.open = true;
  fresh.hidden = old.hidden;
  if (old.isEqualNode(fresh)) return;
  for (const name of fresh.getAttributeNames()) old.setAttribute(name, fresh.getAttribute(name));
  [...old.cells].forEach((cell, index) => {
    if (!cell.isEqualNode(fresh.cells[index])) cell.replaceWith(fresh.cells[index].cloneNode(true));
  });
}

function updatePart(old, fresh) {
  keepTimes(old, fresh);
  const details = fresh.querySelector("details");
  if (details) details.open = old.querySelector("details")?.open ?? details.open;
  if (old.isEqualNode(fresh)) return;
  const top = old.querySelector(".scroll")?.scrollTop ?? 0;
  const focused = document.activeElement.matches(".scroll") && old.contains(document.activeElement);
  old.replaceChildren(...fresh.childNodes);
  const scrolled = old.querySelector(".scroll");
  if (!scrolled) return;
  scrolled.scrollTop = top;
  if (focused) scrolled.focus({ preventScroll: true });
}

// Put rows into the body in this order, moving as few as possible.
function arrange(body, rows) {
  const kept = new Set(rows);
  for (const row of [...body.rows]) if (!kept.has(row)) row.remove();
  rows.forEach((row, index) => {
    if (body.rows[index] !== row) body.insertBefore(row, body.rows[index] ?? null);
  });
}

// What had the focus, found again by the row it belongs to and by what it is: a button by its action.
function focusOf() {
  const element = document.activeElement;
  const name = models.contains(element) ? element.closest("[data-model]")?.dataset.model : undefined;
  return () => {
    if (name === undefined || document.activeElement === element) return;
    const row = rowsOf(models).find((each) => each.dataset.model === name);
    const same = element.dataset.action && row?.querySelector(`button[data-action="${element.dataset.action}"]`);
    const found = element.isConnected ? element : same || row?.querySelector(element.tagName) || row?.querySelector("a");
    found?.focus({ preventScroll: true });
  };
}

function swap(fragment) {
  const restore = focusOf();
  const body = models.querySelector("table.models > tbody");
  const freshBody = fragment.querySelector("table.models > tbody");
  if (body && freshBody) {
    const old = new Map(rowsOf(body).map((row) => [row.dataset.model, row]));
    const rows = rowsOf(freshBody).sort(compare).map((fresh) => {
      const row = old.get(fresh.dataset.model);
      if (row) updateRow(row, fresh);
      return row ?? fresh;
    });
    arrange(body, rows);
    for (const part of PARTS) updatePart(models.querySelector(`#${part}`), fragment.querySelector(`#${part}`));
  } else {
    // Models where there were none, or none where there were some: the page around them is another one.
    if (Boolean(freshBody) !== Boolean(tools)) return location.reload();
    models.replaceChildren(...fragment.childNodes);
  }
  applyFilter();
  restore();
}

const refresh = fetching("/ui/models", swap);

// --- what people do

function tell(text) {
  error.textContent = text;
  error.hidden = !text;
}

document.addEventListener("back", () => tell(""));

async function act(form) {
  await send(form, tell);
  refresh();
}

function move(row, step) {
  const visible = rowsOf(models).filter((each) => !each.hidden);
  visible[visible.indexOf(row) + step]?.querySelector("a").focus();
}

models.addEventListener("submit", (event) => {
  event.preventDefault();
  act(event.target);
});

models.addEventListener("click", (event) => {
  const key = event.target.closest("th[data-sort]")?.dataset.sort;
  if (key === undefined) return;
  // Numbers are looked at from their largest, words from their first.
  const numbers = key !== "model" && key !== "state";
  order.down = order.key === key ? !order.down : numbers;
  order.key = key;
  arrange(models.querySelector("table.models > tbody"), rowsOf(models).sort(compare));
  showOrder();
  remember();
});

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey || event.target.matches("input, select, textarea")) return;
  const row = event.target.closest("tr[data-model]");
  if (event.key === "/" && tools) filter.focus();
  else if (row && event.key === "ArrowDown") move(row, 1);
  else if (row && event.key === "ArrowUp") move(row, -1);
  else if (row && KEYS[event.key]) row.querySelector(`button[data-action="${KEYS[event.key]}"]`)?.click();
  else return;
  event.preventDefault();
});

function start() {
  if (!tools) return;
  filter.value = chosen.get("q") ?? "";
  state.value = chosen.get("state") ?? "";
  const sort = chosen.get("sort") ?? "";
  const key = sort.replace(/^-/, "");
  if (models.querySelector(`th[data-sort="${CSS.escape(key)}"]`)) Object.assign(order, { key, down: sort.startsWith("-") });
  for (const field of [filter, state]) {
    field.addEventListener("input", () => {
      applyFilter();
      remember();
    });
  }
  filter.addEventListener("keydown", (event) => {
    if (event.key === "ArrowDown") rowsOf(models).find((row) => !row.hidden)?.querySelector("a").focus();
  });
  tools.hidden = document.getElementById("keys").hidden = false;
  showOrder();
  arrange(models.querySelector("table.models > tbody"), rowsOf(models).sort(compare));
  applyFilter();
}

start();
follow(refresh);
setInterval(() => {
  tick(models);
  if (!document.hidden) refresh();
}, TICK_MS);
