"""The supervisor's program is replaced while a real model answers."""

from __future__ import annotations

from served import MODEL, Served

LONG = [{"role": "user", "content": "Write a long story about a lighthouse keeper and the sea."}]


def test_an_answer_streams_on_and_is_the_same(served: Served) -> None:
    create = served.openai().chat.completions.create
    whole = create(model=MODEL, messages=LONG, max_tokens=200, temperature=0, seed=1).choices[0].message.content
    before = served.model(MODEL)
    stream = create(model=MODEL, messages=LONG, max_tokens=200, temperature=0, seed=1, stream=True)
    pieces = [next(stream).choices[0].delta.content]
    assert "reexec" in served.call("reexec")
    pieces += [chunk.choices[0].delta.content for chunk in stream if chunk.choices]
    assert "".join(piece or "" for piece in pieces) == whole
    after = served.model(MODEL)
    assert (after["pid"], after["launch"]) == (before["pid"], before["launch"])
    assert create(model=MODEL, messages=LONG, max_tokens=4).choices
