"""Keys in the real web tier: they count at once, are nobody else's business, and what can't be read is closed."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import recorded_answers as real
from fake_supervisor import FakeSupervisor, event_of, model
from fake_upstream import Call, Serve
from keyed_web import CHAT, chat, keyed_web, lines, status_of, without_keys
from made_keys import bearer, connection_to, forget_all, make, revoke, stored
from web_tier import DEADLINE, FOREIGN, WebTier, chat_request, read_all, read_until

from supervisor.core import keys
from supervisor.core.keys import KEYS_FILE
from supervisor.errors import Refused

ANSWER = real.CHAT


@pytest.fixture(scope="module")
def tier(shared_supervisor: FakeSupervisor, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebTier]:
    with keyed_web(shared_supervisor, tmp_path_factory.mktemp("keyed"), workers=2) as running:
        yield running


@pytest.fixture
def state(tier: WebTier) -> Iterator[Path]:
    """The state directory, without keys before and after."""
    yield tier.state_dir
    without_keys(tier)
    assert status_of(tier) == 200


def everywhere(tier: WebTier, headers: dict[str, str]) -> set[int]:
    """The status that a request gets from each worker: so many reach both."""
    return {status_of(tier, headers) for _ in range(12)}


def test_without_keys_the_api_is_open(tier: WebTier, state: Path, supervisor: FakeSupervisor) -> None:
    assert everywhere(tier, {}) == everywhere(tier, bearer("unused")) == {200}


def test_keys_count_at_once(tier: WebTier, state: Path, supervisor: FakeSupervisor) -> None:
    assert everywhere(tier, {}) == {200}
    secret = make(state)
    assert everywhere(tier, {}) == {401}
    assert everywhere(tier, bearer(secret)) == {200}
    revoke(state)
    assert everywhere(tier, bearer(secret)) == {401}
    assert everywhere(tier, {}) == {401}, "the last key is revoked, not forgotten"
    forget_all(state)
    assert everywhere(tier, {}) == {200}


def test_a_key_ends(tier: WebTier, state: Path, supervisor: FakeSupervisor) -> None:
    secret = make(state, expires=time.time() + 3600)
    assert status_of(tier, bearer(secret)) == 200
    with connection_to(state) as connection:
        connection.execute("UPDATE keys SET expires = ?", (time.time(),))
    connection.close()
    assert everywhere(tier, bearer(secret)) == {401}


@pytest.mark.parametrize(
    "header",
    [
        {"Authorization": "Bearer {}"},
        {"Authorization": "bearer  {}"},
        {"Authorization": "{}"},
        {"X-Api-Key": "{}"},
        {"X-Api-Key": "Bearer {}"},
        *(
            {"Authorization": none, "X-Api-Key": "{}"}
            for none in ("", "Bearer ", "bearer", "Basic dTpw", "Digest a=b, c=d")
        ),
        {"Authorization": "Bearer {}", "X-Api-Key": "wrong"},
    ],
)
def test_how_a_key_is_shown(tier: WebTier, state: Path, supervisor: FakeSupervisor, header: dict[str, str]) -> None:
    secret = make(state)
    assert status_of(tier, {name: value.format(secret) for name, value in header.items()}) == 200


@pytest.mark.parametrize(
    "header",
    [
        {"Authorization": "Bearer "},
        {"Authorization": "Bearer {}x"},
        {"Authorization": "Basic {}"},
        *({"Authorization": wrong, "X-Api-Key": "{}"} for wrong in ("wrong", "Bearer wrong", "Bearer Basic dTpw")),
        {"Cookie": "key={}"},
        {"Authorization": "Bearer \xff"},
    ],
)
def test_what_is_no_key(tier: WebTier, state: Path, supervisor: FakeSupervisor, header: dict[str, str]) -> None:
    secret = make(state)
    assert status_of(tier, {name: value.format(secret) for name, value in header.items()}) == 401
    assert status_of(tier, path=f"/v1/models?api_key={secret}") == 401


def test_a_session_is_as_good(tier: WebTier, state: Path, supervisor: FakeSupervisor, serve: Serve) -> None:
    make(state)
    serve(lambda call: call.reply(ANSWER))
    host = f"127.0.0.1:{tier.address[1]}"
    viewer, admin = ({"Cookie": tier.cookie(host, role)} for role in ("viewer", "admin"))  # type: ignore[arg-type]
    assert chat(tier, viewer).status == chat(tier, admin).status == 200
    assert tier.post("/models/load", {"model": "m"}, viewer).error["message"].startswith("you are signed in as viewer")
    assert tier.post("/models/load", {"model": "m"}, admin).status == 200
    for foreign in FOREIGN:
        assert chat(tier, admin | foreign).status == 403
    assert chat(tier, admin | bearer("wrong")).status == 401, "a wrong key is an error, whoever shows it"
    assert chat(tier, admin | {"Authorization": "Basic dTpw"}).status == 200, "that is for a proxy"


def test_a_key_is_no_forgery(tier: WebTier, state: Path, supervisor: FakeSupervisor, serve: Serve) -> None:
    shows = bearer(make(state))
    serve(lambda call: call.reply(ANSWER))
    for foreign in FOREIGN:
        assert tier.post("/models/load", {"model": "m"}, shows | foreign).status == 200
        assert chat(tier, shows | foreign).status == 200
        assert tier.post("/models/load", {"model": "m"}, foreign).status == 401


def test_a_key_goes_nowhere(tier: WebTier, state: Path, supervisor: FakeSupervisor, serve: Serve) -> None:
    secret = make(state, "alice")
    upstream = serve(lambda call: call.reply(ANSWER))
    assert chat(tier, bearer(secret) | {"X-Api-Key": secret, "X-Request-Id": secret}).status == 200
    call = upstream.call()
    assert secret not in f"{call.fields} {call.line}"
    assert secret not in str(supervisor.seen)
    rows = wait_for_rows(tier, state)
    assert [row["key"] for row in rows] == ["alice"]
    tier_files = b"".join(path.read_bytes() for path in tier.runtime_dir.rglob("*") if path.is_file())
    assert secret.encode() not in tier_files


def wait_for_rows(tier: WebTier, state: Path) -> list[dict[str, object]]:
    """The activity, once the only key's usage is written."""
    end = time.monotonic() + DEADLINE
    while time.monotonic() < end:
        rows: list[dict[str, object]] = tier.request("GET", "/ui/activity/requests.json?text=").json
        if found := [row for row in rows if row["key"] == "alice"]:
            return found
    raise AssertionError("there is no row")


def test_what_it_used_is_counted(tier: WebTier, state: Path, supervisor: FakeSupervisor, serve: Serve) -> None:
    shows = bearer(make(state))
    serve(lambda call: call.reply(ANSWER))
    before = time.time()
    for _ in range(6):
        assert chat(tier, shows).status == 200
    status_of(tier, shows)
    end = time.monotonic() + DEADLINE
    while (used := stored(state)).requests < 6 and time.monotonic() < end:
        pass
    assert (used.requests, used.tokens_in, used.tokens_out) == (6, 6 * 32, 6 * 6)
    assert used.last_used is not None
    assert before - 1 < used.last_used < time.time() + 1


# Models


def test_a_key_sees_its_models_alone(tier: WebTier, state: Path, supervisor: FakeSupervisor, serve: Serve) -> None:
    shows = bearer(make(state, models=("qwen-*", "small")))
    supervisor.models = [model("qwen-8b", waiting=1), model("gemma", waiting=2), model("tiny", aliases=["small"])]
    waiters = [{"model": name, "who": "x", "since": 0.0, "why": ""} for name in ("qwen-8b", "gemma")]
    supervisor.facts = {"queue": waiters}
    assert [entry["id"] for entry in tier.request("GET", "/v1/models", headers=shows).json["data"]] == [
        "qwen-8b",
        "tiny",
    ]
    assert (
        tier.request("GET", "/v1/models/gemma", headers=shows).error["message"] == "this key may not use model 'gemma'"
    )
    assert tier.request("GET", "/v1/models/small", headers=shows).json["id"] == "tiny"
    assert tier.request("GET", "/queue", headers=shows).json == {"object": "list", "data": waiters[:1], "waiting": 1}
    serve(lambda call: call.reply(ANSWER), "tiny")
    assert chat(tier, shows, "tiny").status == 200
    assert chat(tier, shows, "gemma").error == {
        "code": 403,
        "message": "this key may not use model 'gemma'",
        "type": "permission_error",
    }
    assert chat(tier, shows, "gone").error["message"] == "model 'gone' not found"
    assert tier.post("/models/unload", {"model": "gemma"}, shows).status == 403
    assert tier.post("/models/unload", {"model": "small"}, shows).status == 200
    assert [lease["model"] for lease in supervisor.of("lease")] == ["tiny", "gone"]


def test_figures_of_its_models_alone(tier: WebTier, state: Path, supervisor: FakeSupervisor, serve: Serve) -> None:
    every, shows = bearer(make(state, "every")), bearer(make(state, models=("mine",)))
    supervisor.models = [model("mine"), model("theirs", aliases=["other"])]
    for name in ("mine", "theirs"):
        serve(lambda call: call.reply(ANSWER), name)
        assert chat(tier, every, name).status == 200
    end, recorded = time.monotonic() + DEADLINE, b'llama_router_tokens_total{model="theirs"'
    while recorded not in tier.request("GET", "/metrics", headers=every).body and time.monotonic() < end:
        pass
    figures = tier.request("GET", "/metrics", headers=shows).body
    assert b'llama_router_tokens_total{model="mine"' in figures
    assert b"theirs" not in figures
    assert b"other" not in figures


@pytest.mark.parametrize(("fallback", "status"), [("mine", 200), ("other", 403), (None, 400)])
def test_the_fallback_is_a_model_too(
    tier: WebTier, state: Path, supervisor: FakeSupervisor, serve: Serve, fallback: str | None, status: int
) -> None:
    shows = bearer(make(state, models=("mine", "fallback")))
    supervisor.models = [model("mine", aliases=["fallback"]), model("other")]
    supervisor.facts = {"fallback": fallback}
    if fallback:
        serve(lambda call: call.reply(ANSWER), None)
    else:
        supervisor.refusals[None] = Refused("no", status=400)
    end = time.monotonic() + 2  # what the test before told of a fallback is believed for a second
    while (answer := tier.post(CHAT, {}, shows)).status != status and time.monotonic() < end:
        pass
    assert answer.status == status


def test_a_name_that_means_another_model_by_now(
    tier: WebTier, state: Path, supervisor: FakeSupervisor, serve: Serve
) -> None:
    """What is known of names is a moment old: what is leased counts."""
    shows = bearer(make(state, models=("mine",)))
    supervisor.models = [model("mine"), model("theirs")]
    supervisor.answers["lease"] = lambda message: {
        "ok": True,
        "lease": {"model": "theirs", "instance": "theirs", "launch": 1, "address": "unix:/nonexistent"},
    }
    assert chat(tier, shows, "mine").error["message"] == "this key may not use model 'theirs'"
    supervisor.wait_for("release")


def test_events_of_its_models_alone(tier: WebTier, state: Path, supervisor: FakeSupervisor) -> None:
    secret = make(state, models=("mine",))
    supervisor.models = [model("mine"), model("other")]
    with tier.connect() as client:
        client.sendall(f"GET /models/sse HTTP/1.1\r\nHost: x\r\nX-Api-Key: {secret}\r\n\r\n".encode())
        read_until(client, b"\r\n\r\n")
        supervisor.wait_for_followers()
        for name in ("other", "mine"):
            supervisor.emit(**event_of(model=name, **{"from": "stopped", "to": "starting"}))
        first = read_until(client, b"\n\n\r\n")
        assert [event["model"] for event in lines(first.partition(b"\r\n")[2].rpartition(b"\r\n")[0])] == ["mine"]
        revoke(state)
        supervisor.emit(**event_of(model="mine", **{"from": "starting", "to": "stopped"}))
        assert read_until(client, b"0\r\n\r\n") == b"0\r\n\r\n", "nothing more, and the end"


def test_what_is_being_answered_is_finished(
    tier: WebTier, state: Path, supervisor: FakeSupervisor, serve: Serve
) -> None:
    secret = make(state)

    def stream(call: Call) -> None:
        call.head()
        call.chunk(b"data: {}\n\n")
        revoke(state)
        assert status_of(tier, bearer(secret)) == 401
        call.chunk(b"data: [DONE]\n\n")
        call.send(b"0\r\n\r\n")

    serve(stream)
    with tier.connect() as client:
        extra = f"X-Api-Key: {secret}\r\nConnection: close\r\n"
        client.sendall(chat_request({"model": "m", "stream": True}, extra))
        assert b"data: [DONE]\n\n" in read_all(client)


# What can't be read


@pytest.mark.parametrize("content", [b"", b"nonsense" * 1000, b"SQLite format 3\0"])
def test_damaged_keys_open_nothing(tier: WebTier, state: Path, supervisor: FakeSupervisor, content: bytes) -> None:
    secret = make(state)
    assert everywhere(tier, bearer(secret)) == {200}
    path = state / KEYS_FILE
    good = state / "good"
    path.rename(good)
    path.write_bytes(content)
    assert everywhere(tier, {}) == everywhere(tier, bearer(secret)) == {503}
    error = tier.request("GET", "/v1/models").error
    assert error["message"].startswith(f"no key can be checked: cannot use {path}: ")
    good.replace(path)
    assert everywhere(tier, {}) == {401}
    assert everywhere(tier, bearer(secret)) == {200}


def test_a_file_that_is_elsewhere_and_away_is_not_taken_for_none(
    tier: WebTier, state: Path, supervisor: FakeSupervisor, tmp_path: Path
) -> None:
    secret = make(state)
    assert everywhere(tier, bearer(secret)) == {200}
    path = state / KEYS_FILE
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "not-mounted" / KEYS_FILE)
    assert everywhere(tier, {}) == everywhere(tier, bearer(secret)) == {503}
    path.unlink()
    (tmp_path / "elsewhere").replace(path)
    assert everywhere(tier, bearer(secret)) == {200}


def test_a_file_that_is_cut_off_in_place(tier: WebTier, state: Path, supervisor: FakeSupervisor) -> None:
    secret = make(state)
    assert everywhere(tier, bearer(secret)) == {200}
    os.truncate(state / KEYS_FILE, 0)
    assert everywhere(tier, {}) | everywhere(tier, bearer(secret)) == {503}


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE keys SET models = 'qwen'",
        "UPDATE keys SET models = '[]'",
        "UPDATE keys SET rate = 'many'",
        "UPDATE keys SET hash = x'00'",
        "UPDATE keys SET expires = 'soon'",
        "DROP TABLE keys",
        "DROP TABLE changes",
        "DELETE FROM changes",
        "PRAGMA user_version = 2",
    ],
)
def test_what_is_odd_opens_nothing(tier: WebTier, state: Path, supervisor: FakeSupervisor, statement: str) -> None:
    secret = make(state)
    connection = connection_to(state)
    connection.execute(statement)
    connection.close()
    assert everywhere(tier, {}) == everywhere(tier, bearer(secret)) == {503}


def test_one_who_writes_for_long_keeps_nobody_out(tier: WebTier, state: Path, supervisor: FakeSupervisor) -> None:
    secret = make(state)
    connection = connection_to(state)
    connection.execute("BEGIN EXCLUSIVE")
    assert everywhere(tier, bearer(secret)) == {200}
    connection.close()


def test_a_thousand_keys(tier: WebTier, state: Path, supervisor: FakeSupervisor) -> None:
    last = make(state, "last")
    connection = connection_to(state)
    columns = "name, hash, prefix, models, created"
    rows = [(f"k{number}", keys.digest(b"%d" % number), "lr-", '["*"]', 0.0) for number in range(1000)]
    with connection:
        connection.executemany(f"INSERT INTO keys ({columns}) VALUES (?, ?, ?, ?, ?)", rows)
    connection.close()
    assert everywhere(tier, bearer(last)) == everywhere(tier, bearer("999")) == {200}


@pytest.mark.parametrize("keyless", ["closed", ""])
def test_where_the_api_is_closed_without_keys(supervisor: FakeSupervisor, tmp_path: Path, keyless: str) -> None:
    with keyed_web(supervisor, tmp_path, environment={"LLAMA_ROUTER_KEYLESS": keyless}) as tier:
        assert status_of(tier) == status_of(tier, bearer("x")) == 401
        assert [status_of(tier, path=path) for path in ("/health", "/v1/health", "/ui/login")] == [200, 200, 303]
        host = f"127.0.0.1:{tier.address[1]}"
        assert status_of(tier, {"Cookie": tier.cookie(host)}) == 200
        secret = make(tier.state_dir)
        assert status_of(tier, bearer(secret)) == 200
        forget_all(tier.state_dir)
        assert status_of(tier) == status_of(tier, bearer(secret)) == 401
