// Requests to the page's own routes, and what can be said of those that fail.

// Nobody answered, or something between that knows nothing of the page: whether it was done is not known.
export class Away extends Error {}

const AWAY = [502, 503, 504];

// The server's own words. `status` is that of HTTP.
export class Refused extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

// GET, or POST of `body` as JSON. Throws Away or Refused.
export async function ask(path, body) {
  const options = { headers: { Accept: "application/json" } };
  if (body !== undefined) {
    options.method = "POST";
    options.headers["Content-Type"] = "application/json";
    options.body = JSON.stringify(body);
  }
  let answer;
  let said;
  try {
    answer = await fetch(path, options);
    said = await answer.json();
  } catch {
    throw new Away(answer && !answer.ok ? `llama-router does not answer (${answer.status})` : "llama-router does not answer");
  }
  if (answer.ok) return said;
  const words = said.error?.message ?? `${answer.status} ${answer.statusText}`;
  throw AWAY.includes(answer.status) ? new Away(words) : new Refused(words, answer.status);
}

export function element(tag, text, fields = {}) {
  const made = document.createElement(tag);
  made.textContent = text;
  return Object.assign(made, fields);
}
