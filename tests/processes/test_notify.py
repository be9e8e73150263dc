"""Datagrams of model servers: what is read from any bytes, and whose they are."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from supervisor.notify import MAX_AT_ONCE, MAX_STATUS, Notification, NotifySocket, parse

ALMOST = st.lists(
    st.sampled_from([b"READY=1", b"READY=", b"STATUS=", b"X_PROGRESS=", b"ERRNO=", b"=", b"\n", b"\r", b"\0", b"\xff"])
    | st.binary(max_size=8)
).map(b"".join)


@given(st.binary() | ALMOST)
def test_anything_can_be_read(data: bytes) -> None:
    note = parse(data, 7)
    assert note.group == 7
    assert note.status is None or len(note.status) <= MAX_STATUS
    assert note.progress is None or 0.0 <= note.progress <= 1.0
    assert not note.ready or b"READY=1" in data


@given(st.floats())
def test_progress_is_a_fraction(value: float) -> None:
    expected = value if 0.0 <= value <= 1.0 else None
    assert parse(f"X_PROGRESS={value}".encode(), 1).progress == expected


def test_what_is_known() -> None:
    data = b"READY=1\nSTATUS=a=b\nX_PROGRESS=0.5\nERRNO=12\nMAINPID=1\nWATCHDOG=1"
    assert parse(data, 1) == Notification(1, ready=True, status="a=b", progress=0.5, out_of_memory=True, alive=True)
    assert parse(b"WATCHDOG=trigger", 1) == Notification(1, False, None, None, False, stuck=True)


def test_the_sender_is_attested_and_a_flood_comes_in_portions(tmp_path: Path) -> None:
    notify = NotifySocket(tmp_path / "s")
    assert stat.S_IMODE(notify.path.stat().st_mode) == 0o600
    assert list(notify.receive()) == []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.connect(str(notify.path))
        sender.send(b"READY=1")
        assert [(note.group, note.ready) for note in notify.receive()] == [(os.getpgrp(), True)]
        sender.send(b"STATUS=1")
        portion = []
        for note in notify.receive():
            portion.append(note)
            sender.send(b"STATUS=again")
    assert len(portion) == MAX_AT_ONCE
    notify.close()
    assert not notify.path.exists()


def test_one_left_behind_is_replaced(tmp_path: Path) -> None:
    NotifySocket(tmp_path / "s")._socket.close()
    NotifySocket(tmp_path / "s").close()
