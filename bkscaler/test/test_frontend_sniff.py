"""Tests of telling who a client is."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from bkscaler.frontend.sniff import PREFACE, Kind, classify

KINDS = (
    (b"", Kind.SILENT),
    (b"P", Kind.HTTP2_PART),
    (PREFACE[:-1], Kind.HTTP2_PART),
    (PREFACE, Kind.HTTP2),
    (PREFACE + b"\0\0\0\4\0\0\0\0\0", Kind.HTTP2),
    (PREFACE[:10] + b"x", Kind.OTHER),
    (b"\x16", Kind.TLS),
    (b"\x16\x03", Kind.TLS),
    (b"\x16\x03\x01\x02\x00\x01", Kind.TLS),
    (b"\x16\x04\x01", Kind.OTHER),
    (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", Kind.HTTP1),
    (b"POST /a?b=c HTTP/1.0\r\n", Kind.HTTP1),
    (b"PUT /a HTTP/1.1\n", Kind.HTTP1),
    (b"GET /", Kind.OTHER),
    (b"GET / HTTP/2.0\r\n", Kind.OTHER),
    (b"hello\n", Kind.OTHER),
    (b"\0", Kind.OTHER),
)


class ClassifyTests(SynchronousTestCase):
    """First bytes, and who they come from."""

    def test_kinds(self):
        """Each kind of client is told by its first bytes."""
        for first, kind in KINDS:
            self.assertIs(classify(first), kind, first)

    def test_leaving(self):
        """An end of stream means a departure after nothing, a preface or a ClientHello only."""
        leaving = {kind for kind in Kind if kind.leaves_by_finishing}
        self.assertEqual(leaving, {Kind.SILENT, Kind.HTTP2_PART, Kind.HTTP2, Kind.TLS})
