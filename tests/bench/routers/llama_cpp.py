"""llama-cpp-python's own server with several models: one process, which holds one model at a time itself."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from tests.bench.routers.router import CONTEXT, THREADS, Router, Scene
from tests.bench.wire import post


class LlamaCpp(Router):
    """`python -m llama_cpp.server --config_file`."""

    name = "llama-cpp-python"
    serves_only_gguf = True
    counts_cpu = False
    cannot: ClassVar = {
        "streams": "it serves its own models only, and none here makes 10,000 tokens a second",
        "many": "it computes one answer at a time",
        "slow": "it computes one answer at a time",
        "crash": "its model has no process of its own",
        "idle": "it holds one model at a time",
        "size": "it loads its first model before it answers",
    }

    def missing(self) -> str | None:
        """It comes with llama-router."""
        return None if importlib.util.find_spec("llama_cpp") else "no llama-cpp-python"

    def version(self) -> str:
        """The package's."""
        return importlib.metadata.version("llama-cpp-python")

    def argv(self, scene: Scene) -> Sequence[str | Path]:
        """The first model is loaded at once."""
        models = [
            {"model": str(model.file), "model_alias": model.name, "n_ctx": CONTEXT, "n_threads": THREADS}
            for model in scene.models
            if model.file is not None
        ]
        host, _, port = self.address.text.rpartition(":")
        file = self.directory / "llama-cpp.json"
        file.write_text(json.dumps({"host": host, "port": int(port), "models": models}))
        return [sys.executable, "-m", "llama_cpp.server", "--config_file", file]

    def tokenize(self, model: str) -> bytes:
        """It has the same thing by another name."""
        return post("/extras/tokenize", {"model": model, "input": "The quick brown fox"})

    def model_servers(self) -> set[int]:
        """It is one."""
        return set()
