"""
HTTP/2 frames (RFC 9113 section 4), read without any I/O: bytes in any chunking become whole frames.

Only the framing is understood, which is all that holding a client needs; header blocks stay as they came,
as HPACK is stateful and belongs to the client and its builder. What a correct client cannot send is a
`Violation`. Frames are written by the ``hyperframe`` library, header blocks by ``hpack``. Pure; imports
nothing of ours but errors.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from bkscaler.errors import BkscalerError

DATA, HEADERS, RST_STREAM, SETTINGS, PING, CONTINUATION = 0x0, 0x1, 0x3, 0x4, 0x6, 0x9
"""Frame types (RFC 9113 section 6) that matter to holding; all others are passed on unread."""
ACK = 0x1
"""Flag of SETTINGS and PING."""
END_HEADERS = 0x4
"""Flag of HEADERS and CONTINUATION."""
HEAD_BYTES = 9
MAX_FRAME_BYTES = 16_384
"""Longest payload that is allowed as long as nobody has announced another limit, and buildkitd does not."""


class Violation(BkscalerError):
    """A client has sent what HTTP/2 does not let it send. Close its connection."""


@dataclass(frozen=True, slots=True)
class Frame:
    """
    One frame.

    :param kind: frame type, 0-255.
    :param flags: its flags, 0-255.
    :param stream: stream identifier; 0 is the connection.
    :param raw: the frame as it came, head and payload.
    """

    kind: int
    flags: int
    stream: int
    raw: bytes

    @property
    def payload(self) -> bytes:
        """What follows the head."""
        return self.raw[HEAD_BYTES:]

    @property
    def is_settings_ack(self) -> bool:
        """Whether it acknowledges SETTINGS."""
        return self.kind == SETTINGS and bool(self.flags & ACK)


class FrameReader:
    """
    Reads the frames of one direction of one connection. After it has raised it reads no more, and
    :attr:`rest` begins with the frame that was wrong.

    :param limit_bytes: longest payload accepted.
    """

    def __init__(self, limit_bytes: int = MAX_FRAME_BYTES) -> None:
        self._limit_bytes = limit_bytes
        self._rest = bytearray()
        self._block_of = 0

    @property
    def rest(self) -> bytes:
        """What has come and is in no frame yet."""
        return bytes(self._rest)

    def feed(self, data: bytes) -> Iterator[Frame]:
        """
        Take bytes as they come; iterate to the end before feeding more.

        :returns: the frames completed by them, in order.
        :raises Violation: at a frame that is too long, that has the wrong length for what it is, or that
            breaks into a header block.
        """
        rest = self._rest
        rest += data
        start = 0
        try:
            while len(rest) - start >= HEAD_BYTES:
                length = int.from_bytes(rest[start : start + 3], "big")
                if length > self._limit_bytes:
                    raise Violation(f"a frame of {length} bytes; {self._limit_bytes} are allowed")
                end = start + HEAD_BYTES + length
                if len(rest) < end:
                    return
                frame = _frame(bytes(rest[start:end]))
                self._check(frame, length)
                start = end
                yield frame
        finally:
            del rest[:start]

    def _check(self, frame: Frame, length: int) -> None:
        """See that a frame may come here."""
        if self._block_of and (frame.kind != CONTINUATION or frame.stream != self._block_of):
            raise Violation("a frame inside a header block")
        if frame.kind == CONTINUATION and not self._block_of:
            raise Violation("CONTINUATION without a header block")
        if frame.kind in (HEADERS, CONTINUATION):
            self._block_of = 0 if frame.flags & END_HEADERS else frame.stream
        if frame.kind in (DATA, HEADERS, RST_STREAM) and not frame.stream:
            raise Violation("a frame of a stream on the connection")
        if frame.kind in (SETTINGS, PING) and frame.stream:
            raise Violation("a frame of the connection on a stream")
        if frame.kind == PING and length != 8:
            raise Violation(f"a PING of {length} bytes")


def _frame(raw: bytes) -> Frame:
    stream = int.from_bytes(raw[5:HEAD_BYTES], "big") & 0x7FFF_FFFF
    return Frame(raw[3], raw[4], stream, raw)
