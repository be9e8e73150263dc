// What keeps every page true while it is open: the one event stream, the word "live" in the header, and times that grow.

const AWAY = "supervisor away, reconnecting";
const SIGNED_OUT = "signed out";
const RETRY_MS = 2000;
const UNITS = [[86400, "d", 3600, "h"], [3600, "h", 60, "min"], [60, "min", 1, "s"]];

const live = document.getElementById("live");

// Tell whether what the page shows is true, in the header's status line. The document hears "back" when it is so again:
// what went wrong before is history.
export function say(isLive) {
  const text = isLive ? "live" : AWAY;
  if (!isLive && live.querySelector("a")) return; // it says why
  if (live.textContent !== text) live.textContent = text;
  const isBack = isLive && document.body.classList.contains("away");
  live.classList.toggle("lost", !isLive);
  document.body.classList.toggle("away", !isLive);
  if (isBack) document.dispatchEvent(new Event("back"));
}

// A session ends by itself, or with its password. The page stays as it is: there may be unsaved words in it.
async function lookAtSession() {
  const answer = await fetch("/ui/session", { headers: { Accept: "application/json" } }).catch(() => null);
  if (answer?.status !== 401 || live.querySelector("a")) return;
  const link = document.createElement("a");
  link.href = `/ui/login?${new URLSearchParams({ next: location.pathname + location.search })}`;
  link.textContent = "sign in again";
  live.replaceChildren(`${SIGNED_OUT}, `, link);
  live.classList.add("lost");
}

// Call `changed` at the start, whenever the models change, and after each time the connection was lost. A page in the
// background lets go of its connection, of which a browser has six for all its pages together, and looks when it is back.
export function follow(changed) {
  if (document.hidden) {
    document.addEventListener("visibilitychange", () => follow(changed), { once: true });
    return;
  }
  const events = new EventSource("/ui/events");
  const rest = () => {
    events.close();
    follow(changed);
  };
  document.addEventListener("visibilitychange", rest, { once: true });
  events.addEventListener("open", changed);
  events.addEventListener("models", changed);
  events.addEventListener("error", () => {
    say(false);
    // A browser tries again by itself after a broken connection, but gives up on an error answer.
    if (events.readyState !== EventSource.CLOSED) return;
    document.removeEventListener("visibilitychange", rest);
    lookAtSession();
    setTimeout(follow, RETRY_MS, changed);
  });
}

// Such as "5 min", for what grows; admin/words.py words all times the same way.
export function ago(seconds) {
  const [size, unit] = UNITS.find(([least]) => seconds >= least) ?? [1, "s"];
  return `${Math.max(0, Math.floor(seconds / size))} ${unit}`;
}

// Such as "340 ms", "3.42 s", "2 min 5 s" or "5 h 12 min", for what is over.
export function duration(seconds) {
  if (seconds < 0.9995) return `${(Math.max(0, seconds) * 1000).toFixed(0)} ms`;
  if (seconds < 59.95) return `${seconds.toFixed(seconds < 9.995 ? 2 : 1)} s`;
  const whole = Math.round(seconds);
  const [size, unit, smaller, below] = UNITS.find(([least]) => whole >= least);
  return `${Math.floor(whole / size)} ${unit} ${Math.floor((whole % size) / smaller)} ${below}`;
}

// Word all <time> elements of `root` anew; those of the class "ago" stand alone, where "ago" has to be said.
export function tick(root) {
  for (const time of root.querySelectorAll("time[datetime]")) {
    const words = ago((Date.now() - Date.parse(time.dateTime)) / 1000);
    const text = time.classList.contains("ago") ? `${words} ago` : words;
    if (time.textContent !== text) time.textContent = text;
  }
}

// The same times in the same words: a difference of seconds is none.
export function keepTimes(old, fresh) {
  const times = old.querySelectorAll("time");
  fresh.querySelectorAll("time").forEach((time, index) => {
    if (time.dateTime === times[index]?.dateTime) time.textContent = times[index].textContent;
  });
}

// A function that fetches `path` and gives its body to `swap`, one fetch at a time; `refused` is told of an answer that
// is no page, and true if it has dealt with it.
export function fetching(path, swap, refused = () => false) {
  let busy = false;
  let again = false;
  return async function refresh() {
    again = busy;
    if (busy) return;
    busy = true;
    try {
      const answer = await fetch(path, { headers: { Accept: "application/json" } });
      if (answer.ok) swap(new DOMParser().parseFromString(await answer.text(), "text/html").body);
      else if (!refused(answer)) throw new Error(answer.statusText);
      say(true);
    } catch {
      say(false);
    } finally {
      busy = false;
      if (again) refresh();
    }
  };
}

// Send the form of a button without leaving the page; `tell` gets what is wrong, or "".
export async function send(form, tell) {
  const button = form.querySelector("button");
  button.setAttribute("aria-busy", "true");
  try {
    const answer = await fetch(form.action, {
      method: "POST",
      body: new URLSearchParams(new FormData(form)),
      headers: { Accept: "application/json" },
    });
    tell(answer.ok ? "" : (await answer.json()).error.message);
  } catch {
    tell("llama-router does not answer; nothing was changed as far as this page knows");
  } finally {
    button.removeAttribute("aria-busy");
  }
}
