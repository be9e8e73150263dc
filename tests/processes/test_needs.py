"""What is remembered of memory: estimates by the files they come from, measures by how servers are started."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_gguf import made, make

from supervisor import gguf_file, needs
from supervisor.core.need import UNKNOWN, Need
from supervisor.core.preset import Preset
from supervisor.needs import Needs

MEASURED = Need("measured", {"host": 10**9}, {"host": 7, "gpu0": 9})


@pytest.fixture
def model(tmp_path: Path) -> str:
    return make(tmp_path / "model.gguf")


@pytest.fixture
def state(tmp_path: Path) -> Path:
    folder = tmp_path / "state"
    folder.mkdir(0o700)
    return folder


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The paths of which the header was read."""
    paths: list[str] = []
    read = gguf_file.read

    def counted(path: str) -> Any:
        paths.append(path)
        return read(path)

    monkeypatch.setattr(gguf_file, "read", counted)
    yield paths


def preset(model: str, **keys: Any) -> Preset:
    return Preset(**{"name": "m", "model": model, **keys})


def need(book: Needs, asked: Preset) -> Need:
    return book.of({asked.name: asked})[asked.name]


# Estimates


def test_a_model_is_estimated_until_it_was_measured(model: str, state: Path) -> None:
    book = Needs(state, gpus=0)
    estimated = need(book, preset(model))
    assert estimated.source == "estimated"
    assert estimated.shared["host"] > 0
    assert estimated.parts.startswith("weights ")
    book.remember("m", preset(model), MEASURED)
    assert need(book, preset(model)) == MEASURED
    assert need(Needs(state, gpus=0), preset(model)) == MEASURED


def test_what_is_the_same_is_estimated_once(model: str, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    estimated: list[Preset] = []
    real = needs.estimate
    monkeypatch.setattr(needs, "estimate", lambda *of: estimated.append(of[0]) or real(*of))
    book = Needs(state, gpus=0)
    first = need(book, preset(model))
    assert need(book, preset(model)) == first
    assert len(estimated) == 1
    assert need(book, preset(model, context=2048)) != first
    assert need(book, preset(model, context=2048, mmproj=model)) != need(book, preset(model, context=2048))
    make(Path(model), llama__context_length=256)
    os.utime(model, (1, 1))
    assert need(book, preset(model)) != first
    book.of({})
    count = len(estimated)
    need(book, preset(model))
    assert len(estimated) == count + 1, "what is gone is forgotten"


def test_what_no_file_tells_is_unknown(tmp_path: Path, state: Path) -> None:
    (tmp_path / "broken.gguf").write_text("not a model")
    book = Needs(state, gpus=0)
    presets = {
        "command": Preset(name="command", backend="command", command=("x", "{port}")),
        "missing": preset(str(tmp_path / "missing.gguf"), name="missing"),
        "broken": preset(str(tmp_path / "broken.gguf"), name="broken"),
        "shard": preset(str(tmp_path / "a-00001-of-99999.gguf"), name="shard"),
    }
    assert book.of(presets) == dict.fromkeys(presets, UNKNOWN)
    book.remember("command", presets["command"], MEASURED)
    assert book.of(presets)["command"] == MEASURED


def test_a_projector_counts(model: str, tmp_path: Path) -> None:
    (tmp_path / "mmproj.gguf").write_bytes(bytes(12345))
    book = Needs(None, gpus=0)
    with_projector = need(book, preset(model, mmproj=str(tmp_path / "mmproj.gguf")))
    assert with_projector.each["host"] - need(book, preset(model)).each["host"] == 12345
    assert need(book, preset(model, mmproj=str(tmp_path / "missing"))).each == need(book, preset(model)).each


def test_a_file_is_read_once(model: str, state: Path, reads: list[str]) -> None:
    presets = {f"m{number}": preset(model, name=f"m{number}", context=number + 1) for number in range(1000)}
    assert {each.source for each in Needs(state, gpus=0).of(presets).values()} == {"estimated"}
    book = Needs(state, gpus=0)
    assert len(set(map(str, book.of(presets).values()))) > 1
    book.of(presets)
    assert reads == [model]
    assert book.header(model) is not None
    assert reads == [model]


def test_a_broken_file_is_read_once_too(tmp_path: Path, state: Path, reads: list[str]) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_text("not a model")
    for _ in range(2):
        assert need(Needs(state, gpus=0), preset(str(broken))) == UNKNOWN
    assert reads == [str(broken)]


def test_a_changed_file_is_read_again(model: str, state: Path, reads: list[str]) -> None:
    book = Needs(state, gpus=0)
    before = need(book, preset(model, context=0))
    book.remember("m", preset(model, context=0), MEASURED)
    make(Path(model), llama__context_length=2048)
    os.utime(model, ns=(1, 1))
    after = need(book, preset(model, context=0))
    assert after.source == "estimated"
    assert after.each["host"] > before.each["host"]
    assert reads == [model, model]
    Path(model).unlink()
    assert need(book, preset(model)) == UNKNOWN


# Measures


@pytest.mark.parametrize(
    ("change", "known"),
    [
        ({"context": 512}, False),
        ({"options": {"n_batch": 64}}, False),
        ({"env": {"CUDA_VISIBLE_DEVICES": "1"}}, False),
        ({"description": "other", "aliases": ["a"], "replicas": 3, "memory": {"host": 5}}, True),
        ({"name": "another"}, True),
        ({"watchdog": "30s"}, True),
        ({"limits": {"memory": "8GiB"}}, True),
    ],
    ids=str,
)
def test_a_measure_is_for_what_is_started_in_the_same_way(model: str, change: dict[str, Any], known: bool) -> None:
    book = Needs(None, gpus=0)
    book.remember("m", preset(model), MEASURED)
    assert (need(book, preset(model, **change)).source == "measured") is known


def test_a_measure_is_for_as_many_gpus(model: str, state: Path) -> None:
    Needs(state, gpus=1).remember("m", preset(model), MEASURED)
    assert need(Needs(state, gpus=2), preset(model)).source == "estimated"
    assert need(Needs(state, gpus=1), preset(model)).source == "measured"


def test_weights_that_were_measured_in_part_count_whole(model: str) -> None:
    book = Needs(None, gpus=0)
    estimated = need(book, preset(model))
    book.remember("m", preset(model), Need("measured", {"host": 1}, {"host": 7}))
    assert need(book, preset(model)) == Need("measured", estimated.shared, {"host": 7})


def test_the_book_forgets_first_what_nothing_uses(model: str, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(needs, "MAX_MEASURES", 3)
    book = Needs(state, gpus=0)
    in_use = preset(model, context=1)
    book.of({"m": in_use})
    for context in range(1, 6):
        book.remember("m", preset(model, context=context), MEASURED)
    sources = [need(Needs(state, gpus=0), preset(model, context=context)).source for context in range(1, 6)]
    assert sources == ["measured", "estimated", "estimated", "measured", "measured"]


def test_models_that_are_gone_are_forgotten(tmp_path: Path, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(needs, "MAX_SHAPES", 1)
    book = Needs(state, gpus=0)
    for number in range(5):
        need(book, preset(make(tmp_path / f"{number}.gguf")))
    stored = json.loads((state / "models.json").read_bytes())["entries"]
    assert list(stored) == [str(tmp_path / "3.gguf"), str(tmp_path / "4.gguf")]


# The files


def test_nothing_is_written_when_nothing_changed(model: str, state: Path) -> None:
    book = Needs(state, gpus=0)
    need(book, preset(model))
    book.remember("m", preset(model), MEASURED)
    before = {path.name: path.stat().st_ino for path in state.iterdir()}
    assert before.keys() == {"models.json", "measured.json"}
    need(book, preset(model))
    book.remember("m", preset(model), MEASURED)
    assert {path.name: path.stat().st_ino for path in state.iterdir()} == before
    assert {path.stat().st_mode & 0o777 for path in state.iterdir()} == {0o600}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
BAD = [b"", b"{", b"[]", b"null", b"\xff\0", b'{"format": 1}', b'{"format": 2, "entries": {}}', b"[" * 100_000]
BAD += [b'{"format": 1, "entries": {"a": {"stamps": {}, "shape": {"architecture": 5}}}}']


@pytest.mark.parametrize("content", BAD, ids=lambda content: repr(content[:24]))
def test_what_can_not_be_read_is_written_anew(model: str, state: Path, content: bytes) -> None:
    for name in ("models.json", "measured.json"):
        (state / name).write_bytes(content)
    book = Needs(state, gpus=0)
    assert need(book, preset(model)).source == "estimated"
    book.remember("m", preset(model), MEASURED)
    assert need(Needs(state, gpus=0), preset(model)) == MEASURED


def damaged(state: Path, name: str, change: Callable[[Any], None]) -> None:
    """Change the only entry of a file."""
    stored = json.loads((state / name).read_bytes())
    ((_, entry),) = stored["entries"].items()
    change(entry)
    (state / name).write_text(json.dumps(stored))


HEADER_DAMAGE: dict[str, Callable[[Any], None]] = {
    "no layers": lambda entry: entry["shape"].update(layers=[]),
    "too many layers": lambda entry: entry["shape"].update(layers=entry["shape"]["layers"] * 400),
    "less than nothing": lambda entry: entry["shape"]["layers"][1].update(weights=-1),
    "more than there can be": lambda entry: entry["shape"].update(context=2**60 + 1),
    "of another type": lambda entry: entry["shape"].update(vocabulary="10"),
    "another file": lambda entry: entry.update(stamps={"/other.gguf": [1, 1]}),
    "inputs that are none": lambda entry: entry.update(inputs=["smell"]),
    "half of it": lambda entry: entry.pop("stamps"),
}


@pytest.mark.parametrize("damage", HEADER_DAMAGE)
def test_a_damaged_header_is_read_again(model: str, state: Path, reads: list[str], damage: str) -> None:
    whole = need(Needs(state, gpus=0), preset(model))
    damaged(state, "models.json", HEADER_DAMAGE[damage])
    assert need(Needs(state, gpus=0), preset(model)) == whole
    assert need(Needs(state, gpus=0), preset(model)) == whole
    assert reads == [model, model]


def test_one_damaged_entry_does_not_cost_the_others(tmp_path: Path, state: Path, reads: list[str]) -> None:
    paths = [make(tmp_path / f"{number}.gguf") for number in range(3)]
    presets = {path: preset(path, name=Path(path).stem) for path in paths}
    Needs(state, gpus=0).of(presets)
    stored = json.loads((state / "models.json").read_bytes())
    stored["entries"][paths[1]]["shape"]["layers"] = []
    (state / "models.json").write_text(json.dumps(stored))
    told: list[str] = []
    Needs(state, 0, told.append).of(presets)
    assert reads == [*paths, paths[1]]
    assert len(told) == 1 and "ignored 1 of 3 entries" in told[0] and paths[1] in told[0]


@pytest.mark.parametrize("amount", [-1, 2**60 + 1, 2**64, 10**30, 0.5, "7", None], ids=str)
@pytest.mark.parametrize("part", ["shared", "each"])
def test_a_measure_that_can_not_be_is_ignored_and_told_once(model: str, state: Path, part: str, amount: Any) -> None:
    other = preset(model, context=7)
    book = Needs(state, gpus=0)
    book.remember("m", preset(model), MEASURED)
    damaged(state, "measured.json", lambda entry: entry[part].update(host=amount))
    told: list[str] = []
    book = Needs(state, 0, told.append)
    assert need(book, preset(model)).source == "estimated"
    assert len(told) == 1 and "ignored 1 of 1 entries" in told[0] and "measured.json" in told[0]
    assert need(Needs(state, 0, told.append), other).source == "estimated"
    book.remember("m", other, MEASURED)
    again = Needs(state, 0, told.append)
    assert (need(again, preset(model)).source, need(again, other)) == ("estimated", MEASURED)
    assert len(told) == 1


def test_the_most_that_can_be_measured(model: str, state: Path) -> None:
    most = Need("measured", {"host": 2**60}, {"host": 0})
    Needs(state, gpus=0).remember("m", preset(model), most)
    assert need(Needs(state, gpus=0), preset(model)) == most


@given(change=st.dictionaries(st.sampled_from(["shape", "why_not", "inputs", "stamps"]), JSON, min_size=1))
def test_whatever_is_remembered(tmp_path_factory: pytest.TempPathFactory, change: dict[str, Any]) -> None:
    state = tmp_path_factory.mktemp("state")
    model = make(state / "model.gguf")
    whole = need(Needs(state, gpus=0), preset(model))
    damaged(state, "models.json", lambda entry: entry.update(change))
    found = need(Needs(state, gpus=0), preset(model))
    assert found in (whole, UNKNOWN)


@pytest.mark.parametrize("obstacle", ["fifo", "directory"])
def test_what_lies_where_a_file_is_written(model: str, state: Path, obstacle: str) -> None:
    for name in (".models.json.new", ".measured.json.new"):
        if obstacle == "fifo":
            os.mkfifo(state / name)
        else:
            (state / name / "full").mkdir(parents=True)
    told: list[str] = []
    book = Needs(state, 0, told.append)
    assert need(book, preset(model)).source == "estimated"
    book.remember("m", preset(model), MEASURED)
    book.remember("m", preset(model, context=7), MEASURED)
    assert need(book, preset(model)) == MEASURED
    if obstacle == "fifo":
        assert told == []
        assert need(Needs(state, gpus=0), preset(model)) == MEASURED
        return
    assert [line.partition(": ")[0] for line in told] == [
        f"cannot write {state / name}" for name in ("models.json", "measured.json")
    ]
    for name in (".models.json.new", ".measured.json.new"):
        shutil.rmtree(state / name)
    book.of({})  # it was only put off
    assert need(Needs(state, gpus=0), preset(model)) == MEASURED


def test_a_state_directory_that_is_made_later(model: str, tmp_path: Path, reads: list[str]) -> None:
    book = Needs(tmp_path / "state", gpus=0)
    need(book, preset(model))
    (tmp_path / "state").mkdir()
    book.save()
    need(Needs(tmp_path / "state", gpus=0), preset(model))
    assert reads == [model]


# How much


def test_more_models_than_are_remembered_otherwise(
    tmp_path: Path, state: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(needs, "MAX_SHAPES", 5)
    models = [make(tmp_path / f"{number}.gguf") for number in range(20)]
    broken = [tmp_path / f"broken{number}.gguf" for number in range(20)]
    for path in broken:
        path.write_text("not a model")
    presets = {str(number): preset(path, name=str(number)) for number, path in enumerate(models)}
    book = Needs(state, gpus=0)
    for _ in range(3):  # as a directory of models is looked at, and what is none in it is passed over
        assert all(book.why_no_model(str(path)) for path in broken)
        assert {each.source for each in book.of(presets).values()} == {"estimated"}
    again = Needs(state, gpus=0)
    assert all(again.why_no_model(str(path)) for path in broken)
    again.of(presets)
    assert len(reads) == 40
    again.of({})
    assert len(json.loads((state / "models.json").read_bytes())["entries"]) == 5


def test_what_was_read_is_kept_though_the_start_does_not_last(
    tmp_path: Path, state: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(needs, "SAVE_SECONDS", 0.0)
    path = make(tmp_path / "model.gguf")
    assert Needs(state, gpus=0).why_no_model(path) is None  # and it is killed
    assert Needs(state, gpus=0).why_no_model(path) is None
    assert reads == [path]


def test_a_start_that_reads_for_long_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[float] = []
    book = Needs(None, gpus=0, waiting=told.append)
    book.why_no_model(make(tmp_path / "quick.gguf"))
    assert told == []
    monkeypatch.setattr(needs, "SAVE_SECONDS", 0.0)
    for number in range(3):
        book.why_no_model(make(tmp_path / f"{number}.gguf"))
    assert told == [0.0, 0.0, 0.0]


# Reading later


def test_what_is_not_known_is_read_later(model: str, tmp_path: Path, state: Path, reads: list[str]) -> None:
    (tmp_path / "broken.gguf").write_text("not a model")
    broken, eyes = str(tmp_path / "broken.gguf"), str(tmp_path / "mmproj.gguf")
    Path(eyes).write_bytes(made({"general.architecture": "clip", "clip.has_vision_encoder": True}))
    book = Needs(state, gpus=0)
    book.reads_later = True
    seeing = preset(model, mmproj=eyes)
    assert (book.why_no_model(broken), need(book, seeing), need(book, preset(model))) == (None, UNKNOWN, UNKNOWN)
    assert reads == []
    assert book.unread() == [broken, model, eyes]
    assert book.unread() == []
    for path in (broken, model, eyes):
        book.take(path, needs.read(path))
    assert "it is not a GGUF file" in (book.why_no_model(broken) or "")
    assert need(book, seeing).source == "estimated"
    header = book.header(eyes)
    assert header is not None and header.inputs == ("image",)
    assert need(book, seeing) == need(Needs(state, gpus=0), seeing)
    assert book.unread() == []


def test_a_file_that_never_rests_is_read_once_at_a_time(model: str, reads: list[str]) -> None:
    book = Needs(None, gpus=0)
    book.reads_later = True
    for _ in range(2):
        assert need(book, preset(model)) == UNKNOWN
        assert book.unread() == [model]
        book.take(model, needs.read(model))
        os.utime(model, ns=(len(reads), len(reads)))
        assert need(book, preset(model)).source == "estimated"
        assert book.unread() == []


def test_a_file_that_could_not_be_read_is_tried_again(model: str) -> None:
    book = Needs(None, gpus=0)
    book.reads_later = True
    for _ in range(2):
        assert need(book, preset(model)) == UNKNOWN
        assert book.unread() == [model]
        book.take(model, needs.unreadable())
        assert need(book, preset(model)) == UNKNOWN
        assert book.unread() == []


@pytest.mark.parametrize("obstacle", ["missing", "file", "directories", "fifos", "full", "dangling"])
def test_a_disk_that_takes_nothing_costs_only_the_memory(model: str, tmp_path: Path, obstacle: str) -> None:
    state = tmp_path / "state"
    if obstacle == "file":
        state.write_text("")
    elif obstacle == "full":
        state.mkdir()
        for name in ("models.json", "measured.json"):
            (state / f".{name}.new").symlink_to("/dev/full")
    elif obstacle != "missing":
        state.mkdir()
        for name in ("models.json", "measured.json"):
            if obstacle == "directories":
                (state / name).mkdir()
            elif obstacle == "fifos":
                os.mkfifo(state / name)
            else:
                (state / name).symlink_to(tmp_path / "nowhere" / "else")
    book = Needs(state, gpus=0)
    assert need(book, preset(model)).source == "estimated"
    book.remember("m", preset(model), MEASURED)
    assert need(book, preset(model)) == MEASURED
    if state.is_dir():
        assert not [path for path in state.iterdir() if path.name.startswith(".")] or obstacle == "full"


def test_without_a_state_directory_nothing_is_written(model: str, tmp_path: Path) -> None:
    book = Needs(None, gpus=0)
    need(book, preset(model))
    book.remember("m", preset(model), MEASURED)
    assert list(tmp_path.iterdir()) == [Path(model)]
