// What is sent to /v1/chat/completions: the path of messages, and of the settings those that are set. Pure.

// `least` and `most` are what servers take; an empty setting is not sent.
export const NUMBERS = [
  { name: "temperature", label: "Temperature", least: 0, most: 5, step: 0.05 },
  { name: "top_p", label: "Top-p", least: 0, most: 1, step: 0.01 },
  { name: "top_k", label: "Top-k", least: 0, most: 1000, step: 1 },
  { name: "min_p", label: "Min-p", least: 0, most: 1, step: 0.01 },
  { name: "max_tokens", label: "Max tokens", least: 1, most: 1_000_000, step: 1 },
  { name: "seed", label: "Seed", least: 0, most: 4_294_967_295, step: 1 },
];

const MOST_STOPS = 16;

// What is wrong with the value of a number's field; null for a good or an empty one.
export function problemOf(number, text) {
  if (text.trim() === "") return null;
  const value = Number(text);
  if (!Number.isFinite(value)) return "not a number";
  if (number.step === 1 && !Number.isInteger(value)) return "not a whole number";
  if (value < number.least || value > number.most) return `not between ${number.least} and ${number.most}`;
  return null;
}

// Settings from the texts of their fields; those that are empty or wrong are left out.
export function settingsOf(texts) {
  const settings = {};
  if (texts.system?.trim()) settings.system = texts.system;
  for (const number of NUMBERS) {
    const text = texts[number.name] ?? "";
    if (text.trim() && problemOf(number, text) === null) settings[number.name] = Number(text);
  }
  const stop = (texts.stop ?? "").split("\n").filter((line) => line !== "").slice(0, MOST_STOPS);
  if (stop.length > 0) settings.stop = stop;
  return settings;
}

// The body of the request. `path` ends with the question. Answers without a word are left out, and so is what is attached
// and not among the model's `inputs`: a conversation may go on with another model.
export function requestOf(model, settings, path, inputs) {
  const { system, ...sampling } = settings;
  const messages = [];
  if (system) messages.push({ role: "system", content: system });
  for (const message of path) {
    if (message.role === "assistant" && !message.content) continue;
    const next = { role: message.role, content: contentOf(message, inputs) };
    const last = messages.at(-1);
    // Many chat templates refuse two questions in a row, which is what a failed answer between them leaves.
    if (last?.role === next.role) last.content = joined(last.content, next.content);
    else messages.push(next);
  }
  return { model, messages, stream: true, stream_options: { include_usage: true }, ...sampling };
}

function contentOf({ content, attachments = [] }, inputs) {
  const parts = attachments.filter(({ kind }) => inputs.includes(kind)).map(partOf);
  return parts.length === 0 ? content : [...parts, ...partsOf(content)];
}

function partOf({ kind, url, format }) {
  if (kind === "image") return { type: "image_url", image_url: { url } };
  return { type: "input_audio", input_audio: { data: url.slice(url.indexOf(",") + 1), format } };
}

const partsOf = (content) => (typeof content !== "string" ? content : content ? [{ type: "text", text: content }] : []);

function joined(one, other) {
  if (typeof one === "string" && typeof other === "string") return `${one}\n\n${other}`;
  return [...partsOf(one), ...partsOf(other)];
}
