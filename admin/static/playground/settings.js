// The panel with a conversation's settings: system prompt and sampling.

import { NUMBERS, problemOf, settingsOf } from "./request.js";

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
    field.placeholder = "preset";
    field.setAttribute("aria-describedby", `wrong-${number.name}`);
    const wrong = document.createElement("span");
    wrong.id = `wrong-${number.name}`;
    wrong.className = "wrong";
    label.append(number.label, field, wrong);
    return label;
  }
}
