"""
The calls that a held gRPC client has open, and whether any of them needs a builder. Pure.

Two things are known of real clients that only the calls tell. One that is interrupted resets its calls and
then tries to export its traces, for up to 30 s and over the same connection: that is no reason to keep a
builder awake. And one whose call has timed out may make another over the same connection:
``docker buildx inspect --bootstrap`` asks for 20 s and then asks again, for as long as it takes.

Header blocks are decoded for the path alone, all of them and in order, as HPACK demands; what cannot be
decoded is a call like any other and its builder's business. Imported by ``frontend.conversation``.
"""

from __future__ import annotations

from hpack import Decoder, HPACKError
from hyperframe.exceptions import HyperframeError
from hyperframe.frame import ContinuationFrame, HeadersFrame

from bkscaler.frontend.http2 import CONTINUATION, END_HEADERS, HEAD_BYTES, HEADERS, RST_STREAM, Frame

TRACES_PATH = b"/opentelemetry.proto.collector.trace.v1.TraceService/Export"
"""The call by which BuildKit's clients hand in their traces, at their end."""


class Calls:
    """
    The open calls of one client. Give it every frame that the client sends, in order.

    :ivar wanting: streams of the calls that need a builder.
    :ivar incidental: streams of the calls that do not.
    """

    def __init__(self) -> None:
        self.wanting: set[int] = set()
        self.incidental: set[int] = set()
        self._made = False
        self._decoder: Decoder | None = Decoder()
        self._block = b""

    @property
    def need_builder(self) -> bool:
        """Whether a builder is needed: a call that needs one is open, or no call has been made yet."""
        return bool(self.wanting) or not self._made

    @property
    def open(self) -> list[int]:
        """All streams, in order."""
        return sorted(self.wanting | self.incidental)

    def take(self, frame: Frame) -> None:
        """Take in a frame of the client."""
        if frame.kind == RST_STREAM:
            self.end(frame.stream)
        elif frame.kind in (HEADERS, CONTINUATION):
            self._block += _fragment(frame)
            if frame.flags & END_HEADERS:
                path, self._block = self._path_in(self._block), b""
                self._made = True
                (self.incidental if path == TRACES_PATH else self.wanting).add(frame.stream)

    def end(self, stream: int) -> None:
        """Forget a call that was reset or answered; one that is not known is none of ours."""
        self.wanting.discard(stream)
        self.incidental.discard(stream)

    def _path_in(self, block: bytes) -> bytes | None:
        """Read the path of a call; None when it has none, or cannot be read."""
        if self._decoder is None:
            return None
        try:
            fields = self._decoder.decode(block, raw=True)
        except HPACKError:
            self._decoder = None  # its table is no longer the client's
            return None
        return next((value for name, value in fields if name == b":path"), None)


def _fragment(frame: Frame) -> bytes:
    """Give a frame's part of the header block, without padding and priority; empty when malformed."""
    kind = HeadersFrame if frame.kind == HEADERS else ContinuationFrame
    parsed = kind(frame.stream)
    try:
        parsed.parse_flags(frame.flags)
        parsed.parse_body(memoryview(frame.raw)[HEAD_BYTES:])
    except HyperframeError:
        return b""
    return bytes(parsed.data)
