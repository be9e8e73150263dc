"""Secrets of command lines are hidden, and nothing that people look for."""

from __future__ import annotations

import time

import pytest

from supervisor.core.secrets import is_secret, without_secrets

_URLS = ["https://***@h/a", "HTTP://***@h", "https://***@h:1/?a"]
_NO_PASSWORD = ["--proxy-user", "u:"]


@pytest.mark.parametrize(
    "name, secret",
    [
        *[(name, True) for name in ("--api-key", "api_key", "HF_TOKEN", "--hf-token", "AWS_SECRET_ACCESS_KEY")],
        *[(name, True) for name in ("--password", "DB_PASSWD", "credentials", "--ssl-key-file", "-key")],
        *[
            (name, True)
            for name in ("--apikey", "--auth", "Authorization", "apiKey", "accessToken", "APIKey", "Cookie")
        ],
        *[(name, False) for name in ("--max-tokens", "--cache-type-k", "--keyframes", "monkey", "--override-kv", "")],
        *[(name, False) for name in ("--author", "MONKEYS", "--tokenizer")],
    ],
)
def test_names_of_secrets(name: str, secret: bool) -> None:
    assert is_secret(name) is secret


@pytest.mark.parametrize(
    "command, shown",
    [
        (["x", "--api-key", "S"], ["x", "--api-key", "***"]),
        (["x", "--api-key=S", "y"], ["x", "--api-key=***", "y"]),
        (["x", "API_KEY=S", "y"], ["x", "API_KEY=***", "y"]),
        (["x", "--api-key", "--port", "1"], ["x", "--api-key", "--port", "1"]),
        (["x", "key", "S"], ["x", "key", "S"]),
        (["x", "--hf-token"], ["x", "--hf-token"]),
        (["x", "--apikey", "S", "--auth", "u:S", "y"], ["x", "--apikey", "***", "--auth", "***", "y"]),
        (["-H", "Authorization: Bearer S S"], ["-H", "Authorization: ***"]),
        (["-HAuthorization:Bearer S", "--header=X-Api-Key: S"], ["-HAuthorization:***", "--header=X-Api-Key: ***"]),
        (["-H", "Accept: text/plain", "a:b"], ["-H", "Accept: text/plain", "a:b"]),
        (["env", "-S", "OPENAI_API_KEY = S", "PATH=/bin"], ["env", "-S", "OPENAI_API_KEY = ***", "PATH=/bin"]),
        (["-e=HF_TOKEN=S", "https://h/?a=1&token=S"], ["-e=HF_TOKEN=***", "https://h/?a=1&token=***"]),
        (["postgres://u:S@h:5432/db?a=1"], ["postgres://u:***@h:5432/db?a=1"]),
        (["--db=redis://:S@S:S@h http://u:S@h"], ["--db=redis://:***@h http://***@h"]),
        (["git", "https://S@h/a", "HTTP://S:@h", "https://S:x@h:1/?a"], ["git", *_URLS]),
        (["curl", "-u", "u:S", "--user", "u s:S:S", "h"], ["curl", "-u", "u:***", "--user", "u s:***", "h"]),
        (["curl", "-uu:S", "--user=D/u:S", "--proxy-user", "u:"], ["curl", "-uu:***", "--user=D/u:***", *_NO_PASSWORD]),
        (["sh", "-c", "curl --user 'u:S S' h"], ["sh", "-c", "curl --user 'u:***"]),
        (["sh", "-c", "curl -u u:S -H 'Cookie: S' h"], ["sh", "-c", "curl -u u:***"]),
        (
            ["run", "--user", "1000:100", "-u", "http://h:1", "x:y"],
            ["run", "--user", "1000:100", "-u", "http://h:1", "x:y"],
        ),
        (
            ["sh", "-c", "run -u 1:2 --username a:b -u http://h:1"],
            ["sh", "-c", "run -u 1:2 --username a:b -u http://h:1"],
        ),
        (["python", "-u", "-m", "a:b"], ["python", "-u", "-m", "a:b"]),
        (["http://h:80/a@b", "ssh://git@h", "http://[::1]:80"], ["http://h:80/a@b", "ssh://git@h", "http://[::1]:80"]),
        (["sh", "-c", "run --port 1 --api-key S"], ["sh", "-c", "run --port 1 --api-key ***"]),
        (["--json", '{"a": 1, "api_key": "S"}'], ["--json", '{"a": 1, "api_key": ***']),
        ([], []),
    ],
)
def test_secrets_of_a_command_line_are_hidden(command: list[str], shown: list[str]) -> None:
    assert without_secrets(command) == shown


@pytest.mark.parametrize(
    "piece", ["a", "-", "-a ", "a:", "://", "://a:", "=", " ", "key", "'", "u:@", "-u ", " -u", "-u a:", "http://"]
)
def test_a_long_argument_is_looked_through_soon(piece: str) -> None:
    """The kernel's longest argument is 128 KiB (execve(2)); the bound is far above what it takes."""
    began = time.monotonic()
    without_secrets([piece * (2**17 // len(piece))])
    assert time.monotonic() - began < 2
