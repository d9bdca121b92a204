"""
A client that waits: what it has sent is kept, it is told what it must be told, and that it leaves is noticed.

Reading goes on while there is room, because reading is how a hang-up is heard of. A plain TCP client is
paused when the bound is reached; :mod:`bkscaler.relay.hangups` does the listening then. An HTTP/2 client is
bounded by its own protocol, and has PINGs to be answered; :mod:`bkscaler.frontend.conversation` knows what it
may be told. Imported by ``frontend.session``.
"""

from __future__ import annotations

from typing import Protocol

from bkscaler.frontend import refusal
from bkscaler.frontend.conversation import HeldConversation
from bkscaler.frontend.http2 import Violation
from bkscaler.frontend.sniff import PREFACE, Kind, classify
from bkscaler.relay.hangups import Hangup, Hangups, Watch
from bkscaler.relay.leg import NOBODY, READ_BYTES, Leg

HELD_LIMIT_BYTES = 16 * 1024
"""
Where reading from a plain client stops, and the most that one read takes: at most twice this is held of each,
so that hundreds of clients with much to say fit into a small container.
"""
SNIFFED_BYTES = 8 * 1024
"""How much of the beginning is looked at to tell who it is."""


class HeldListener(Protocol):
    """Who wants to know what a held client does. Called from the reactor."""

    def client_connected(self) -> None:
        """Hear that the connection is there; the first call."""

    def client_spoke(self) -> None:
        """Hear that there are bytes of somebody who is not yet known to speak HTTP/2, or now is."""

    def client_left(self) -> None:
        """Hear that the client has gone, or no longer wants an answer; called at most once."""

    def client_cancelled(self) -> None:
        """Hear that a gRPC client has ended all its calls; its connection may stay."""

    def client_returned(self) -> None:
        """Hear that a gRPC client that had ended all its calls has made another."""

    def client_misbehaved(self, why: str) -> None:
        """Hear that a client has sent what its protocol does not let it send; called at most once."""

    def client_closed(self) -> None:
        """Hear that the connection of a client that was dismissed is gone; the last call."""


class HeldClient:
    """
    The owner of a client's leg from its first moment until it is joined, or dismissed and gone.

    :param hangups: listens while the transport is paused.
    :param listener: who is told.
    :ivar leg: the connection; set by :meth:`connected`.
    :ivar conversation: with an HTTP/2 client; None with any other, or as long as it is not known to be one.
    """

    leg: Leg

    def __init__(self, *, hangups: Hangups, listener: HeldListener) -> None:
        self._hangups = hangups
        self._listener = listener
        self._bytes = bytearray()
        self.conversation: HeldConversation | None = None
        self._engage_at_once = False
        self._watch: Watch | None = None
        self._left = self._dismissed = False
        self._wanted = True

    def __repr__(self) -> str:
        return f"<HeldClient {self.kind.value}: {self.conversation or f'{len(self._bytes)} bytes'}>"

    @property
    def kind(self) -> Kind:
        """Who it is, judged by what it has sent so far."""
        return Kind.HTTP2 if self.conversation else classify(bytes(self._bytes[:SNIFFED_BYTES]))

    def engage(self) -> None:
        """Tell an HTTP/2 client that a server is there, now or as soon as it shows that it is one."""
        self._engage_at_once = True
        if self.conversation is not None:
            self._say(self.conversation.engage())

    def hand_over(self) -> bytes:
        """
        End holding, with the transport paused. The leg is for its next owner to take.

        :returns: everything that goes to the builder first.
        """
        self._end_watch()
        self.leg.read_at_most(READ_BYTES)
        if not self.leg.is_lost:
            self.leg.transport.pauseProducing()
        held, self._bytes = bytes(self._bytes), bytearray()
        return held if self.conversation is None else self.conversation.replay()

    def dismiss(self, words: str = "") -> bool:
        """
        Let the client go, and tell it why if it speaks a language for that. The listener hears nothing more
        but ``client_closed``, at once if the connection is gone.

        :param words: one line for its user; ``""`` closes without a word.
        :returns: whether the client has been told, so that it is time for it to leave; whoever does not
            must be dropped (:meth:`drop`) some time.
        """
        self._left = self._dismissed = True
        if self.leg.is_lost:
            self._end_watch()
            self._close()
            return False
        if not words or self.kind not in (Kind.HTTP2, Kind.HTTP1):
            self._end_watch()
            self.leg.transport.loseConnection()
            return False
        if self.conversation is not None:
            self._say(self.conversation.refuse(words))
        else:
            self._say(refusal.service_unavailable(words))
            self.leg.transport.loseWriteConnection()
        if self.leg.has_finished:
            self.leg.transport.loseConnection()
        self._resume()
        return True

    def drop(self) -> None:
        """Close a connection that was dismissed and is still there."""
        self._end_watch()
        if not self.leg.is_lost:
            self.leg.transport.abortConnection()

    def connected(self, leg: Leg) -> None:
        """Take the leg, and read it in small pieces until it is joined."""
        self.leg = leg
        leg.read_at_most(HELD_LIMIT_BYTES)
        self._listener.client_connected()

    def received(self, leg: Leg, data: bytes) -> None:
        """Keep bytes, up to the bound; answer what has to be answered."""
        if self.conversation is not None:
            self._converse(self.conversation, data)
        elif not self._dismissed:
            self._keep(data)

    def finished(self, leg: Leg) -> None:
        """Tell a departure from a half-close, which leaves the client waiting for its answer."""
        if self._dismissed:
            leg.transport.loseConnection()
        elif self.kind.leaves_by_finishing:
            self._leave()
        elif self._watch is None:
            self._watch = self._hangups.watch(leg.transport, self._hung_up)

    def lost(self, leg: Leg, orderly: bool) -> None:
        """Take note that the connection is gone."""
        self._end_watch()
        if self._dismissed:
            self._close()
        else:
            self._leave()

    def _close(self) -> None:
        """Tell the listener for the last time, and let go of it; see :data:`bkscaler.relay.leg.NOBODY`."""
        listener = self._listener
        del self._listener
        self.leg.owner = NOBODY
        listener.client_closed()

    def _keep(self, data: bytes) -> None:
        """Keep bytes of somebody who is no HTTP/2 client, or not yet known to be one."""
        self._bytes += data
        if self._bytes.startswith(PREFACE):
            self._recognize()
        elif len(self._bytes) >= HELD_LIMIT_BYTES:
            self._pause()
        if not self._left:
            self._listener.client_spoke()

    def _recognize(self) -> None:
        """Begin the conversation with an HTTP/2 client."""
        self.conversation = HeldConversation()
        after, self._bytes = bytes(self._bytes[len(PREFACE) :]), bytearray()
        if self._engage_at_once:
            self.engage()
        self._converse(self.conversation, after)

    def _converse(self, conversation: HeldConversation, data: bytes) -> None:
        """Answer an HTTP/2 client, and tell when it wants no builder any more."""
        try:
            self._say(conversation.receive(data))
        except Violation as violation:
            if self._dismissed:
                self.drop()
            else:
                self._listener.client_misbehaved(str(violation))
            return
        if self._left:
            return
        wanted, self._wanted = self._wanted, conversation.needs_builder
        if wanted and not self._wanted:
            self._listener.client_cancelled()
        elif self._wanted and not wanted:
            self._listener.client_returned()

    def _say(self, words: bytes) -> None:
        if words:
            self.leg.write(words)

    def _pause(self) -> None:
        """Read no more; go on listening for its end."""
        if self._watch is None and not self.leg.is_lost:
            self.leg.transport.pauseProducing()
            self._watch = self._hangups.watch(self.leg.transport, self._hung_up)

    def _resume(self) -> None:
        """Read again."""
        self._end_watch()
        if not self.leg.has_finished:
            self.leg.transport.resumeProducing()

    def _hung_up(self, hangup: Hangup) -> None:
        """Judge an end heard of while paused; after a half-close the relay will read it for itself."""
        if hangup is Hangup.LOST or self.kind.leaves_by_finishing:
            self._leave()

    def _leave(self) -> None:
        self._end_watch()
        if not self._left:
            self._left = True
            self._listener.client_left()

    def _end_watch(self) -> None:
        if self._watch is not None:
            self._watch.end()
            self._watch = None
