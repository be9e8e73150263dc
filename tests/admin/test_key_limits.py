"""Limits of keys: over all workers and restarts, by the clock, and closed when they can't be counted."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import recorded_answers as real
from fake_supervisor import FakeSupervisor, model
from fake_upstream import Serve
from keyed_web import chat, keyed_web, status_of, without_keys
from made_keys import bearer, connection_to, make, stored
from web_tier import DEADLINE, Answer, WebTier

from admin.key_usage import KeyUsage, Pending, Used, _admit, _put_together, _store
from supervisor import keys_db
from supervisor.core.keys import KEYS_FILE, Limit
from supervisor.errors import Refused

TOKENS = 32 + 6  # of real.CHAT


@pytest.fixture(scope="module")
def tier(shared_supervisor: FakeSupervisor, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebTier]:
    with keyed_web(shared_supervisor, tmp_path_factory.mktemp("limited"), workers=2) as running:
        yield running


@pytest.fixture
def state(tier: WebTier, serve: Serve) -> Iterator[Path]:
    """The state directory, without keys before and after; there is a model that answers."""
    serve(lambda call: call.reply(real.CHAT))
    yield tier.state_dir
    without_keys(tier)


def used_up(answer: Answer, what: str) -> float:
    """The seconds that a refusal tells to wait."""
    assert answer.error["type"] == "rate_limit_error"
    assert answer.error["message"].startswith(f"key 'k' has used its {what}; there is more in ")
    return float(answer.headers["retry-after"])


def until_refused(tier: WebTier, headers: dict[str, str]) -> tuple[int, Answer]:
    """How many were answered before one was not."""
    end, count = time.monotonic() + DEADLINE, 0
    while (answer := chat(tier, headers)).status == 200:
        assert time.monotonic() < end
        count += 1
    return count, answer


def test_a_rate_counts_over_all_workers_and_restarts(supervisor: FakeSupervisor, serve: Serve, tmp_path: Path) -> None:
    serve(lambda call: call.reply(real.CHAT))
    (tmp_path / "state").mkdir(mode=0o700)
    shows = bearer(make(tmp_path / "state", rate=Limit(7, "day")))
    with keyed_web(supervisor, tmp_path, workers=2) as tier, ThreadPoolExecutor(12) as many:
        answers = list(many.map(lambda _: chat(tier, shows), range(12)))
        assert Counter(answer.status for answer in answers) == {200: 7, 429: 5}
        refused = next(answer for answer in answers if answer.status == 429)
        assert 0 < used_up(refused, "7 requests of this day") <= 86400
        assert status_of(tier, shows) == 200, "that is no request to a model"
    for left in ("control.sock", "notify.sock"):
        (tmp_path / left).unlink()
    with keyed_web(supervisor, tmp_path) as tier:
        assert chat(tier, shows).status == 429


def test_what_is_refused_costs_nothing(tier: WebTier, state: Path, supervisor: FakeSupervisor) -> None:
    supervisor.models = [model("m"), model("other")]
    shows = bearer(make(state, rate=Limit(3, "day"), models=("m",)))
    assert tier.request("GET", "/v1/chat/completions", headers=shows).status == 405
    assert [chat(tier, shows).status for _ in range(5)] == [200, 200, 200, 429, 429]


def test_another_period_begins(tier: WebTier, state: Path, supervisor: FakeSupervisor) -> None:
    shows = bearer(make(state, rate=Limit(1, "day")))
    assert until_refused(tier, shows)[0] == 1
    connection = connection_to(state)
    connection.execute("UPDATE windows SET number = number - 1")
    connection.close()
    assert until_refused(tier, shows)[0] == 1


def test_tokens_are_counted_when_a_request_ends(tier: WebTier, state: Path, supervisor: FakeSupervisor) -> None:
    shows = bearer(make(state, tokens=Limit(2 * TOKENS, "day")))
    count, answer = until_refused(tier, shows)
    assert 2 <= count < 10, "it was counted only after so many"
    used_up(answer, f"{2 * TOKENS} tokens of this day")
    end = time.monotonic() + DEADLINE
    while stored(state).requests < count and time.monotonic() < end:
        pass
    assert (stored(state).tokens_in, stored(state).tokens_out) == (count * 32, count * 6)


def test_keys_do_not_use_up_each_other(tier: WebTier, state: Path, supervisor: FakeSupervisor) -> None:
    one, two = (bearer(make(state, name, rate=Limit(2, "day"))) for name in ("k", "l"))
    assert until_refused(tier, one)[0] == until_refused(tier, two)[0] == 2


def test_what_is_not_for_models_is_not_limited(tier: WebTier, state: Path, supervisor: FakeSupervisor) -> None:
    supervisor.models = [model("m")]
    shows = bearer(make(state, rate=Limit(1, "day")))
    paths = ("/v1/models", "/metrics", "/props", "/queue", "/models/m", "/health")
    assert [status_of(tier, shows, path) for path in paths * 2] == [200] * 12
    assert until_refused(tier, shows)[0] == 1
    assert tier.request("GET", "/slots?model=m", headers=shows).status == 429
    assert tier.request("GET", "/upstream/m/x", headers=shows).status == 429


def test_a_limit_that_cant_be_counted_lets_nobody_in(tier: WebTier, state: Path, supervisor: FakeSupervisor) -> None:
    limited, free = bearer(make(state, rate=Limit(100, "day"))), bearer(make(state, "free"))
    assert chat(tier, limited).status == 200
    connection = connection_to(state)
    connection.execute("BEGIN IMMEDIATE")
    error = chat(tier, limited).error
    assert (error["code"], error["message"]) == (
        503,
        f"cannot count what key 'k' uses, in {state / KEYS_FILE}: database is locked",
    )
    assert chat(tier, free).status == 200
    connection.close()
    assert chat(tier, limited).status == 200


# The counting itself


def counted(state: Path) -> tuple[int, int]:
    return stored(state).requests, stored(state).tokens_in


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    make(tmp_path, rate=Limit(1, "s"))
    key = stored(tmp_path).key
    usage = KeyUsage(tmp_path)
    usage.admit(key)
    assert usage._connection is not None
    usage._connection.execute("CREATE TABLE more (data BLOB)")
    (pages,) = usage._connection.execute("PRAGMA page_count").fetchone()
    usage._connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(Refused, match=r"cannot count what key 'k' uses, in .*: database or disk is full") as refused:
        usage._admitted(key, lambda connection: connection.execute("INSERT INTO more VALUES (zeroblob(9999))"))
    assert refused.value.status == 503
    usage.close()


def test_what_cant_be_written_waits(tmp_path: Path) -> None:
    make(tmp_path)
    key = stored(tmp_path).key
    assert key.id is not None
    usage = KeyUsage(tmp_path)
    usage._pending = {(key.id, None): Used(1, 2, 3, 4.0)}
    good = (tmp_path / KEYS_FILE).read_bytes()
    (tmp_path / KEYS_FILE).write_bytes(b"")
    assert not usage._write_some(lambda call, _: call())
    usage._pending = _put_together(usage._pending, {(key.id, None): Used(1, 2, 3, 5.0)})
    (tmp_path / KEYS_FILE).write_bytes(good)
    assert usage._write_some(lambda call, _: call())
    assert usage._pending == {}
    used = stored(tmp_path)
    assert (used.requests, used.tokens_in, used.tokens_out, used.last_used) == (2, 4, 6, 5.0)
    usage.close()


def test_what_is_counted_while_others_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path)
    number = stored(tmp_path).key.id
    assert number is not None
    usage = KeyUsage(tmp_path)
    late: Pending = {(number, None): Used(1)}

    def write(call: Callable[[], None], threads: object) -> None:
        call()
        usage._pending.update(late)
        late.clear()

    monkeypatch.setattr("admin.key_usage.WRITE_SECONDS", 0)
    monkeypatch.setattr("admin.key_usage.in_a_thread", write)
    usage._pending = {(number, None): Used(1)}
    usage._write_all()
    assert stored(tmp_path).requests == 2
    usage.close()


def test_the_latest_period_counts(tmp_path: Path) -> None:
    make(tmp_path, tokens=Limit(5, "day"))
    key = stored(tmp_path).key
    assert key.id is not None
    today = Limit(5, "day").window(time.time())
    with keys_db.opened(tmp_path / KEYS_FILE) as connection:
        _store(connection, {(key.id, today): Used(1, 5), (key.id, today - 1): Used(1, 1)})
        with pytest.raises(Refused, match="key 'k' has used its 5 tokens of this day"):
            _admit(connection, key, time.time())


def test_what_a_forgotten_key_used_is_forgotten(tmp_path: Path) -> None:
    make(tmp_path)
    with keys_db.opened(tmp_path / KEYS_FILE) as connection:
        key = keys_db.stored(connection)[0].key
        assert key.id is not None
        _store(connection, {(key.id, 7): Used(1, 2, 3, 4.0)})
        assert keys_db.forget(connection, "k")
        _store(connection, {(key.id, 7): Used(1, 2, 3, 4.0)})
        for table in ("usage", "windows"):
            assert connection.execute(f"SELECT * FROM {table}").fetchall() == []


def test_keys_that_are_gone_are_not_waited_for(tmp_path: Path) -> None:
    usage = KeyUsage(tmp_path)
    usage._pending = {(1, None): Used(1)}
    assert usage._write_some(lambda call, _: call())
    assert json.dumps(list(usage._pending)) == "[]"
    usage.close()
