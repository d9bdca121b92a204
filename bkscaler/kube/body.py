"""
Sending the body of a request, and receiving that of an answer, bounded and abortable.

treq's own collectors cannot be cancelled and swallow what the receiver raises; a watch needs both.
Imported by :mod:`bkscaler.kube.client`; imports nothing of ours but errors.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.interfaces import IConsumer, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.iweb import IBodyProducer
from zope.interface import implementer

from bkscaler.errors import ApiUnreachable, WatchSilent


def read_body(response: Any, limit_bytes: int) -> Deferred[bytes]:
    """
    Collect a body.

    :param response: a treq response, made with ``unbuffered=True``.
    :param limit_bytes: the most that is accepted.
    :returns: fires with the body; fails with :class:`~bkscaler.errors.ApiUnreachable` (``sent``) when it
        is too long, or with Twisted's failure when it was cut. Cancelling closes the connection.
    """
    chunks: list[bytes] = []
    size = 0

    def collect(data: bytes) -> None:
        nonlocal size
        size += len(data)
        if size > limit_bytes:
            raise ApiUnreachable(f"the answer is longer than {limit_bytes} bytes", sent=True)
        chunks.append(data)

    return receive_body(response, collect).addCallback(lambda _: b"".join(chunks))


def receive_body(response: Any, on_bytes: Callable[[bytes], None]) -> Deferred[None]:
    """
    Hand a body on as it arrives.

    :param response: a treq response, made with ``unbuffered=True``.
    :param on_bytes: called with each piece; what it raises closes the connection.
    :returns: fires with None at the end of the body; fails with what ``on_bytes`` raised, or with
        Twisted's failure when the body was cut. May fire before it is returned. Cancelling closes the
        connection.
    """
    receiver = _Receiver(on_bytes)
    response.deliverBody(receiver)
    return receiver.done


async def follow(
    response: Any,
    on_open: Callable[[], None],
    on_bytes: Callable[[bytes], None],
    *,
    clock: IReactorTime,
    silence_s: float,
) -> None:
    """
    Receive a body until it ends, breaks, or has been silent for too long.

    :param response: a treq response, made with ``unbuffered=True``.
    :param on_open: called first; what it raises closes the connection.
    :param on_bytes: called with each piece; what it raises closes the connection.
    :param clock: measures the silence.
    :param silence_s: longest time without a byte, > 0.
    :raises WatchSilent: after the silence.
    :raises Exception: what a callback raised, or Twisted's exception when the body was cut.
    """
    silent = False

    def give_up() -> None:
        nonlocal silent
        silent = True
        done.cancel()

    def heard(data: bytes) -> None:
        limit.reset(silence_s)
        on_bytes(data)

    _announce(on_open, response)
    limit = clock.callLater(silence_s, give_up)
    done = receive_body(response, heard)
    try:
        await done
    except CancelledError as error:
        if not silent:
            raise
        raise WatchSilent(f"nothing heard for {silence_s:g} s", sent=True) from error
    finally:
        if limit.active():
            limit.cancel()


def json_object(content: bytes) -> dict[str, Any]:
    """
    Decode the body of a success.

    :raises ApiUnreachable: (``sent``) when it is no JSON object.
    """
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ApiUnreachable("the answer is not JSON", sent=True) from error
    if not isinstance(value, dict):
        raise ApiUnreachable("the answer is not a JSON object", sent=True)
    return value


def _announce(on_open: Callable[[], None], response: Any) -> None:
    """Tell that a body is about to come; close it when the receiver does not want it."""
    try:
        on_open()
    except BaseException:
        receive_body(response, lambda _: None).addErrback(lambda _: None).cancel()
        raise


@implementer(IBodyProducer)
class WholeBody:
    """
    A request's body, written at once. (treq's own producer for bytes would use the global reactor.)

    :param content: the body.
    """

    def __init__(self, content: bytes) -> None:
        self._content = content
        self.length = len(content)

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        """Write everything; fires with None at once."""
        consumer.write(self._content)
        return succeed(None)

    def pauseProducing(self) -> None:
        """Do nothing: all is written."""

    def resumeProducing(self) -> None:
        """Do nothing: all is written."""

    def stopProducing(self) -> None:
        """Do nothing: all is written."""


class _Receiver(Protocol):
    """Receives one body."""

    def __init__(self, on_bytes: Callable[[bytes], None]) -> None:
        self._on_bytes = on_bytes
        self.done: Deferred[None] = Deferred(self._cancel)

    def dataReceived(self, data: bytes) -> None:
        """Pass bytes on, until the receiver has had enough."""
        if self.done.called:
            return
        try:
            self._on_bytes(data)
        except Exception:
            failure = Failure()
            if not self.done.called:
                self.done.errback(failure)
            self._abort()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Finish. ``PotentialDataLoss`` is an end too: without a length, closing is how a body ends."""
        if self.done.called:
            return
        if reason.check(ResponseDone, PotentialDataLoss):
            self.done.callback(None)
        else:
            self.done.errback(reason)

    def _cancel(self, done: Deferred[None]) -> None:
        """Fail first, as closing may report itself as another failure at once."""
        done.errback(CancelledError())
        self._abort()

    def _abort(self) -> None:
        """
        Close the connection at once; an orderly TLS farewell would wait for a peer that may be dead.

        The transport that ``twisted.web`` gives to bodies cannot abort (Twisted issue 8227), the one
        behind it can.
        """
        transport: Any = getattr(self.transport, "_producer", self.transport)
        if transport is None:
            return
        getattr(transport, "abortConnection", transport.loseConnection)()
