"""The load generator: one thread, one epoll, raw sockets, so that what it takes of the machine is small and known.

By hand, against anything that answers HTTP/1.1:

    python -m tests.bench.load 127.0.0.1:8080 /tokenize '{"model": "smollm2", "content": "Hello"}' --connections 8
"""

from __future__ import annotations

import argparse
import json
import math
import re
import select
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.bench.figures import median, nth
from tests.bench.wire import Address, Answer, Broken, get, post

STAMP = re.compile(rb"@(\d+\.\d+)@")  # what tests/bench/upstream.py writes: time.monotonic() when a chunk was due


@dataclass
class Load:
    """What came of a load. Times are seconds."""

    waits: list[float] = field(default_factory=list)  # of each answer, or of a stream's first chunk
    delays: list[float] = field(default_factory=list)  # of each chunk, from when it was due
    chunks: int = 0
    errors: list[str] = field(default_factory=list)
    seconds: float = 0.0
    cpu: float = 0.0  # the generator's own

    @property
    def rate(self) -> float:
        """Answers a second."""
        return len(self.waits) / self.seconds if self.seconds else 0.0


class _Client:
    """One connection that asks again as soon as it was answered."""

    __slots__ = ("answer", "began", "chunks", "connection", "done", "tail")

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.answer = Answer()
        self.began = 0.0
        self.chunks = 0
        self.done = False
        self.tail = b""

    def ask(self, request: bytes) -> None:
        self.answer = Answer()
        self.began = time.monotonic()
        self.connection.sendall(request)


@contextmanager
def _timed(load: Load) -> Iterator[None]:
    began, cpu = time.monotonic(), time.process_time()
    yield
    load.seconds, load.cpu = time.monotonic() - began, time.process_time() - cpu


@contextmanager
def _clients(address: Address, number: int) -> Iterator[tuple[select.epoll, dict[int, _Client]]]:
    everyone: list[_Client] = []
    with select.epoll() as epoll:
        try:
            for _ in range(number):
                everyone.append(_Client(address.connect()))
                epoll.register(everyone[-1].connection, select.EPOLLIN)
            yield epoll, {client.connection.fileno(): client for client in everyone}
        finally:
            for client in everyone:
                client.connection.close()


def keep_asking(address: Address, request: bytes, connections: int, seconds: float, enough: float = math.inf) -> Load:
    """Send a request on each connection again and again for so long, or until there are enough answers.

    A connection that the server closes between answers, as llama-server does after 100, is made anew; an answer that
    breaks off, or is of another status than 200, is an error.
    """
    load = Load()
    with _clients(address, connections) as (epoll, clients), _timed(load):
        until = time.monotonic() + seconds
        for client in clients.values():
            client.ask(request)
        while len(load.waits) < enough and (now := time.monotonic()) < until:
            for descriptor, _ in epoll.poll(until - now):
                client = clients[descriptor]
                try:
                    if not _answered(client, load):
                        continue
                    if client.answer.keeps:
                        client.ask(request)
                        continue
                except (OSError, ValueError, Broken) as error:
                    load.errors.append(str(error))
                del clients[descriptor]
                client.connection.close()
                client.connection = address.connect()
                clients[client.connection.fileno()] = client
                epoll.register(client.connection, select.EPOLLIN)
                client.ask(request)
    return load


def _answered(client: _Client, load: Load) -> bool:
    data = client.connection.recv(65536)
    if not data:
        raise Broken("the connection ended before the answer")
    body = client.answer.feed(data)
    if not client.answer.whole:
        return False
    if client.answer.status != 200:
        load.errors.append(f"status {client.answer.status}: {body[:200].decode(errors='replace')}")
    else:
        load.waits.append(time.monotonic() - client.began)
    return True


def streams(address: Address, request: bytes, number: int, chunks: int, patience: float) -> Load:
    """Read so many streams at once to their ends. One with fewer than `chunks` events, or too slow, is an error.

    patience: seconds for all of them
    """
    load = Load()
    with _timed(load), _clients(address, number) as (epoll, clients):
        until = time.monotonic() + patience
        for client in clients.values():
            client.ask(request)
        while clients and (now := time.monotonic()) < until:
            for descriptor, _ in epoll.poll(until - now):
                client = clients[descriptor]
                try:
                    _read_on(client, load)
                    if client.answer.whole:
                        _ended(client, load, chunks)
                except (OSError, ValueError, Broken) as error:
                    load.errors.append(str(error))
                    client.done = True
                if client.done:
                    epoll.unregister(descriptor)
                    del clients[descriptor]
        load.errors += [f"not at its end after {patience:g} s, with {each.chunks} chunks" for each in clients.values()]
    return load


def _read_on(client: _Client, load: Load) -> None:
    data = client.connection.recv(65536)
    if not data:
        raise Broken(f"the connection ended after {client.chunks} chunks")
    body = client.answer.feed(data)
    if not body:
        return
    whole, end, client.tail = (client.tail + body).rpartition(b"\n\n")
    events = whole.count(b"data: {") if end else 0
    if not events:
        return
    now = time.monotonic()
    if not client.chunks:
        load.waits.append(now - client.began)
    client.chunks += events
    load.chunks += events
    load.delays += [now - float(stamp) for stamp in STAMP.findall(whole)]


def _ended(client: _Client, load: Load, chunks: int) -> None:
    client.done = True
    if client.answer.status != 200:
        load.errors.append(f"status {client.answer.status}: {client.tail[:200].decode(errors='replace')}")
    elif client.chunks < chunks:
        load.errors.append(f"only {client.chunks} of {chunks} chunks")


def main() -> None:
    """Print what comes of one request sent again and again."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.load", description=main.__doc__)
    parser.add_argument("address", type=Address, help="HOST:PORT or the path of a UNIX socket")
    parser.add_argument("path")
    parser.add_argument("body", nargs="?", type=json.loads, help="JSON; without it a GET is sent")
    parser.add_argument("--connections", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=3.0)
    options = parser.parse_args()
    request = get(options.path) if options.body is None else post(options.path, options.body)
    load = keep_asking(options.address, request, options.connections, options.seconds)
    if load.waits:
        wait = f"median {median(load.waits) * 1e3:.3f} ms, p99 {nth(load.waits, 0.99) * 1e3:.3f} ms"
        print(f"{load.rate:,.0f} answers a second, {wait}")
    print(f"{len(load.errors)} errors {load.errors[:3]}; the generator took {load.cpu / load.seconds:.0%} of a core")


if __name__ == "__main__":
    main()
