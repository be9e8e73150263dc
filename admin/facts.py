"""What the supervisor tells of each model beside its state, asked once for each configuration and worker."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gevent.lock import RLock

from supervisor.client import Client
from supervisor.protocol import Message

Json = dict[str, Any]

TEXT = ["text"]
# Of a model that is not in the configuration any more, or was not yet when the facts were asked.
NONE_KNOWN: Json = {
    "args": [],
    "preset": "",
    "architecture": {"input_modalities": TEXT, "output_modalities": TEXT},
    "meta": None,
}


class Facts:
    """The facts of the last configuration that was seen."""

    def __init__(self, runtime_dir: Path, timeout: float) -> None:
        """`timeout`: seconds to wait for the supervisor."""
        self._runtime_dir = runtime_dir
        self._timeout = timeout
        self._asking = RLock()
        self._revision: Any = None
        self._facts: dict[str, Json] = {}

    def of(self, status: Message) -> dict[str, Json]:
        """The facts by the name of the model, for a status object. Raises NotRunning, ProtocolError or Refused."""
        revision = status.get("revision")
        with self._asking:  # many requests may come after a reload, and one has to ask
            if revision is not None and revision != self._revision:
                self._facts = self._ask()
                self._revision = revision
            return self._facts

    def _ask(self) -> dict[str, Json]:
        with Client(self._runtime_dir, timeout=self._timeout) as client:
            told = (message["facts"] for message in client.stream("facts"))
            return {facts["model"]: facts for facts in told}
