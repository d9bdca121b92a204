"""
Who is this, judged by the first bytes. Pure; imports nothing of ours.

Four kinds matter while a client is held: a gRPC client (HTTP/2 in plain text, told by its 24-byte preface,
RFC 9113 section 3.4), a TLS client (RFC 8446 section 5.1), an HTTP/1 client, and everything else, which is
treated like any TCP client.
"""

from __future__ import annotations

import re
from enum import Enum

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""What every HTTP/2 client sends first."""
_REQUEST_LINE = re.compile(rb"[A-Z]{3,16} \S{1,4096} HTTP/1\.[01]\r?\n")
_TLS_HANDSHAKE, _TLS_MAJOR = 0x16, 0x03


class Kind(Enum):
    """What the first bytes of a client look like; the value is the word used in logs."""

    SILENT = "silent"
    """Nothing has come."""
    HTTP2_PART = "part of an HTTP/2 preface"
    """A beginning of the preface; it may yet turn out to be something else."""
    HTTP2 = "HTTP/2"
    """All of the preface."""
    TLS = "TLS"
    """The beginning of a ClientHello."""
    HTTP1 = "HTTP/1"
    """A whole request line."""
    OTHER = "plain TCP"
    """Anything else."""

    @property
    def leaves_by_finishing(self) -> bool:
        """
        Whether an end of stream (FIN) means that the client has gone.

        After nothing, a ClientHello or a preface, whole or not, there is nobody left who could use an answer.
        After other bytes it is a half-close: the client has asked and waits.
        """
        return self in (Kind.SILENT, Kind.HTTP2_PART, Kind.HTTP2, Kind.TLS)


def classify(first: bytes) -> Kind:
    """
    Judge the bytes that a client has sent so far.

    :param first: all of them, or the first few hundred at least; more bytes can change the answer from
        ``SILENT`` or ``HTTP2_PART`` to any, and from ``OTHER`` to ``HTTP1``.
    """
    if not first:
        return Kind.SILENT
    if first.startswith(PREFACE):
        return Kind.HTTP2
    if PREFACE.startswith(first):
        return Kind.HTTP2_PART
    if first[0] == _TLS_HANDSHAKE and first[1:2] in (b"", bytes([_TLS_MAJOR])):
        return Kind.TLS
    return Kind.HTTP1 if _REQUEST_LINE.match(first) else Kind.OTHER
