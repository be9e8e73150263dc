"""What a model's page shows beside its state: its history, where its preset comes from, and how to use it. Pure."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlencode

from admin.log_text import clean
from admin.words import clock, duration, iso
from supervisor.core.keys import VARIABLE
from supervisor.core.quantities import readable_size
from supervisor.protocol import Message

MOST_EVENTS = 100
SHOWN_KINDS = frozenset(["state", "queue"])
# Options of llama.cpp's servers that make them something else than a chat, as a section of models.ini has them.
_EMBEDS = re.compile(r"^embeddings? = (true|on|1)$", re.MULTILINE)
_RANKS = re.compile(r"^(rerank|reranking) = (true|on|1)$|^pooling = rank$", re.MULTILINE)

_BODIES: dict[str, Message] = {
    "chat/completions": {"messages": [{"role": "user", "content": "Say hello."}]},
    "embeddings": {"input": "The first thing to embed."},
    "rerank": {"query": "What is a llama?", "documents": ["A llama is an animal.", "A router is a device."]},
}
_PYTHON = {
    "chat/completions": """\
stream = client.chat.completions.create(
    model={model},
    messages=[{{"role": "user", "content": "Say hello."}}],
    stream=True,
)
for chunk in stream:
    if chunk.choices:
        print(chunk.choices[0].delta.content or "", end="", flush=True)
""",
    "embeddings": """\
answer = client.embeddings.create(model={model}, input="The first thing to embed.", encoding_format="float")
print(answer.data[0].embedding)
""",
    "rerank": """\
body = {{
    "model": {model},
    "query": "What is a llama?",
    "documents": ["A llama is an animal.", "A router is a device."],
}}
print(client.post("/rerank", body=body, cast_to=object))
""",
}


def history(events: Iterable[Message], name: str) -> list[Message]:
    """The events of a model, newest first, at most MOST_EVENTS: `lasted` is how long it was in the state that the
    event led to, None where it still is or where it led to no other state."""
    following: dict[str, float] = {}
    rows = []
    for event in reversed([each for each in events if each["model"] == name and each["kind"] in SHOWN_KINDS]):
        instance, at = event["instance"] or name, event["at"]
        changed = event["to"] is not None and event["from"] != event["to"]
        until = following.get(instance)
        if changed:
            following[instance] = at
        ended = (event["reason"] or {}) if event["to"] in ("failed", "backoff") else {}
        rows.append(
            {
                "seq": event["seq"],
                "iso": iso(at),
                "utc": clock(at),
                "state": event["to"] if changed else None,
                "replica": instance.removeprefix(name),
                "text": event["text"].removeprefix(f"{instance}: "),
                "lasted": duration(until - at) if changed and until is not None else None,
                "current": changed and until is None,
                "cause": clean(ended.get("telling") or "").strip(),
                "lines": ended.get("last_lines", []),
            }
        )
    return rows[:MOST_EVENTS]


def preset(rows: Iterable[Message], backend: str) -> Message:
    """`decided`: what somebody or some file decides; `defaults`: everything else. Each with `origin` in words, and for
    what is written in a file the `edit` query of the page that edits it."""
    decided: list[Message] = []
    defaults: list[Message] = []
    for row in rows:
        shown = row | {"origin": origin(row, backend), "edit": None}
        if row["line"] is not None:
            shown["edit"] = urlencode({"file": PurePosixPath(row["file"]).name, "line": row["line"]})
        (defaults if row["source"] in ("default", "backend") else decided).append(shown)
    return {"decided": decided, "defaults": defaults}


def origin(row: Message, backend: str) -> str:
    """Such as "presets.d/chat.yaml line 7"."""
    match row["source"]:
        case "preset":
            return f"{row['file']} line {row['line']}"
        case "defaults":
            return f"defaults of {row['file']} line {row['line']}"
        case "models_dir":
            return "found in models_dir"
        case "gguf":
            return "from the GGUF"
        case "backend":
            return f"left to {backend}"
        case _:
            return "llama-router's default"


def gguf(meta: Message | None) -> list[tuple[str, str]]:
    """What the model's file says of it, by what it is called; what is not known is left out."""
    if not meta:
        return []
    told = (
        ("Trained for", _number(meta.get("n_ctx_train"), "tokens of context")),
        ("One request may use", _number(meta.get("n_ctx"), "tokens")),
        ("Parameters", _count(meta.get("n_params"))),
        ("Weights", readable_size(meta["size"]) if meta.get("size") else None),
        ("Type", meta.get("ftype")),
    )
    return [(name, str(value)) for name, value in told if value]


def started(model: Message, args: list[str] | None, runtime_dir: PurePosixPath) -> Message | None:
    """How the model's server is started: a `title`, the `text`, and what a copy of it is called.

    A server of llama-cpp-python is forked and reads its settings: there is no command line to it, so these are told,
    and the `load` that starts it from a terminal.
    """
    load = shlex.join(["llama-router", "load", *_where(runtime_dir), *_name(model["name"])])
    if not args:
        return None
    if model["backend"] != "llama-cpp-python":
        title = "Started with" if model.get("args") else "Will be started with"
        return {"title": title, "text": shlex.join(args), "settings": [], "load": load}
    pairs = zip(args[1::2], args[2::2], strict=False)
    settings = [(option.removeprefix("--"), value) for option, value in pairs]
    return {"title": "Settings of its server", "text": None, "settings": settings, "load": load}


def _where(runtime_dir: PurePosixPath) -> list[str]:
    """The option by which the command line finds this llama-router, if it needs one."""
    is_usual = runtime_dir.name == "llama-router" and runtime_dir.parts[1:2] == ("run",)
    return [] if is_usual else ["--runtime-dir", str(runtime_dir)]


def _name(name: str) -> list[str]:
    return ["--", name] if name.startswith("-") else [name]


def usage(name: str, ini: str, base: str, *, needs_key: bool) -> Message:
    """How to ask the model something: `endpoint`, and `curl` and `python` as text; `base` is the router's origin,
    which is the first URL of each. Where that `needs_key`, they take it from VARIABLE."""
    endpoint = "rerank" if _RANKS.search(ini) else "embeddings" if _EMBEDS.search(ini) else "chat/completions"
    body = {"model": name, **_BODIES[endpoint]}
    text = json.dumps(body, ensure_ascii=not name.isprintable())
    url = shlex.quote(f"{base}/v1/{endpoint}")
    shown = [f'-H "Authorization: Bearer ${VARIABLE}"'] if needs_key else []
    curl = [f"curl {url}", *shown, "-H 'Content-Type: application/json'", f"-d {shlex.quote(text)}"]
    key = f'os.environ["{VARIABLE}"]' if needs_key else '"none"'
    python = (
        ("import os\n\n" if needs_key else "") + "from openai import OpenAI  # pip install openai\n\n"
        f"client = OpenAI(base_url={f'{base}/v1'!r}, api_key={key})\n" + _PYTHON[endpoint].format(model=repr(name))
    )
    return {
        "base": base,
        "endpoint": f"/v1/{endpoint}",
        "curl": " \\\n  ".join(curl),
        "python": python,
        "variable": VARIABLE if needs_key else None,
    }


def _number(value: Any, unit: str) -> str | None:
    return f"{value:,} {unit}".replace(",", "\N{NARROW NO-BREAK SPACE}") if value else None


def _count(value: Any) -> str | None:
    """Such as "135 M" or "8.03 B"."""
    if not value:
        return None
    for size, unit in ((10**9, "B"), (10**6, "M"), (10**3, "K")):
        if value >= size:
            amount = value / size
            return f"{amount:.2f} {unit}" if amount < 10 else f"{amount:.0f} {unit}"
    return str(value)
