"""The child program of a llama-cpp-python preset: loads one model and serves OpenAI's API on a UNIX socket.

    python -m supervisor.model_server --socket PATH --settings FILE

FILE is a JSON object of llama_cpp.server.settings.ModelSettings' fields. To the sd_notify(3) socket NOTIFY_SOCKET go
STATUS= and X_PROGRESS= (0 to 1) while it loads, READY=1 once it accepts requests and can answer them, and STOPPING=1;
without the variable it works just the same, by hand for example.

If WATCHDOG_USEC asks for it, WATCHDOG=1 follows READY=1 twice in that time, for as long as the event loop runs and the
model is idle or gets on. A request that has the model and makes no step (Model.pulse) for all that time is stuck: then
WATCHDOG=trigger comes instead. So on a GPU a batch of `n_batch` tokens must take less than the watchdog's time, on a
CPU the largest operation in it.

SIGTERM and SIGINT end it at once while it loads; later the running requests are finished first and it exits with 0.
SIGINT is not ignored, because in a terminal Ctrl-C should work: started by the supervisor, it is in a process group of
its own, which a terminal's Ctrl-C does not reach. A second SIGINT ends it at once.

Exit codes are those of sysexits(3). 65 (the file is no usable GGUF), 66 (there is no such file, or it can't be read)
and 78 (an option is unknown or has a bad value) are permanent; 70, 71 (out of memory, with ERRNO=12), 73 (the socket
can't be made) and 74 (reading failed) may pass.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import math
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import anyio
import sdnotify
import uvicorn

from supervisor import model_server_load
from supervisor.errors import CannotCreate, RouterError
from supervisor.model_server_app import Model
from supervisor.model_server_load import CannotLoad, application, load

# Idle connections are the proxy's to close: a server that closes one races with the next request on it.
_KEEP_ALIVE = 3600
_PROGRESS_SECONDS = 0.05


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="supervisor.model_server", description="Serves one GGUF model.")
    parser.add_argument("--socket", type=Path, required=True, help="UNIX socket to listen on (made with mode 0600)")
    parser.add_argument("--settings", type=Path, required=True, help="JSON file of ModelSettings fields")
    options = parser.parse_args(arguments)
    try:
        settings = json.loads(options.settings.read_bytes())
        if not isinstance(settings, dict):
            raise ValueError("expected a JSON object")
    except (OSError, ValueError) as error:
        print(f"cannot read settings {options.settings}: {error}", file=sys.stderr)
        return os.EX_CONFIG
    return serve(settings, options.socket)


def prepare() -> None:
    """Do all that does not depend on the model, for a process that forks model servers: it is done once, and shared."""
    _config().get_loop_factory()
    anyio.run(anyio.sleep, 0)  # imports what it needs under asyncio


def keep(settings: Mapping[str, Any]) -> Callable[[], None]:
    """Read the vocabulary that `serve` needs, in a process that forks model servers of these settings. Returns what
    raises OSError once the file is another one; ends the process if there is nothing to be kept."""
    try:
        return model_server_load.keep(settings)
    except RouterError as error:
        print(error, file=sys.stderr, flush=True)
        sys.exit(os.EX_UNAVAILABLE)


def serve(settings: Mapping[str, Any], socket_path: Path) -> int:
    """Load, serve until SIGTERM, and return the exit code. For a process that forked with the imports done, too."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    # ggml would have a debugger print its hundreds of frames over the last lines, which say what happened.
    os.environ.setdefault("GGML_NO_BACKTRACE", "1")
    notifier = Notifier()
    try:
        with _listening(socket_path) as listener:
            notifier.send("STATUS=loading\nX_PROGRESS=0.00")
            model, status = load(settings, notifier.progress)
            _Server(model, notifier, status).run(sockets=[listener])
    except RouterError as error:
        print(error, file=sys.stderr, flush=True)
        number_line = f"\nERRNO={error.number}" if isinstance(error, CannotLoad) and error.number else ""
        notifier.send(f"STATUS={_one_line(str(error))}{number_line}")
        return error.exit_code
    return os.EX_OK


class Notifier:
    """The sd_notify(3) socket, if there is one."""

    def __init__(self) -> None:
        self._notifier = sdnotify.SystemdNotifier()
        self._per_cent = -1
        self._told = -math.inf

    def send(self, text: str, *, wait: bool = True) -> None:
        """Send assignments, one a line. Never fails: the program works the same when nobody listens.

        A listener that is behind is waited for, or with `wait` false this message is dropped.
        """
        if self._notifier.socket is not None:
            self._notifier.socket.setblocking(wait)
        # sdnotify encodes as latin-1 and silently sends nothing where it can't; sd_notify(3) asks for UTF-8.
        self._notifier.notify(text.encode().decode("latin-1"))

    async def deliver(self, text: str) -> None:
        """Send without holding up the event loop; waits while the listener is behind."""
        if self._notifier.socket is not None:
            self._notifier.socket.setblocking(False)
            with contextlib.suppress(OSError):
                await asyncio.get_running_loop().sock_sendall(self._notifier.socket, text.encode())

    def progress(self, done: float) -> None:
        """Report the part of the weights that is loaded, 0 to 1, in whole per cents, as often as anybody can see."""
        per_cent, now = int(done * 100), time.monotonic()
        if per_cent != self._per_cent and now >= self._told + _PROGRESS_SECONDS:
            self._per_cent, self._told = per_cent, now
            self.send(f"STATUS=loading, {per_cent} %\nX_PROGRESS={per_cent / 100:.2f}", wait=False)


def _one_line(text: str) -> str:
    return " ".join(text.split())


@contextlib.contextmanager
def _listening(path: Path) -> Iterator[socket.socket]:
    """A socket bound to `path`, not yet accepting: until the model is loaded clients are refused, not kept waiting."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if path.is_socket():
            path.unlink()
        mask = os.umask(0o177)
        try:
            listener.bind(str(path))
        finally:
            os.umask(mask)
    except OSError as error:
        listener.close()
        raise CannotCreate(f"cannot listen on {path}: {error.strerror or error}") from error
    try:
        yield listener
    finally:
        listener.close()
        path.unlink(missing_ok=True)


def _config() -> uvicorn.Config:
    """uvicorn's settings, with its modules imported."""
    config = uvicorn.Config(
        application(),
        loop="asyncio",
        http="h11",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        timeout_keep_alive=_KEEP_ALIVE,
    )
    config.load()
    return config


class _Connections(set[Any]):
    """uvicorn's open connections; `none` is set while there are none."""

    def __init__(self) -> None:
        super().__init__()
        self.none = asyncio.Event()
        self.none.set()

    def add(self, connection: Any) -> None:
        """A connection was made."""
        super().add(connection)
        self.none.clear()

    def discard(self, connection: Any) -> None:
        """A connection is lost."""
        super().discard(connection)
        if not self:
            self.none.set()


class _Server(uvicorn.Server):
    """uvicorn that notifies, and that ends by itself after a signal instead of raising it again."""

    def __init__(self, model: Model, notifier: Notifier, status: str) -> None:
        self._model = model
        self._notifier = notifier
        self._status = status
        self._stopping = asyncio.Event()
        self._beats: asyncio.Task[None] | None = None
        super().__init__(_config())
        self._connections = self.server_state.connections = _Connections()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept, then say so."""
        await super().startup(sockets)
        self._notifier.send(f"READY=1\nSTATUS={_one_line(self._status)}\nX_PROGRESS=1.00")
        seconds = _watchdog_seconds()
        if seconds is not None:
            self._beats = asyncio.create_task(self._beat(seconds))

    async def main_loop(self) -> None:
        """Serve until a signal comes. uvicorn's own looks for one, and renews a Date header, ten times a second."""
        await self._stopping.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Say so, stop accepting, and wait for the running requests. uvicorn's own sleeps, and looks whether they are
        over ten times a second; meanwhile the next model waits for the room."""
        self._notifier.send("STOPPING=1\nSTATUS=finishing the running requests")
        for server in self.servers:
            server.close()
        for connection in list(self._connections):
            connection.shutdown()
        await self._connections.none.wait()
        if self.server_state.tasks:
            await asyncio.wait(self.server_state.tasks)
        if self._beats is not None:
            self._beats.cancel()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Replaces uvicorn's way, to which sse-starlette reacts by cutting the running streams."""
        loop = asyncio.get_running_loop()

        def stop(number: int, _frame: object) -> None:
            self.should_exit = True
            loop.call_soon_threadsafe(self._stopping.set)
            if number == signal.SIGINT:
                signal.signal(signal.SIGINT, signal.SIG_DFL)

        previous = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    async def _beat(self, seconds: float) -> None:
        """Twice in `seconds`, say that all is well, or that the model is in use and has made no step for so long.

        Looks at it are counted, not seconds: a process that was stopped for a while must not find its model stuck.
        """
        pulse, unchanged = None, 0
        while True:
            await asyncio.sleep(seconds / 2)
            last, pulse = pulse, self._model.pulse()
            unchanged = unchanged + 1 if pulse is not None and pulse == last else 0
            if unchanged == 2:
                print(f"the model is in use and has made no step for {seconds:g} s", file=sys.stderr, flush=True)
            await self._notifier.deliver("WATCHDOG=1" if unchanged < 2 else "WATCHDOG=trigger")


def _watchdog_seconds() -> float | None:
    """The watchdog's time as sd_watchdog_enabled(3) reads it; None without one, or if it is another process's."""
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()) or not microseconds.isdecimal():
        return None
    return int(microseconds) / 1e6 or None


if __name__ == "__main__":
    sys.exit(main())
