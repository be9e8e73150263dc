"""The recorded requests: written whole, bounded, and whatever happens to the file."""

from __future__ import annotations

import logging
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import gevent
import pytest
from fake_supervisor import FakeSupervisor
from web_tier import DEADLINE, WebTier

from admin import activity, activity_queries, activity_schema
from admin.activity import Activity, bucket_of, in_a_thread, store
from admin.activity_queries import Filter
from admin.recording import Recorded, Row
from supervisor.errors import Refused

NOW = time.time()


ROW = Row(
    **{"at": NOW, "request_id": "id", "who": "::1 curl", "key": None, "method": "POST", "path": "/v1/chat/completions"},
    **{"model": "m", "status": 200, "ended": "complete", "queue": 0.2, "first": 0.5, "total": 1.5},
    **dict.fromkeys(("tokens_in", "tokens_out", "cached", "rate")),
    **{"counted": False, "derived": False, "bytes": 0},
)


def recorded(model: str = "m", route: str = "/chat/completions", **fields: Any) -> Recorded:
    """A request that went well, unless told otherwise."""
    return Recorded(ROW._replace(model=model, **fields), model, route)


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Activity]:
    recorder = Activity(tmp_path)
    yield recorder
    recorder.close()


def put(recorder: Activity, *rows: Recorded) -> bool:
    """Have rows written at once; whether that was possible."""
    recorder._pending.extend(rows)
    return recorder._write_some(in_a_thread)


def asked(recorder: Activity, query: str) -> list[Any]:
    return recorder.ask(lambda connection: connection.execute(query).fetchall())


def test_what_is_left_is_written_at_the_end(tmp_path: Path) -> None:
    recorder = Activity(tmp_path)
    recorder._pending.extend(recorded(request_id=str(number)) for number in range(2500))
    recorder.close()
    assert asked(recorder, "SELECT count(*), count(DISTINCT request_id) FROM requests") == [(2500, 2500)]


def test_only_the_owner_may_read_it(kept: Activity) -> None:
    put(kept, recorded())
    files = list(kept.path.parent.iterdir())
    assert {file.name for file in files} >= {"activity.sqlite", "activity.sqlite-wal"}
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


def test_sums_go_on_while_requests_are_trimmed(kept: Activity, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activity, "MAX_REQUESTS", 10)
    for number in range(1, 31):
        put(kept, recorded(tokens_in=3, tokens_out=2, bytes=7))
        assert asked(kept, "SELECT * FROM totals") == [
            ("m", "/chat/completions", "200", number, 3 * number, 2 * number, 0, 7 * number)
        ]
        assert asked(kept, "SELECT count(*) FROM requests") == [(min(number, 10),)]
    assert asked(kept, "SELECT figure, count, sum FROM histograms ORDER BY figure") == [
        ("first", 30, 15.0),
        ("queue", 30, pytest.approx(6.0)),
        ("total", 30, 45.0),
    ]


def test_old_requests_are_trimmed_step_by_step(kept: Activity, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activity, "TRIM_AT_ONCE", 3)
    put(kept, *(recorded(at=NOW - activity.MAX_AGE_SECONDS - 1) for _ in range(7)))
    counts = []
    for _ in range(3):
        put(kept, recorded())
        counts.append(asked(kept, "SELECT count(*) FROM requests")[0][0])
    assert counts == [2, 2, 3]


def test_ids_are_never_used_twice(kept: Activity, monkeypatch: pytest.MonkeyPatch) -> None:
    put(kept, recorded(), recorded())
    monkeypatch.setattr(activity, "MAX_AGE_SECONDS", -1.0)
    put(kept, recorded())
    assert asked(kept, "SELECT count(*) FROM requests") == [(0,)]
    monkeypatch.undo()
    put(kept, recorded())
    assert asked(kept, "SELECT id FROM requests") == [(4,)]


def test_a_damaged_file_is_moved_aside_and_told_once(kept: Activity, caplog: pytest.LogCaptureFixture) -> None:
    kept.path.write_bytes(b"no database at all" * 1000)
    assert not put(kept, recorded())
    assert put(kept)
    assert asked(kept, "SELECT count(*) FROM requests") == [(1,)]
    assert Path(f"{kept.path}.damaged").read_bytes().startswith(b"no database")
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "is damaged" in caplog.text


def test_a_file_that_is_damaged_while_it_is_used(kept: Activity, caplog: pytest.LogCaptureFixture) -> None:
    put(kept, recorded())
    kept._disconnect()
    whole = kept.path.read_bytes()
    kept.path.write_bytes(whole[:4096] + b"\xff" * (len(whole) - 4096))
    assert not put(kept, recorded())
    assert put(kept, recorded())
    assert asked(kept, "SELECT count(*) FROM requests") == [(2,)]
    assert Path(f"{kept.path}.damaged").exists()


def test_a_file_without_a_table_is_damaged(kept: Activity) -> None:
    put(kept, recorded())
    kept.ask(lambda connection: connection.execute("DROP TABLE totals"))
    assert not put(kept, recorded())
    assert put(kept)


def test_a_file_that_somebody_removed_is_made_anew(kept: Activity) -> None:
    put(kept, recorded())
    for file in kept.path.parent.iterdir():
        file.unlink()
    assert put(kept, recorded())
    assert asked(kept, "SELECT count(*) FROM requests") == [(1,)]


def test_two_workers_that_find_it_damaged_make_one_new_file(tmp_path: Path) -> None:
    one, other = Activity(tmp_path), Activity(tmp_path)
    one.path.write_bytes(b"no database at all" * 1000)
    seen = activity_schema.inode(one.path)
    assert not put(one, recorded())
    assert put(one)
    assert not activity_schema.move_aside(other.path, seen)
    assert put(other, recorded())
    assert asked(one, "SELECT count(*) FROM requests") == [(2,)]
    one.close(), other.close()


def test_a_newer_file_is_left_alone(kept: Activity, caplog: pytest.LogCaptureFixture) -> None:
    with sqlite3.connect(kept.path) as connection:
        connection.execute("PRAGMA user_version = 2")
    connection.close()
    assert not put(kept, recorded())
    assert not put(kept)
    assert not Path(f"{kept.path}.damaged").exists()
    assert caplog.text.count("its version is 2") == 1


def test_while_it_is_locked_rows_wait(
    kept: Activity, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    monkeypatch.setattr(activity_schema, "BUSY_SECONDS", 0.01)
    put(kept, recorded())
    kept._disconnect()
    other = sqlite3.connect(kept.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    assert not put(kept, recorded())
    assert not put(kept, recorded())
    other.execute("COMMIT")
    other.close()
    assert put(kept)
    assert asked(kept, "SELECT count(*) FROM requests") == [(3,)]
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]


def test_a_full_disk_loses_nothing_that_fits_in_memory(kept: Activity) -> None:
    put(kept, recorded())
    assert kept._connection is not None
    (pages,) = kept._connection.execute("PRAGMA page_count").fetchone()
    kept._connection.execute(f"PRAGMA max_page_count = {pages}")
    big = [recorded(request_id="x" * 100, path="y" * 200) for _ in range(500)]
    with pytest.raises(sqlite3.OperationalError, match="full"):
        kept._write(lambda connection: store(connection, big, 0))
    assert not put(kept, *big)
    assert put(kept)  # on a new connection, which has no such limit
    assert asked(kept, "SELECT count(*) FROM requests") == [(501,)]
    assert asked(kept, "SELECT sum(requests) FROM totals") == [(501,)]


def test_a_place_that_can_not_be_written(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    recorder = Activity(tmp_path / "missing")
    assert not put(recorder, recorded())
    assert not put(recorder)
    assert caplog.text.count("cannot record requests") == 1
    recorder._pending.clear()
    recorder.close()


def test_what_does_not_fit_is_dropped_and_counted(kept: Activity, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activity, "MAX_PENDING", 3)
    kept._writing = True  # no greenlet shall write yet
    for _ in range(5):
        kept.add(recorded())
    assert put(kept)
    assert kept.ask(activity_queries.dropped) == 2
    assert asked(kept, "SELECT count(*) FROM requests") == [(3,)]


def test_another_process_that_looks_and_leaves_takes_nothing_away(kept: Activity) -> None:
    """The last one to close a file in WAL mode removes its log; the locks of the others tell who that is."""
    put(kept, recorded())
    asked(kept, "SELECT 1")
    look = (
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('SELECT * FROM totals').fetchall(); c.close()"
    )
    subprocess.run([sys.executable, "-c", f"{look}; c.close()", str(kept.path)], check=True)
    assert Path(f"{kept.path}-wal").exists()


def test_many_writers_at_once(tmp_path: Path) -> None:
    def write(recorder: Activity) -> None:
        for _ in range(20):
            recorder._pending.extend([recorded(tokens_in=1)] * 5)
            assert recorder._write_some(lambda call: call())

    recorders = [Activity(tmp_path) for _ in range(4)]
    threads = [threading.Thread(target=write, args=(each,)) for each in recorders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for each in recorders:
        each.close()
    assert asked(recorders[0], "SELECT requests, tokens_in FROM totals") == [(400, 400)]
    assert asked(recorders[0], "SELECT count(*) FROM requests") == [(400,)]


def test_all_workers_that_open_a_missing_file_at_once_can(tmp_path: Path) -> None:
    """SQLite refuses without waiting all but one who turn a file into one with a log ahead."""

    def open_it(path: Path) -> None:
        together.wait()
        activity_schema.connect(path).close()

    together = threading.Barrier(4)
    with ThreadPoolExecutor(4) as threads:
        for number in range(30):
            list(threads.map(open_it, [tmp_path / str(number)] * 4))


def test_a_file_that_stays_locked_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activity_schema, "BUSY_SECONDS", 0.05)
    with closing(sqlite3.connect(tmp_path / "a", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            activity_schema.connect(tmp_path / "a")


def test_what_fails_in_a_thread_is_told_to_who_asked_alone(kept: Activity, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(sqlite3.OperationalError, match="no such table: absent"):
        asked(kept, "SELECT * FROM absent")
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("seconds, bucket", [(0.0, 0), (0.005, 0), (0.0051, 1), (600.0, 15), (600.1, 16), (1e9, 16)])
def test_buckets_include_their_bound(seconds: float, bucket: int) -> None:
    assert bucket_of(seconds) == bucket


FILTERS = {
    "all": (Filter(), [5, 4, 3, 2, 1]),
    "model": (Filter(model="b"), [2]),
    "2xx": (Filter(status="2xx"), [5, 2, 1]),
    "4xx": (Filter(status="4xx"), [3]),
    "broken": (Filter(status="broken"), [4]),
    "an unknown class is none": (Filter(status="1 OR 1"), [5, 4, 3, 2, 1]),
    "client": (Filter(text="curl"), [1]),
    "id": (Filter(text="ABC"), [2]),
    "path": (Filter(text="/embed"), [3]),
    "% is a character": (Filter(text="%"), [5]),
    "_ is one as well": (Filter(text="a_b"), [5]),
    "since": (Filter(since=30.0), [5, 4, 3]),
    "until": (Filter(until=30.0), [2, 1]),
    "both": (Filter(status="2xx", since=20.0), [5, 2]),
    "'": (Filter(text="'; --", model="'"), []),
}


@pytest.fixture
def five(kept: Activity, monkeypatch: pytest.MonkeyPatch) -> Activity:
    monkeypatch.setattr(activity, "MAX_AGE_SECONDS", 1e12)
    rows = [
        recorded(at=10.0, who="::1 curl", tokens_in=1, tokens_out=10, rate=20.0),
        recorded("b", at=20.0, request_id="abc", who="x", rate=40.0),
        recorded(at=30.0, status=404, path="/embeddings", who="x", queue=None),
        recorded(at=40.0, status=None, ended="client_gone", who="x"),
        recorded(at=50.0, who="a_b 100%"),
    ]
    put(kept, *rows)
    return kept


@pytest.mark.parametrize("name", FILTERS)
def test_filters(five: Activity, name: str) -> None:
    wanted, ids = FILTERS[name]
    found = five.ask(lambda connection: activity_queries.page(connection, wanted))
    assert [row["id"] for row in found] == ids
    assert five.ask(lambda connection: activity_queries.summary(connection, wanted))["requests"] == len(ids)


def test_pages_follow_one_another(five: Activity) -> None:
    def ids(**place: Any) -> list[int]:
        return [row["id"] for row in five.ask(lambda c: activity_queries.page(c, Filter(), **place))]

    assert ids(count=2) == [5, 4]
    assert ids(count=2, before=4) == [3, 2]
    assert ids(count=2, before=2) == [1]
    assert ids(after=3) == [5, 4]


def test_sums_of_what_is_meant(five: Activity) -> None:
    sums = five.ask(lambda connection: activity_queries.summary(connection, Filter()))
    assert sums == {"requests": 5, "failed": 2, "tokens_in": 1, "tokens_out": 10, "rate": 30.0}


def test_models_and_what_they_did_lately(five: Activity) -> None:
    assert five.ask(activity_queries.models) == ["b", "m"]
    assert five.ask(lambda connection: activity_queries.recent(connection, 15.0)) == {
        "b": {"requests": 1, "tokens_out": 0, "rate": 40.0},
        "m": {"requests": 2, "tokens_out": 0, "rate": None},
    }


def test_a_series(five: Activity) -> None:
    samples = [("m", 10, 100, 1, 0), ("m", 15, 300, 0, 4), ("m", 35, None, 0, 0), ("b", 10, 9, 9, 9)]
    five.ask(lambda connection: connection.executemany("INSERT INTO samples VALUES (?, ?, ?, ?, ?)", samples))
    series = five.ask(lambda connection: activity_queries.series(connection, "m", 10.0, 55.0))
    assert series["step"] == 10
    assert series["at"] == [10.0, 20.0, 30.0, 40.0, 50.0]
    assert series["memory"] == [300, None, None, None, None]
    assert series["in_flight"] == [1, None, 0, None, None]
    assert series["waiting"] == [4, None, 0, None, None]
    assert series["requests"] == [1, 0, 1, 1, 1]
    assert series["p50"] == [1.5, None, 1.5, 1.5, 1.5]
    assert series["rate"] == [20.0, None, None, None, None]


def test_a_series_of_a_day_has_few_steps(five: Activity) -> None:
    series = five.ask(lambda connection: activity_queries.series(connection, "m", NOW - 86400, NOW))
    assert len(series["at"]) == len(series["p95"]) == 240


@pytest.mark.parametrize("part, value", [(0.5, 50.0), (0.95, 95.0), (0.0, 1.0), (1.0, 100.0)])
def test_percentiles(part: float, value: float) -> None:
    assert activity_queries.percentile([float(each) for each in range(100, 0, -1)], part) == value


def test_a_full_store_answers_soon(kept: Activity) -> None:
    """A hundred thousand requests; the bound is far above what it takes."""
    batch = [recorded(f"m{number % 50}", request_id=str(number)) for number in range(activity.MAX_REQUESTS)]
    kept._write(lambda connection: store(connection, batch, 0))
    began = time.monotonic()
    page = kept.ask(lambda connection: activity_queries.page(connection, Filter(text="no such text")))
    sums = kept.ask(lambda connection: activity_queries.summary(connection, Filter()))
    assert kept.ask(lambda connection: len(activity_queries.models(connection))) == 50
    assert (page, sums["requests"]) == ([], activity.MAX_REQUESTS)
    assert time.monotonic() - began < 5


def long_questions(recorder: Activity, count: int, release: threading.Event) -> list[gevent.Greenlet[..., int]]:
    """So many that are asked at once, and answered after `release`."""

    def question(_: sqlite3.Connection) -> int:
        assert release.wait(DEADLINE)
        return 1

    asking = [gevent.spawn(recorder.ask, question) for _ in range(count)]
    gevent.sleep(0)  # each begins
    return asking


@pytest.fixture
def released() -> Iterator[threading.Event]:
    """Set at the end at the latest, so that no thread is left waiting."""
    event = threading.Event()
    yield event
    event.set()


def test_questions_keep_nothing_else_waiting(kept: Activity, released: threading.Event) -> None:
    """A password is hashed, and rows are written, while as many as may ask at once."""
    asking = long_questions(kept, activity.MAX_ASKING, released)
    with gevent.Timeout(DEADLINE):
        assert in_a_thread(lambda: 1) == 1
        assert put(kept, recorded())
        assert kept.change(lambda connection: connection.execute("SELECT count(*) FROM requests").fetchone()) == (1,)
    assert not any(each.ready() for each in asking)
    released.set()
    assert [each.get(timeout=DEADLINE) for each in asking] == [1] * activity.MAX_ASKING


def test_more_questions_than_may_wait(kept: Activity, released: threading.Event) -> None:
    asking = long_questions(kept, activity.MAX_ASKING, released)
    with gevent.Timeout(DEADLINE), pytest.raises(Refused, match="ask already") as caught:
        kept.ask(activity_queries.models)
    assert (caught.value.status, caught.value.retry_after) == (503, activity.ASK_RETRY_SECONDS)
    export = gevent.spawn(kept.ask, activity_queries.models, goes_on=True)
    gevent.sleep(0)
    assert not export.ready()  # it waits: its download has begun
    asking.pop().kill()
    released.set()
    for each in asking:
        assert each.get(timeout=DEADLINE) == 1
    assert export.get(timeout=DEADLINE) == []
    again = long_questions(kept, activity.MAX_ASKING, released)  # every place is free
    assert [each.get(timeout=DEADLINE) for each in again] == [1] * activity.MAX_ASKING


def test_pages_while_too_many_ask(tmp_path: Path) -> None:
    """What needs the answer is refused; what has more to tell goes without."""
    with ExitStack() as stack:
        fake = FakeSupervisor(tmp_path)
        fake.start()
        stack.callback(fake.stop)
        tier = WebTier(tmp_path, constants={"admin.activity.MAX_ASKING": 0})
        tier.start()
        stack.callback(tier.close)
        for path in ("/ui/activity", "/ui/activity/recent.json", "/ui/activity/requests.csv"):
            assert tier.request("GET", path).status == 503, path
            answer = tier.request("GET", path, headers={"Accept": "application/json"})
            assert (answer.error["code"], answer.headers["retry-after"]) == (503, "1"), path
        for path in ("/", "/ui/system", "/metrics"):
            answer = tier.request("GET", path, headers={"Cookie": tier.cookie("{}:{}".format(*tier.address))})
            assert answer.status == 200, path
