// Copying text. The Clipboard API exists only on pages of https and of this machine; elsewhere the older way has to do.

const TOLD_MS = 1500;

async function copy(text) {
  if (navigator.clipboard) {
    await navigator.clipboard.writeText(text);
    return;
  }
  const focused = document.activeElement;
  const area = document.createElement("textarea");
  area.value = text;
  area.className = "hidden";
  document.body.append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  focused?.focus({ preventScroll: true });
  if (!done) throw new Error("this browser lets no page copy");
}

// A button that copies what `text()` returns. `what` names it for those who don't see where it stands.
export function copyButton(text, what) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "text";
  const named = document.createElement("span");
  named.className = "hidden";
  named.textContent = ` ${what}`;
  const word = document.createTextNode("Copy");
  button.append(word, named);
  let told = null;
  button.addEventListener("click", async () => {
    try {
      await copy(text());
      word.data = "Copied";
    } catch {
      word.data = "Not copied";
    }
    clearTimeout(told);
    told = setTimeout(() => (word.data = "Copy"), TOLD_MS);
  });
  return button;
}
