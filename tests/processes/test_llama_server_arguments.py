"""What is said twice in a preset of a llama-server: by a key and by an option, or by two options."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fake_llama_server import ANSWERS, script

from supervisor.backends import Place, plan
from supervisor.core.preset import Preset
from supervisor.memory import Memory


def preset(tmp_path: Path, **keys: Any) -> Preset:
    program = script(tmp_path / "llama-server", ANSWERS)
    return Preset(name="m", backend="llama-server", model="/m.gguf", binary=str(program), **keys)


@pytest.mark.parametrize("name", ["ctx-size", "c", "--ctx-size", "-c", "ctx_size"])
def test_an_option_wins_over_a_key_and_is_given_once(tmp_path: Path, name: str) -> None:
    asked = preset(tmp_path, context=512, parallel=2, options={name: 300})
    words = plan(asked, Place(tmp_path / "s", tmp_path / "j", lambda: 1), Memory(None)).argv
    contexts = [words[at + 1] for at, word in enumerate(words) if word in ("-c", "--ctx-size")]
    assert contexts == ["300"]
    assert words[words.index("--parallel") + 1] == "2"


def test_two_options_that_mean_the_same_are_refused(tmp_path: Path) -> None:
    wrong = Memory(None).refused(preset(tmp_path, options={"ctx-size": 300, "c": 200, "metrics": True}))
    assert list(wrong) == [(("options", "c"), "cannot be given beside 'ctx-size', which means the same: remove one")]
    switched = Memory(None).refused(preset(tmp_path, options={"kv-offload": True, "no-kv-offload": True}))
    assert [keys for keys, _ in switched] == [("options", "no-kv-offload")]
