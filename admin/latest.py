"""The status object as it is at this moment: of it the supervisor tells only what this worker does not know yet."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from supervisor.client import Client
from supervisor.protocol import Message

Json = dict[str, Any]


@dataclass(frozen=True)
class _Known:
    """What was told last: the models by name, in their order, `as_of` an answer."""

    as_of: str
    models: dict[str, Json]


class Latest:
    """What is kept of one answer for the next. A model that is the same is the same object, which nobody changes."""

    def __init__(self, runtime_dir: Path, timeout: float) -> None:
        """`timeout`: seconds to wait for the supervisor."""
        self._runtime_dir = runtime_dir
        self._timeout = timeout
        self._known: _Known | None = None

    def status(self) -> Message:
        """supervisor/core/status.py. Raises NotRunning, ProtocolError or Refused."""
        known = self._known  # the answer is to this one, whatever others hear meanwhile
        with Client(self._runtime_dir, timeout=self._timeout) as client:
            answer = client.call("status", known=known and known.as_of)
        status: Message = answer["status"]
        told = {model["name"]: model for model in status["models"]}
        if known is not None and answer.get("since") == known.as_of:
            told = known.models | told
        as_of = answer.get("as_of")
        self._known = _Known(as_of, told) if isinstance(as_of, str) else None
        return {**status, "models": list(told.values())}
