"""
Waiting for a builder's own SETTINGS, its first words, before a held HTTP/2 client is handed to it.

A builder listens before it can serve, so that an accepted connection proves nothing; buildkitd sends its
SETTINGS before it reads anything, 0.3 ms after it accepts. Imported by ``frontend.session``.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from bkscaler.frontend.dial import DialFailed
from bkscaler.frontend.http2 import HEAD_BYTES
from bkscaler.relay.leg import Leg, Parked

GREETING_TIMEOUT_S = 5.0
"""How long a builder that has accepted may stay silent before it is dialled anew."""


def greeting_of(leg: Leg, clock: IReactorTime) -> Deferred[bytes]:
    """
    Wait for the first frame head of a builder.

    What it says is passed on whatever it is: if it is no SETTINGS frame, the client will know what to say.

    :param leg: the builder's leg, paused.
    :param clock: for the time limit.
    :returns: fires with the bytes that have come, the leg paused again; fails with `DialFailed` when the
        builder closes or stays silent, the leg then being closed. Cancelling closes it, too.
    """
    greeting = _Greeting(leg)
    leg.owner = greeting
    leg.transport.resumeProducing()
    return greeting.heard.addTimeout(GREETING_TIMEOUT_S, clock, onTimeoutCancel=_too_late)


def _too_late(result: bytes | Failure, seconds: float) -> bytes | Failure:
    """Translate a silence; a greeting or a failure that came at the last moment stays."""
    if isinstance(result, Failure):
        raise DialFailed(f"the builder accepts and says nothing for {seconds:g} s") from result.value
    return result


class _Greeting:
    """The owner of a builder's leg until it has spoken."""

    def __init__(self, leg: Leg) -> None:
        self.heard: Deferred[bytes] = Deferred(lambda _: leg.transport.abortConnection())
        self._bytes = b""

    def connected(self, leg: Leg) -> None:
        """Never called: the leg is connected."""

    def received(self, leg: Leg, data: bytes) -> None:
        """Take the first words; pause when there are enough."""
        self._bytes += data
        if len(self._bytes) >= HEAD_BYTES:
            leg.transport.pauseProducing()
            leg.owner = Parked()
            self.heard.callback(self._bytes)

    def finished(self, leg: Leg) -> None:
        """Give up on a builder that has nothing to say."""
        leg.transport.loseConnection()
        self._fail("the builder accepts and closes at once")

    def lost(self, leg: Leg, orderly: bool) -> None:
        """Give up on a connection that is gone."""
        self._fail("the builder accepts and resets at once")

    def _fail(self, words: str) -> None:
        if not self.heard.called:
            self.heard.errback(DialFailed(words))
