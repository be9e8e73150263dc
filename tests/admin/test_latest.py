"""Lists of models are as the supervisor has it at that moment, though it tells only what changed."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_supervisor import FakeSupervisor, model
from keyed_web import keyed_web, without_keys
from made_keys import bearer, make, revoke
from web_tier import WebTier

from admin.latest import Latest
from supervisor import protocol
from supervisor.protocol import Message

DEADLINE = 10.0


class Book:
    """What the real one tells, for a FakeSupervisor: `change` is of one model; `asked` lists what was known."""

    def __init__(self, supervisor: FakeSupervisor, *names: str) -> None:
        self._supervisor = supervisor
        self.epoch = secrets.token_hex(4)
        self._number = 0
        self._numbers = dict.fromkeys(names, 0)
        self.asked: list[str | None] = []
        supervisor.models = [model(name) for name in names]
        supervisor.answers["status"] = self._answer

    def change(self, name: str, **fields: Any) -> None:
        self._number += 1
        self._numbers[name] = self._number
        self._supervisor.models = [each | fields if each["name"] == name else each for each in self._supervisor.models]

    def _answer(self, message: Message) -> Message:
        known = message.get("known")
        self.asked.append(known)
        answer = protocol.ok(status=self._supervisor.status(), as_of=f"{self.epoch}-{self._number}")
        epoch, _, number = (known or "").rpartition("-")
        if epoch != self.epoch:
            return answer
        answer["since"] = known
        models = answer["status"]["models"]
        answer["status"]["models"] = [each for each in models if self._numbers[each["name"]] > int(number)]
        return answer


def states(web: WebTier, headers: dict[str, str] | None = None) -> dict[str, str]:
    answer = web.request("GET", "/v1/models", headers=headers).json
    return {entry["id"]: entry["status"]["detail"]["state"] for entry in answer["data"]}


def test_a_change_is_seen_by_the_very_next_request(web: WebTier, supervisor: FakeSupervisor) -> None:
    book = Book(supervisor, "a", "b")
    assert states(web) == {"a": "stopped", "b": "stopped"}
    for state in ("starting", "ready", "stopping", "stopped", "failed"):
        book.change("b", state=state)
        assert states(web) == {"a": "stopped", "b": state}
    assert book.asked[1:] == [f"{book.epoch}-{number}" for number in range(5)]


def test_the_list_is_the_same_while_nothing_changes(web: WebTier, supervisor: FakeSupervisor) -> None:
    Book(supervisor, "a", "b")
    answers = [web.request("GET", "/models") for _ in range(3)]
    assert len({answer.body for answer in answers}) == 1
    assert {answer.headers["content-type"] for answer in answers} == {"application/json"}


def test_it_is_what_each_entry_is(web: WebTier, supervisor: FakeSupervisor) -> None:
    book = Book(supervisor, "a", "b")
    for state in ("stopped", "ready"):
        book.change("a", state=state, aliases=["half a pair: \udcff"])
        listed = web.request("GET", "/models").json
        assert listed == {"data": [web.request("GET", f"/models/{name}").json for name in "ab"], "object": "list"}


def test_another_supervisor_is_believed(web: WebTier, supervisor: FakeSupervisor) -> None:
    book = Book(supervisor, "a", "b")
    book.change("a", state="ready")
    assert states(web) == {"a": "ready", "b": "stopped"}
    Book(supervisor, "b", "c")
    assert states(web) == {"b": "stopped", "c": "stopped"}


def test_one_that_tells_all_each_time_is_understood(web: WebTier, supervisor: FakeSupervisor) -> None:
    Book(supervisor, "a")
    assert states(web) == {"a": "stopped"}
    del supervisor.answers["status"]
    for names in ("ab", "b"):
        supervisor.models = [model(name, state="ready") for name in names]
        assert states(web) == dict.fromkeys(names, "ready")


def test_an_answer_that_is_late_does_not_undo_a_later_one(supervisor: FakeSupervisor, tmp_path: Path) -> None:
    """Each is to what was known when it was asked."""
    book = Book(supervisor, "a", "b")
    latest = Latest(supervisor.path.parent, DEADLINE)
    latest.status()
    book.change("a", state="starting")
    tell, late, answer = book._answer, threading.Event(), []

    def wait(message: Message) -> Message:
        told = tell(message)
        supervisor.answers["status"] = tell
        supervisor.seen.append(("asked", None))
        late.wait(DEADLINE)
        return told

    supervisor.answers["status"] = wait
    asking = threading.Thread(target=lambda: answer.append(latest.status()))
    asking.start()
    supervisor.wait(lambda: supervisor.answers["status"] == tell)
    book.change("a", state="ready")
    book.change("b", state="ready")
    assert [each["state"] for each in latest.status()["models"]] == ["ready", "ready"]
    late.set()
    asking.join(DEADLINE)
    assert [each["state"] for each in answer[0]["models"]] == ["starting", "stopped"]
    assert [each["state"] for each in latest.status()["models"]] == ["ready", "ready"]


@pytest.fixture(scope="module")
def keyed(shared_supervisor: FakeSupervisor, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebTier]:
    with keyed_web(shared_supervisor, tmp_path_factory.mktemp("latest")) as running:
        yield running
    without_keys(running)


def test_each_key_sees_its_models_alone(keyed: WebTier, supervisor: FakeSupervisor) -> None:
    book = Book(supervisor, "a", "b", "secret")
    everything = bearer(make(keyed.state_dir, "all"))
    some = bearer(make(keyed.state_dir, "some", models=("a", "b")))
    one = bearer(make(keyed.state_dir, "one", models=("secret",)))
    for state in ("ready", "stopped"):
        book.change("secret", state=state)
        for _ in range(2):
            assert states(keyed, everything) == {"a": "stopped", "b": "stopped", "secret": state}
            assert states(keyed, some) == {"a": "stopped", "b": "stopped"}
            assert states(keyed, one) == {"secret": state}
    revoke(keyed.state_dir, "one")
    assert keyed.request("GET", "/v1/models", headers=one).status == 401
