"""llama-swap in front of llama-server, where its binary is on PATH; configured as its config.example.yaml tells."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.bench.routers import llama_server
from tests.bench.routers.router import UPSTREAM, Model, Router, Scene
from tests.bench.wire import Address, loopback, post

MANY = 4096  # more than its 10 requests at once for a model, beyond which it answers 429


class LlamaSwap(Router):
    """One group of all models, whose members swap if there is room for one only."""

    name = "llama-swap"

    def missing(self) -> str | None:
        """Whether it is on PATH, and a llama-server for it."""
        if shutil.which("llama-swap") is None:
            return "no llama-swap on PATH"
        return None if llama_server.binary() else "no llama-server: make peers"

    def version(self) -> str:
        """The first line of what it tells."""
        told = subprocess.run(["llama-swap", "-version"], capture_output=True, text=True, check=False)
        return (told.stdout + told.stderr).strip().partition("\n")[0]

    def argv(self, scene: Scene) -> Sequence[str | Path]:
        """Its own ports from a free one on."""
        group = {"swap": scene.room == 1, "exclusive": True, "members": [model.name for model in scene.models]}
        config = {
            "startPort": int(loopback().text.rpartition(":")[2]),
            "models": {model.name: self._model(model) for model in scene.models},
            "routing": {"router": {"use": "group", "settings": {"groups": {"all": group}}}},
        }
        file = self.directory / "llama-swap.yaml"
        file.write_text(json.dumps(config))  # JSON is YAML
        return ["llama-swap", "-config", file, "-listen", self.address.text]

    def _model(self, model: Model) -> dict[str, object]:
        if model.file is None:
            command = [sys.executable, "-IS", str(UPSTREAM), "127.0.0.1:${PORT}"]
        else:
            command = llama_server.arguments(model, Address("127.0.0.1:${PORT}"))
        # A macro is no word of a shell: quoted, it would not be replaced.
        words = [word if "${PORT}" in word else shlex.quote(word) for word in command]
        return {"cmd": " ".join(words), "proxy": "http://127.0.0.1:${PORT}", "concurrencyLimit": MANY}

    def tokenize(self, model: str) -> bytes:
        """By the path for what it does not know itself."""
        return post(f"/upstream/{model}/tokenize", {"content": "The quick brown fox"})
