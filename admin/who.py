"""Who asks, in words for the people who look at the queue: "192.0.2.7 curl/8.5.0"."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wsgiref.types import WSGIEnvironment

MAX_WORD = 64
UNIX = "unix"  # a UNIX socket's clients have no address

# What product names (RFC 9110 §10.1.5) and most request ids are made of; nothing that a page or a terminal would obey.
HARMLESS = re.compile(rf"[0-9A-Za-z][0-9A-Za-z._+:@/\-]{{0,{MAX_WORD - 1}}}")
CREDENTIALS = ("HTTP_AUTHORIZATION", "HTTP_X_API_KEY", "HTTP_COOKIE")


def who(environ: WSGIEnvironment) -> str:
    """The client's address, and its X-Request-Id, or else the first word of its User-Agent.

    A word that is long, has unusual characters or is found in, or holds, a credential of the request is left out.
    """
    address = environ.get("REMOTE_ADDR") or UNIX
    given = (environ.get("HTTP_X_REQUEST_ID", ""), environ.get("HTTP_USER_AGENT", "").partition(" ")[0])
    secrets = " ".join(environ.get(name, "") for name in CREDENTIALS).split()
    word = next((word for word in given if _harmless(word, secrets)), None)
    return f"{address} {word}" if word else address


def _harmless(word: str, secrets: list[str]) -> bool:
    return HARMLESS.fullmatch(word) is not None and not any(word in secret or secret in word for secret in secrets)
