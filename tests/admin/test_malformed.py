"""Malformed HTTP is answered with an error object and the end of the connection."""

from __future__ import annotations

import json

import pytest
from web_tier import WebTier

POST = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"

MALFORMED = {
    "garbage": (b"garbage\r\n\r\n", 400),
    "tls": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
    "method": (b"get / HTTP/1.1\r\n\r\n", 400),
    "version": (b"GET / HTTP/9.9\r\n\r\n", 400),
    "long line": (b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\n\r\n", 414),
    "large header": (b"GET / HTTP/1.1\r\nX: " + b"a" * 40_000 + b"\r\n\r\n", 431),
    "many headers": (b"GET / HTTP/1.1\r\n" + b"X: 1\r\n" * 200 + b"\r\n", 431),
    "header": (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", 400),
    "header name": (b"GET / HTTP/1.1\r\nX Y: 1\r\n\r\n", 400),
    "folding": (b"GET / HTTP/1.1\r\nX: 1\r\n 2\r\n\r\n", 400),
    "length": (POST + b"Content-Length: -1\r\n\r\n", 400),
    "lengths": (POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nx", 400),
    "smuggling": (POST + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "coding": (POST + b"Transfer-Encoding: zstd\r\n\r\n", 501),
    "expectation": (POST + b"Expect: a-miracle\r\n\r\n", 417),
    "chunk size": (CHUNKED + b"xyz\r\n\r\n", 400),
    "chunk end": (CHUNKED + b"1\r\nabc\r\n0\r\n\r\n", 400),
    "chunk extension": (CHUNKED + b"1;\x00\r\na\r\n0\r\n\r\n", 400),
    "trailers": (CHUNKED + b"0\r\n" + b"X: " + b"a" * 2_000_000 + b"\r\n\r\n", 431),
    "chunked to flask": (b"POST /models/load HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", 400),
    "large to flask": (b"POST /models/load HTTP/1.1\r\nContent-Length: 9999999\r\n\r\n", 413),
    "chunked form": (
        b"POST /ui/login HTTP/1.1\r\nContent-Type: application/x-www-form-urlencoded\r\n"
        b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n",
        400,
    ),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_http(web: WebTier, name: str) -> None:
    raw, status = MALFORMED[name]
    head, _, body = web.exchange(raw).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert b"\r\nContent-Type: application/json" in head
    assert b"\r\nConnection: close" in head
    error = json.loads(body)["error"]
    assert set(error) == {"code", "message", "type"}
    assert error["code"] == status
    assert error["message"]


def test_the_log_is_not_flooded_by_it(web: WebTier) -> None:
    before = len(web.log_text())
    for _ in range(20):
        web.exchange(b"garbage\r\n\r\n")
    assert len(web.log_text()) == before


@pytest.mark.parametrize("header", [b"SCRIPT_NAME: /x", b"X-Forwarded-Proto: https", b"Proxy: x", b"Host: a b/"])
def test_headers_that_want_to_change_the_application(web: WebTier, header: bytes) -> None:
    raw = b"GET /health HTTP/1.1\r\nConnection: close\r\n" + header + b"\r\n\r\n"
    assert b'{"status":"ok"}' in web.exchange(raw)
