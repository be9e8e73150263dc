"""What access.json and the one-time link's file say."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.core import access
from supervisor.core.access import Access, Credential, UnusablePassword

ERAS = ("0" * 16, "f" * 16)
EMPTY = access.new(b"s" * 32, b"t" * 32, ERAS)
CREDENTIALS = st.builds(
    Credential, st.none() | st.binary(min_size=32, max_size=32), st.text("0123456789abcdef", min_size=16)
)
ALL = st.builds(Access, st.binary(min_size=32), st.binary(min_size=32), CREDENTIALS, CREDENTIALS)


@given(ALL)
def test_what_is_written_is_read(some: Access) -> None:
    assert access.parse(access.written(some)) == some


@given(ALL, st.data())
def test_a_file_that_is_cut_off_is_damaged(some: Access, data: st.DataObject) -> None:
    whole = access.written(some)
    with pytest.raises(ValueError):
        access.parse(whole[: data.draw(st.integers(0, len(whole) - 3))])


@given(st.binary() | st.sampled_from([b"[" * 4096, b'{"format": 1}', b"null", b"\xff"]))
def test_any_bytes_are_damaged(data: bytes) -> None:
    with pytest.raises(ValueError):
        access.parse(data)


@pytest.mark.parametrize(
    "path, value",
    [
        (("secret",), ""),
        (("secret",), "00"),
        (("secret",), None),
        (("salt",), "zz" * 32),
        (("format",), 2),
        (("admin",), None),
        (("admin", "hash"), ""),
        (("admin", "hash"), 7),
        (("viewer", "era"), ""),
        (("viewer", "era"), 3),
    ],
)
def test_a_field_that_is_wrong(path: tuple[str, ...], value: Any) -> None:
    document = place = json.loads(access.written(EMPTY))
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(ValueError) as caught:
        access.parse(json.dumps(document).encode())
    assert EMPTY.secret.hex() not in str(caught.value)


def test_a_missing_hash_is_none_that_was_removed() -> None:
    document = json.loads(access.written(EMPTY))
    del document["admin"]["hash"]
    with pytest.raises(ValueError):
        access.parse(json.dumps(document).encode())


def test_roles_are_told_apart_by_their_passwords() -> None:
    admin, viewer, other = (access.hash_of(word, EMPTY.salt) for word in ("admin's one", "viewer's one", "another"))
    both = EMPTY.changed("admin", admin, "1" * 16).changed("viewer", viewer, "2" * 16)
    assert [both.role_of(each) for each in (admin, viewer, other, b"")] == ["admin", "viewer", None, None]
    assert EMPTY.role_of(b"") is None
    with pytest.raises(UnusablePassword, match="told apart by their passwords alone"):
        both.changed("viewer", admin, "3" * 16)
    assert both.changed("admin", admin, "3" * 16).admin.era == "3" * 16


def test_a_hash_is_its_salts_own() -> None:
    assert access.hash_of("password", b"a" * 32) != access.hash_of("password", b"b" * 32)


def test_a_keyboard_may_compose_characters() -> None:
    assert access.hash_of("schl\u00fcssel", EMPTY.salt) == access.hash_of("schlu\u0308ssel", EMPTY.salt)


@pytest.mark.parametrize("password", ["eight ch", "ü" * 512, "😀" * 256, "a b  c d e"])
def test_passwords_that_can_be_set(password: str) -> None:
    access.check(password)


@pytest.mark.parametrize(
    "password, why",
    [
        ("", "has 0 characters"),
        ("seven c", "has 7 characters; choose one of 8 or more"),
        ("x" * 1025, "longer than 1024 bytes"),
        ("ü" * 513, "longer than 1024 bytes"),
        ("x" * 10**7, "longer than 1024 bytes"),
        ("with\ttab", "such as a tab"),
        ("line\r\nline", "such as a tab"),
        ("half \ud800 pair", "such as a tab"),
    ],
)
def test_passwords_that_can_not(password: str, why: str) -> None:
    with pytest.raises(UnusablePassword, match=why):
        access.check(password)


def test_a_token_is_worth_something_until_the_password_changes() -> None:
    data = access.token_file("token", EMPTY)
    assert b"token" not in data
    assert access.is_token("token", data, EMPTY)
    assert not access.is_token("tokem", data, EMPTY)
    assert not access.is_token("", data, EMPTY)
    assert not access.is_token("token", data, EMPTY.changed("admin", None, "9" * 16))
    assert access.is_token("token", data, EMPTY.changed("viewer", None, "9" * 16))


@given(st.binary(max_size=60), st.text(max_size=10))
def test_any_bytes_are_no_tokens(data: bytes, token: str) -> None:
    assert not access.is_token(token, data, EMPTY)
