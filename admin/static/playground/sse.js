// Reading what /v1/chat/completions sends: server-sent events with a JSON object each, until "[DONE]". Pure.

// What the API answered instead of a message, in its words. `status` is null in the middle of a stream.
export class ApiError extends Error {
  constructor(message, status = null) {
    super(message);
    this.status = status;
  }
}

const HARD_LIMIT = 64 * 1024 * 1024; // characters of one event: what sends more sends no chat

// The words of an error answer, which is an OpenAI error object or anything else.
export function wordsOf(body, fallback) {
  const error = body?.error ?? body?.detail ?? body?.message;
  const words = typeof error === "string" ? error : error?.message;
  return typeof words === "string" && words ? words : fallback;
}

// Whole lines, whichever way the bytes of `stream` (a ReadableStream) were cut. LF, CR LF and CR end one.
export async function* lines(stream) {
  const reader = stream.getReader();
  const decoder = new TextDecoder();
  let rest = [];
  let size = 0;
  let endedInCr = false;
  try {
    for (;;) {
      const { value, done } = await reader.read();
      let text = done ? decoder.decode() : decoder.decode(value, { stream: true });
      if (endedInCr && text.startsWith("\n")) text = text.slice(1);
      if (text) endedInCr = text.endsWith("\r");
      const parts = text.split(/\r\n|\n|\r/);
      for (const part of parts.slice(0, -1)) {
        yield rest.join("") + part;
        rest = [];
        size = 0;
      }
      rest.push(parts.at(-1));
      size += parts.at(-1).length;
      if (size > HARD_LIMIT) throw new ApiError("the answer has an event without an end");
      if (done) break;
    }
    if (size > 0) yield rest.join("");
  } finally {
    reader.cancel().catch(() => {});
  }
}

// The events' data. An unfinished one at the end is dropped, as the standard has it.
export async function* events(stream) {
  let kind = "message";
  let data = [];
  for await (const line of lines(stream)) {
    if (line === "") {
      if (data.length > 0) yield { kind, data: data.join("\n") };
      kind = "message";
      data = [];
      continue;
    }
    const colon = line.indexOf(":");
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (field === "data") data.push(value);
    else if (field === "event") kind = value;
  }
}

// The chunks of an answer. Throws ApiError for an event that is an error, and for a stream that ends without its end.
export async function* chunks(stream) {
  for await (const { kind, data } of events(stream)) {
    if (data === "[DONE]") return;
    let chunk;
    try {
      chunk = JSON.parse(data);
    } catch {
      throw new ApiError(`the answer has an event that is no JSON: ${data.slice(0, 200)}`);
    }
    if (kind === "error" || chunk?.error) throw new ApiError(wordsOf(chunk, "the answer broke off"));
    yield chunk;
  }
  throw new ApiError("the answer broke off: its connection ended too early");
}

// The chunks of a Response, also of a server that answers at once though it was asked to stream.
export async function* answered(response) {
  const isJson = (response.headers.get("Content-Type") ?? "").startsWith("application/json");
  if (!response.ok || isJson) {
    const text = await response.text();
    let body = null;
    try {
      body = JSON.parse(text);
    } catch {
      // Told below by its status.
    }
    const fallback = `${response.status} ${response.statusText}`.trim();
    if (!response.ok || body?.error || !body) throw new ApiError(wordsOf(body, fallback), response.status);
    const choices = (body.choices ?? []).map(({ message, ...rest }) => ({ ...rest, delta: message }));
    yield { ...body, choices };
    return;
  }
  yield* chunks(response.body);
}
