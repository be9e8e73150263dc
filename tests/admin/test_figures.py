"""What is read of an answer's tokens: of real ones, in whatever pieces, and of hostile ones."""

from __future__ import annotations

import pytest
import recorded_answers as real
from hypothesis import given
from hypothesis import strategies as st

from admin.figures import HEAD_BYTES, TAIL_BYTES, Passing, Tokens, tokens_of

SPEED = 98.97854145221316
ANSWERS = {
    "chat": (real.CHAT, Tokens(32, 6, 31, SPEED)),
    "chat, streamed": (real.CHAT_STREAM, Tokens(32, 6, 31, SPEED)),
    "chat, streamed with usage": (real.CHAT_STREAM_WITH_USAGE, Tokens(32, 6, 31, SPEED)),
    "/completion": (real.COMPLETION, Tokens(32, 6, 31, SPEED)),
    "/completion, streamed": (real.COMPLETION_STREAM, Tokens(32, 6, 31, SPEED)),
    "Responses": (real.RESPONSE, Tokens(32, 6, 31)),
    "Responses, streamed": (real.RESPONSE_STREAM, Tokens(32, 6, 31, SPEED)),
    "messages": (real.MESSAGES, Tokens(32, 6, 31)),
    "messages, streamed": (real.MESSAGES_STREAM, Tokens(32, 6, 31)),
    "llama-cpp-python": (real.PYTHON_CHAT, Tokens(32, 6)),
    "llama-cpp-python, streamed": (real.PYTHON_CHAT_STREAM, Tokens(None, 6, counted=True)),
    "llama-cpp-python, completions streamed": (real.PYTHON_COMPLETION_STREAM, Tokens(None, 6, counted=True)),
    "embeddings": (real.PYTHON_EMBEDDING, Tokens(1, None)),
    "count_tokens": (b'{"input_tokens":32}', Tokens()),
    "a transcription": (b'{"text":"hello"}', Tokens()),
    "nothing": (b"", Tokens()),
}


def told(answer: bytes, size: int) -> Tokens:
    passing = Passing()
    for start in range(0, len(answer), size):
        passing.add(answer[start : start + size])
    assert passing.size == len(answer)
    return passing.tokens()


@pytest.mark.parametrize("name", ANSWERS)
@pytest.mark.parametrize("size", [65536, 700])
def test_real_answers(name: str, size: int) -> None:
    answer, tokens = ANSWERS[name]
    assert told(answer, size) == tokens


@pytest.mark.parametrize("name", [name for name in ANSWERS if "python, " not in name])
@given(size=st.integers(1, 3000))
def test_pieces_change_nothing(name: str, size: int) -> None:
    answer, tokens = ANSWERS[name]
    assert told(answer, size) == tokens


def test_a_long_stream_has_its_input_in_the_head_and_its_output_in_the_tail() -> None:
    start, _, rest = real.MESSAGES_STREAM.partition(b"event: content_block_delta")
    delta = b'event: content_block_delta\ndata: {"type":"content_block_delta","delta":{"text":"M"}}\n\n'
    assert told(start + delta * 1000 + rest[rest.index(b"event: message_delta") :], 300) == Tokens(32, 6, 31)


def test_of_a_long_answer_little_is_kept() -> None:
    passing = Passing()
    for _ in range(100_000):
        passing.add(b"data: x" * 10)
    kept = sum(map(len, passing._pieces)) + len(passing._head)
    assert TAIL_BYTES <= kept <= TAIL_BYTES + HEAD_BYTES + 70


def test_a_stream_that_broke_off_is_counted_as_far_as_it_came() -> None:
    whole = real.PYTHON_CHAT_STREAM
    cut = whole[: whole.index(b"data: [DONE]")]
    assert told(cut[: cut.rindex(b"data: ")], 200) == Tokens(None, 6, counted=True)


@pytest.mark.parametrize("name", [name for name in ANSWERS if "streamed" in name and "/completion" not in name])
def test_a_stream_is_whole_with_its_last_event(name: str) -> None:
    answer, _ = ANSWERS[name]
    passing = Passing()
    passing.add(answer[: answer.rindex(b"data: ")])
    assert not passing.was_whole()
    passing.add(answer[answer.rindex(b"data: ") :])
    assert passing.was_whole()


def test_what_a_model_writes_is_no_usage() -> None:
    content = rb'{"choices":[{"message":{"content":"\"usage\": {\"prompt_tokens\": 7, \"completion_tokens\": 8}"}}]}'
    assert tokens_of(b"", content, 0) == Tokens()
    assert tokens_of(b"", content[:-1] + b"," + real.OPENAI + b"}", 0) == Tokens(32, 6, 31)


@pytest.mark.parametrize(
    "value", [b"-1", b"1e3", b"NaN", b"Infinity", b'"6"', b"true", b"null", b"[6]", b"6.5", b"1" + b"0" * 30, b"{}"]
)
def test_hostile_figures_are_dropped(value: bytes) -> None:
    usage = b'{"usage":{"prompt_tokens":%b,"completion_tokens":%b,"prompt_tokens_details":%b}' % (value, value, value)
    timings = b',"timings":{"predicted_n":%b,"predicted_per_second":-1}}' % value
    assert tokens_of(b"", usage + timings, 0) == Tokens()


@pytest.mark.parametrize(
    "rate", [b"-1", b"0", b"NaN", b"Infinity", b'"6"', b"true", b"1e300", b"null", b"1" + b"0" * 400]
)
def test_hostile_speeds_are_dropped(rate: bytes) -> None:
    assert tokens_of(b"", b'{"timings":{"predicted_per_second":%b}}' % rate, 0).rate is None


@given(head=st.binary(max_size=300), tail=st.binary(max_size=300), events=st.integers(0, 10))
def test_whatever_comes_is_read(head: bytes, tail: bytes, events: int) -> None:
    tokens_of(head, tail + b'"usage":{' + tail, events)


def test_a_deep_object_is_no_usage() -> None:
    assert tokens_of(b"", b'"usage":' + b'{"a":' * 100_000, 0) == Tokens()
