"""What the chunks of OpenAI's streams have and those of llama-cpp-python lack: a tool's name that is given once, as
clients put the pieces together, and at the end what the answer took, for those who ask with `stream_options`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from llama_cpp import llama_cpp as bindings

Chunk = dict[str, Any]

_KEPT = ("id", "object", "created", "model")


class TokenCount:
    """How many tokens the last computation of `llama` took in and gave out, as its `usage` without a stream has it."""

    def __init__(self, llama: Any) -> None:
        self._llama = llama
        self._generate = llama.generate
        self._prompt = self._answer = 0
        llama.generate = self._counted

    def usage(self) -> dict[str, int]:
        """OpenAI's object of that name."""
        both = self._prompt + self._answer
        return {"prompt_tokens": self._prompt, "completion_tokens": self._answer, "total_tokens": both}

    def _counted(self, tokens: Any, *arguments: Any, **options: Any) -> Iterator[int]:
        self._prompt, self._answer = len(tokens), 0
        for token in self._generate(tokens, *arguments, **options):
            # The end of the answer is a token that is no part of it.
            self._answer += not bindings.llama_vocab_is_eog(self._llama._model.vocab, token)
            yield token


def completed(chunks: Iterable[Chunk], usage: Callable[[], dict[str, int]] | None) -> Iterator[Chunk]:
    """The chunks as OpenAI's clients expect them; the last one has no choices but `usage`, if that is given."""
    known: set[tuple[int, int]] = set()
    chunk: Chunk = {}
    for chunk in chunks:
        for choice in chunk["choices"]:
            _name_once(choice, known)
        yield chunk if usage is None else {**chunk, "usage": None}
    if usage is not None:
        yield {**{key: chunk[key] for key in _KEPT if key in chunk}, "choices": [], "usage": usage()}


def _name_once(choice: Chunk, known: set[tuple[int, int]]) -> None:
    """Leave out what a chunk before has said of a call, in `function_call` too, which repeats the first one."""
    delta = choice.get("delta") or {}
    for call in delta.get("tool_calls") or ():
        place = choice["index"], call["index"]
        if place in known:
            call.pop("id", None)
            call.pop("type", None)
            call["function"].pop("name", None)
            (delta.get("function_call") or {}).pop("name", None)
        known.add(place)
