"""A request on its way through the proxy, and the row that is kept of it: figures, never what was asked or answered."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

from admin.callers import key_of
from admin.figures import Tokens, rate
from admin.who import who

if TYPE_CHECKING:
    from wsgiref.types import WSGIEnvironment

    from admin.leases import Lease, Wish
    from supervisor.errors import Refused

MAX_TEXT = 200  # characters of what a client has chosen, and of a reason

FIRST_ERROR = 400

# How a request ended; CUT_SHORT by the end of llama-router.
COMPLETE, CLIENT_GONE, UPSTREAM_DIED, CUT_SHORT = "complete", "client_gone", "upstream_died", "cut_short"
# What the supervisor answers for a name it does not know; all its other refusals are of a model that it does.
NOT_A_MODEL = frozenset([400, 404])


class Row(NamedTuple):
    """What is kept of a request; the columns of `requests` after its id.

    `at` is its arrival, as Unix time; `key` is the name of the key that it showed. `queue`, `first` (byte of the
    answer's body) and `total` are seconds since then, and `queue` ends with the lease. `rate` is in tokens a second.
    `counted`: `tokens_out` is the number of events; `derived`: `rate` comes from the time that the answer took. `bytes`
    are those of the answer's body. `reason` is what llama-router told the client of a failure; of a model server's own
    error only its type, as servers quote prompts. What is not known is None.
    """

    at: float
    request_id: str
    who: str
    key: str | None
    method: str
    path: str
    model: str | None
    status: int | None
    ended: str
    queue: float | None
    first: float | None
    total: float
    tokens_in: int | None
    tokens_out: int | None
    cached: int | None
    rate: float | None
    counted: bool
    derived: bool
    bytes: int
    reason: str | None


class Recorded(NamedTuple):
    """A row, and what it counts for: `model` and `route` are of bounded number, whatever clients ask for."""

    row: Row
    model: str
    route: str


class Recording:
    """Takes notes of a request while the proxy serves it."""

    __slots__ = (
        "_at",
        "_began",
        "_environ",
        "_granted",
        "_known",
        "_lease",
        "_own_bytes",
        "_reason",
        "_request_id",
        "_status",
        "_wish",
        "ended",
        "is_own",
    )

    def __init__(self, environ: WSGIEnvironment, request_id: str) -> None:
        self._at = time.time()
        self._began = time.monotonic()
        self._environ = environ
        self._request_id = request_id
        self._wish: Wish | None = None
        self._known = False
        self._lease: Lease | None = None
        self._granted = 0.0
        self._status: int | None = None  # of an answer of llama-router's own
        self._own_bytes = 0
        self._reason: str | None = None
        self.is_own = False  # a page of llama-router's, which is no model's business
        self.ended = CLIENT_GONE

    def asked(self, wish: Wish) -> None:
        """The supervisor is asked for a lease."""
        self._wish = wish

    def granted(self, lease: Lease) -> None:
        """A lease is there; the last one counts."""
        self._lease = lease
        self._granted = time.monotonic()

    def refused(self, refusal: Refused) -> None:
        """The supervisor gives no lease."""
        self._known = refusal.status not in NOT_A_MODEL

    def answered(self, status: int, size: int = 0, reason: str | None = None) -> None:
        """llama-router answers by itself, with a body of `size` bytes; `reason` is its error's message."""
        self._status = status
        self.added(size, reason)
        if self.ended == CLIENT_GONE:
            self.ended = COMPLETE

    def added(self, size: int, reason: str | None) -> None:
        """llama-router itself sends more of the body, and says why the answer ends."""
        self._own_bytes += 0 if self._environ["REQUEST_METHOD"] == "HEAD" else size
        self._reason = reason and reason[:MAX_TEXT]

    def finish(self, route: str) -> Recorded:
        """The request is over, however it ended."""
        environ, wish, lease = self._environ, self._wish, self._lease
        total = time.monotonic() - self._began
        asked_for = wish.model if wish is not None else None
        queue, first, size, tokens = None, None, 0, Tokens()
        speed, derived = None, False
        if lease is not None:
            queue, first, size, tokens = self._answer(lease)
            speed = tokens.rate
            if self.ended == CLIENT_GONE and lease.passed.was_whole():
                self.ended = COMPLETE
            if speed is None and tokens.given_out is not None and first is not None:
                speed, derived = _derived(tokens, first, total, queue), True
        status = lease.status if lease is not None and self._status is None else self._status
        row = Row(
            self._at,
            self._request_id,
            wish.who if wish is not None else who(environ),
            None if (key := key_of(environ)) is None else key.name,
            environ["REQUEST_METHOD"][:MAX_TEXT],
            _readable(environ["PATH_INFO"]),
            lease.model if lease is not None else asked_for and asked_for[:MAX_TEXT],
            status,
            self.ended,
            queue,
            first,
            total,
            tokens.taken_in,
            tokens.given_out,
            tokens.cached,
            speed,
            tokens.counted,
            derived and speed is not None,
            size + self._own_bytes,
            self._reason or (_type_of_error(lease, status) if lease is not None else None),
        )
        counts_for = lease.model if lease is not None else asked_for if self._known else None
        return Recorded(row, counts_for or "", route)

    def _answer(self, lease: Lease) -> tuple[float, float | None, int, Tokens]:
        """Seconds until the lease and until the first byte, how many came, and what they tell."""
        queue = self._granted - self._began
        if lease.first_byte is None:
            return queue, None, 0, Tokens()
        return queue, queue + lease.first_byte, lease.passed.size, lease.passed.tokens()


def _derived(tokens: Tokens, first: float, total: float, queue: float) -> float | None:
    """Tokens a second: of a stream behind its first one; else of the whole answer, with the reading of the prompt."""
    count = tokens.given_out or 0
    seconds = total - first if tokens.counted else total - queue
    return rate((count - 1 if tokens.counted else count) / seconds) if seconds > 0 else None


def _type_of_error(lease: Lease, status: int | None) -> str | None:
    """What kind of error a model server answers with, if it says so."""
    kind = lease.passed.error_type() if status is not None and status >= FIRST_ERROR else None
    return kind and f"its server answered {kind}"


def _readable(path: str) -> str:
    """A path's bytes, which WSGI shows as latin-1, as text."""
    return path.encode("latin-1", "replace").decode("utf-8", "replace")[:MAX_TEXT]
