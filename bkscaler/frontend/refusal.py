"""
What a client is told when its builder does not come: bytes for gRPC and for HTTP/1 clients. Pure.

gRPC: a trailers-only response (gRPC over HTTP/2, *Responses*) with status 9, FAILED_PRECONDITION. Not 14:
buildx retries that for 20 s and loses the message. Never 12: ``buildctl --wait`` takes it for success. And no
GOAWAY: the client would connect again and wake the builder again. Imported by ``frontend.held`` and
``frontend.conversation``.
"""

from __future__ import annotations

import string
from collections.abc import Iterable
from urllib.parse import quote

from hpack import Encoder, NeverIndexedHeaderTuple
from hyperframe.frame import HeadersFrame, PingFrame, RstStreamFrame, SettingsFrame

FAILED_PRECONDITION = 9
_CANCEL = 0x8
_UNQUOTED = "".join(sorted(set(string.punctuation + " ") - {"%"}))

SERVER_SETTINGS = SettingsFrame(0).serialize()
"""The early SETTINGS: empty, so that it promises nothing that the builder's own would have to take back."""
SETTINGS_ACK = SettingsFrame(0, flags=["ACK"]).serialize()


def ping_ack(payload: bytes) -> bytes:
    """
    Answer a PING.

    :param payload: its eight bytes.
    """
    return PingFrame(0, opaque_data=payload, flags=["ACK"]).serialize()


def trailers_only(stream: int, words: str) -> bytes:
    """
    End a gRPC call with the reason.

    Header fields are never indexed, so that the answer is right whatever table size the client allows.

    :param stream: the call's stream.
    :param words: one line, for the user; percent-encoded as gRPC wants it.
    :returns: one HEADERS frame that ends the stream.
    """
    fields = [
        NeverIndexedHeaderTuple(":status", "200"),
        NeverIndexedHeaderTuple("content-type", "application/grpc"),
        NeverIndexedHeaderTuple("grpc-status", str(FAILED_PRECONDITION)),
        NeverIndexedHeaderTuple("grpc-message", quote(words.strip(), safe=_UNQUOTED)),
    ]
    block = Encoder().encode(fields, huffman=False)
    return HeadersFrame(stream, data=block, flags=["END_HEADERS", "END_STREAM"]).serialize()


def cancellations(streams: Iterable[int]) -> bytes:
    """
    Tell a builder that calls are over.

    :param streams: their streams.
    """
    return b"".join([RstStreamFrame(stream, error_code=_CANCEL).serialize() for stream in streams])


def service_unavailable(words: str) -> bytes:
    """
    Answer an HTTP/1 request with the reason, and say that the connection will be closed.

    :param words: one line, for the user.
    """
    text = words.encode("utf-8") + b"\n"
    head = (
        "HTTP/1.1 503 Service Unavailable\r\n"
        "Content-Type: text/plain; charset=utf-8\r\n"
        f"Content-Length: {len(text)}\r\n"
        "Connection: close\r\n\r\n"
    )
    return head.encode("ascii") + text
