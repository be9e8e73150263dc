// An answer while it arrives: its text, its reasoning, its tool calls, and how fast it came. Pure: time is an argument.

const OPEN = "<think>";
const CLOSE = "</think>";

// Reasoning that a server left in the text is told from the answer by its tags.
export function splitThinking(text) {
  const start = text.length - text.trimStart().length;
  if (!text.startsWith(OPEN, start)) return { reasoning: "", content: text };
  const end = text.indexOf(CLOSE, start);
  if (end < 0) return { reasoning: text.slice(start + OPEN.length), content: "" };
  return { reasoning: text.slice(start + OPEN.length, end).trim(), content: text.slice(end + CLOSE.length).trimStart() };
}

export class Answer {
  // `asked`: when, in milliseconds.
  constructor(asked) {
    this.asked = asked;
    this.parts = [];
    this.thoughts = [];
    this.calls = [];
    this.first = null;
    this.last = null;
    this.pieces = 0;
    this.usage = null;
    this.timings = null;
    this.finish = null;
  }

  // Take in a chunk of the stream. Whatever has no known shape is left out.
  take(chunk, now) {
    if (chunk.usage) this.usage = chunk.usage;
    if (chunk.timings) this.timings = chunk.timings;
    const choice = chunk.choices?.[0];
    if (!choice) return;
    if (typeof choice.finish_reason === "string") this.finish = choice.finish_reason;
    const delta = choice.delta ?? {};
    const thought = delta.reasoning_content ?? delta.reasoning;
    const told = [
      [delta.content, this.parts],
      [thought, this.thoughts],
    ].filter(([text]) => typeof text === "string" && text);
    for (const [text, list] of told) list.push(text);
    const calls = Array.isArray(delta.tool_calls) ? delta.tool_calls : [];
    for (const call of calls) this.#call(call);
    if (told.length + calls.length === 0) return;
    this.first ??= now;
    this.last = now;
    this.pieces += 1;
  }

  #call({ index = this.calls.length, function: called = {} }) {
    const call = (this.calls[Math.min(index, this.calls.length)] ??= { name: "", arguments: "" });
    if (typeof called.name === "string") call.name += called.name;
    if (typeof called.arguments === "string") call.arguments += called.arguments;
  }

  // What is kept with the message.
  get message() {
    const { reasoning, content } = splitThinking(this.parts.join(""));
    return { content, reasoning: this.thoughts.join("") || reasoning, calls: this.calls, stats: this.stats };
  }

  // `tokens` are counted pieces unless the server told them (`exact`). Rates are tokens a second, times milliseconds.
  get stats() {
    const told = this.usage?.completion_tokens ?? this.timings?.predicted_n;
    const tokens = told ?? this.pieces;
    const seconds = this.first === null ? 0 : (this.last - this.first) / 1000;
    // The first token ends the wait and starts the clock.
    const measured = tokens > 1 && seconds > 0 ? (tokens - 1) / seconds : null;
    return {
      tokens,
      exact: told !== undefined,
      prompt: this.usage?.prompt_tokens ?? null,
      rate: this.timings?.predicted_per_second ?? measured,
      first: this.first === null ? null : this.first - this.asked,
    };
  }
}
