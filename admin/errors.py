"""Error answers: every API path answers {"error": {"code": int, "message": str, "type": str}}, as OpenAI's API does.

Inside, such an answer is a supervisor.errors.Refused: it has the status, type and Retry-After already. handlers.py is
Flask's part.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterable
from http import HTTPStatus
from typing import TYPE_CHECKING

from gunicorn.http.errors import NoMoreData, ParseException

from supervisor.errors import Refused

if TYPE_CHECKING:
    from wsgiref.types import StartResponse

log = logging.getLogger("gunicorn.error.admin")

INVALID = "invalid_request_error"
SERVER = "server_error"
TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}
EMPTY = "cannot use the request body: it is empty, and must be a JSON object"
AWAY = "llama-router's supervisor is not answering"
AWAY_RETRY_SECONDS = 1.0


class Unreadable(Exception):
    """A request after which the connection is of no use, such as one whose body was not read to its end: worker.py
    answers it with `status` and closes the connection.

    Raised through Flask and gunicorn: a WSGI application has no other way to have a connection closed.
    `retry_after` is in seconds.
    """

    def __init__(self, status: int, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after

    def body(self) -> bytes:
        """The error object that worker.py answers with."""
        return error_object(self.status, str(self), type_of(self.status))


# Raised while a body is read; the connection is of no further use then, and worker.py ends it.
CONNECTION_ENDS = (Unreadable, ParseException, NoMoreData, ConnectionResetError, TimeoutError)


def type_of(status: int) -> str:
    """OpenAI's error type for an HTTP status."""
    return TYPES.get(status, SERVER if status >= 500 else INVALID)


def error_object(status: int, message: str, error_type: str) -> bytes:
    """The JSON error body; pure ASCII, whatever the message holds."""
    return json.dumps({"error": {"code": status, "message": message, "type": error_type}}).encode()


def status_line(status: int) -> str:
    """Such as "404 Not Found"; a code that has no name gets "Unknown"."""
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return f"{status} Unknown"


def headers_for(refusal: Refused | Unreadable) -> list[tuple[str, str]]:
    """Content-Type, and Retry-After if it is known."""
    return [("Content-Type", "application/json"), *retry_headers(refusal.retry_after)]


def retry_headers(seconds: float | None) -> list[tuple[str, str]]:
    """Retry-After in whole seconds, rounded up (RFC 9110 §10.2.3); none for None."""
    return [] if seconds is None else [("Retry-After", str(max(1, math.ceil(seconds))))]


def answer(refusal: Refused, start_response: StartResponse, extra: Iterable[tuple[str, str]] = ()) -> list[bytes]:
    """The refusal as a WSGI answer."""
    body = error_object(refusal.status, str(refusal), refusal.error_type)
    headers = [*headers_for(refusal), ("Content-Length", str(len(body))), *extra]
    start_response(status_line(refusal.status), headers)
    return [body]


def away() -> Refused:
    """What a client is told when the control socket does not answer."""
    return Refused(AWAY, status=503, retry_after=AWAY_RETRY_SECONDS)


def invalid(message: str) -> Refused:
    """A request that can't be served whatever the models do."""
    return Refused(message, status=400, error_type=INVALID)


def missing_model() -> Refused:
    """A request that names no model; llama-server's words."""
    return invalid("model name is missing from the request")
