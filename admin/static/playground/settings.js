// The panel with a conversation's settings: system prompt and sampling.

import { ask } from "./models.js";
import { NUMBERS, problemOf, settingsOf } from "./request.js";

const OPEN = "default"; // whose, is said below the fields
const byId = (id) => document.getElementById(id);

export class Settings {
  // `changed(settings)` is called when the user changed something.
  constructor(changed) {
    this.form = byId("settings");
    byId("numbers").append(...NUMBERS.map((number) => this.#field(number)));
    this.form.addEventListener("submit", (event) => event.preventDefault());
    this.form.addEventListener("input", () => {
      this.#judge();
      changed(settingsOf(Object.fromEntries(new FormData(this.form))));
    });
    byId("reset").addEventListener("click", () => {
      this.show({});
      changed({});
    });
  }

  // Tell who decides on what, for the model of that name.
  of(name) {
    if (name === this.name) return;
    this.name = name;
    this.#decided({ set: {}, removed: [] });
    if (!this.form.hidden) this.look();
  }

  // Ask what the model's preset sets and removes: it may have changed since.
  async look() {
    const { name } = this;
    if (!name) return;
    const decided = await ask(`/request?${new URLSearchParams({ model: name })}`).then((answer) => answer.json()).catch(() => null);
    if (decided && name === this.name) this.#decided(decided);
  }

  #decided({ set, removed }) {
    for (const { name } of [...NUMBERS, { name: "stop" }]) {
      const field = this.form.elements[name];
      const words = name in set ? `the preset sets ${set[name]}` : removed.includes(name) ? "the preset leaves it out" : "";
      field.readOnly = words !== "";
      field.placeholder = words ? "" : OPEN;
      byId(`preset-${name}`).textContent = words;
    }
  }

  show(settings) {
    this.form.elements.system.value = settings.system ?? "";
    this.form.elements.stop.value = (settings.stop ?? []).join("\n");
    for (const { name } of NUMBERS) this.form.elements[name].value = settings[name] ?? "";
    this.#judge();
  }

  #judge() {
    let set = 0;
    for (const number of NUMBERS) {
      const field = this.form.elements[number.name];
      const problem = problemOf(number, field.validity.badInput ? "x" : field.value);
      field.setAttribute("aria-invalid", problem !== null);
      byId(`wrong-${number.name}`).textContent = problem ?? "";
      if (field.value) set += 1;
    }
    for (const name of ["system", "stop"]) if (this.form.elements[name].value.trim()) set += 1;
    byId("open-settings").textContent = set > 0 ? `Settings (${set})` : "Settings";
  }

  #field(number) {
    const label = document.createElement("label");
    const field = document.createElement("input");
    field.type = "number";
    field.name = number.name;
    field.min = number.least;
    field.max = number.most;
    field.step = "any";
    field.inputMode = "decimal";
    field.placeholder = OPEN;
    field.setAttribute("aria-describedby", `preset-${number.name} wrong-${number.name}`);
    const [preset, wrong] = ["preset", "wrong"].map((name) => {
      const words = document.createElement("span");
      words.id = `${name}-${number.name}`;
      words.className = name;
      return words;
    });
    label.append(number.label, field, preset, wrong);
    return label;
  }
}
