"""/models/sse: the supervisor's events as llama-server's router puts them, for many watchers at once."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import router_table
from fake_supervisor import FakeSupervisor, model, reason, replica
from hypothesis import given
from hypothesis import strategies as st
from web_tier import DEADLINE, WebTier, read_until

from admin import gunicorn_conf
from admin.followers import MAX_PUBLIC, MAX_SIGNED_IN
from admin.frames import Frames, frame
from admin.states import VALUES

HEAD_END = b"\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"
FACTS = {
    "args": [],
    "preset": "",
    "architecture": router_table.ARCHITECTURE,
    "meta": router_table.META,
}
REQUESTED = reason("requested", "unloaded on request", code=0)
BROKEN = reason("exited", "exited with code 65 before it was ready", code=1)


class Watching:
    """A client of /models/sse."""

    def __init__(self, client: socket.socket, path: str) -> None:
        self.client = client
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        head, _, self._raw = read_until(client, HEAD_END).partition(HEAD_END)
        status, *lines = head.decode().split("\r\n")
        self.status = int(status.split()[1])
        self.headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}

    def read(self, end: bytes) -> bytes:
        """The body up to `end`, chunks taken apart."""
        body = b""
        while not body.endswith(end):
            body += self._chunk()
        return body

    def read_all(self) -> bytes:
        """The body up to its proper end."""
        body = b""
        while chunk := self._chunk():
            body += chunk
        return body

    def _chunk(self) -> bytes:
        while b"\r\n" not in self._raw:
            self._more()
        size, _, _ = self._raw.partition(b"\r\n")
        whole = len(size) + 2 + int(size, 16) + 2
        while len(self._raw) < whole:
            self._more()
        chunk = self._raw[len(size) + 2 : whole - 2]
        self._raw = self._raw[whole:]
        return chunk

    def _more(self) -> None:
        data = self.client.recv(65536)
        assert data, "the stream broke off"
        self._raw += data


@contextmanager
def watching(web: WebTier, path: str = "/models/sse") -> Iterator[Watching]:
    """Somebody who watches."""
    with web.connect() as client:
        client.settimeout(DEADLINE)
        yield Watching(client, path)


@pytest.fixture
def smol(supervisor: FakeSupervisor) -> FakeSupervisor:
    """A supervisor whose only model is the table's."""
    supervisor.models = [model("smol", aliases=["smol"])]
    supervisor.facts = {"since": 1795376458.5, "revision": "sse"}
    supervisor.told = {"smol": FACTS}
    return supervisor


def change(before: str, after: str, why: Any = None) -> dict[str, Any]:
    return {"model": "smol", "instance": "smol", "from": before, "to": after, "reason": why}


def progress(value: float) -> dict[str, Any]:
    return {"model": "smol", "kind": "progress", "from": None, "to": "starting", "progress": value}


@pytest.mark.parametrize("path", ["/models/sse", "/v1/models/sse"])
@pytest.mark.parametrize(
    "events, expected",
    [
        (
            [change("stopped", "starting"), progress(0.0), progress(1.0), change("starting", "ready")],
            router_table.LOAD,
        ),
        ([change("stopped", "starting"), progress(0.0), change("starting", "failed", BROKEN)], router_table.LOAD_FAILS),
        (
            [
                *(change("stopped", "starting"), progress(0.0)),
                *(change("starting", "stopping", REQUESTED), change("stopping", "stopped", REQUESTED)),
            ],
            router_table.UNLOAD_WHILE_LOADING,
        ),
        (
            [change("ready", "stopping", REQUESTED), change("stopping", "stopped", REQUESTED)],
            router_table.UNLOAD,
        ),
    ],
)
def test_the_recorded_frames(
    web: WebTier, smol: FakeSupervisor, path: str, events: list[dict[str, Any]], expected: bytes
) -> None:
    with watching(web, path) as watcher:
        assert watcher.status == 200
        expected_headers = {name: watcher.headers.get(name) for name in router_table.SSE_HEADERS}
        assert expected_headers["content-type"].startswith("text/event-stream")  # type: ignore[union-attr]
        assert expected_headers["x-accel-buffering"] == "no"
        assert expected_headers["transfer-encoding"] == "chunked"
        for event in events:
            assert smol.emit(**event) == 1
        assert watcher.read(expected.rpartition(b"data: ")[2]) == expected


def test_a_reload_and_what_is_gone_after_it(web: WebTier, smol: FakeSupervisor) -> None:
    smol.models.append(model("gone"))
    with watching(web) as watcher:
        smol.emit(kind="reload", model=None, text="cannot reload, the running configuration is kept")
        smol.emit(**change("stopped", "starting"))
        assert watcher.read(b"\n\n") == frame("smol", "model_status", {"status": "loading"})
        smol.models.pop()
        smol.facts = smol.facts | {"revision": "another"}
        smol.emit(kind="reload", model=None, text="configuration reloaded")
        gone = frame("gone", "model_remove")
        assert watcher.read(gone) == router_table.RELOAD + gone


def test_a_removed_model_is_gone_when_its_requests_are_done(web: WebTier, smol: FakeSupervisor) -> None:
    smol.models = [model("smol", state="ready", removed=True)]
    with watching(web) as watcher:
        smol.emit(**change("ready", "stopping", reason("preset_changed", "its preset changed")))
        smol.emit(**change("stopping", "stopped", reason("preset_changed", "its preset changed")))
        gone = frame("smol", "model_remove")
        assert watcher.read(gone) == router_table.UNLOAD + gone


def test_no_snapshot_and_no_word_of_the_web_tier(web: WebTier, smol: FakeSupervisor) -> None:
    with watching(web) as watcher:
        smol.emit(model="@web", instance="@web")
        smol.emit(kind="queue", model="smol")
        smol.emit(kind="supervisor", model=None)
        smol.emit(**change("ready", "ready"))  # it drains, say
        smol.emit(**change("stopped", "starting"))
        assert watcher.read(b"\n\n") == router_table.LOAD.partition(b"\n\n")[0] + b"\n\n"
    assert smol.of("events")[0]["since"] >= 2**53


def test_head(web: WebTier, smol: FakeSupervisor) -> None:
    answer = web.request("HEAD", "/models/sse")
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert smol.of("events") == []


def test_a_hundred_watchers_share_one_connection(web: WebTier, smol: FakeSupervisor) -> None:
    with ExitStack() as stack:
        watchers = [stack.enter_context(watching(web)) for _ in range(100)]
        assert smol.emit(**change("stopped", "starting")) == 1
        assert {watcher.read(b"\n\n") for watcher in watchers} == {frame("smol", "model_status", {"status": "loading"})}
        for watcher in watchers[1:]:
            watcher.client.close()
        smol.emit(**progress(0.5))
        assert b'"value":0.5' in watchers[0].read(b"\n\n")
        smol.wait(lambda: len(smol.followers()) == 1)
    smol.wait(lambda: not smol.followers())


def test_the_next_watcher_after_the_last_connects_again(web: WebTier, smol: FakeSupervisor) -> None:
    for _ in range(3):
        with watching(web) as watcher:
            smol.emit(**change("stopped", "starting"))
            watcher.read(b"\n\n")
        smol.wait(lambda: not smol.followers())
    assert len(smol.of("events")) == 3


def test_streams_end_with_the_supervisor(web: WebTier, smol: FakeSupervisor) -> None:
    with watching(web) as one, watching(web) as other:
        smol.emit(**change("stopped", "starting"))
        smol.stop()
        try:
            assert {one.read_all(), other.read_all()} == {frame("smol", "model_status", {"status": "loading"})}
            error = web.request("GET", "/models/sse").error
            assert error["message"] == "llama-router's supervisor is not answering"
        finally:
            smol.start()
    with watching(web) as again:
        smol.emit(**change("stopped", "starting"))
        again.read(b"\n\n")


def test_who_does_not_read_is_hung_up_on_and_nobody_else_notices(web: WebTier, smol: FakeSupervisor) -> None:
    long = "n" * 20_000  # so that the kernel's buffers are full soon
    smol.models.append(model(long))
    with watching(web) as slow, watching(web) as quick:
        received: list[bytes] = []
        end = frame("smol", "model_status", {"status": "loading"})
        reader = threading.Thread(target=lambda: received.append(quick.read(end)))
        reader.start()
        for _ in range(750):
            smol.emit(model=long, instance=long, **{"from": "stopped", "to": "starting"})
            smol.emit(model=long, instance=long, **{"from": "starting", "to": "stopped"})
        smol.emit(**change("stopped", "starting"))
        reader.join(DEADLINE)
        assert received[0].count(b"model_status") == 751
        slow.client.settimeout(DEADLINE)
        assert slow.read_all().count(b"\n\n") < 1501


def test_more_watchers_than_a_worker_has_room_for(tmp_path: Path) -> None:
    with ExitStack() as stack:
        fake = FakeSupervisor(tmp_path)
        fake.start()
        stack.callback(fake.stop)
        limits = {"admin.followers.MAX_PUBLIC": 2, "admin.followers.MAX_SIGNED_IN": 1}
        tier = WebTier(tmp_path, constants=limits)
        tier.start()
        stack.callback(tier.close)
        first, second = (stack.enter_context(watching(tier)) for _ in range(2))
        assert (first.status, second.status) == (200, 200)
        assert_no_room(tier, "/models/sse", "/v1/models/sse")
        cookie = f"Cookie: {tier.cookie()}\r\n"
        page = stack.enter_context(watching(tier, f"/ui/events HTTP/1.1\r\n{cookie}X-Rest:"))
        assert page.status == 200  # what anybody may follow takes nothing from who is signed in
        assert_no_room(tier, "/ui/events", "/ui/model-log/m?follow=1")
        assert tier.request("GET", "/health").status == 200
        first.client.close()
        wait_for_room(tier)
        assert_no_room(tier, "/ui/events")


def test_pages_that_are_open_take_no_room_from_the_api(tmp_path: Path) -> None:
    with ExitStack() as stack:
        fake = FakeSupervisor(tmp_path)
        fake.start()
        stack.callback(fake.stop)
        tier = WebTier(tmp_path, constants={"admin.followers.MAX_PUBLIC": 1, "admin.followers.MAX_SIGNED_IN": 2})
        tier.start()
        stack.callback(tier.close)
        cookie = f"Cookie: {tier.cookie()}\r\n"
        pages = [stack.enter_context(watching(tier, f"/ui/events HTTP/1.1\r\n{cookie}X-Rest:")) for _ in range(2)]
        assert [page.status for page in pages] == [200, 200]
        assert_no_room(tier, "/ui/events")
        assert stack.enter_context(watching(tier)).status == 200


def assert_no_room(tier: WebTier, *paths: str) -> None:
    for path in paths:
        answer = tier.request("GET", path)
        assert answer.error["code"] == 503
        assert (answer.headers["retry-after"], answer.headers["connection"]) == ("5", "close")


def wait_for_room(tier: WebTier) -> None:
    end = time.monotonic() + DEADLINE
    while (status := tier.request("HEAD", "/models/sse").status) != 200:
        assert time.monotonic() < end, status


def test_streams_leave_room_for_requests() -> None:
    assert gunicorn_conf.worker_connections >= 4 * (MAX_PUBLIC + MAX_SIGNED_IN)


@pytest.mark.parametrize("workers", [1])
def test_a_worker_that_is_stopped_ends_its_streams(smol: FakeSupervisor, workers: int) -> None:
    tier = WebTier(smol.path.parent / "second", workers=workers)
    tier.runtime_dir.mkdir()
    (tier.runtime_dir / "control.sock").symlink_to(smol.path)
    tier.start()
    try:
        with watching(tier) as watcher:
            tier.terminate()
            assert watcher.read_all() == b""
    finally:
        tier.close()


# Which frames: every order of events


STATES = st.sampled_from(sorted(VALUES.keys() - {"sleeping", "waking"}))
CHANGES = st.lists(st.tuples(st.sampled_from(["m", "m#2", "m#3"]), STATES), max_size=30)


def value_of(replicas: dict[str, str]) -> str:
    values = {VALUES[state] for state in replicas.values()}
    return next((value for value in ("loaded", "loading") if value in values), "unloaded")


@given(CHANGES)
def test_the_last_frame_is_what_the_list_says(changes: list[tuple[str, str]]) -> None:
    """Whatever replicas go through, who goes by the frames knows what GET /models would tell."""
    replicas = dict.fromkeys(["m", "m#2", "m#3"], "stopped")
    listed = [model("m", replicas=[replica(name, state="stopped") for name in replicas])]
    frames = Frames(listed, lambda name: {"id": name})
    known = "unloaded"
    for name, after in changes:
        event = {"kind": "state", "model": "m", "instance": name, "from": replicas[name], "to": after}
        replicas[name] = after
        told = [json.loads(each.removeprefix(b"data: ")) for each in frames.of(event | {"reason": None})]
        assert len(told) <= 1
        for each in told:
            known = each["data"]["status"]
            assert ("exit_code" in each["data"]) == (known == "unloaded")
            assert ("info" in each["data"]) == (known == "loaded")
        assert known == value_of(replicas)


@given(st.text(), st.floats(0, 1))
def test_a_frame_is_one_event(name: str, value: float) -> None:
    sent = frame(name, "status_change", {"status": "loading", "progress": {"value": value}})
    assert sent.startswith(b"data: ") and sent.endswith(b"\n\n") and sent.count(b"\n") == 2 and b"\r" not in sent
    assert json.loads(sent[6:])["data"]["progress"]["value"] == value


def test_replicas_that_start_together_are_one_load() -> None:
    replicas = [replica("m", state="stopped"), replica("m#2", state="stopped")]
    frames = Frames([model("m", replicas=replicas)], lambda name: {"id": name})
    event = {"kind": "state", "model": "m", "from": "stopped", "to": "starting", "reason": None}
    assert frames.of(event | {"instance": "m"}) == [frame("m", "model_status", {"status": "loading"})]
    assert frames.of(event | {"instance": "m#2"}) == []


def test_a_further_replica_is_no_load() -> None:
    replicas = [replica("m", state="ready"), replica("m#2", state="stopped")]
    frames = Frames([model("m", state="ready", replicas=replicas)], lambda name: {"id": name})
    event = {"kind": "state", "model": "m", "instance": "m#2", "from": "stopped", "to": "starting", "reason": None}
    assert frames.of(event) == []
    assert frames.of({"kind": "progress", "model": "m", "progress": 0.5}) == []
    assert frames.of(event | {"from": "starting", "to": "failed", "reason": BROKEN}) == []
    crashed = frames.of(event | {"instance": "m", "from": "ready", "to": "backoff", "reason": BROKEN})
    assert crashed == [frame("m", "status_change", {"status": "loading"})]
    again = frames.of(event | {"instance": "m", "from": "backoff", "to": "starting"})
    assert again == [frame("m", "model_status", {"status": "loading"})]


def test_a_server_that_sleeps() -> None:
    frames = Frames([model("m", state="ready")], lambda name: {"id": name})
    event = {"kind": "state", "model": "m", "instance": "m", "from": "ready", "to": "ready", "reason": None}
    assert frames.of(event | {"sleeping": True}) == [frame("m", "status_change", {"status": "sleeping"})]
    assert frames.of(event | {"sleeping": True}) == []
    assert frames.of(event | {"sleeping": False}) == [frame("m", "status_change", {"status": "loaded"})]
    frames.of(event | {"sleeping": True})
    wakes = {"sleeping": True, "progress": 0.0}
    assert frames.of(event | wakes) == [frame("m", "status_change", {"status": "loading"})]
    (progress,) = frames.of(event | wakes | {"kind": "progress"})
    assert json.loads(progress[6:])["data"]["progress"]["value"] == 0.0
    assert frames.of(event | {"sleeping": False}) == [frame("m", "status_change", {"status": "loaded"})]
    frames.of(event | {"sleeping": True})
    frames.of(event | wakes)
    ended = frames.of(event | {"to": "stopping", "reason": REQUESTED})
    assert ended == [frame("m", "status_change", {"status": "unloaded", "exit_code": 0})]


@pytest.mark.parametrize(
    "before, why, code",
    [
        ("ready", REQUESTED, 0),
        ("ready", reason("evicted", "evicted for b", signal="SIGKILL"), 0),
        ("ready", reason("idle", "unloaded when idle", code=1), 0),
        ("ready", reason("exited", "exited with code 0", code=0), 0),
        ("ready", reason("exited", "exited with code 7", code=7), 7),
        ("ready", reason("watchdog", "no sign of life"), 1),
        ("ready", None, 1),
        ("starting", REQUESTED, 1),
        ("starting", reason("exited", "exited with code 0", code=0), 1),
        ("backoff", reason("killed", "killed by SIGSEGV", signal="SIGSEGV"), 1),
    ],
)
def test_exit_codes(before: str, why: Any, code: int) -> None:
    frames = Frames([model("m", state=before)], lambda name: {"id": name})
    event = {"kind": "state", "model": "m", "instance": "m", "from": before, "to": "stopped", "reason": why}
    assert frames.of(event) == [frame("m", "status_change", {"status": "unloaded", "exit_code": code})]
