"""The events of /models/sse: the supervisor's own, one by one, as llama-server's router puts them.

    data: {"model":"qwen","event":"model_status","data":{"status":"loading"}}                    a load starts
    data: {"model":"qwen","event":"status_change","data":{"status":"loading","progress":{…}}}    it goes on
    data: {"model":"qwen","event":"status_change","data":{"status":"loaded","info":{…}}}
    data: {"model":"qwen","event":"status_change","data":{"status":"unloaded","exit_code":0}}
    data: {"model":"qwen","event":"status_change","data":{"status":"sleeping"}}                then "loading", "loaded"
    data: {"model":"*","event":"models_reload"}
    data: {"model":"qwen","event":"model_remove"}

Source: server_models::notify_sse and its callers in llama.cpp's server-models.cpp, b11434.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable

from admin.states import Json, exit_code_of_end, foremost, state, states_of

# Of what a server loads, llama-router hears how far the weights of the model itself are.
STAGES = ("text_model",)

EVERY = "*"  # the model of an event about all of them

Info = Callable[[str], Json]


class Frames:
    """What is to be said of each event. Keeps the state of each replica, as a model is what its foremost one is."""

    def __init__(self, models: Iterable[Json], info: Info) -> None:
        """`models` are those of the status object; `info` is asked for the facts of a model that was loaded."""
        self._info = info
        self._states: dict[str, dict[str, str]] = {}
        self._removed: set[str] = set()
        self.renewed(models)

    def renewed(self, models: Iterable[Json]) -> list[Frame]:
        """Take in a new list of models. Returns what is to be said of those that are gone."""
        before, known = self._states, list(models)
        self._states = {model["name"]: states_of(model) for model in known}
        self._removed = {model["name"] for model in known if model.get("removed")}
        return [frame(name, "model_remove") for name in before if name not in self._states]

    def of(self, event: Json) -> list[Frame]:
        """The frames for an event of kind "state" or "progress"; none for others."""
        name = event.get("model")
        if not isinstance(name, str) or name.startswith("@"):
            return []
        if event["kind"] == "progress":
            return self._progress(name, event)
        if event["kind"] == "state" and event["from"] and event["to"]:
            return self._state(name, event)
        return []

    def _progress(self, name: str, event: Json) -> list[Frame]:
        if foremost(self._states.get(name, {}).values()) != "loading":
            return []  # a further replica of a model that is loaded
        progress = {"stages": STAGES, "current": STAGES[0], "value": event["progress"]}
        return [frame(name, "status_change", {"status": "loading", "progress": progress})]

    def _state(self, name: str, event: Json) -> list[Frame]:
        states = self._states.setdefault(name, {})
        replica = event.get("instance") or name
        slept = event["from"] == "ready" and states.get(replica) in ("sleeping", "waking")
        if not slept:
            states[replica] = event["from"]
        before, loads_already = foremost(states.values()), "starting" in states.values()
        states[replica] = state(event["to"], event)
        after = foremost(states.values())
        frames: list[Frame] = []
        if after == "loading" and event["to"] == "starting" and not loads_already:
            frames.append(frame(name, "model_status", {"status": after}))
        elif after != before:
            frames.append(frame(name, "status_change", self._change(name, after, slept, before, event)))
        if name in self._removed and set(states.values()) <= {"stopped", "failed"}:
            self._removed.discard(name)
            del self._states[name]
            frames.append(frame(name, "model_remove"))
        return frames

    def _change(self, name: str, after: str, slept: bool, before: str, event: Json) -> Json:
        if after == "unloaded":
            was_loaded = slept or before in ("loaded", "sleeping")
            return {"status": after, "exit_code": exit_code_of_end(event["reason"], was_loaded=was_loaded)}
        return {"status": after, "info": self._info(name)} if after == "loaded" and not slept else {"status": after}


class Frame(bytes):
    """An event as it is sent, and the name of its model."""

    model: str


def frame(model: str, event: str, data: Json | None = None) -> Frame:
    """One event as it is sent."""
    told = {"model": model, "event": event} | ({} if data is None else {"data": data})
    text = json.dumps(told, separators=(",", ":"), ensure_ascii=False)
    made = Frame(b"data: " + text.encode(errors="backslashreplace") + b"\n\n")
    made.model = model
    return made


def reloaded() -> Frame:
    """The models are to be listed anew."""
    return frame(EVERY, "models_reload")
