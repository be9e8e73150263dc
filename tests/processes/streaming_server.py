"""A model server of many slow streams: each has an event at once, then one every TICK_SECONDS until SIGUSR1."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import sys

TICK_SECONDS = 0.5
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
WHOLE = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
EVENT = b'data: {"choices":[{"delta":{"content":"word"}}]}\n\n'
DONE = b"data: [DONE]\n\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, over: asyncio.Event) -> None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"POST"):
            writer.write(WHOLE)
            return
        writer.write(HEAD + chunk(EVENT))
        while not over.is_set():
            try:
                await asyncio.wait_for(over.wait(), TICK_SECONDS)
            except TimeoutError:
                writer.write(chunk(EVENT))
        writer.write(chunk(DONE) + b"0\r\n\r\n")
    finally:
        writer.close()


async def main(path: str) -> None:
    over = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, over.set)
    server = await asyncio.start_unix_server(lambda reader, writer: serve(reader, writer, over), path, backlog=4096)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65536), hard))
    os.umask(0o077)
    asyncio.run(main(sys.argv[1]))
