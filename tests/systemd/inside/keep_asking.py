"""Run in a booted tree: ask the health of what listens on 127.0.0.1:8080, each time on a connection of its own, until
standard input ends. Prints a line when the first answer is there, then a JSON object: how often what happened.
"""

import collections
import json
import socket
import sys
import threading

WORKERS = 4
PATIENCE = 60.0
REQUEST = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"

happened: collections.Counter[str] = collections.Counter()
first, enough = threading.Event(), threading.Event()


def ask() -> str:
    """One request: the status line of its answer, or what went wrong."""
    try:
        with socket.create_connection(("127.0.0.1", 8080), PATIENCE) as sock:
            sock.sendall(REQUEST)
            answer = b""
            while data := sock.recv(65536):
                answer += data
            return answer.partition(b"\r\n")[0].decode() or "closed without an answer"
    except OSError as error:
        return type(error).__name__


def keep_asking() -> None:
    """Until it is enough."""
    while not enough.is_set():
        happened[ask()] += 1
        first.set()


threads = [threading.Thread(target=keep_asking) for _ in range(WORKERS)]
for thread in threads:
    thread.start()
first.wait()
print("asking", flush=True)
sys.stdin.read()
enough.set()
for thread in threads:
    thread.join()
print(json.dumps(happened))
