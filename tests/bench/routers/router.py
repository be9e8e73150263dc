"""What the measurements know of a router: that it can be started for some models, asked, and looked at from outside."""

from __future__ import annotations

import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from tests.bench.processes import Program, descendants, end_all
from tests.bench.wire import Address, Broken, ask, get, loopback, post

ROOT = Path(__file__).resolve().parents[3]
VENV = Path(sys.prefix)
SMALL = VENV / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf"
LARGE = VENV / "models" / "gemma-3-270m.gguf"
UPSTREAM = Path(__file__).parents[1] / "upstream.py"
CONTEXT = 2048
THREADS = 1  # llama.cpp's threads spin when they wait for each other, which ruins figures on a busy machine
START_SECONDS = 90.0
GLANCE = 0.005  # seconds between two looks at whether a router answers


class CannotStart(Exception):
    """The router did not come up. The message has the end of its log."""


@dataclass(frozen=True)
class Model:
    """A model of a scene: a GGUF file, or None for the upstream that only streams."""

    name: str
    file: Path | None
    tokenizes: bool = False  # has to answer POST /tokenize, which takes a llama-server


@dataclass(frozen=True)
class Scene:
    """What a router is started with."""

    name: str
    models: tuple[Model, ...]
    room: int  # how many may be loaded at once


class Router(ABC):
    """One router. `start`, ask it at `address`, `stop`; only one runs at a time."""

    name: str
    cannot: ClassVar[Mapping[str, str]] = {}  # why, by the name of the measurement
    serves_only_gguf = False  # true: it can't be in front of the upstream that only streams
    most_turns = 9  # of those that take long, fewer
    counts_cpu = True  # false: its processes are the models' too
    health = "/health"
    is_ours = False
    is_limit = False  # no router at all: the model server, asked directly

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.address = loopback()
        self.program: Program | None = None
        self.started_in = 0.0  # seconds, from its start to the first list of models
        self._others: list[Program] = []

    @abstractmethod
    def missing(self) -> str | None:
        """Why it can't be run here, None if it can."""

    @abstractmethod
    def version(self) -> str:
        """As the program tells it."""

    @abstractmethod
    def argv(self, scene: Scene) -> Sequence[str | Path]:
        """The command line; what it reads is written to `directory` before."""

    def env(self) -> Mapping[str, str]:
        """What its environment has beside the benchmark's."""
        return {}

    # What it is asked

    def tokenize(self, model: str) -> bytes:
        """The small request."""
        return post("/tokenize", {"model": model, "content": "The quick brown fox"})

    def stream(self, model: str, pace: str, chunks: int) -> bytes:
        """A stream of so many chunks; `pace` is for the upstream that only streams."""
        content = [{"role": "user", "content": pace}]
        return post("/v1/chat/completions", {"model": model, "stream": True, "max_tokens": chunks, "messages": content})

    def completion(self, model: str, tokens: int, *, stream: bool = False) -> bytes:
        """A completion of so many tokens at most."""
        asked = {"model": model, "prompt": "Once upon a time", "max_tokens": tokens, "stream": stream, "temperature": 0}
        return post("/v1/completions", asked)

    def address_of(self, model: Model) -> Address:
        """Where to ask for a model."""
        return self.address

    def pages(self) -> list[bytes]:
        """What has to be answered while streams run."""
        return [get(self.health)]

    # What it is seen to be

    def model_servers(self) -> set[int]:
        """The processes of its models, without those that they started. For most routers: all that is below it."""
        return descendants(self.pid)

    def own(self) -> set[int]:
        """The processes of the router itself."""
        models = self.model_servers()
        return ({self.pid} | descendants(self.pid)) - models - descendants(*models)

    @property
    def pid(self) -> int:
        """The process that was started."""
        assert self.program is not None
        return self.program.pid

    # Its life

    def start(self, scene: Scene) -> None:
        """Start it and wait until it lists its models. Raises CannotStart, OSError."""
        self.address = loopback()
        self.before(scene)
        argv = self.argv(scene)
        began = time.monotonic()
        self.program = Program(argv, self.directory / f"{self.name}.log", self.env())
        self.await_answer(self.program, self.address, "/v1/models")
        self.started_in = time.monotonic() - began

    def before(self, scene: Scene) -> None:  # noqa: B027
        """Start what the router itself does not start; most start all."""

    def beside(self, *argv: str | Path) -> Program:
        """Start a program that runs beside the router."""
        self._others.append(Program(argv, self.directory / f"{self.name}-{len(self._others)}.log"))
        return self._others[-1]

    def await_answer(self, program: Program, address: Address, path: str) -> None:
        """Wait until a program answers a GET with 200. Raises CannotStart."""
        until = time.monotonic() + START_SECONDS
        while True:
            try:
                if ask(address, get(path))[0] == 200:
                    return
            except (OSError, Broken):
                pass
            if program.ended:
                raise CannotStart(f"it ended: {program.told()}")
            if time.monotonic() > until:
                raise CannotStart(f"no answer within {START_SECONDS:g} s: {program.told()}")
            time.sleep(GLANCE)

    def stop(self) -> None:
        """End it and all that it, or this, has started."""
        for program in filter(None, [self.program, *self._others]):
            program.stop()
        self.program = None
        self._others.clear()
        end_all()

    @contextmanager
    def running(self, scene: Scene) -> Iterator[None]:
        """Started for the block, and nothing left afterwards."""
        try:
            self.start(scene)
            yield
        finally:
            self.stop()
