"""
Asking a builder whether it serves: ``grpc.health.v1.Health/Check``, one call on a connection of its own.

The HTTP/2 is the ``h2`` library's. The two messages are so small that they are written out here: an empty
request, and a response whose only field, number 1, is an enum with SERVING = 1 (``grpc/health/v1`` in the
gRPC repository). Imported by the plugin, which gives it to ``frontend.dial``.
"""

from __future__ import annotations

from typing import Any

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)
from h2.exceptions import ProtocolError
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from bkscaler.frontend.dial import DialFailed, dialled

HEALTH_TIMEOUT_S = 5.0
"""How long a builder may take to answer."""
_REQUEST = b"\0\0\0\0\0"
_SERVING = b"\0\0\0\0\2\x08\x01"
_UNIMPLEMENTED = "12"
_MAX_ANSWER_BYTES = 1024


async def check_health(endpoint: IStreamClientEndpoint, clock: IReactorTime) -> None:
    """
    Return when a builder has said that it serves.

    :param endpoint: where it is; bounds the connecting itself.
    :param clock: for the time limit.
    :raises DialFailed: when it cannot be reached, does not answer in time, or says something else.
    :raises CancelledError: when the caller cancels, which closes the connection.
    """
    protocol: Any = await dialled(endpoint, _HealthFactory())
    await protocol.answer.addTimeout(HEALTH_TIMEOUT_S, clock, onTimeoutCancel=_too_late)


def _too_late(result: object, seconds: float) -> object:
    raise DialFailed(f"no answer to a health check within {seconds:g} s")


class _Health(Protocol):
    """One call. ``answer`` fires with None when the builder serves, and fails with `DialFailed` otherwise."""

    transport: Any = None

    def __init__(self) -> None:
        self.answer: Deferred[None] = Deferred(lambda _: self.transport.abortConnection())
        self._http = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
        self._fields: dict[str, str] = {}
        self._body = b""

    def connectionMade(self) -> None:
        """Ask."""
        http = self._http
        http.initiate_connection()
        fields = (
            (":method", "POST"),
            (":scheme", "http"),
            (":path", "/grpc.health.v1.Health/Check"),
            (":authority", "buildkitd"),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
        )
        http.send_headers(1, fields)
        http.send_data(1, _REQUEST, end_stream=True)
        self.transport.write(http.data_to_send())

    def dataReceived(self, data: bytes) -> None:
        """Read the answer."""
        try:
            events = self._http.receive_data(data)
        except ProtocolError as error:
            self._finish(f"answers a health check with no HTTP/2: {error}")
            return
        self.transport.write(self._http.data_to_send())
        for event in events:
            self._take(event)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Fail, unless the answer was there."""
        self._finish("closes the connection of a health check")

    def _take(self, event: object) -> None:
        if isinstance(event, ResponseReceived | TrailersReceived):
            self._fields.update((str(name), str(value)) for name, value in event.headers)
        elif isinstance(event, DataReceived):
            self._body = (self._body + event.data)[:_MAX_ANSWER_BYTES]
        elif isinstance(event, StreamEnded):
            self._finish(self._problem())
        elif isinstance(event, StreamReset | ConnectionTerminated):
            self._finish("refuses a health check")

    def _problem(self) -> str:
        """Say what the answer lacks; ``""`` when the builder serves."""
        status = self._fields.get("grpc-status", "")
        if status == _UNIMPLEMENTED:
            return "has no grpc.health.v1 service; use --readiness tcp or pod"
        if status != "0" or self._fields.get(":status") != "200":
            return f"answers a health check with status {status or self._fields.get(':status', '')}"
        return "" if self._body == _SERVING else "says that it does not serve yet"

    def _finish(self, problem: str) -> None:
        """Tell the result, once, and close."""
        if self.answer.called:
            return
        self.transport.loseConnection()
        if problem:
            self.answer.errback(DialFailed(f"the builder {problem}"))
        else:
            self.answer.callback(None)


class _HealthFactory(Factory):
    """Makes the protocol of one check."""

    noisy = False
    protocol = _Health
