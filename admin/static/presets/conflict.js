// What is shown when the file is another one than that which is being edited, and what can be done about it.

import { element } from "./asking.js";
import { shown } from "./line_diff.js";

// `theirs` is what the file holds, null if it is gone; `keep` and `take` are called for whose text it is to be.
export function conflictBox(file, theirs, mine, isNew, { keep, take }) {
  const box = element("section", "", { className: "notice conflict" });
  box.setAttribute("role", "alert");
  const gone = theirs === null;
  const happened = gone
    ? `${file} was removed or renamed on disk meanwhile.`
    : isNew ? `Somebody else has made ${file} meanwhile.` : "The file changed on disk meanwhile.";
  box.append(element("p", `${happened} What you wrote is not saved.`));
  const keeping = element("button", "Keep mine", { type: "button" });
  const taking = element("button", gone ? "Discard mine" : "Take the file's", { type: "button", className: "quiet" });
  keeping.addEventListener("click", keep);
  taking.addEventListener("click", take);
  box.append(keeping, " ", taking);
  if (gone) return box;
  const legend = element("p", "− only in the file, + only in yours:", { className: "legend" });
  box.append(legend, shown(theirs, mine, "Difference between the file and your text"));
  return box;
}
