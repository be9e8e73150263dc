// A model's page: keeps state, history and preset true, and brings log, charts and examples to life.

import { chart } from "./charts.js";
import { fetching, follow, keepTimes, send, tick } from "./live.js";
import { openLog } from "./log.js";

const TICK_MS = 5000;
const CHARTS_MS = 10_000;
const COPIED_MS = 2000;
const PARTS = ["state", "history-section", "preset-section"];

const GONE = "This model is not there any more: its preset was renamed or removed.";

const page = document.getElementById("model");
const error = document.getElementById("error");
const copied = document.getElementById("copied");

function tell(text) {
  error.textContent = text;
  error.hidden = !text;
}

// --- the parts that the server words

// Points in time as this browser's clock shows them; their words come from the server in UTC.
function localTimes(root) {
  for (const time of root.querySelectorAll("time.at")) {
    const at = new Date(time.dateTime);
    const today = at.toDateString() === new Date().toDateString();
    time.title = time.dateTime;
    time.textContent = today ? at.toLocaleTimeString() : at.toLocaleString();
  }
}

function copyButton(block) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "quiet copy";
  button.textContent = "Copy";
  button.setAttribute("aria-label", `Copy ${block.dataset.title}`);
  block.prepend(button);
}

function dress(root) {
  localTimes(root);
  for (const block of root.querySelectorAll(".copyable")) copyButton(block);
}

function keepDetails(old, fresh) {
  for (const details of fresh.querySelectorAll("details[data-key]")) {
    const same = old.querySelector(`details[data-key="${CSS.escape(details.dataset.key)}"]`);
    if (same) details.open = same.open;
  }
}

// What had the focus, found again by what it is.
function focusOf(part) {
  const element = document.activeElement;
  if (!part.contains(element)) return () => {};
  const action = element.dataset.action;
  const place = [...part.querySelectorAll("a, button, summary, [tabindex]")].indexOf(element);
  return () => {
    const found = action ? part.querySelector(`button[data-action="${action}"]`) : null;
    const same = found ?? [...part.querySelectorAll("a, button, summary, [tabindex]")][place];
    (same ?? page.querySelector(".within a")).focus({ preventScroll: true });
  };
}

function updatePart(old, fresh) {
  dress(fresh);
  keepTimes(old, fresh);
  keepDetails(old, fresh);
  if (old.isEqualNode(fresh)) return;
  const restore = focusOf(old);
  const top = old.querySelector(".scroll")?.scrollTop ?? 0;
  old.dataset.state = fresh.dataset.state;
  old.replaceChildren(...fresh.childNodes);
  const scrolled = old.querySelector(".scroll");
  if (scrolled) scrolled.scrollTop = top;
  restore();
}

const refresh = fetching(
  page.dataset.part,
  (body) => {
    if (error.textContent === GONE) tell("");
    for (const id of PARTS) updatePart(document.getElementById(id), body.querySelector(`#${id}`));
  },
  (answer) => {
    if (answer.status !== 404) return false;
    tell(GONE);
    return true;
  },
);

document.addEventListener("back", () => {
  if (error.textContent !== GONE) tell("");
});

page.addEventListener("submit", async (event) => {
  event.preventDefault();
  await send(event.target, tell);
  refresh();
});

// --- what can be copied

async function copy(button) {
  const code = button.closest(".copyable").querySelector("code");
  let done = true;
  try {
    await navigator.clipboard.writeText(code.textContent);
  } catch {
    // Without https there is no clipboard: what is selected can be copied by hand.
    getSelection().selectAllChildren(code);
    done = document.execCommand("copy");
  }
  button.textContent = done ? "Copied" : "Selected";
  copied.textContent = done ? "Copied" : "Selected, press Ctrl+C to copy";
  setTimeout(() => {
    button.textContent = "Copy";
    copied.textContent = "";
  }, COPIED_MS);
}

page.addEventListener("click", (event) => {
  const button = event.target.closest("button.copy");
  if (button) copy(button);
});

const tabs = [...document.querySelectorAll("#use-tabs [role=tab]")];

function choose(tab) {
  for (const each of tabs) {
    const chosen = each === tab;
    each.setAttribute("aria-selected", chosen);
    each.tabIndex = chosen ? 0 : -1;
    document.getElementById(each.getAttribute("aria-controls")).hidden = !chosen;
  }
}

function showTabs() {
  document.getElementById("use-tabs").hidden = false;
  for (const tab of tabs) {
    const panel = document.getElementById(tab.getAttribute("aria-controls"));
    panel.setAttribute("role", "tabpanel");
    panel.setAttribute("aria-labelledby", tab.id);
    panel.querySelector("h3").hidden = true;
    const code = panel.querySelector("code");
    // A proxy in front of the router may be asked by another name, or with https.
    code.textContent = code.textContent.replace(code.dataset.base, () => location.origin);
    tab.addEventListener("click", () => choose(tab));
    tab.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!step) return;
      const next = tabs.at((tabs.indexOf(tab) + step) % tabs.length);
      choose(next);
      next.focus();
    });
  }
  choose(tabs[0]);
}

// --- charts

const CHARTS = [
  { id: "memory", title: "Memory", base: 1024, unit: "B", lines: [{ key: "memory", name: "used", kind: "area" }] },
  { id: "speed", title: "Tokens a second", unit: "tokens/s", lines: [{ key: "rate", name: "mean", kind: "dots" }] },
  {
    id: "queue",
    title: "Requests at a time",
    unit: "",
    whole: true,
    lines: [
      { key: "in_flight", name: "in flight", kind: "step" },
      { key: "waiting", name: "waiting", kind: "step" },
    ],
  },
  {
    id: "latency",
    title: "Time that requests took",
    unit: "s",
    lines: [
      { key: "p50", name: "half of them", kind: "dots" },
      { key: "p95", name: "95 % of them", kind: "dots" },
    ],
  },
];

const charts = document.getElementById("charts");
const chartsEmpty = document.getElementById("charts-empty");
let hours = 1;
let drawn;

function draw(series) {
  const used = series.requests.some((count) => count > 0);
  const known = ["memory", "in_flight", "waiting"].some((key) => series[key].some((value) => value));
  const span = hours === 1 ? "in the last hour" : `in the last ${hours} hours`;
  chartsEmpty.hidden = used;
  chartsEmpty.textContent = `No requests ${span}.`;
  charts.hidden = !used && !known;
  if (charts.hidden) return;
  if (!drawn) drawn = CHARTS.map((about) => chart(charts, about));
  for (const each of drawn) each.show(series);
}

async function readSeries() {
  const query = new URLSearchParams({ model: page.dataset.name, hours });
  const asked = hours;
  try {
    const answer = await fetch(`/ui/activity/series?${query}`, { headers: { Accept: "application/json" } });
    if (!answer.ok) throw new Error((await answer.json()).error.message);
    const series = await answer.json();
    if (asked === hours) draw(series);
  } catch (problem) {
    if (drawn || problem instanceof TypeError) return; // what is shown was true a moment ago
    chartsEmpty.textContent = problem.message;
    chartsEmpty.hidden = false;
  }
}

document.getElementById("hours").addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  hours = Number(button.dataset.hours);
  for (const each of button.parentElement.children) each.setAttribute("aria-pressed", each === button);
  readSeries();
});

// --- all together

dress(page);
showTabs();
document.getElementById("charts-section").hidden = false;
readSeries();
openLog(page.dataset.log);
follow(refresh);
setInterval(() => {
  tick(document.getElementById("state"));
  if (!document.hidden) refresh();
}, TICK_MS);
setInterval(() => {
  if (!document.hidden) readSeries();
}, CHARTS_MS);
