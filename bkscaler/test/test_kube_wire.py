"""Tests of the watch decoder: the same events for every chunking, and every bad line named."""

import json
import random

from twisted.trial.unittest import SynchronousTestCase

from bkscaler.errors import ApiStatus, Gone, WatchProtocolError
from bkscaler.kube.wire import WatchDecoder
from bkscaler.test.test_kube_support import recorded_timeline


def line(kind, version):
    """Make one line of a watch."""
    return json.dumps({"type": kind, "object": {"metadata": {"resourceVersion": version}}}).encode() + b"\n"


class WatchDecoderTests(SynchronousTestCase):
    """The pure decoder."""

    def test_any_chunking(self):
        """A recorded stream gives the same events however its bytes are split."""
        events = [e["event"] for e in recorded_timeline("timeline-0-1-0.jsonl") if e["kind"] != "me"]
        stream = b"\n".join(json.dumps(event).encode() for event in events) + b"\n\r\n \n"
        chance = random.Random(20260101)
        for _ in range(40):
            decoder, seen, rest = WatchDecoder(), [], stream
            while rest:
                size = chance.choice([1, 7, 300, 5000, 60000])
                size = chance.randint(1, size)
                seen += decoder.feed(rest[:size])
                rest = rest[size:]
            decoder.finish()
            self.assertEqual([{"type": e.type, "object": e.object} for e in seen], events)

    def test_byte_by_byte(self):
        """A stream that comes one byte at a time is decoded, blank lines left out."""
        decoder = WatchDecoder()
        stream = b"\n\r\n" + line("ADDED", "7") + b"  \n" + line("BOOKMARK", "8")
        seen = [event for byte in stream for event in decoder.feed(bytes([byte]))]
        self.assertEqual([(e.type, e.resource_version) for e in seen], [("ADDED", "7"), ("BOOKMARK", "8")])

    def test_random_bytes_raise_only_ours(self):
        """Garbage ends in a protocol error, whatever it is."""
        chance = random.Random(7)
        for _ in range(300):
            with self.assertRaises(WatchProtocolError):
                list(
                    WatchDecoder().feed(chance.randbytes(chance.randint(1, 60)).replace(b"\n", b"") + b"}\n")
                )

    def test_no_watch_event(self):
        """JSON that is no watch event is a protocol error."""
        for bad in [
            b"1",
            b"[]",
            b"{}",
            b'{"type":"ADDED"}',
            b'{"type":"NEW","object":{"a":1}}',
            b"[" * 100000,
        ]:
            with self.assertRaises(WatchProtocolError):
                list(WatchDecoder().feed(bad + b"\n"))

    def test_gone(self):
        """An ERROR line with code 410 is raised as Gone, after the events before it."""
        error = {
            "type": "ERROR",
            "object": {
                "kind": "Status",
                "message": "too old resource version: 1176 (1376)",
                "reason": "Expired",
                "code": 410,
            },
        }
        events = WatchDecoder().feed(line("ADDED", "7") + json.dumps(error).encode() + b"\n")
        self.assertEqual(next(events).resource_version, "7")
        with self.assertRaises(Gone) as caught:
            next(events)
        self.assertEqual((caught.exception.code, caught.exception.reason), (410, "Expired"))

    def test_other_error(self):
        """An ERROR line with another code, or none, is raised as a status."""
        for status, code in [({"code": 500, "reason": "InternalError"}, 500), ({}, 500)]:
            with self.assertRaises(ApiStatus) as caught:
                list(WatchDecoder().feed(json.dumps({"type": "ERROR", "object": status}).encode() + b"\n"))
            self.assertEqual(caught.exception.code, code)
            self.assertNotIsInstance(caught.exception, Gone)

    def test_half_line_at_the_end(self):
        """A stream that ends inside a line was cut, even if the line would decode."""
        decoder = WatchDecoder()
        self.assertEqual(list(decoder.feed(line("ADDED", "7")[:-1])), [])
        self.assertRaises(WatchProtocolError, decoder.finish)

    def test_line_too_long(self):
        """A line that exceeds the limit is refused, complete or not, and one at the limit is taken."""
        whole = line("ADDED", "7")
        limit = len(whole) - 1
        self.assertEqual(len(list(WatchDecoder(limit).feed(whole))), 1)
        for data in (whole, whole[:-1]):
            with self.assertRaises(WatchProtocolError):
                list(WatchDecoder(limit - 1).feed(data))
