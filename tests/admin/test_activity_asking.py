"""Many who ask for recorded requests at once, and what has to be done meanwhile."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import gevent
import pytest
from fake_supervisor import FakeSupervisor
from recorded_rows import put, recorded
from web_tier import DEADLINE, WebTier

from admin import activity, activity_queries
from admin.activity import Activity, in_a_thread
from supervisor.errors import Refused


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
        kept.ask(activity_queries.newest)
    assert (caught.value.status, caught.value.retry_after) == (503, activity.ASK_RETRY_SECONDS)
    export = gevent.spawn(kept.ask, activity_queries.newest, goes_on=True)
    gevent.sleep(0)
    assert not export.ready()  # it waits: its download has begun
    asking.pop().kill()
    released.set()
    for each in asking:
        assert each.get(timeout=DEADLINE) == 1
    assert export.get(timeout=DEADLINE) == 0
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
            page = tier.request("GET", path)
            assert (page.status, page.headers["retry-after"]) == (503, "1"), path
            assert page.headers["content-type"].startswith("text/html"), path
            answer = tier.request("GET", path, headers={"Accept": "application/json"})
            assert (answer.error["code"], answer.headers["retry-after"]) == (503, "1"), path
        for path in ("/", "/ui/system", "/metrics"):
            answer = tier.request("GET", path, headers={"Cookie": tier.cookie("{}:{}".format(*tier.address))})
            assert answer.status == 200, path
