"""A model server whose answers can be checked to the last byte: each is numbers in a row, until it may end.

    python -IS counting_server.py SOCKET END

It says READY=1. A body with "stream" in it is answered with an event for each number, until there is a file END; then
one more event says so. Any other body is answered with the number 1 at once.
"""

# ruff: noqa: PTH110
from __future__ import annotations

import os
import socket
import sys
import threading
import time

PACE_SECONDS = 0.01
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
SHORT = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1\r\nConnection: close\r\n\r\n1"


def event(number: int) -> bytes:
    """Of different lengths."""
    return b"data: %d %s\n\n" % (number, b"x" * (number * 37 % 1500))


def answer(connection: socket.socket, end: str) -> None:
    """One request."""
    with connection:
        request = b""
        while b"\r\n\r\n" not in request or b"}" not in request:
            data = connection.recv(65536)
            if not data:
                return
            request += data
        if b'"stream"' not in request:
            connection.sendall(SHORT)
            return
        connection.sendall(HEAD)
        number = 0
        while not os.path.exists(end):
            number += 1
            connection.sendall(event(number))
            time.sleep(PACE_SECONDS)
        connection.sendall(b"data: end %d\n\n" % number)


def main(path: str, end: str) -> None:
    """Serve until killed."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(path)
    listener.listen(100)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"])
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=answer, args=(connection, end), daemon=True).start()


if __name__ == "__main__":
    main(*sys.argv[1:])
