"""
The clients of a demo: each sends bytes of its own and compares what comes back. Imported by ``demo.story``.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from bkscaler.errors import BkscalerError


class EchoBroken(BkscalerError):
    """A client did not get back exactly what it had sent. The demo has failed."""


class EchoClient(Protocol):
    """
    One connection: sends, compares the answer byte by byte, finishes, and waits for the other end.

    :param payload: what is sent, all at once; not empty.
    :param on_first_byte: called when the first byte of the answer is there.
    :param on_equal: called when everything has come back, equal; the connection is still there.
    :ivar done: fires with None when all has come back, equal, and the connection is gone; fails with
        :class:`EchoBroken`. Cancelling resets the connection.
    """

    def __init__(
        self, payload: bytes, *, on_first_byte: Callable[[], None], on_equal: Callable[[], None]
    ) -> None:
        self.done: Deferred[None] = Deferred(lambda _: self._abort())
        self._payload = memoryview(payload)
        self._on_first_byte = on_first_byte
        self._on_equal = on_equal
        self._received = 0

    def connectionMade(self) -> None:
        """Send everything; the transport keeps what the network does not take yet."""
        assert self.transport is not None
        self.transport.write(bytes(self._payload))

    def dataReceived(self, data: bytes) -> None:
        """Compare."""
        if not self._received:
            self._on_first_byte()
        expected = self._payload[self._received : self._received + len(data)]
        if data != expected:
            self._fail(f"after {self._received} bytes something else came back than was sent")
            return
        self._received += len(data)
        if self._received == len(self._payload):
            self._on_equal()
            self.transport.loseWriteConnection()  # type: ignore[union-attr]  # a TCP connection

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Judge: everything must have come back."""
        if self.done.called:
            return
        if self._received == len(self._payload):
            self.done.callback(None)
        else:
            whole = len(self._payload)
            self._fail(f"the connection was lost after {self._received} of {whole} bytes had come back")

    def _fail(self, why: str) -> None:
        if not self.done.called:
            self.done.errback(EchoBroken(why))
        self._abort()

    def _abort(self) -> None:
        if self.transport is not None:
            self.transport.abortConnection()  # type: ignore[attr-defined]  # a TCP connection
