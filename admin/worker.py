"""gunicorn's gevent worker, with OpenAI error objects for malformed HTTP and a prompt, graceful end.

On SIGTERM it ends endless streams (connection.stopping) at once, closes what is idle after LAST_REQUEST_SECONDS, and
gives the requests in progress LLAMA_ROUTER_GRACE seconds. Slow clients: a connection must bring its first request
within FIRST_REQUEST_SECONDS and then move some bytes every STALL_SECONDS, in whichever direction it is asked to.
"""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache, partial
from typing import Any, TypeVar

import gevent
from gevent import GreenletExit
from gevent.event import Event
from gevent.pool import Pool
from gunicorn import http
from gunicorn.http import wsgi
from gunicorn.http.errors import (
    ExpectationFailed,
    ForbiddenProxyRequest,
    InvalidResponseHeader,
    InvalidResponseHeaderName,
    LimitRequestHeaders,
    LimitRequestLine,
    NoMoreData,
    ParseException,
    UnsupportedTransferCoding,
)
from gunicorn.http.unreader import SocketUnreader
from gunicorn.workers.ggevent import GeventWorker

from admin import connection, errors, tls
from admin.accepting import Server
from admin.connection import silent_timeout
from admin.sent import SentAnswer
from admin.tls import goodbye
from admin.turns import Turns, beginning

FIRST_REQUEST_SECONDS = 20.0
STALL_SECONDS = 60.0
LAST_REQUEST_SECONDS = 0.3  # for a request already on its way when the worker is asked to stop
KILL_SECONDS = 2  # between a worker's own deadline and gunicorn's SIGKILL
STANDS_IN_LINE, HEAD_END = b"POST ", b"\r\n\r\n"
QUIET = frozenset([errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN, errno.EBADF])
STATUSES: tuple[tuple[type[Exception], int], ...] = (
    (LimitRequestLine, 414),
    (LimitRequestHeaders, 431),
    (ExpectationFailed, 417),
    (UnsupportedTransferCoding, 501),
    (ForbiddenProxyRequest, 403),
)

T = TypeVar("T")

wsgi.WSGIErrorsWrapper = lru_cache(maxsize=1)(wsgi.WSGIErrorsWrapper)  # or each request would look for its logger


class FairUnreader(SocketUnreader):  # type: ignore[misc]
    """Reads what a client sent, in turns: reading waits only for what has not arrived, so a fast sender would hold up
    everybody, and one of tiny chunks for long."""

    max_body_chunk = 65536  # gunicorn's readers copy what they hold with each small read

    def __init__(self, client: socket.socket) -> None:
        super().__init__(client)
        self._turns = Turns()

    def begin(self) -> bytes:
        """Wait for the beginning of a request, and leave it to be read; b"" at the end."""
        data: bytes = self.buf.getvalue()
        if not data:
            data = self.chunk()
            self.unread(data)
        return data

    def chunk(self, size_hint: int | None = None) -> bytes:
        """What has arrived, b"" at the end."""
        self._turns.next()
        data: bytes = super().chunk(size_hint)
        return data


class Settings:
    """gunicorn's, each looked up once: its parser asks for a dozen of them with every request."""

    def __init__(self, cfg: Any) -> None:
        self._cfg = cfg

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._cfg, name)
        setattr(self, name, value)
        return value


class RouterWorker(GeventWorker):  # type: ignore[misc]  # gunicorn has no type hints
    """One process of the web tier."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._settings = Settings(self.cfg)
        self._wake = Event()
        self._waiting: dict[gevent.Timeout, gevent.Greenlet[..., Any]] = {}
        self._certificate: tls.Certificate | None = None
        if self.cfg.is_ssl:
            tls.remember(self.cfg.certfile, self.cfg.keyfile)

    def load_wsgi(self) -> None:
        """In the worker, with gevent's sockets by now; one that has no certificate is never ready."""
        if self.cfg.is_ssl:
            self._certificate = tls.Certificate(self.cfg.certfile, self.cfg.keyfile)
        super().load_wsgi()

    def run(self) -> None:
        """Serve until SIGTERM, then finish what is in progress."""
        pool = Pool(self.worker_connections)
        servers = [self._listen(listener, pool) for listener in self.sockets]
        while self.alive:
            self.notify()
            self._wake.wait(self.timeout)  # half of that in gunicorn's settings
        for server in servers:
            server.close()
        connection.stopping.set()
        closing = gevent.get_hub().loop.timer(LAST_REQUEST_SECONDS)
        closing.start(self._close_idle)  # in the hub, which alone may throw into other greenlets
        deadline = time.monotonic() + self.cfg.graceful_timeout - KILL_SECONDS
        while not pool.join(timeout=min(1.0, max(0.0, deadline - time.monotonic()))):
            self.notify()
            if time.monotonic() >= deadline:
                self.log.warning("ending %d requests that outlast the grace period", len(pool))
                pool.kill(timeout=KILL_SECONDS / 2)
                return

    def _listen(self, listener: Any, pool: Pool) -> Server:
        listener.setblocking(1)
        server = Server(listener, self.cfg.workers, handle=partial(self.handle, listener), spawn=pool)
        server.start()
        return server

    def handle_exit(self, sig: int, frame: Any) -> None:
        """SIGTERM."""
        self.alive = False
        gevent.get_hub().loop.run_callback_threadsafe(self._wake.set)

    def handle(self, listener: Any, client: socket.socket, addr: Any) -> None:
        """Serve one connection."""
        if self._certificate is None:
            client.settimeout(STALL_SECONDS)
            self._serve(listener, client, addr)
            return
        secured = None
        with silent_timeout(FIRST_REQUEST_SECONDS):
            secured = self._certificate.wrap(client)
        if secured is None:
            with suppress(OSError):
                client.close()
        else:
            secured.settimeout(STALL_SECONDS)
            self._serve(listener, secured, addr)

    def _serve(self, listener: Any, client: socket.socket, addr: Any) -> None:
        """Answer the requests of one connection, one after the other."""
        request = None
        try:
            parser = http.get_parser(self._settings, client, addr)
            parser.unreader = FairUnreader(client)
            name = listener.getsockname()
            while (request := self._next_request(parser)) is not None:
                self.handle_request(name, request, client, addr)
            goodbye(client)
        except (StopIteration, NoMoreData):
            goodbye(client)
        except (TimeoutError, connection.ClientGone):
            pass  # it went quiet, or away
        except OSError as error:
            if error.errno not in QUIET:
                self.log.exception("a connection broke")
        except Exception as error:
            self.handle_error(request, client, addr, error)
        finally:
            with suppress(OSError):
                client.close()

    def handle_request(self, listener_name: Any, req: Any, sock: socket.socket, addr: Any) -> None:
        """Have the application answer. Raises StopIteration when the connection is to end, or what ends it."""
        answer, environ = wsgi.create(req, sock, addr, listener_name, self._settings, SentAnswer)
        environ["wsgi.multithread"] = True
        if not self.alive:
            answer.force_close()
        try:
            body = self.wsgi(environ, answer.start_response)
            try:
                for piece in body:
                    answer.write(piece)
                answer.close()
            finally:
                if hasattr(body, "close"):
                    body.close()
        except GreenletExit:  # the grace period is over
            raise StopIteration from None
        except OSError:
            raise
        except Exception:
            if not answer.headers_sent:
                raise
            self.log.exception("an answer broke off")  # an error object would be taken for its tail
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            raise StopIteration from None
        if answer.should_close():
            raise StopIteration

    def _next_request(self, parser: Any) -> Any:
        """Wait for a request; None when none came in time. Raises what gunicorn's parser does, and ClientGone."""
        patience = self._settings.keepalive if parser.req_count else FIRST_REQUEST_SECONDS
        until = time.monotonic() + patience
        begin = self._in_time(patience, partial(_begin, parser))
        left = max(0.0, until - time.monotonic())
        if begin is None:
            return None
        if begin.startswith(STANDS_IN_LINE) and beginning.wait() and connection.peek(parser.unreader.sock) == b"":
            raise connection.ClientGone
        return next(parser) if HEAD_END in begin else self._in_time(left, partial(next, parser))

    def _in_time(self, seconds: float, wait: Callable[[], T]) -> T | None:
        """What comes of a wait, None if nothing came in time."""
        timeout = silent_timeout(seconds if self.alive else LAST_REQUEST_SECONDS)
        self._waiting[timeout] = gevent.getcurrent()  # type: ignore[assignment]
        try:
            with timeout:
                return wait()
        finally:
            del self._waiting[timeout]
        return None

    def _close_idle(self) -> None:
        """End the wait of every connection for a next request, as its own timeout would."""
        for timeout, greenlet in list(self._waiting.items()):
            if timeout in self._waiting:
                greenlet.throw(timeout)

    def handle_error(self, req: Any, client: socket.socket, addr: Any, exc: BaseException) -> None:
        """Answer what never became a request of the application, or what it could not finish reading; then hang up."""
        verdict = self._verdict(req, exc)
        body = verdict.body()
        headers = [*errors.headers_for(verdict), ("Content-Length", str(len(body))), ("Connection", "close")]
        head = "".join(f"{name}: {value}\r\n" for name, value in headers)
        with suppress(OSError):
            client.sendall(f"HTTP/1.1 {errors.status_line(verdict.status)}\r\n{head}\r\n".encode() + body)
            connection.linger(client)

    def _verdict(self, req: Any, exc: BaseException) -> errors.Unreadable:
        if isinstance(exc, errors.Unreadable):
            return exc
        ours = isinstance(exc, InvalidResponseHeader | InvalidResponseHeaderName)
        if isinstance(exc, ParseException) and not ours:
            self.log.debug("malformed request: %r", exc)
            status = next((status for kind, status in STATUSES if isinstance(exc, kind)), 400)
            return errors.Unreadable(status, f"malformed HTTP request: {exc}")
        self.log.error("cannot answer %s", getattr(req, "uri", "a request"), exc_info=exc)
        return errors.Unreadable(500, "llama-router failed on this request; its log says why")


def _begin(parser: Any) -> bytes:
    """Wait for the beginning of the next request, b"" at the end. Raises StopIteration when there can't be one."""
    if not parser.finish_body():
        raise StopIteration
    parser.mesg = None  # or the parser would look at its body again
    client = parser.unreader.sock
    client.settimeout(None)  # how long a connection may rest is not for a stall to say
    try:
        begin: bytes = parser.unreader.begin()
    finally:
        client.settimeout(STALL_SECONDS)
    return begin
