"""
The conversation with a held plaintext HTTP/2 client, without any I/O: bytes in, bytes to answer out.

grpc-go gives a server 20 s for its first SETTINGS frame; after that a build fails. So a client is told in
time that a server is there, and from then on the proxy speaks for the builder as little as possible::

    SILENT ----engage()----> ENGAGED ----refuse()----> REFUSING
       |                        |                          ^
       +--replay(): untouched   +--replay(): as a server   |
       |                           must see it             |
       +---------------------refuse()----------------------+

- ``SILENT``: everything is kept as it came. A fast start passes through untouched.
- ``ENGAGED``: our empty SETTINGS has been sent. The client's acknowledgement of it is dropped, once, as
  the builder has not sent what it acknowledges; when it is late, :meth:`HeldConversation.pass_on` drops
  it after joining. PINGs are answered and dropped: a builder that got them in one heap would say
  ``too_many_pings``. All else is kept in its order, the preface first.
- ``REFUSING``: every call, also later ones, is answered with the reason.

Flow control bounds what is held: nobody has opened the window beyond its first 65,535 bytes of DATA.
Imported by ``frontend.held``.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum

from bkscaler.frontend import refusal
from bkscaler.frontend.calls import Calls
from bkscaler.frontend.http2 import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    HEAD_BYTES,
    HEADERS,
    PING,
    SETTINGS,
    Frame,
    FrameReader,
    Violation,
)
from bkscaler.frontend.sniff import PREFACE

MAX_DATA_BYTES = 65_535
"""Payload of DATA that a client may send before any WINDOW_UPDATE (RFC 9113 section 6.9.2)."""
MAX_OTHER_BYTES = 65_536
"""All frames that are no DATA: thirty times what a real client sends."""
MAX_PINGS = 10_000
"""Answered in one hold: a client that pings every second for three hours is still within it."""

NOT_WOKEN = "buildkitd not ready: no builder is woken for traces"
"""What a call reads that needs no builder, when there is none."""


class Stance(Enum):
    """What the proxy says to the client."""

    SILENT = "nothing"
    ENGAGED = "that a server is there"
    REFUSING = "why there is no builder"


class HeldConversation:
    """
    One held client. Methods that return bytes want them written to the client, none when empty.

    :ivar stance: what the proxy says to it.
    """

    def __init__(self) -> None:
        self.stance = Stance.SILENT
        self._reader = FrameReader()
        self._kept: list[Frame] = []
        self._calls = Calls()
        self._data_bytes = self._other_bytes = self._pings = 0
        self._ack_pending = False
        self._answered: set[int] = set()
        self._words = ""

    def __repr__(self) -> str:
        held = self._data_bytes + self._other_bytes
        return f"<HeldConversation {self.stance.value}, {len(self._calls.open)} streams, {held} bytes>"

    @property
    def needs_builder(self) -> bool:
        """
        Whether the client wants a builder. Not when it has ended all its calls, although grpc-go keeps the
        socket open for another while; again, when it makes another.
        """
        return self._calls.need_builder

    @property
    def ack_pending(self) -> bool:
        """Whether the acknowledgement of our SETTINGS is still to come."""
        return self._ack_pending

    def receive(self, data: bytes) -> bytes:
        """
        Take bytes of the client, from the first one after the preface on.

        :returns: what to answer.
        :raises Violation: when HTTP/2 does not let a client send this, or so much.
        """
        return b"".join([self._take(frame) for frame in self._reader.feed(data)])

    def engage(self) -> bytes:
        """Say that a server is there. Done once; later calls say nothing."""
        if self.stance is not Stance.SILENT:
            return b""
        self.stance = Stance.ENGAGED
        self._ack_pending = True
        kept, self._kept = self._kept, []
        return refusal.SERVER_SETTINGS + b"".join([self._react(frame) for frame in kept]) + self._let_go()

    def refuse(self, words: str) -> bytes:
        """
        Give the builder up: answer every call that is open, and from now on every new one.

        :param words: one line that the client's user will read.
        """
        if self.stance is Stance.REFUSING:
            return b""
        greeting = self.engage()
        self.stance = Stance.REFUSING
        self._words = words
        settings = [refusal.SETTINGS_ACK for frame in self._kept if frame.kind == SETTINGS]
        self._kept.clear()
        return greeting + b"".join(settings) + self._answer(self._calls.open, words)

    def replay(self) -> bytes:
        """
        Hand over, for a builder that has sent its own SETTINGS.

        :returns: what the builder must see first. What the client sends later goes through
            :meth:`pass_on` as long as :attr:`ack_pending`.
        """
        frames, self._kept = self._kept, []
        whole = PREFACE + b"".join([frame.raw for frame in frames])
        rest = b"" if self._ack_pending else self._reader.rest
        return whole + refusal.cancellations(sorted(self._answered)) + rest

    def pass_on(self, data: bytes) -> bytes:
        """
        Drop the late acknowledgement from what a joined client sends, and nothing else.

        :param data: bytes that came after :meth:`replay`.
        :returns: what the builder shall see.
        """
        passed = bytearray()
        try:
            for frame in self._reader.feed(data):
                if self._ack_pending and frame.is_settings_ack:
                    self._ack_pending = False
                else:
                    passed += frame.raw
        except Violation:  # let the builder, whose client it now is, say what it thinks of it
            self._ack_pending = False
        return bytes(passed) if self._ack_pending else bytes(passed) + self._reader.rest

    def _take(self, frame: Frame) -> bytes:
        """Count a frame, then do with it what the stance demands."""
        self._count(frame)
        self._calls.take(frame)
        if self.stance is Stance.SILENT:
            self._kept.append(frame)
            return b""
        return self._react(frame) + self._let_go()

    def _let_go(self) -> bytes:
        """Answer the calls for which no builder is woken, when nothing else is open."""
        if self.stance is not Stance.ENGAGED or self._calls.need_builder:
            return b""
        streams = sorted(self._calls.incidental)
        self._answered.update(streams)
        return self._answer(streams, NOT_WOKEN)

    def _answer(self, streams: Iterable[int], words: str) -> bytes:
        """End calls."""
        answers = []
        for stream in streams:
            self._calls.end(stream)
            answers.append(refusal.trailers_only(stream, words))
        return b"".join(answers)

    def _react(self, frame: Frame) -> bytes:
        """Answer a frame, or keep it, or drop it."""
        if frame.kind == PING:
            return b"" if frame.flags & ACK else refusal.ping_ack(frame.payload)
        if frame.is_settings_ack and self._ack_pending:
            self._ack_pending = False
            return b""
        if self.stance is Stance.REFUSING:
            return self._refuse_frame(frame)
        self._kept.append(frame)
        return b""

    def _refuse_frame(self, frame: Frame) -> bytes:
        """Answer what has to be answered when there is no builder."""
        if frame.kind == SETTINGS:
            return b"" if frame.flags & ACK else refusal.SETTINGS_ACK
        whole = frame.kind in (HEADERS, CONTINUATION) and frame.flags & END_HEADERS
        return self._answer([frame.stream], self._words) if whole else b""

    def _count(self, frame: Frame) -> None:
        """Bound what a client may send while it is held."""
        if frame.kind == DATA:
            self._data_bytes += len(frame.raw) - HEAD_BYTES
            self._check(self._data_bytes, MAX_DATA_BYTES, "bytes of DATA without a WINDOW_UPDATE")
        elif frame.kind == PING:
            self._pings += 1
            self._check(self._pings, MAX_PINGS, "PINGs")
        else:
            self._other_bytes += len(frame.raw)
            self._check(self._other_bytes, MAX_OTHER_BYTES, "bytes of headers")

    def _check(self, count: int, limit: int, what: str) -> None:
        if count > limit:
            raise Violation(f"more than {limit} {what} while held")
