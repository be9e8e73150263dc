"""What people write for keys, what a key may do, and how limits go by the clock."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.core import keys
from supervisor.core.exposure import is_keyless, is_loopback, refusal
from supervisor.core.keys import SECONDS_OF, Key, Limit

NOW = 1_800_000_000.0  # 2027-01-15 08:00 UTC


@pytest.mark.parametrize(
    ("written", "limit"),
    [
        *(("60/min", Limit(60, "min")), ("60 / Minute", Limit(60, "min")), ("1/s", Limit(1, "s"))),
        *(("5/second", Limit(5, "s")), ("7/h", Limit(7, "h")), ("100000/d", Limit(100000, "day"))),
    ],
)
def test_limits(written: str, limit: Limit) -> None:
    assert keys.limit(written) == limit
    assert keys.limit(str(limit)) == limit
    assert keys.limit(f"{limit.most}/{limit.word}") == limit


@pytest.mark.parametrize("written", ["", "60", "60/", "/min", "0/min", "-1/min", "1.5/min", "60/week", "9" * 17 + "/s"])
def test_what_is_no_limit(written: str) -> None:
    with pytest.raises(ValueError, match=r"cannot use .* as a limit: write such as 5/s, 60/min"):
        keys.limit(written)


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("30d", 30 * 86400),
        ("12h", 43200),
        ("1h30min", 5400),
        ("2027-01-16", 16 * 3600),
        ("2027-02-15", 736 * 3600),
    ],
)
def test_ends(written: str, seconds: float) -> None:
    assert keys.expiry(written, NOW) == pytest.approx(NOW + seconds, abs=100)


@pytest.mark.parametrize("written", ["", "soon", "2027-13-01", "01/02/2027", "0s", "2027-01-15", "99999d", "-1d"])
def test_what_is_no_end(written: str) -> None:
    with pytest.raises(ValueError, match="cannot end a key at"):
        keys.expiry(written, NOW)


@pytest.mark.parametrize("name", ["alice", "a", "Bob-2@example.org", "x" * 64])
def test_names(name: str) -> None:
    assert keys.name(name) == name


@pytest.mark.parametrize("name", ["", "-a", "a b", "a:b", "environment:1", "x" * 65, "ä", "a\n", "a\x1b"])
def test_what_is_no_name(name: str) -> None:
    with pytest.raises(ValueError, match="cannot name a key"):
        keys.name(name)


def test_patterns() -> None:
    assert keys.globs([]) == ("*",)
    assert keys.globs(["a", "b*", "a"]) == ("a", "b*")
    for wrong in ("", "a\n", "x" * 256):
        with pytest.raises(ValueError, match="cannot match models with"):
            keys.globs([wrong])
    with pytest.raises(ValueError, match="cannot allow 101 patterns"):
        keys.globs([str(number) for number in range(101)])


@pytest.mark.parametrize(
    ("globs", "names", "allowed"),
    [
        *((("*",), ("any",), True), (("qwen-*",), ("qwen-8b",), True), (("qwen-*",), ("Qwen-8b",), False)),
        *((("qwen",), ("qwen-8b",), False), (("qwen",), ("my-qwen",), False), (("b",), ("a", "b"), True)),
        *((("org/*",), ("org/sub/model",), True), (("?",), ("ab",), False), (("[ab]",), ("b",), True)),
        *((("a.c",), ("abc",), False), (("a*",), ("a\nb",), True)),
    ],
)
def test_models(globs: tuple[str, ...], names: tuple[str, ...], allowed: bool) -> None:
    assert Key(1, "k", globs).allows(names) == allowed


def test_a_key_ends() -> None:
    assert Key(1, "k").is_good(NOW)
    assert Key(1, "k", expires=NOW + 0.1).is_good(NOW)
    assert not Key(1, "k", expires=NOW).is_good(NOW)
    assert not Key(1, "k", is_revoked=True).is_good(NOW)


def test_the_forms_of_llama_server() -> None:
    assert keys.in_variable("") == keys.in_variable(" , ") == []
    assert keys.in_variable("one, two,,three ") == ["one", "two", "three"]
    assert keys.in_file(b"one\n\n#two\n  three \r\n\tfo ur\n# \n") == {1: b"one", 4: b"three", 5: b"fo ur"}
    assert keys.in_file(b"") == keys.in_file(b"\n#\n") == keys.in_file(b"\xef\xbb\xbf\r\n") == {}
    assert keys.in_file(b"\xef\xbb\xbfone\r\ntwo") == {1: b"one", 2: b"two"}
    assert keys.in_file(b"\xef\xbb\xbf# a comment\none") == {2: b"one"}


TIMES = st.floats(0, 4e9)
LIMITS = st.builds(Limit, st.integers(1, 100), st.sampled_from(sorted(SECONDS_OF)))


@given(LIMITS, st.lists(st.floats(0, 1e6), max_size=300), TIMES)
def test_no_period_has_more_than_the_limit(limit: Limit, gaps: list[float], now: float) -> None:
    counted: dict[int, int] = {}
    number, used = limit.window(now), 0
    for gap in gaps:
        now += gap
        if (wait := limit.wait(number, used, now)) is not None:
            assert 0 < wait <= SECONDS_OF[limit.period]
            assert limit.window(now + wait + 1e-3) != limit.window(now)
            continue
        window = limit.window(now)
        number, used = window, used + 1 if window == number else 1
        counted[window] = counted.get(window, 0) + 1
    assert all(count <= limit.most for count in counted.values())


# Addresses


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        *(("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("::ffff:127.0.0.1", True)),
        *(("0.0.0.0", False), ("::", False), ("192.168.1.2", False), ("::ffff:10.0.0.1", False)),
        *(("fe80::1%eth0", False), ("fd00::1", False)),
    ],
)
def test_loopback(address: str, expected: bool) -> None:
    assert is_loopback(address) == expected


@pytest.mark.parametrize("is_private", [True, False])
@pytest.mark.parametrize("allow_anyone", [True, False])
@pytest.mark.parametrize("has_key", [True, False])
@pytest.mark.parametrize("has_password", [True, False])
def test_who_starts(is_private: bool, allow_anyone: bool, has_key: bool, has_password: bool) -> None:
    keyless = is_keyless(is_private=is_private, allow_anyone=allow_anyone)
    assert keyless == (is_private or allow_anyone)
    why = refusal("0.0.0.0:80", "/state", is_keyless=keyless, has_key=has_key, has_password=has_password)
    assert (why is None) == (is_private or allow_anyone or has_key or has_password)
    if why is not None:
        for way in (
            "key create NAME --state-dir /state",
            "passwd --state-dir /state",
            "127.0.0.1",
            "web: {allow_anyone: true}",
        ):
            assert way in why
