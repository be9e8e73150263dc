"""The status object, whole and as what differs from an answer before: at each moment the same."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from harness import Supervisor

from supervisor.protocol import Message

Start = Callable[..., Supervisor]


class Follower:
    """Keeps what it was told, as the web tier does."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self.models: dict[str, Message] = {}
        self.as_of: str | None = None

    def ask(self) -> set[str] | None:
        """The names of those that differ; None where all are told. Then it has what a whole answer has."""
        names: set[str] | None = set()
        while True:
            answer = self._supervisor.call("status", known=self.as_of)
            told = {model["name"]: model for model in answer["status"]["models"]}
            only_new = "since" in answer
            assert answer.get("since") == (self.as_of if only_new else None)
            self.models = self.models | told if only_new else told
            names = names | told.keys() if only_new and names is not None else None
            self.as_of = answer["as_of"]
            whole = self._supervisor.call("status")
            assert "since" not in whole
            if whole["as_of"] == self.as_of:  # else something was measured meanwhile
                assert list(self.models.values()) == whole["status"]["models"]
                return names


def test_what_did_not_change_is_told_once(supervisor: Supervisor) -> None:
    for name in ("c", "a", "b"):
        supervisor.add(name)
    follower = Follower(supervisor)
    assert follower.ask() is None
    assert list(follower.models) == ["a", "b", "c"]
    assert follower.ask() == set()


def test_changes_are_told_at_once(supervisor: Supervisor) -> None:
    for name in ("a", "b"):
        supervisor.add(name)
    follower = Follower(supervisor)
    follower.ask()
    assert supervisor.load("a")["state"] == "ready"
    assert follower.ask() == {"a"}
    assert follower.models["a"]["pid"] is not None
    lease = supervisor.lease("b")
    lease.grant()
    follower.ask()
    assert follower.models["b"]["in_flight"] == 1
    lease.release()
    supervisor.eventually(lambda: supervisor.model("b")["served"] == 1, "the release has arrived")
    follower.ask()
    assert (follower.models["b"]["in_flight"], follower.models["b"]["served"]) == (0, 1)
    supervisor.call("unload", model="a", wait=True)
    follower.ask()
    assert (follower.models["a"]["state"], follower.models["a"]["pid"]) == ("stopped", None)


def test_two_followers_each_hear_all(supervisor: Supervisor) -> None:
    supervisor.add("a")
    one, other = Follower(supervisor), Follower(supervisor)
    one.ask()
    other.ask()
    supervisor.load("a")
    assert one.ask() == {"a"}
    assert other.ask() == {"a"}


def test_each_replica_counts(supervisor: Supervisor) -> None:
    supervisor.add("a", replicas=2, max_concurrency=1)
    follower = Follower(supervisor)
    follower.ask()
    leases = [supervisor.lease("a"), supervisor.lease("a")]
    for lease in leases:
        lease.grant()
    assert follower.ask() == {"a"}
    assert [each["in_flight"] for each in follower.models["a"]["replicas"]] == [1, 1]


def test_a_failure_and_the_end_of_it(supervisor: Supervisor) -> None:
    supervisor.add("a", "say=no such file", "exit=66")
    follower = Follower(supervisor)
    follower.ask()
    supervisor.call("load", model="a", wait=False)
    supervisor.watch("a").state("failed")
    assert follower.ask() == {"a"}
    assert follower.models["a"]["reason"]["code"] == 66
    supervisor.call("reset", model="a")
    assert follower.ask() == {"a"}
    assert follower.models["a"]["state"] == "stopped"


def test_a_reload_is_told(supervisor: Supervisor) -> None:
    supervisor.add("a")
    supervisor.add("b")
    follower = Follower(supervisor)
    follower.ask()
    supervisor.add("a", description="another one")
    assert follower.ask() == {"a"}, "the same models"
    supervisor.add("c")
    assert follower.ask() is None
    supervisor.remove("b")
    assert follower.ask() is None
    assert list(follower.models) == ["a", "c"]


def test_where_a_preset_stands_may_change_alone(supervisor: Supervisor) -> None:
    supervisor.add("a")
    follower = Follower(supervisor)
    follower.ask()
    path = supervisor.presets / "a.yaml"
    path.write_text(f"\n\n{path.read_text()}")
    supervisor.call("reload")
    assert follower.ask() == {"a"}


def test_what_nobody_told_is_answered_in_full(supervisor: Supervisor) -> None:
    supervisor.add("a")
    as_of = supervisor.call("status")["as_of"]
    wrong: list[Any] = ["", "-", "-1", "x-1", f"{as_of}x", as_of.replace("-", "--"), as_of.partition("-")[0], None]
    wrong.append(f"{as_of.partition('-')[0]}-{'9' * 5000}")
    for known in wrong:
        answer = supervisor.call("status", known=known)
        assert "since" not in answer
        assert len(answer["status"]["models"]) == 1


def test_another_program_knows_nothing_of_it(supervisors: Start) -> None:
    supervisor = supervisors().start("READY=1")
    supervisor.add("a")
    supervisor.load("a")
    follower = Follower(supervisor)
    follower.ask()
    before = follower.as_of
    supervisor.call("reexec")
    assert follower.ask() is None
    assert before is not None
    assert follower.as_of is not None
    assert before.partition("-")[0] != follower.as_of.partition("-")[0]
    assert supervisor.model("a")["state"] == "ready"


def test_times_are_of_the_wall_clock(supervisor: Supervisor) -> None:
    began = time.time()
    supervisor.load("a")
    supervisor.call("unload", model="a", wait=True)
    assert began - 1 <= supervisor.model("a")["since"] <= time.time() + 1
