// What is added to a message: images and audio for models that take them, text files for every model.

const LONGEST_SIDE = 1024; // pixels; a model sees no more, and the request stays small
const MOST_TEXT = 512 * 1024; // bytes of a text file
const MOST_AUDIO = 20 * 1024 * 1024;
const FORMATS = { "audio/wav": "wav", "audio/x-wav": "wav", "audio/wave": "wav", "audio/mpeg": "mp3", "audio/mp3": "mp3" };
const ACCEPTED = { image: "image/*", audio: "audio/wav,audio/mpeg,.wav,.mp3", text: "" };
const byId = (id) => document.getElementById(id);

function dataUrl(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.addEventListener("load", () => resolve(reader.result));
    reader.addEventListener("error", () => reject(reader.error));
    reader.readAsDataURL(blob);
  });
}

// An image as a data: address, its longer side LONGEST_SIDE pixels at most. Throws for what is no image.
export async function imageOf(file) {
  const bitmap = await createImageBitmap(file).catch(() => {
    throw new Error(`${file.name} is no image that this browser can read`);
  });
  const scale = Math.min(1, LONGEST_SIDE / Math.max(bitmap.width, bitmap.height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(bitmap.width * scale));
  canvas.height = Math.max(1, Math.round(bitmap.height * scale));
  canvas.getContext("2d").drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  bitmap.close();
  // JPEG has no transparency; a photo as PNG would be large.
  const url = file.type === "image/jpeg" ? canvas.toDataURL("image/jpeg", 0.9) : canvas.toDataURL("image/png");
  return { kind: "image", name: file.name, url };
}

async function audioOf(file) {
  const format = FORMATS[file.type];
  if (!format) throw new Error(`${file.name} is neither WAV nor MP3`);
  if (file.size > MOST_AUDIO) throw new Error(`${file.name} is larger than 20 MiB`);
  return { kind: "audio", name: file.name, url: await dataUrl(file), format };
}

// A text file as Markdown: its name, and its text in a fence that nothing in it closes.
export async function textOf(file) {
  if (file.size > MOST_TEXT) throw new Error(`${file.name} is larger than 512 KiB`);
  const bytes = await file.arrayBuffer();
  let text;
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    throw new Error(`${file.name} is no text in UTF-8`);
  }
  if (text.includes("\0")) throw new Error(`${file.name} is no text`);
  let longest = 2;
  for (const [run] of text.matchAll(/`+/g)) longest = Math.max(longest, run.length);
  const fence = "`".repeat(longest + 1);
  return `${file.name}:\n${fence}\n${text.replace(/\n$/, "")}\n${fence}\n`;
}

// Another model may take it.
class Unfit extends Error {}

export class Attachments {
  // `insert(text)` puts a file's text into the message, `tell(words)` shows what was wrong, "" if nothing is.
  constructor(insert, tell) {
    this.insert = insert;
    this.tell = tell;
    this.inputs = new Set();
    this.list = [];
    this.isUnfit = false; // something that was told is up to the model
    this.file = byId("file");
    for (const kind of Object.keys(ACCEPTED)) byId(`add-${kind}`).addEventListener("click", () => this.#choose(kind));
    this.file.addEventListener("change", () => {
      this.add([...this.file.files]);
      this.file.value = "";
    });
    byId("text").addEventListener("paste", (event) => this.#given(event, event.clipboardData));
    const chat = byId("composer").parentElement;
    chat.addEventListener("dragover", (event) => event.preventDefault());
    chat.addEventListener("drop", (event) => this.#given(event, event.dataTransfer));
  }

  // What the chosen model takes.
  allow(inputs) {
    if (this.isUnfit && inputs.join() !== [...this.inputs].join()) this.#told([]); // what did not fit may fit now
    this.inputs = new Set(inputs);
    byId("add-image").hidden = !this.inputs.has("image");
    byId("add-audio").hidden = !this.inputs.has("audio");
  }

  // Those that are attached, which are then none any more. What the model does not take stays behind.
  take() {
    const taken = this.list.filter(({ kind }) => this.inputs.has(kind));
    this.list = this.list.filter(({ kind }) => !this.inputs.has(kind));
    this.#show();
    this.#told([]);
    return taken;
  }

  async add(files) {
    const problems = [];
    for (const file of files) await this.#one(file).catch((error) => problems.push(error));
    this.#told(problems);
  }

  #told(problems) {
    this.isUnfit = problems.some((each) => each instanceof Unfit);
    this.tell(problems.map((each) => each.message).join("; "));
  }

  async #one(file) {
    const kind = file.type.split("/")[0];
    if (kind === "image" && file.type !== "image/svg+xml") {
      if (!this.inputs.has("image")) throw new Unfit(`${file.name}: this model takes no images`);
      this.list.push(await imageOf(file));
    } else if (kind === "audio") {
      if (!this.inputs.has("audio")) throw new Unfit(`${file.name}: this model takes no audio`);
      this.list.push(await audioOf(file));
    } else this.insert(await textOf(file));
    this.#show();
  }

  #choose(kind) {
    this.file.accept = ACCEPTED[kind];
    this.file.click();
  }

  #given(event, data) {
    const files = [...(data?.files ?? [])];
    if (files.length === 0) return;
    event.preventDefault();
    this.add(files);
  }

  #show() {
    const place = byId("attached");
    place.hidden = this.list.length === 0;
    place.replaceChildren(...this.list.map((attachment, index) => this.#entry(attachment, index)));
  }

  #entry(attachment, index) {
    const entry = document.createElement("li");
    const remove = document.createElement("button");
    remove.type = "button";
    remove.className = "text";
    remove.textContent = "Remove";
    remove.setAttribute("aria-label", `Remove ${attachment.name}`);
    remove.addEventListener("click", () => {
      this.list.splice(index, 1);
      this.#show();
      byId("text").focus();
    });
    entry.append(shown(attachment), remove);
    return entry;
  }
}

// An attachment in a message.
export function shown({ kind, name, url }) {
  if (!url.startsWith(`data:${kind}/`)) return document.createTextNode(name);
  if (kind === "image") return Object.assign(new Image(), { src: url, alt: name });
  const label = document.createElement("span");
  label.textContent = `Audio: ${name}`;
  return label;
}
