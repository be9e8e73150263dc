// Charts of what happened over time, as SVG: lines, areas and steps with axes in readable numbers. Series differ by dashes
// and marks as well as by colour; each chart says in words what it shows, can be read point by point with pointer or arrow
// keys, and has its numbers as a table.

const SVG = "http://www.w3.org/2000/svg";
const HEIGHT = 170;
const EDGE = { left: 58, right: 12, top: 10, bottom: 24 };
const MOST_MARKS = 60;
const MINUTES = [1, 2, 5, 10, 15, 30, 60, 120, 180, 360, 720];
let charts = 0;

function make(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function shape(name, attributes = {}, ...children) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

// --- numbers

// 1, 2 or 5 times a power of ten, so that there are about four steps up to `most`.
function niceStep(most, whole) {
  const raw = most / 4;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].find((factor) => factor * power >= raw) * power;
  return whole ? Math.max(1, Math.round(step)) : step;
}

// The unit for numbers up to `most`: how many of the plain unit it is, and its name.
function unitFor(most, { base, unit }) {
  if (base !== 1024) return unit === "s" && most < 1 && most > 0 ? { size: 0.001, name: "ms" } : { size: 1, name: unit };
  const names = ["B", "KiB", "MiB", "GiB", "TiB"];
  const power = Math.min(names.length - 1, Math.max(0, Math.floor(Math.log(Math.max(most, 1)) / Math.log(1024))));
  return { size: 1024 ** power, name: names[power] };
}

const number = (value) => (value >= 100 ? Math.round(value) : Number(value.toPrecision(3))).toLocaleString("en", { useGrouping: false });

function worded(value, about) {
  if (value === null || value === undefined) return "unknown";
  const { size, name } = unitFor(value, about);
  return `${number(value / size)} ${name}`.trimEnd();
}

const time = (at) => new Date(at * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });

function timeTicks(from, until, width) {
  const most = Math.max(2, Math.floor(width / 75));
  const minutes = MINUTES.find((each) => (until - from) / 60 / each <= most) ?? 1440;
  const start = new Date(from * 1000);
  start.setHours(0, 0, 0, 0);
  const ticks = [];
  for (let at = start.getTime() / 1000; at <= until; at += minutes * 60) if (at >= from) ticks.push(at);
  return ticks;
}

// --- lines

// Runs of neighbouring points: between those that are not known there is no line.
function runs(points) {
  const found = [];
  let run = [];
  for (const point of points) {
    if (point) {
      run.push(point);
    } else {
      found.push(run);
      run = [];
    }
  }
  found.push(run);
  return found.filter((each) => each.length);
}

function pathOf(run, kind, width) {
  const [first, ...rest] = run;
  const start = `M${first.x.toFixed(1)},${first.y.toFixed(1)}`;
  if (kind !== "step") return start + rest.map(({ x, y }) => `L${x.toFixed(1)},${y.toFixed(1)}`).join("");
  const end = run.at(-1).x + width;
  return `${start}${rest.map(({ x, y }) => `H${x.toFixed(1)}V${y.toFixed(1)}`).join("")}H${end.toFixed(1)}`;
}

function markOf({ x, y }, index) {
  const side = 5;
  if (index === 0) return shape("circle", { cx: x, cy: y, r: 3, class: "mark" });
  return shape("rect", { x: x - side / 2, y: y - side / 2, width: side, height: side, class: "mark" });
}

class Chart {
  constructor(container, about) {
    this.about = about;
    this.id = `chart-${(charts += 1)}`;
    this.readout = make("p", { class: "readout" });
    this.plot = make("div", { class: "plot" });
    this.cursor = make("input", { type: "range", min: 0, step: 1, "aria-label": `${about.title}, read at a time` });
    this.table = make("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": `${about.title} as a table`, hidden: "" });
    this.toggle = make("button", { type: "button", class: "quiet small", "aria-pressed": "false", "aria-label": `${about.title} as a table` }, "Table");
    const head = make("figcaption", {}, make("h3", {}, about.title), this.toggle, this.readout);
    this.figure = make("figure", { class: "chart" }, head, this.plot, this.legend(), this.table);
    container.append(this.figure);
    this.listen();
    new ResizeObserver(() => this.draw()).observe(this.plot);
  }

  legend() {
    const list = make("ul", { class: "legend" });
    if (this.about.lines.length > 1) {
      this.about.lines.forEach((line, index) => {
        const sample = shape("svg", { width: 30, height: 10, "aria-hidden": "true", class: `series-${index}` });
        sample.append(shape("path", { d: "M0,5H30", class: "line" }));
        if (line.kind === "dots") sample.append(markOf({ x: 15, y: 5 }, index));
        list.append(make("li", {}, sample, ` ${line.name}`));
      });
    } else {
      list.hidden = true;
    }
    return list;
  }

  listen() {
    this.cursor.addEventListener("input", () => this.read(Number(this.cursor.value)));
    this.cursor.addEventListener("focus", () => this.read(Number(this.cursor.value)));
    this.cursor.addEventListener("blur", () => this.read(null));
    this.plot.addEventListener("pointermove", (event) => {
      if (!this.series) return;
      const across = event.clientX - this.plot.getBoundingClientRect().left - EDGE.left;
      const place = Math.floor((across / this.width) * this.series.at.length);
      this.read(Math.min(Math.max(place, 0), this.series.at.length - 1));
    });
    this.plot.addEventListener("pointerleave", () => this.read(null));
    this.toggle.addEventListener("click", () => {
      const shown = this.table.hidden;
      this.toggle.setAttribute("aria-pressed", shown);
      this.table.hidden = !shown;
      if (shown) this.fillTable();
    });
  }

  // Show other numbers: `at` and a list for each line's key, all of one length.
  show(series) {
    this.series = series;
    this.cursor.max = series.at.length - 1;
    if (document.activeElement !== this.cursor) this.cursor.value = series.at.length - 1;
    this.draw();
    if (!this.table.hidden) this.fillTable();
  }

  largest() {
    return Math.max(0, ...this.about.lines.flatMap(({ key }) => this.series[key].filter((value) => value !== null)));
  }

  draw() {
    const outer = this.plot.clientWidth;
    if (!this.series || !outer) return;
    this.width = outer - EDGE.left - EDGE.right;
    const height = HEIGHT - EDGE.top - EDGE.bottom;
    const most = this.largest();
    const unit = unitFor(most, this.about);
    const step = niceStep((most || unit.size) / unit.size, this.about.whole || !most) * unit.size;
    const top = Math.max(1, Math.ceil((most / step) * 0.999)) * step;
    const { from, until, at } = this.series;
    const x = (moment) => EDGE.left + ((moment - from) / (until - from)) * this.width;
    const y = (value) => EDGE.top + height - (value / top) * height;
    const svg = shape("svg", { width: outer, height: HEIGHT, role: "img", "aria-label": this.summary() });
    if (this.latest() < 0) {
      const nothing = shape("text", { class: "nothing", x: outer / 2, y: HEIGHT / 2, "text-anchor": "middle" }, "nothing recorded");
      this.plot.replaceChildren(svg);
      svg.append(nothing);
      this.ruler = null;
      this.readout.textContent = "";
      return;
    }
    this.drawAxes(svg, { x, y, top, step, unit, height });
    const wide = this.width / at.length;
    this.about.lines.forEach((line, index) => {
      const points = this.series[line.key].map((value, place) =>
        value === null ? null : { x: x(at[place]) + (line.kind === "step" ? 0 : wide / 2), y: y(value) },
      );
      svg.append(this.drawLine(line, index, points, { wide, floor: y(0) }));
    });
    this.ruler = shape("path", { class: "ruler", d: "" });
    svg.append(this.ruler);
    const inside = this.plot.contains(this.cursor) ? [] : [this.cursor];
    this.plot.querySelector("svg")?.remove();
    this.plot.prepend(svg);
    this.plot.append(...inside);
    this.cursor.style.left = `${EDGE.left}px`;
    this.cursor.style.width = `${this.width}px`;
    this.read(document.activeElement === this.cursor ? Number(this.cursor.value) : null);
  }

  drawAxes(svg, { x, y, top, step, unit, height }) {
    for (let value = 0; value <= top * 1.001; value += step) {
      const down = y(value);
      svg.append(shape("path", { class: value ? "grid" : "axis", d: `M${EDGE.left},${down}h${this.width}` }));
      const label = shape("text", { class: "label", x: EDGE.left - 6, y: down + 4, "text-anchor": "end" });
      label.textContent = number(value / unit.size) + (value + step > top * 1.001 && unit.name.length < 4 ? ` ${unit.name}`.trimEnd() : "");
      svg.append(label);
    }
    for (const moment of timeTicks(this.series.from, this.series.until, this.width)) {
      const across = x(moment);
      svg.append(shape("path", { class: "axis", d: `M${across},${EDGE.top + height}v4` }));
      const label = shape("text", { class: "label", x: across, y: HEIGHT - 6, "text-anchor": "middle" });
      label.textContent = time(moment);
      if (across > EDGE.left + 14 && across < EDGE.left + this.width - 6) svg.append(label);
    }
  }

  drawLine({ kind }, index, points, { wide, floor }) {
    const group = shape("g", { class: `series-${index}` });
    const known = points.filter(Boolean);
    for (const run of runs(points)) {
      const path = pathOf(run, kind, wide);
      if (kind === "area") {
        const hatch = `${this.id}-hatch`;
        const lines = shape("pattern", { id: hatch, width: 6, height: 6, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" });
        lines.append(shape("path", { d: "M0,0V6", class: "hatch" }));
        const area = `${path}L${run.at(-1).x},${floor}L${run[0].x},${floor}Z`;
        group.append(lines, shape("path", { d: area, class: "area", fill: `url(#${hatch})` }));
      }
      if (run.length > 1 || kind === "step") group.append(shape("path", { d: path, class: "line" }));
    }
    const alone = runs(points).filter((run) => run.length === 1 && kind !== "step").flat();
    const marked = kind === "dots" && known.length <= MOST_MARKS ? known : alone;
    group.append(...marked.map((point) => markOf(point, index)));
    return group;
  }

  // What is known at a place, in words; of none, the latest of all.
  words(place) {
    const { lines } = this.about;
    const values = lines.map(({ key, name }) => {
      const word = worded(this.series[key][place], this.about);
      return lines.length > 1 ? `${name} ${word}` : word;
    });
    return `${time(this.series.at[place])}: ${values.join(", ")}`;
  }

  read(place) {
    if (!this.ruler) return;
    this.readout.textContent = this.words(place ?? this.latest());
    if (place !== null) this.cursor.setAttribute("aria-valuetext", this.words(place));
    const across = EDGE.left + ((place + 0.5) / this.series.at.length) * this.width;
    this.ruler?.setAttribute("d", place === null ? "" : `M${across},${EDGE.top}V${HEIGHT - EDGE.bottom}`);
  }

  latest() {
    return this.series.at.findLastIndex((_, place) => this.about.lines.some(({ key }) => this.series[key][place] !== null));
  }

  summary() {
    const { about, series } = this;
    const span = `${about.title} from ${time(series.from)} to ${time(series.until)}`;
    const parts = about.lines.map(({ key, name }) => {
      const values = series[key].filter((value) => value !== null);
      if (!values.length) return `${name}: nothing recorded`;
      return `${name}: largest ${worded(Math.max(...values), about)}, latest ${worded(values.at(-1), about)}`;
    });
    return `${span}. ${parts.join(". ")}.`;
  }

  fillTable() {
    const { lines, title } = this.about;
    const cell = (name, text, attributes = {}) => make(name, attributes, text);
    const head = make("tr", {}, ...["Time", ...lines.map(({ name }) => name)].map((text) => cell("th", text, { scope: "col" })));
    const body = make("tbody");
    this.series.at.forEach((at, place) => {
      if (lines.every(({ key }) => this.series[key][place] === null)) return;
      const values = lines.map(({ key, name }) => cell("td", worded(this.series[key][place], this.about), { "data-label": name }));
      body.prepend(make("tr", {}, cell("th", time(at), { scope: "row" }), ...values));
    });
    const caption = make("caption", { class: "hidden" }, title);
    this.table.replaceChildren(make("table", {}, caption, make("thead", {}, head), body));
  }
}

// A chart at the end of `container`. `about`: title, unit, base (1024 for bytes), whole (only whole numbers), and lines,
// each with the key of its numbers, its name, and its kind: "area", "step", or "dots" for what is known now and then.
export function chart(container, about) {
  return new Chart(container, about);
}
