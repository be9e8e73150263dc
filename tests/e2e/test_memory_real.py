"""Two real models under a memory budget: estimated, measured, evicted by what they take, and replicas that share."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Iterator

import pytest
from served import MODEL, Served

GEMMA = "gemma"
MIB = 2**20


@pytest.fixture
def served() -> Iterator[Served]:
    """Both models, with memory enough for either but not for both."""
    with Served(config="max_wait: 100ms\nmemory: {host: 480MiB}\n") as supervisor:
        supervisor.serve(MODEL, context=1024)
        supervisor.serve(GEMMA, weights="gemma", context=1024)
        yield supervisor.start(until="READY=1")


def ask(served: Served, model: str) -> str:
    create = served.openai().completions.create
    return create(model=model, prompt="The capital of France is", max_tokens=8, temperature=0).choices[0].text


def need(served: Served, model: str) -> tuple[str, float]:
    memory = served.model(model)["memory"]
    return memory["source"], memory["need"]["host"] / MIB


def test_what_is_estimated_is_measured_once_it_served_and_remembered(served: Served) -> None:
    source, estimate = need(served, MODEL)
    assert source == "estimated" and 200 < estimate < 500
    assert "weights" in served.model(MODEL)["memory"]["parts"]
    served.load(MODEL)
    served.eventually(lambda: bool(served.model(MODEL)["memory"]["used"]), "it is measured")
    assert served.model(MODEL)["memory"]["used"]["host"] > 0.5 * estimate * MIB
    assert need(served, MODEL)[0] == "estimated", "nothing was served yet"
    served.call("unload", model=MODEL, wait=True)


def test_the_two_do_not_fit_together_and_swap_by_memory_alone(served: Served) -> None:
    watch = served.watch(MODEL)
    assert "Paris" in ask(served, MODEL)
    assert ask(served, GEMMA)
    assert watch.state("stopped")["reason"]["text"] == f"evicted for {GEMMA}"
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda name: ask(served, name), [MODEL, GEMMA] * 3))
    assert all(answers) and answers[0] == answers[2] == answers[4]
    assert all(model["restarts"] == 0 for model in served.status()["models"])


def test_a_context_that_can_never_fit_is_refused_with_the_numbers(served: Served) -> None:
    served.serve("long", context=8192, replicas=1, options={"n_batch": 8192, "n_ubatch": 8192})
    notices = [event["text"] for event in served.watch(None).seen]
    assert not notices
    with pytest.raises(Exception, match=r"cannot be loaded: it needs .* of host .*KV cache.*memory allows 480 MiB"):
        ask(served, "long")
    assert "Paris" in ask(served, MODEL), "the others are not affected"


def test_replicas_serve_at_the_same_time_and_share_their_weights() -> None:
    with Served() as supervisor:
        supervisor.serve(MODEL, replicas=2, context=1024, threads=1)  # on 2 cores, more would wait for each other
        supervisor.start(until="READY=1")
        supervisor.load(MODEL)
        supervisor.watch(MODEL).text(f"{MODEL}#2: ready")
        create = supervisor.openai().completions.create
        streams = [
            create(model=MODEL, prompt="Once upon a time", max_tokens=450, temperature=0, stream=True) for _ in range(2)
        ]
        for _ in range(3):
            assert all(next(stream).choices for stream in streams)
        assert [replica["in_flight"] for replica in supervisor.model(MODEL)["replicas"]] == [1, 1]
        for stream in streams:
            stream.close()
        supervisor.eventually(lambda: supervisor.model(MODEL)["in_flight"] == 0, "both streams are over")
        supervisor.eventually(lambda: bool(supervisor.model(MODEL)["memory"]["used"]), "they are measured")
        used = supervisor.model(MODEL)["memory"]["used"]["host"]
        print(f"two replicas of SmolLM2 use {used / MIB:.0f} MiB together")
        weights = 88 * MIB
        assert used < 2 * (supervisor.model(MODEL)["memory"]["need"]["host"] - weights), "the weights count once"
