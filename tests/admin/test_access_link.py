"""The one-time link: shown, used once, and damaged."""

from __future__ import annotations

import fcntl
import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from signing_in import NOBODY, link, role_of, sign_in
from web_tier import Answer, WebTier

from supervisor.core.access import TOKEN_FILE


def test_a_link_is_shown_and_then_used_once(tier: WebTier) -> None:
    token = link(tier)
    assert (tier.runtime_dir / TOKEN_FILE).stat().st_mode & 0o777 == 0o600
    for _ in range(3):  # previews look at it, browsers fetch it ahead
        page = tier.request("GET", f"/ui/login?token={token}", headers=NOBODY)
        assert page.status == 200
        assert "signs you in as admin. It works once." in page.body.decode()
        assert f'name="token" value="{token}"' in page.body.decode()
    assert tier.request("HEAD", f"/ui/login?token={token}", headers=NOBODY).status == 200
    answer = sign_in(tier, token=token)
    assert (answer.status, answer.headers["location"], role_of(tier, answer)) == (303, "/", "admin")
    for again in (sign_in(tier, token=token), tier.request("GET", f"/ui/login?token={token}", headers=NOBODY)):
        assert again.status == 403
        assert "set-cookie" not in again.headers
        assert "This link has been used" in again.body.decode()
        assert "llama-router passwd --link" in again.body.decode()
        assert token not in again.body.decode()


def test_a_link_that_many_use_at_once_signs_one_in(tier: WebTier) -> None:
    token = link(tier)
    barrier = threading.Barrier(16)

    def use(_: int) -> Answer:
        barrier.wait()
        return sign_in(tier, token=token)

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(use, range(16)))
    assert sorted(answer.status for answer in answers) == [303] + [403] * 15


@pytest.mark.parametrize("token", ["x", "x" * 9000, "é", "\x00", "' OR 1", "\ud7ff", "../access.json"])
def test_a_wrong_link_leaves_the_right_one(tier: WebTier, token: str) -> None:
    good = link(tier)
    assert sign_in(tier, token=token).status in (403, 413)
    assert sign_in(tier, token=good).status == 303


def test_a_newer_link_replaces_an_older_one(tier: WebTier) -> None:
    old, new = link(tier), link(tier)
    assert [sign_in(tier, token=token).status for token in (old, new)] == [403, 303]


@pytest.mark.parametrize("how", ["cut off", "a FIFO", "a directory", "a link", "huge", "another's era"])
def test_a_damaged_link_signs_nobody_in(tier: WebTier, how: str, tmp_path: Path) -> None:
    token, path = link(tier), tier.runtime_dir / TOKEN_FILE
    whole = path.read_bytes()
    path.unlink()
    if how == "cut off":
        path.write_bytes(whole[:-8])
    elif how == "a FIFO":
        os.mkfifo(path)
    elif how == "a directory":
        path.mkdir()
    elif how == "a link":
        (tmp_path / "token").write_bytes(whole)
        path.symlink_to(tmp_path / "token")
    elif how == "huge":
        path.write_bytes(whole + b" " * 10**6)
    else:
        path.write_text(json.dumps(json.loads(whole) | {"era": "0" * 16}))
    assert sign_in(tier, token=token).status == 403
    if how == "a directory":
        path.rmdir()
    assert sign_in(tier, token=link(tier)).status == 303


def test_a_lock_that_is_held_is_waited_for(tier: WebTier) -> None:
    """Somebody writes a new link at this moment."""
    token = link(tier)
    descriptor = os.open(tier.runtime_dir, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(sign_in, tier, token=token)
            assert not answer.done()
            fcntl.flock(descriptor, fcntl.LOCK_UN)
            assert answer.result().status == 303
    finally:
        os.close(descriptor)
