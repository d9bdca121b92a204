"""
A stand-in for buildkitd: a TCP echo, run as ``python -m bkscaler.sandbox.builder IP PORT``.

It is a program of its own, small enough to start quickly. It ends with 0 on SIGTERM, and also when its
standard input closes, so that it never outlives the sandbox that started it.
"""

from __future__ import annotations

import asyncio
import signal
import sys

CHUNK_BYTES = 65536
"""How much is read at once."""


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send back what comes; a half-close is answered with a half-close, a reset ends it."""
    try:
        while data := await reader.read(CHUNK_BYTES):
            writer.write(data)
            await writer.drain()
        writer.write_eof()
        await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


async def _wait_for_end() -> None:
    """Wait for a SIGTERM or for the end of standard input."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    parent = asyncio.ensure_future(reader.read())
    parent.add_done_callback(lambda _: ended.set())
    await ended.wait()


async def serve(ip: str, port: int) -> None:
    """
    Echo on an address until it is time to end.

    :raises OSError: when the address cannot be listened on.
    """
    server = await asyncio.start_server(echo, ip, port)
    await _wait_for_end()
    server.close()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    asyncio.run(serve(sys.argv[1], int(sys.argv[2])))
