"""The recorded requests: written whole, bounded, and whatever happens to the file."""

from __future__ import annotations

import logging
import sqlite3
import stat
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from recorded_rows import NOW, asked, put, recorded

from admin import activity, activity_queries, activity_schema
from admin.activity import Activity, bucket_of, store


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
        connection.execute("PRAGMA user_version = 3")
    connection.close()
    assert not put(kept, recorded())
    assert not put(kept)
    assert not Path(f"{kept.path}.damaged").exists()
    assert caplog.text.count("its version is 3") == 1


def make_old(path: Path) -> None:
    """A file of version 1, with a request, its sums and a sample."""
    tables = activity_schema.TABLES.replace("bytes INTEGER NOT NULL, reason TEXT);", "bytes INTEGER NOT NULL);")
    assert "reason" not in tables
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executescript(f"{tables} PRAGMA user_version = 1")
        old = {name: value for name, value in recorded().row._asdict().items() if name != "reason"}
        columns, places = ", ".join(old), ", ".join("?" * len(old))
        connection.execute(f"INSERT INTO requests ({columns}) VALUES ({places})", list(old.values()))
        connection.execute("INSERT INTO totals VALUES ('m', '/x', '200', 7, 1, 2, 3, 4)")
        connection.execute("INSERT INTO samples VALUES ('m', 10, 100, 1, 0)")


def test_an_older_file_is_gone_on_with(kept: Activity) -> None:
    make_old(kept.path)
    assert put(kept, recorded(reason="no"))
    assert asked(kept, "SELECT id, request_id, reason FROM requests") == [(1, "id", None), (2, "id", "no")]
    assert asked(kept, "SELECT requests FROM totals WHERE route = '/x'") == [(7,)]
    assert asked(kept, "SELECT count(*) FROM samples") == [(1,)]
    assert asked(kept, "PRAGMA user_version") == [(activity_schema.VERSION,)]
    assert not Path(f"{kept.path}.damaged").exists()


def test_an_older_file_has_the_columns_of_a_new_one(tmp_path: Path) -> None:
    make_old(tmp_path / "old")
    columns = []
    for name in ("old", "new"):
        with closing(activity_schema.connect(tmp_path / name)) as connection:
            columns.append(connection.execute("PRAGMA table_info(requests)").fetchall())
    assert columns[0] == columns[1]


def test_all_workers_that_open_an_older_file_at_once_can(tmp_path: Path) -> None:
    def open_it(path: Path) -> None:
        together.wait()
        activity_schema.connect(path).close()

    together = threading.Barrier(4)
    with ThreadPoolExecutor(4) as threads:
        for number in range(10):
            make_old(tmp_path / str(number))
            list(threads.map(open_it, [tmp_path / str(number)] * 4))


def test_a_change_of_an_older_file_is_whole_or_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_old(tmp_path / "old")
    monkeypatch.setattr(activity_schema, "VERSION", 3)
    monkeypatch.setattr(activity_schema, "STEPS", activity_schema.STEPS | {2: "no SQL"})
    with pytest.raises(sqlite3.OperationalError, match="syntax"):
        activity_schema.connect(tmp_path / "old")
    monkeypatch.undo()
    with closing(activity_schema.connect(tmp_path / "old")) as connection:
        assert connection.execute("SELECT reason FROM requests").fetchall() == [(None,)]


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
