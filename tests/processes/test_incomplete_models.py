"""Files of models that end too soon: told with their sizes, never loaded, and no alarm about those that are whole."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from harness import Supervisor, refused
from hypothesis import given
from hypothesis import strategies as st
from made_gguf import F16_TYPE, LLAMA, Q4_0_TYPE, WHOLE, made, make

from supervisor import gguf_file
from supervisor.cli import program
from supervisor.core.preset import Preset
from supervisor.errors import EX_CONFIG, IncompleteModel
from supervisor.memory import Memory

SHORT = WHOLE[:-100]
MODELS = Path(__file__).resolve().parents[2] / ".venv" / "models"


def preset(path: Path, **keys: Any) -> Preset:
    return Preset(name="m", model=str(path), **keys)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "presets.d").mkdir()
    (tmp_path / "config.yaml").write_text("{}")
    return tmp_path / "config.yaml"


def check(config: Path, **models: Any) -> tuple[int, list[str]]:
    (config.parent / "presets.d" / "a.yaml").write_text(json.dumps({"models": models}))
    result = CliRunner().invoke(program, ["check", "--json", "--config", str(config)])
    return result.exit_code, [problem["message"] for problem in json.loads(result.stdout)["problems"]]


def test_check_names_file_and_sizes(config: Path, tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(SHORT)
    code, told = check(config, m={"model": str(path)}, same={"model": str(path), "context": 512})
    words = f"cannot load '{path}': it has {len(SHORT)} bytes, and its tensors take {len(WHOLE)}; it is incomplete"
    assert (code, told) == (EX_CONFIG, [f"{words}; get all of it, or correct the path"] * 2)
    path.write_bytes(WHOLE)
    assert check(config, m={"model": str(path)}) == (0, [])


def test_a_shard_and_a_projector(config: Path, tmp_path: Path) -> None:
    first, second = (tmp_path / f"m-0000{number}-of-00002.gguf" for number in (1, 2))
    make(first, split__count=2, split__no=0)
    code, told = check(config, m={"model": str(first)})
    assert "its shard m-00002-of-00002.gguf: No such file or directory" in told[0]
    second.write_bytes(made({}, {"blk.1.ffn_up.weight": ((64, 64), F16_TYPE)})[:-1])
    code, told = check(config, m={"model": str(first)})
    assert "its shard m-00002-of-00002.gguf: it has " in told[0]
    second.write_bytes(made({}, {"blk.1.ffn_up.weight": ((64, 64), F16_TYPE)}))
    assert check(config, m={"model": str(first)}) == (0, [])
    projector = tmp_path / "mmproj.gguf"
    whole = made({"general.architecture": "clip", "general.type": "mmproj"})
    projector.write_bytes(whole[:-1])
    code, told = check(config, m={"model": str(first), "mmproj": str(projector)})
    assert (code, len(told)) == (EX_CONFIG, 1)
    assert f"cannot load '{projector}': it has {len(whole) - 1} bytes, and its tensors take {len(whole)}" in told[0]
    projector.write_bytes(whole)
    assert check(config, m={"model": str(first), "mmproj": str(projector)}) == (0, [])


@given(
    shapes=st.lists(
        st.tuples(st.sampled_from([0, F16_TYPE, Q4_0_TYPE]), st.integers(1, 5), st.integers(1, 7)), min_size=1
    ),
    cut=st.integers(1, 200),
)
def test_the_last_byte_counts_and_its_padding_does_not(
    tmp_path_factory: pytest.TempPathFactory, shapes: list[tuple[int, int, int]], cut: int
) -> None:
    """`made` pads each tensor to 32 bytes, the last one too, which other writers leave out."""
    tensors = {f"blk.{n}.t": ((32 * wide, high), kind) for n, (kind, wide, high) in enumerate(shapes)}
    whole = made(LLAMA, tensors)
    kind, wide, high = shapes[-1]
    size = 32 * wide * high * {0: 4, F16_TYPE: 2}.get(kind, 0) or wide * high * 18
    least = len(whole) - (-size % 32)
    path = tmp_path_factory.mktemp("g") / "m.gguf"
    path.write_bytes(whole[:least])
    assert Memory(None).why_no_model(str(path)) is None
    path.write_bytes(whole[: least - cut])
    with pytest.raises(IncompleteModel) as caught:
        gguf_file.read(str(path))
    if caught.value.takes is not None:
        assert caught.value.takes == least


@pytest.mark.parametrize("name", ["SmolLM2-135M-Instruct.Q4_1.gguf", "gemma-3-270m.gguf"])
def test_real_files(name: str, tmp_path: Path) -> None:
    path = MODELS / name
    if not path.exists():
        pytest.skip(f"there is no {name}: make run, make test")
    assert Memory(None).why_no_model(str(path)) is None
    begun, size = tmp_path / "begun.gguf", path.stat().st_size
    with path.open("rb") as whole:
        begun.write_bytes(whole.read(30 * 2**20))
    os.truncate(begun, size - 64)  # sparse, and a tensor is longer
    with pytest.raises(IncompleteModel, match=f"it has {size - 64} bytes, and its tensors take "):
        gguf_file.read(str(begun))


def test_what_is_still_incomplete_is_told_without_reading(tmp_path: Path) -> None:
    path, memory = tmp_path / "m.gguf", Memory(None)
    path.write_bytes(SHORT)
    assert memory.why_not_whole(preset(path)) is None  # nothing is known of it
    memory.why_no_model(str(path))
    assert "it is incomplete" in (memory.why_not_whole(preset(path)) or "")
    path.write_bytes(WHOLE[:-50])
    assert f"it has {len(WHOLE) - 50} bytes" in (memory.why_not_whole(preset(path)) or "")
    path.write_bytes(WHOLE)
    assert memory.why_not_whole(preset(path)) is None
    path.write_bytes(b"<html>")
    memory.why_no_model(str(path))
    assert "it is not a GGUF file" in (memory.why_not_whole(preset(path)) or "")
    path.unlink()
    assert memory.why_not_whole(preset(path)) is None


def test_it_is_not_loaded_and_nobody_is_evicted_for_it(supervisors: type[Supervisor]) -> None:
    supervisor = supervisors(max_models=1)
    path = supervisor.directory / "m.gguf"
    path.write_bytes(SHORT)
    supervisor.add("healthy")
    supervisor.write("half", {"models": {"half": {"model": str(path)}}})
    supervisor.start()
    supervisor.load("healthy")
    words = f"'{path}': it has {len(SHORT)} bytes, and its tensors take {len(WHOLE)}; it is incomplete"
    assert supervisor.model("half")["incomplete"] == words
    assert [words in notice["message"] for notice in supervisor.status()["notices"]] == [True]
    with refused() as caught:
        supervisor.call("load", model="half", wait=True)
    assert words in str(caught[0])
    assert supervisor.model("half")["state"] == "failed"
    assert supervisor.model("healthy")["state"] == "ready"
    path.write_bytes(WHOLE)  # it fails in another way now: its weights are zeros
    assert supervisor.model("half")["incomplete"] is None


def test_a_download_into_the_directory_of_models_is_told(supervisors: type[Supervisor]) -> None:
    supervisor = supervisors(config="models_dir: models\n")
    models = supervisor.directory / "models"
    models.mkdir()
    (models / "half.gguf").write_bytes(SHORT)
    (models / "m.gguf.part").write_bytes(SHORT)
    (models / ".hidden.gguf").write_bytes(SHORT)
    status = supervisor.start().status()
    assert status["models"] == []
    assert {Path(notice["file"]).name: notice["message"] for notice in status["notices"]} == {
        "half.gguf": f"passed over: it has {len(SHORT)} bytes, and its tensors take {len(WHOLE)}; it is incomplete",
        "m.gguf.part": "passed over: its name says that its download is not complete",
    }
