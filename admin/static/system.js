// Measures anew every other second, while somebody can see it; only the parts that differ are replaced.

import { say, tick } from "./live.js";

const EVERY_MS = 2000;

const system = document.getElementById("system");
let asking = false;

function swap(page) {
  const parts = page.querySelectorAll("[data-part]");
  const shown = system.querySelectorAll("[data-part]");
  const names = (list) => [...list].map((part) => part.dataset.part).join();
  if (names(parts) !== names(shown)) {
    system.replaceChildren(...page.body.childNodes);
    return;
  }
  parts.forEach((part, index) => {
    const top = shown[index].querySelector(".cores")?.scrollTop;
    if (shown[index].isEqualNode(part)) return;
    shown[index].replaceWith(part);
    if (top) part.querySelector(".cores").scrollTop = top;
  });
}

async function refresh() {
  if (asking || document.hidden) return;
  asking = true;
  try {
    const answer = await fetch("/ui/system/now");
    if (!answer.ok) throw new Error(answer.statusText);
    swap(new DOMParser().parseFromString(await answer.text(), "text/html"));
    tick(system);
    say(true);
  } catch {
    say(false);
  } finally {
    asking = false;
  }
}

setInterval(refresh, EVERY_MS);
document.addEventListener("visibilitychange", refresh);
refresh();
