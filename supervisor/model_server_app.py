"""The HTTP application of a model server: llama-cpp-python's own OpenAI app, and what it lacks around it.

1. Every failure is an OpenAI error object with the right status, and an error event once a stream has begun.
2. A client that has gone stops its computation, whether it streamed or not, and nobody else's.
3. A client that reads slowly does not keep the model from the next one.
4. GET /health answers at once, however busy the model is.
5. Whether the computation that runs gets on can be seen from outside of it (Model.pulse).
6. Calls of tools go in and come out as OpenAI's clients write and read them.
"""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from http import HTTPStatus
from typing import Any, Literal

import anyio
import llama_cpp.server.app as upstream
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from llama_cpp import llama_cpp as bindings
from llama_cpp.llama_chat_format import Jinja2ChatFormatter
from llama_cpp.server.errors import RouteErrorHandler
from sse_starlette.sse import EventSourceResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from supervisor.model_server_abort import AbortFlag
from supervisor.model_server_errors import describe
from supervisor.model_server_request import adapted, for_template
from supervisor.model_server_stream import TokenCount, completed

_log = logging.getLogger("model_server")


def application(server_settings: Any) -> FastAPI:
    """The application, which serves the model that `load` loads. Once in a process."""
    # Read by create_app, which would then load a model of its own.
    os.environ.pop("CONFIG_FILE", None)
    upstream.set_llama_proxy = lambda **_settings: None
    # FastAPI's and starlette's own answers, and those of llama-cpp-python's routes, are not OpenAI's: let the
    # exceptions through to Exchange, which answers them all alike.
    RouteErrorHandler.error_message_wrapper = _reraise_from_route
    for name in ("llama_sampler_init_grammar", "llama_sampler_init_grammar_lazy_patterns"):
        setattr(bindings, name, _refusing_null(getattr(bindings, name)))
    app: FastAPI = upstream.create_app(server_settings=server_settings, model_settings=[])
    app.add_exception_handler(HTTPException, _reraise)
    app.add_exception_handler(RequestValidationError, _reraise)
    app.add_api_route("/health", _health, include_in_schema=False)
    app.add_middleware(Middleware)
    upstream.get_event_publisher = _completing(upstream.get_event_publisher)
    # It would look twice a second, from the first stream on, whether the server is to end and streams to be cut short.
    setattr(EventSourceResponse, "_listen_for_exit_signal", staticmethod(anyio.sleep_forever))  # noqa: B010
    Jinja2ChatFormatter.__call__ = _informed(Jinja2ChatFormatter.__call__)
    _build_what_is_lazy(app)
    return app


def _build_what_is_lazy(app: FastAPI) -> None:
    """FastAPI leaves this to the first request, which would wait for it: 25 ms of CPU time."""
    app.middleware_stack = app.build_middleware_stack()
    for route in app.routes:
        route.matches({"type": "http", "method": "GET", "path": "/", "root_path": ""})


def load(model_settings: Any) -> Model:
    """Load the model, which the application serves from then on. Raises what loading raises."""
    model = Model(upstream.LlamaProxy(models=[model_settings]))
    upstream._llama_proxy = model
    # Its answer's "model" for a request that names none, where the path would be nobody's business.
    model.llama.model_path = model_settings.model_alias
    return model


async def _health() -> dict[str, str]:
    return {"status": "ok"}


async def _reraise(_request: Any, error: Exception) -> Any:
    raise error


def _reraise_from_route(_route: Any, error: Exception, body: Any = None) -> Any:
    raise error


def _refusing_null(init: Callable[..., Any]) -> Callable[..., Any]:
    """llama_cpp goes on with the null pointer that llama.cpp returns for a bad grammar, and the process dies of it."""

    def init_or_raise(*arguments: Any) -> Any:
        sampler = init(*arguments)
        if not sampler:
            raise ValueError("the grammar, or the JSON schema it was made from, can't be parsed")
        return sampler

    return init_or_raise


def _completing(publish: Callable[..., Any]) -> Callable[..., Any]:
    """llama-cpp-python's way to send a stream, whose chunks lack something."""

    async def publish_completed(*, llama_call: Callable[..., Any], **given: Any) -> None:
        exchange = _current.get()
        usage = upstream._llama_proxy.count.usage if exchange is not None and exchange.include_usage else None
        await publish(llama_call=lambda *args, **options: completed(llama_call(*args, **options), usage), **given)

    return publish_completed


def _informed(render: Callable[..., Any]) -> Callable[..., Any]:
    """A chat template's rendering, of messages as that template needs them."""

    def render_messages(self: Any, *, messages: list[Any], **options: Any) -> Any:
        return render(self, messages=for_template(messages, self.template), **options)

    return render_messages


class Abandoned(Exception):
    """Raised inside a computation whose client has gone; nobody is left to be told."""


class Model:
    """The loaded model, which knows for whom it computes. Stands where llama-cpp-python's app expects its LlamaProxy.

    The app calls it once per request, while that request holds the model's lock, and a computation always ends before
    its lock is released. So the last caller is the only one whose computation the flag can reach.
    """

    def __init__(self, proxy: Any) -> None:
        self.llama = proxy()
        self._names = tuple(proxy)
        self._owner: Exchange | None = None
        self._flag = AbortFlag()
        bindings.llama_set_abort_callback(self.llama.ctx, self._flag.callback, self._flag.data)
        self.count = TokenCount(self.llama)
        self._decoded = 0
        self._decode = self.llama._ctx.decode
        self.llama._ctx.decode = self._guarded_decode
        self._detokenize = self.llama.detokenize
        self.llama.detokenize = self._checked_detokenize

    def __call__(self, _name: str | None = None) -> Any:
        """The model, for the request that asks; LlamaProxy too serves any name with the model it has."""
        self._owner = _current.get()
        if self._flag.is_set:
            self._forget_unfinished()
        self._flag.clear()
        return self.llama

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def abandon(self, exchange: Exchange) -> None:
        """End the computation of `exchange` if it is the one that runs."""
        if self._owner is exchange:
            self._flag.set()

    def leave(self, exchange: Exchange) -> None:
        """The computation of `exchange` is over, and the model idle unless another request has it already."""
        if self._owner is exchange:
            self._owner = None

    def pulse(self) -> object:
        """None while no request has the model; else something that changes when the computation makes a step.

        Steps are the end of a batch of `n_batch` tokens, that of a token of the answer, and on a CPU each node of
        llama.cpp's graph. What else a request does with the model (tokenizing, encoding an image, compiling a
        grammar) is all between two steps, and so is the wait for a GPU, whose llama_decode returns early.
        """
        if self._owner is None:
            return None
        return self._owner, self._decoded, self._flag.asked

    def is_aborting(self) -> bool:
        """Whether a computation is being ended, of which llama.cpp's log speaks as a failure."""
        return self._flag.is_set

    def _guarded_decode(self, batch: Any) -> None:
        """Decode unless abandoned: the devices that ignore llama.cpp's abort callback stop at the next token."""
        if self._flag.is_set:
            raise Abandoned
        self._decode(batch)
        self._decoded += 1

    def _checked_detokenize(self, tokens: list[int], **options: Any) -> Any:
        """llama.cpp ends the process for an id outside its vocabulary, and /extras/detokenize takes any."""
        if tokens and not 0 <= min(tokens) <= max(tokens) < self.llama.n_vocab():
            raise ValueError(f"token ids are 0 to {self.llama.n_vocab() - 1}")
        return self._detokenize(tokens, **options)

    def _forget_unfinished(self) -> None:
        """Leave nothing of an aborted decode for the next request to build on.

        llama-cpp-python counts only finished decodes and llama.cpp takes back what is beyond them, except that the
        state of a recurrent model can't be taken back: there the last token must not pass for evaluated. And
        embedding empties the KV cache while the tokens of the request before stay counted.
        """
        self.llama._requires_eval = True
        if self.llama.context_params.embeddings:
            self.llama.reset()


class Middleware:
    """Runs each request as an Exchange. Pure ASGI, so that nothing of the response is buffered."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = await _read_body(receive)
        if body is None:
            return
        model: Model = upstream._llama_proxy
        exchange = Exchange(scope, body, receive, send)
        _current.set(exchange)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(exchange.watch, model, tasks.cancel_scope)
            tasks.start_soon(exchange.write)
            try:
                exchange.adapt(takes_images=model.llama.chat_handler is not None)
                await self._app(scope, exchange.receive, exchange.send)
            except Exception as error:
                exchange.fail(error)
            finally:
                model.leave(exchange)
            await exchange.finish()
            tasks.cancel_scope.cancel()


class Exchange:
    """One request and its answer.

    The answer's head is held back until there is something of its body, so that what fails before can still get the
    status it deserves. A ping of an event stream counts as body: it keeps the connection alive through a long prompt,
    and an error after it becomes an event.
    """

    def __init__(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        self._scope = scope
        self._body = body
        self.include_usage = False
        self._receive = receive
        self._send = send
        self._delivered = False
        self._gone = anyio.Event()
        self._head: Message | None = None
        self._streaming: Literal["no", "events", "other"] = "no"
        self._answered = False
        self._written = anyio.Event()
        # No bound: an answer is no longer than the context, and the model is free as soon as it is computed.
        self._outgoing, self._incoming = anyio.create_memory_object_stream[Message](math.inf)

    def adapt(self, *, takes_images: bool) -> None:
        """Make the body what the application understands. Raises ValueError for what it can't serve."""
        if self._scope["method"] == "POST":
            request = adapted(self._scope["path"], self._body, takes_images=takes_images)
            self._body, self.include_usage = request

    async def receive(self) -> Message:
        """The whole body at once, then nothing until the client has gone."""
        if not self._delivered:
            self._delivered = True
            return {"type": "http.request", "body": self._body, "more_body": False}
        if not self._gone.is_set():
            await self._gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """Queue a part of the answer; never waits for the client."""
        if message["type"] == "http.response.start":
            self._head = message
            return
        if not message.get("body"):
            # An event stream ends before the exception that ended it is known: its end waits for finish().
            return
        self._start()
        self._answered = not message.get("more_body", False)
        self._queue(message)

    def _start(self) -> None:
        """Queue the head, if it still is held back."""
        if self._head is not None:
            self._streaming = "events" if _is_event_stream(self._head) else "other"
            self._queue(self._head)
            self._head = None

    def _end(self, body: bytes = b"") -> None:
        self._answered = True
        self._queue({"type": "http.response.body", "body": body})

    def _queue(self, message: Message) -> None:
        if not self._gone.is_set():
            self._outgoing.send_nowait(message)

    async def finish(self) -> None:
        """End the answer, and wait until all of it is sent."""
        if not self._answered:
            self._start()
            self._end()
        self._outgoing.close()
        await self._written.wait()

    async def write(self) -> None:
        """Send what is queued at the pace of the client."""
        async with self._incoming:
            async for message in self._incoming:
                await self._send(message)
        self._written.set()

    async def watch(self, model: Model, scope: anyio.CancelScope) -> None:
        """Once the client has gone, end the computation and everything that waits."""
        # The server calls the end of an answer a disconnect too.
        while (await self._receive())["type"] != "http.disconnect":
            pass
        if self._answered:
            return
        self._gone.set()
        model.abandon(self)
        scope.cancel()

    def fail(self, error: Exception) -> None:
        """Answer with `error`: 1. nobody there, or all said · 2. nothing sent · 3. amid events · 4. amid a body."""
        if self._gone.is_set() or self._answered:  # 1
            return
        status, payload = describe(error, self._body)
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            _log.error("cannot answer %s %s", self._scope["method"], self._scope["path"], exc_info=error)
        if self._streaming == "other":  # 4: the connection breaks, which tells the client that the body is not whole
            raise error
        text = json.dumps({"error": payload})
        if self._streaming == "events":  # 3
            text = f"data: {text}\n\n"
        else:  # 2
            headers = [(b"content-type", b"application/json")]
            self._queue({"type": "http.response.start", "status": status, "headers": headers})
        self._end(text.encode())


_current: ContextVar[Exchange | None] = ContextVar("exchange", default=None)


async def _read_body(receive: Receive) -> bytes | None:
    """The whole body of a request, or None if the client has gone before its end."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += message.get("body", b"")
        if not message.get("more_body", False):
            return bytes(body)


def _is_event_stream(head: Message) -> bool:
    headers = dict(head.get("headers", ()))
    return bytes(headers.get(b"content-type", b"")).startswith(b"text/event-stream")
