"""Two real models behind one supervisor: side by side, and by turns where there is room for one."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Iterator
from typing import Any

import pytest
from served import MODEL, Served

GEMMA = "gemma"
PROMPT = "The capital of France is"


def two_models(max_models: int, config: str = "") -> Served:
    supervisor = Served(max_models=max_models, config=config)
    supervisor.serve(MODEL, context=512)
    supervisor.serve(GEMMA, weights="gemma", context=512)
    return supervisor


@pytest.fixture
def one_at_a_time() -> Iterator[Served]:
    """Room for one of the two; who waits takes it over after a tenth of a second."""
    with two_models(1, "max_wait: 100ms\n") as supervisor:
        yield supervisor.start(until="READY=1")


@pytest.fixture
def side_by_side() -> Iterator[Served]:
    """Room for both."""
    with two_models(2) as supervisor:
        yield supervisor.start(until="READY=1")


def ask(served: Served, model: str, max_tokens: int = 8) -> str:
    """What a model says after PROMPT, at temperature 0."""
    create = served.openai().completions.create
    answer = create(model=model, prompt=PROMPT, max_tokens=max_tokens, temperature=0)
    assert answer.model == model
    return answer.choices[0].text


def running(served: Served) -> set[str]:
    return {model["name"] for model in served.status()["models"] if model["pid"] is not None}


def test_the_model_that_is_asked_for_takes_the_place_of_the_other(one_at_a_time: Served) -> None:
    watch = one_at_a_time.watch(MODEL)
    assert "Paris" in ask(one_at_a_time, MODEL)
    assert running(one_at_a_time) == {MODEL}
    assert "France" in ask(one_at_a_time, GEMMA)
    assert running(one_at_a_time) == {GEMMA}
    assert watch.state("stopped")["reason"]["text"] == f"evicted for {GEMMA}"
    assert "Paris" in ask(one_at_a_time, MODEL)


def test_both_answer_at_the_same_time(side_by_side: Served) -> None:
    for name in (MODEL, GEMMA):
        side_by_side.call("load", model=name, wait=True)
    create = side_by_side.openai().completions.create
    story: dict[str, Any] = {"prompt": "Once upon a time", "max_tokens": 450, "temperature": 0, "stream": True}
    streams = [create(model=name, **story) for name in (MODEL, GEMMA)]
    # By turns: neither can be whole before the other has begun.
    for _ in range(5):
        assert all(next(stream).choices for stream in streams)
    assert {model["name"]: model["in_flight"] for model in side_by_side.status()["models"]} == {GEMMA: 1, MODEL: 1}
    for stream in streams:
        stream.close()


def test_the_two_have_different_words(side_by_side: Served) -> None:
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda name: ask(side_by_side, name), [MODEL, GEMMA] * 2))
    assert answers[0] == answers[2] != answers[1] == answers[3]


def test_every_request_is_answered_while_two_models_take_turns(one_at_a_time: Served) -> None:
    watch = one_at_a_time.watch(MODEL)

    def client(first: int) -> list[str]:
        names = [MODEL, GEMMA] * 2
        return [ask(one_at_a_time, name, max_tokens=4) for name in names[first:] + names[:first]]

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(client, [0, 1, 0, 1]))
    assert answers[0] == answers[2] and answers[1] == answers[3]
    assert all(text for texts in answers for text in texts)
    for _ in range(2):
        assert watch.state("stopped")["reason"]["text"] == f"evicted for {GEMMA}"
    models = one_at_a_time.status()["models"]
    assert len(running(one_at_a_time)) == 1
    assert [(model["restarts"], model["in_flight"], model["waiting"]) for model in models] == [(0, 0, 0)] * 2
