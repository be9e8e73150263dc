"""What Flask's views answer with is JSON, whatever is in it."""

from __future__ import annotations

import json
from pathlib import Path

import flask
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from admin.application import create_app

TEXT = st.sampled_from(["", "a", "\u00e9\u2028<&>", '"\\\\\n\0', "\U0001f999", "\udcff", "a\ud800b"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner),
)


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> flask.Flask:
    folder = tmp_path_factory.mktemp("app")
    return create_app(str(folder), str(folder))


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(value=VALUES)
def test_any_value_is_told_as_it_is(app: flask.Flask, value: object) -> None:
    with app.app_context():
        body = flask.jsonify({"value": value}).get_data()
    assert json.loads(body) == {"value": value}


def test_what_msgspec_has_no_way_to_write_is_written_by_flask(app: flask.Flask) -> None:
    assert app.json.loads(app.json.dumps({"b": Path("x").name, "a": 2**70}, sort_keys=True)) == {"a": 2**70, "b": "x"}
    assert app.json.dumps({"b": 1, "a": 2}, sort_keys=True, separators=(",", ":")) == '{"a":2,"b":1}'
    assert app.json.dumps({"b": 1, "a": 2}) == '{"b":1,"a":2}'
