"""Estimates of memory against real model servers that were used to the full: with a context full of one long input."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from alone import finish, launch, read_answer
from served import Weights, gguf

from supervisor import gguf_file
from supervisor.backends import llama_cpp_python
from supervisor.core.estimate import estimate
from supervisor.core.preset import Preset
from supervisor.core.quantities import readable_size
from supervisor.usage import Nvidia, process_usage

MEBIBYTE = 2**20
Q8_0 = 8
pytestmark = pytest.mark.slow

# For 8192 tokens on a machine with other things to do.
PATIENCE = 600.0


def used_to_the_full(preset: Preset, context: int) -> tuple[int, int, float]:
    """Bytes that a server of the preset has alone and that it shares, and the MiB of its KV cache as it logs them."""
    with tempfile.TemporaryDirectory(prefix="ms-") as folder:
        server = launch(Path(folder), llama_cpp_python.settings(preset), process_group=0)
        try:
            server.notices.wait_for("READY=1")
            # A token each. What comes before the first and after the last of them needs room, too.
            words = "word " * (context - 16)
            body: dict[str, Any] = {"input": words} if preset.embedding else {"prompt": words, "max_tokens": 4}
            path = "/v1/embeddings" if preset.embedding else "/v1/completions"
            asked = server.send(body, path)
            asked.settimeout(PATIENCE)
            status, data = read_answer(asked)
            answer = json.loads(data)
            assert status == 200, answer
            assert answer["usage"]["prompt_tokens"] > 0.95 * context
            usage = process_usage([server.process.pid], Nvidia())[server.process.pid]
            log = (Path(folder) / "log").read_text()
        finally:
            finish(server)
    cache = sum(float(size) for size in re.findall(r"KV buffer size = +([0-9.]+) MiB", log))
    return usage.private["host"], usage.shared["host"], cache


@pytest.mark.timeout(PATIENCE + 60)
@pytest.mark.parametrize(
    ("weights", "context", "keys"),
    [
        ("smollm2", 512, {}),
        ("smollm2", 2048, {}),
        ("smollm2", 8192, {}),
        ("smollm2", 512, {"options": {"type_k": Q8_0}}),
        ("smollm2", 512, {"options": {"type_k": Q8_0, "type_v": Q8_0, "flash-attn": True}}),
        ("smollm2", 512, {"options": {"use_mmap": False}}),
        ("smollm2", 512, {"options": {"logits_all": True}}),
        ("smollm2", 512, {"embedding": True}),
        ("gemma", 2048, {}),
        ("gemma", 512, {"embedding": True}),
    ],
    ids=str,
)
def test_an_estimate_is_close(tmp_path: Path, weights: Weights, context: int, keys: dict[str, Any]) -> None:
    # A copy: of pages that other processes map, too, only a part would count.
    model = str(shutil.copy(gguf(weights), tmp_path))
    preset = Preset(name="real", model=model, context=context, **keys)
    need = estimate(preset, gguf_file.read(model))
    alone, shared, cache = used_to_the_full(preset, context)
    print(f"estimated {need.parts}: {need.total(1)['host'] / MEBIBYTE:.0f} MiB")
    print(f"measured alone {alone / MEBIBYTE:.0f} MiB, shared {shared / MEBIBYTE:.0f} MiB")
    assert f"KV cache {readable_size(round(cache * MEBIBYTE))}" in need.parts
    assert 0.9 <= need.total(1)["host"] / (alone + shared) <= 1.25
    weights_on_disk = 0 if keys.get("options", {}).get("use_mmap") is False else Path(model).stat().st_size
    assert need.shared.get("host", 0) == pytest.approx(weights_on_disk, rel=0.1)
    assert shared == pytest.approx(need.shared.get("host", 0), abs=40 * MEBIBYTE)
