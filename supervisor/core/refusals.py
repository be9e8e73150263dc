"""Every answer but yes to a request for a model: HTTP status, OpenAI type and wording, decided in this one place.

The wordings of llama-server's router are kept where it has one (its clients match on them).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from supervisor.core.need import Bytes, Need, in_words, total
from supervisor.core.policy import Policy
from supervisor.core.reasons import EndReason

INVALID = "invalid_request_error"
NOT_FOUND = "not_found_error"
SERVER = "server_error"


@dataclass(frozen=True)
class Refusal:
    """An OpenAI error to be; `retry_after` in seconds, when trying again may help."""

    status: int
    type: str
    message: str
    retry_after: float | None = None


NO_MODEL_NAMED = Refusal(400, INVALID, "model name is missing from the request")
NOT_LOADED = Refusal(400, INVALID, "model is not loaded")
ALREADY_RUNNING = Refusal(400, INVALID, "model is already running")
NOT_RUNNING = Refusal(400, INVALID, "model is not running")
STOPPING = Refusal(503, SERVER, "llama-router is stopping", retry_after=5.0)


def unknown_model(name: str) -> Refusal:
    """A request names a model that no preset defines."""
    return Refusal(400, INVALID, f"model '{name}' not found")


def unknown_to_operator(name: str) -> Refusal:
    """An operator names a model that no preset defines."""
    return Refusal(404, NOT_FOUND, f"model is not found: '{name}'")


def removed(name: str) -> Refusal:
    """A reload took the model away while the request waited for it."""
    return Refusal(400, INVALID, f"model '{name}' not found: its preset was removed")


def unloaded(name: str) -> Refusal:
    """An operator unloaded the model while the request waited for it."""
    return Refusal(503, SERVER, f"model '{name}' was unloaded on request while this request waited for it")


def loaded_again(name: str) -> Refusal:
    """Somebody loaded the model before its unloading was complete."""
    return Refusal(503, SERVER, f"model '{name}' was loaded again before it was unloaded")


def load_failed(name: str, reason: EndReason) -> Refusal:
    """The load this request waited for ended in failure."""
    return Refusal(500, SERVER, f"model name={name} failed to load: {_why(reason)}")


def failed(name: str, reason: EndReason | None) -> Refusal:
    """The model has failed for good; it takes a person to try again."""
    why = _why(reason) if reason else "unknown"
    fix = f"after fixing it, run: llama-router load {name}"
    return Refusal(503, SERVER, f"model '{name}' has failed: {why}; {fix}")


def waited_too_long(name: str, seconds: float) -> Refusal:
    """The lease's own deadline passed before a server was free."""
    return Refusal(503, SERVER, f"model '{name}' was not available within {seconds:g} s", retry_after=1.0)


def queue_full(limit: int) -> Refusal:
    """As many requests wait as may."""
    return Refusal(429, "rate_limit_error", f"{limit} requests wait already (queue_limit)", retry_after=1.0)


def too_large(name: str, needed: Need, budget: Bytes) -> Refusal:
    """The model needs more than there is, whatever else is stopped."""
    fix = "correct memory: in its preset, or allow more in config.yaml"
    if needed.source != "declared":
        fix = "declare memory: in its preset if it needs less, or give it a smaller context"
    why = f"it needs {_needed(needed)}, and memory allows {in_words(_of_same(budget, needed))}; {fix}"
    return Refusal(503, SERVER, f"model '{name}' cannot be loaded: {why}")


def never_fits(name: str, needed: Need, policy: Policy, held: Mapping[str, Bytes]) -> Refusal:
    """Nothing can ever be stopped to make room for the model: pinned ones hold what it needs."""
    names = ", ".join(sorted(held)) or "none"
    if policy.max_models and len(held) >= policy.max_models:
        why = f"max_models is {policy.max_models}, and pinned models hold them all: {names}"
    else:
        taken = in_words(_of_same(total(held.values()), needed))
        allowed = in_words(_of_same(policy.budget, needed))
        why = f"it needs {_needed(needed)}; memory allows {allowed}, of which pinned models hold {taken}: {names}"
    return Refusal(503, SERVER, f"model '{name}' cannot be loaded: {why}")


def _needed(needed: Need) -> str:
    parts = f": {needed.parts}" if needed.parts else ""
    return f"{in_words(needed.total(1))} ({needed.source}{parts})"


def _of_same(amount: Bytes, needed: Need) -> dict[str, int]:
    """The amount on those devices that the need is about."""
    return {device: amount.get(device, 0) for device in needed.total(1)}


def _why(reason: EndReason) -> str:
    return f"{reason.text}; its log says: {reason.telling}" if reason.telling else reason.text
