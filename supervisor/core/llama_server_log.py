"""What the log of a llama-server tells: its state, while it runs, and what its end was about.

A llama-server that believes a router has started it says `cmd_child_to_router:state:{"state": …, "payload": …}`, and a
line's end, whenever its state changes (server_child in llama.cpp's tools/server/server-models.cpp). The thread that
writes the log writes a line in parts, so such a state can break into one: behind its colours, its time or its level.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace

from supervisor.core.events import Notified
from supervisor.core.reasons import EndReason, Kind

_BEGINNING = r"(?:\x1b\[[0-9;]*m|[0-9.:+TZ-]|[DIWE]?[ ])*+"
_STATE = re.compile(_BEGINNING + "cmd_child_to_router:state:")
_SIGABRT = 6  # std::terminate for an exception that nobody caught, and ggml_abort

# ggml_aligned_malloc, ggml_backend_*_alloc_buffer, llama_model::load_tensors, cudaMalloc and its likes, Vulkan, C++.
_OUT_OF_MEMORY = re.compile(
    "insufficient memory|failed to allocate|unable to allocate|out of memory|OutOf(Device|Host)Memory|bad_alloc"
)
# It goes on without pinned memory, and without a cache for prompts.
_NOT_FATAL = re.compile("pinned memory|prompt cache")
# gguf_init_from_reader, llama_model_loader and clip_model_loader on files; common_params_parse on arguments.
_HOPELESS = re.compile(
    "model is corrupted or incomplete|invalid magic|failed to read (magic|header|key-value pairs|tensor (info|data))"
    "|unknown model architecture|missing tensor|wrong number of tensors|[Ff]ailed to load CLIP model"
    "|error while handling argument|invalid argument: -"
)


def notice(launch: int, line: str) -> Notified | None:
    """What a line tells of the launch's state; None if it is an ordinary line of the log."""
    match = _STATE.match(line)
    if match is None:
        return None
    try:
        told = json.loads(line[match.end() :])
        state, payload = told["state"], told.get("payload")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return Notified(launch)
    if state == "loading":
        return Notified(launch, progress=_progress(payload))
    if state == "ready":
        return Notified(launch, ready=True, sleeping=False)
    return Notified(launch, sleeping=True if state == "sleeping" else None)


def explained(reason: EndReason) -> EndReason:
    """The end of a run, with what its last lines make clear: it was out of memory, or it would always end so."""
    failed = reason.kind is Kind.EXITED and reason.code
    if not failed and not (reason.kind is Kind.KILLED and reason.signal == _SIGABRT):
        return reason
    if any(_OUT_OF_MEMORY.search(line) and not _NOT_FATAL.search(line) for line in reason.last_lines):
        return replace(reason, kind=Kind.OUT_OF_MEMORY)
    return replace(reason, hopeless=any(map(_HOPELESS.search, reason.last_lines)))


def _progress(payload: object) -> float | None:
    """0 to 1 over all stages: the model, one that drafts for it, its projector. One after another, each 0 to 1."""
    try:
        stages = payload["stages"]  # type: ignore[index]  # anything may come; see below
        done = stages.index(payload["current"]) + float(payload["value"])  # type: ignore[index]
        progress = float(done / len(stages))
    except (TypeError, KeyError, ValueError, AttributeError, ZeroDivisionError, OverflowError):
        return None
    return progress if 0.0 <= progress <= 1.0 else None
