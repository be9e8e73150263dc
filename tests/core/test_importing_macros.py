"""llama-swap's macros: what is replaced, by what, and where that ends."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.importing import macros, written
from supervisor.importing.macros import CannotExpand, Macros
from tests.core.imported import keys, read, said


@pytest.mark.parametrize(
    ("known", "text", "expected"),
    [
        ({"a": "x"}, "${a}-${a}", "x-x"),
        ({"a": 4096}, "${a}", 4096),
        ({"a": 4096}, "-c ${a}", "-c 4096"),
        ({"a": True}, "is ${a}", "is true"),
        ({"a": "x", "b": "${a}y"}, "${b}", "xy"),
        ({"b": "${a}y", "a": "x"}, "${b}", "${a}y"),
        ({"a": "${b}", "b": "${a}"}, "${a}", "${b}"),
        ({"a": "${b}", "b": "${a}"}, "${b}", "${b}"),
        ({}, "${c} $a ${} ${a b}", "${c} $a ${} ${a b}"),
        ({"a": "${env.E}"}, "${a}/${env.E}/${env.NONE}", "v/v/${env.NONE}"),
        ({}, "${env.N}", 7),
    ],
)
def test_macros(known: dict[str, Any], text: str, expected: object) -> None:
    assert Macros(known, {"E": "v", "N": "7"}).expand(text) == expected


def test_macros_of_a_model_come_before_those_of_all() -> None:
    assert Macros({"a": 1, "b": "${a}"}, {}).over({"a": 2}).expand(["${a}", {"${a}": "${b}"}]) == [2, {"${a}": 2}]


def test_macros_that_double_are_stopped() -> None:
    doubling = {"m0": "x" * 8} | {f"m{number}": f"${{m{number - 1}}}" * 2 for number in range(1, 60)}
    with pytest.raises(CannotExpand, match="128 KiB"):
        Macros(doubling, {}).expand("${m59}")
    found = read(written.dump({"macros": doubling, "models": {"a": {"cmd": "x ${PORT} ${m59}"}}}))
    assert said(found, "models.a.cmd: cannot carry over: it would be longer")


@given(
    st.dictionaries(
        st.sampled_from("abcd"), st.lists(st.sampled_from(["${a}", "${b}", "${c}", "${d}", "x", "$", "{"])).map("".join)
    ),
    st.lists(st.sampled_from(["${a}", "${b}", "${c}", "${d}", "-"])).map("".join),
)
def test_macros_agree_with_replacing_them_from_the_last_to_the_first(known: dict[str, str], text: str) -> None:
    expected = text
    for name in reversed(known):
        expected = expected.replace(f"${{{name}}}", known[name])
    assert Macros(known, {}).expand(text) == expected


def test_a_variable_is_taken_from_the_environment_and_told_once() -> None:
    text = "models: {a: {cmd: 'x ${PORT} ${env.KEY} ${env.KEY} ${env.GONE}'}}"
    found = read(text, environment={"KEY": "k"})
    assert keys(found)["command"] == ["x", "{port}", "k", "k", "${env.GONE}"]
    assert len(said(found, "${env.KEY} became the value")) == 1
    assert len(said(found, "cannot replace ${env.GONE}")) == 1


def test_variables_of_what_is_left_out_are_not_told() -> None:
    found = read("models: {a: {cmd: 'x ${PORT}'}}\napiKeys: ['${env.KEY}']")
    assert [str(remark).partition(": cannot")[0] for remark in found.remarks] == ["/etc/x/file:2: apiKeys"]


def test_too_many_macros_are_not_read() -> None:
    many = {f"m{number}": 1 for number in range(macros.MAX_MACROS + 1)}
    found = read(written.dump({"macros": many, "models": {"a": {"cmd": "x ${PORT}"}}}))
    assert said(found, f"more than {macros.MAX_MACROS}")
