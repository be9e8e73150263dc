"""The control socket's wire format; framing only, no policy.

A SOCK_STREAM UNIX socket (`control.sock` in the runtime directory, mode 0600) carries lines of UTF-8 JSON, one
object each, at most MAX_LINE bytes. The client sends a request and reads its answer before it sends the next.

    → {"op": "lease", "model": "qwen", "autoload": true, "timeout": 30.0, "avoid": 17,
       "who": "192.0.2.7 curl/8.5.0"}
    ← {"ok": true, "lease": {"model": "qwen", "instance": "qwen", "launch": 18, "address": "unix:/run/…/18.sock",
                             "backend": "llama-server", "request": {"set": {"temperature": 0.2}, "remove": ["user"]}}}
    ← {"ok": false, "error": {"code": 503, "type": "server_error", "message": "…", "retry_after": 1.0}}
    → {"op": "release", "figures": {"status": 200, "bytes": 5120, "first_byte": 0.21}}         (never answered)

`model` may be an alias or null. `timeout` is in seconds, null for none. `avoid` names the launch that just broke a
connection: it is not granted again while it may be about to be found dead. `who` is the client in words for people who
look at the queue; 200 characters of it are kept. A grant has `request` only if the preset changes bodies. A connection
holds one lease at a time, and **a lease lives as long as its connection**: closing it releases a granted lease and
withdraws a queued one. A release may come together with the request behind it.

    → {"op": "status"}
    ← {"ok": true, "status": {…}, "as_of": "9f86…-17"}                                     see status_book.py
    → {"op": "status", "known": "9f86…-12"}
    ← {"ok": true, "status": {…}, "as_of": "9f86…-17", "since": "9f86…-12"}
    → {"op": "facts"}
    ← {"ok": true}, then {"facts": {"model", "args", "preset", "architecture", "meta"}} a line each
    → {"op": "load" | "unload" | "restart" | "reset", "model": M, "wait": true, "strict": false}
    ← {"ok": true, "model": {…}}                                                           one of status' models
    → {"op": "reload", "dry_run": false}
    ← {"ok": true, "changes": {"added": [], "changed": ["qwen"], "adjusted": [], "removed": [], "unchanged": 5,
                               "outcomes": {"qwen": {"when": "idle", "in_flight": 2}},
                               "settings": ["max_models"], "needs_restart": ["listen"],
                               "needs_reexec": ["web.workers"]}}                       see core/reload_words.py
    ← {"ok": false, "error": {…, "problems": [{"file", "line", "field", "message"}]}}
    → {"op": "reexec"}
    ← {"ok": true, "reexec": {"version": "0.2.0", "before": "0.1.0"}}                      see reexec.py
    → {"op": "events", "follow": true, "since": 0}
    ← {"ok": true}, then {"event": {…}} a line each
    → {"op": "logs", "model": M, "lines": 100, "after": 0, "follow": true}
    ← {"ok": true}, then {"line": {"at", "launch", "pid", "text", "instance", "number"}} a line each
    → {"op": "preset", "model": M}
    ← {"ok": true, "preset": [{"key", "value", "source", "file", "line"}]}                 see preset_origins.py

    → {"op": "files"}
    ← {"ok": true, "directory": "/etc/…/presets.d", "edit_commands": false, "writable": true,
       "files": [{"file": "chat.yaml", "size": 512, "sha": "9f86…", "models": ["qwen"], "why_not": null}]}
    → {"op": "file", "file": "chat.yaml"}
    ← {"ok": true, "path": "/etc/…/presets.d/chat.yaml", "text": "…", "sha": "9f86…"}
    → {"op": "try", "file": "chat.yaml", "text": "…"}
    ← {"ok": true, "savable": true, "problems": [{"file", "line", "field", "message", "here": true}], "notices": […],
       "changes": {…} | null, "words": "a reload would: …" | null}
    → {"op": "save", "file": "chat.yaml", "text": "…", "base": "9f86…", "by": "192.0.2.7" | null}
    ← {"ok": true, "outcome": "saved", "sha": "60ab…", "problems": […], "notices": […], "changes": {…} | null,
       "words": "reloaded: …" | null}
    ← {"ok": true, "outcome": "refused", "savable": false, "problems": […], "notices": [], "changes": null,
       "words": null}
    ← {"ok": true, "outcome": "conflict", "text": "…" | null, "sha": "2c26…" | null}
    → {"op": "history", "file": "chat.yaml"}
    ← {"ok": true, "versions": [{"at": 1760000000000000000, "sha": "2c26…", "size": 498, "added": 3, "removed": 1,
                                 "by": "192.0.2.7" | null}]}
    → {"op": "history", "file": "chat.yaml", "at": 1760000000000000000}
    ← {"ok": true, "text": "…", "sha": "2c26…"}
    → {"op": "schema"}
    ← {"ok": true, "schema": {…}}                                                          see core/schema.py

These are for editors of the files of presets. `sha` is the SHA-256 of a content, null where there is no file; `text` of
null, too, is no file: to try it, or to save it, is to remove the file. A save is of the file as it was at `base`; if it
is another one by then, that is a conflict. What would make problems is refused, and nothing written: `problems` are
those that all files would have, `here` those of this one. What is saved is applied as by "reload", but for problems
that other files have (`changes` is null then). `why_not` says what keeps a file from being edited in this way. Where
`web.edit_commands` of config.yaml is false, what decides on programs may not be added or changed, see core/guarded.py;
"try" runs no program that is not in use; a save is refused where nothing is `savable`. The versions of "history" are
what was replaced at those times, in ns, by saves from `by` that added and removed so many lines. The `file` "@config"
is config.yaml, which can only be read.

`known` is the `as_of` of an answer that the client has kept. Where the answer has it as `since`, its `models` are only
those that differ, and all others are as they were, in the order as it was; else it is whole.
"facts" are the same for as long as `revision` of the status object is: see core/facts.py.
`wait` answers when it is done, not accepted. `strict` refuses to load what runs and to unload what does not. `autoload`
absent or null is as configured. `dry_run` changes nothing and tells what a reload would change; both answer once the
headers of new model files were read, some 10 ms each. `outcomes` has each changed and removed model: its server ends
"at_once" or when it is "idle", or it is "not_running". The streams of "facts", "events" and "logs" end with
{"end": true} unless they follow; then only the client's hang-up or the supervisor's end closes them. `model` "@web"
names the web tier in logs. "reexec" is answered by the new program, of `version`, once its web tier has taken the place
of the one before; or it is refused by the old one. Lines have rising numbers, and `after` is the number of the last one
that is known already.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec

from supervisor.errors import Problem, ProtocolError, Refused

MAX_LINE = 32 * 1024 * 1024  # the status of some 30,000 models
WEB = "@web"
CONFIG = "@config"

Message = dict[str, Any]

# Ten times as fast as Python's own, which is asked where this one refuses: half a surrogate pair is no JSON for it.
_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder()


def encode(message: Message) -> bytes:
    """One line, newline included. Half a surrogate pair, as a path may hold one, becomes JSON's escape for it."""
    try:
        return _encoder.encode(message) + b"\n"
    except (UnicodeEncodeError, OverflowError):
        return _encode_anything(message)


def _encode_anything(message: Message) -> bytes:
    text = json.dumps(message, separators=(",", ":"), ensure_ascii=False, default=_decode_anything)
    return text.encode(errors="backslashreplace") + b"\n"


def piece(message: Message) -> msgspec.Raw:
    """A part of messages that is encoded once for many."""
    return msgspec.Raw(encode(message)[:-1])


def decode(line: bytes) -> Message:
    """The object of one line. Raises ProtocolError for anything else."""
    try:
        message = _decoder.decode(line)
    except (ValueError, RecursionError):
        message = _decode_anything(line)
    if not isinstance(message, dict):
        raise ProtocolError(f"cannot read control message {line[:80]!r}: expected a JSON object")
    return message


def _decode_anything(line: bytes | msgspec.Raw) -> Any:
    try:
        return json.loads(bytes(line))
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"cannot read control message {bytes(line)[:80]!r}: {error}") from None


class LineBuffer:
    """Bytes in, whole lines out. Raises ProtocolError when a line grows past MAX_LINE."""

    def __init__(self) -> None:
        self._pending = bytearray()

    @property
    def pending(self) -> bytes:
        """The line that is not whole yet."""
        return bytes(self._pending)

    def feed(self, data: bytes) -> list[bytes]:
        """Add received bytes and return the lines they complete, without their newlines."""
        first, newline, rest = data.partition(b"\n")
        self._pending += first  # nothing is copied twice: a long line comes in thousands of pieces
        if len(self._pending) > MAX_LINE:
            raise ProtocolError(f"cannot read control message: no newline within {MAX_LINE} bytes")
        if not newline:
            return []
        *more, last = rest.split(b"\n")
        lines = [bytes(self._pending), *more]
        self._pending = bytearray(last)
        return [line for line in lines if line]


def ok(**fields: Any) -> Message:
    """A positive answer."""
    return {"ok": True, **fields}


def refusal(error: Refused) -> Message:
    """The negative answer that carries `error`."""
    detail: Message = {"code": error.status, "type": error.error_type, "message": str(error)}
    if error.retry_after is not None:
        detail["retry_after"] = error.retry_after
    if error.problems:
        detail["problems"] = [vars(problem) for problem in error.problems]
    return {"ok": False, "error": detail}


def raise_refusal(answer: Message) -> Message:
    """Pass a positive answer through. Raises Refused with what a negative one carries."""
    if answer.get("ok") is True:
        return answer
    error = answer.get("error")
    try:
        refused = Refused(
            str(error["message"]),  # type: ignore[index]  # what is no mapping is caught as well
            status=int(error["code"]),  # type: ignore[index]
            error_type=str(error["type"]),  # type: ignore[index]
            retry_after=error.get("retry_after"),  # type: ignore[union-attr]
            problems=[Problem(**problem) for problem in error.get("problems", ())],  # type: ignore[union-attr]
        )
    except (AttributeError, KeyError, TypeError, ValueError):
        raise ProtocolError(f"cannot read the supervisor's answer: {str(answer)[:200]}") from None
    raise refused
