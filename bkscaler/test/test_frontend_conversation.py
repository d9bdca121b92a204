"""Tests of what is kept of a held HTTP/2 client and what it is told."""

from __future__ import annotations

import random

from hpack import Decoder, Encoder
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)
from twisted.trial.unittest import SynchronousTestCase

from bkscaler.frontend import refusal
from bkscaler.frontend.calls import TRACES_PATH
from bkscaler.frontend.conversation import (
    MAX_DATA_BYTES,
    MAX_OTHER_BYTES,
    MAX_PINGS,
    HeldConversation,
    Stance,
)
from bkscaler.frontend.http2 import FrameReader, Violation
from bkscaler.frontend.sniff import PREFACE
from bkscaler.test.test_frontend_http2 import recorded

SETTINGS = SettingsFrame(0, settings={1: 0, 4: 65_535}).serialize()
ACK = SettingsFrame(0, flags=["ACK"]).serialize()
PING = PingFrame(0, opaque_data=b"12345678").serialize()
PONG = PingFrame(0, opaque_data=b"12345678", flags=["ACK"]).serialize()


def headers(stream, block=b"\x82", flags=("END_HEADERS",)):
    """Make a HEADERS frame."""
    return HeadersFrame(stream, data=block, flags=flags).serialize()


def reset(stream):
    """Make an RST_STREAM frame."""
    return RstStreamFrame(stream, error_code=8).serialize()


def answered(data):
    """Read trailers-only answers; give header fields by stream."""
    answers = {}
    for frame in FrameReader().feed(data):
        if frame.kind == 1:
            fields = Decoder().decode(frame.payload)
            answers[frame.stream] = (frame.flags, dict(fields))
    return answers


def talk(*chunks):
    """Hold a conversation in which a client has sent something."""
    conversation = HeldConversation()
    for chunk in chunks:
        conversation.receive(chunk)
    return conversation


class ReplayTests(SynchronousTestCase):
    """What the builder sees."""

    def test_untouched_when_silent(self):
        """A client that was told nothing is replayed byte for byte, PINGs and half a frame included."""
        sent = SETTINGS + PING + headers(1) + b"\0\0\1\0"
        for size in (1, 7, len(sent)):
            conversation = talk(*(sent[i : i + size] for i in range(0, len(sent), size)))
            self.assertEqual((conversation.replay(), conversation.ack_pending), (PREFACE + sent, False))

    def test_recorded(self):
        """A recorded build, held after an early SETTINGS frame, is replayed as its builder saw it."""
        for name in ("build-early", "buildx-early", "workers-early"):
            first, *others = recorded(name)
            conversation = talk(first.removeprefix(PREFACE))
            self.assertEqual(conversation.engage(), b"\0\0\0\4\0\0\0\0\0")
            held = others[: 2 if name != "buildx-early" else 3]
            self.assertEqual([conversation.receive(chunk) for chunk in held], [b""] * len(held))
            self.assertEqual(conversation.replay(), b"".join([first, *held]).replace(ACK, b"", 1))

    def test_one_acknowledgement_is_dropped(self):
        """Exactly one acknowledgement of SETTINGS is dropped, the first; a second one is kept."""
        conversation = talk(SETTINGS)
        conversation.engage()
        conversation.receive(ACK + headers(1) + ACK)
        self.assertFalse(conversation.ack_pending)
        self.assertEqual(conversation.replay(), PREFACE + SETTINGS + headers(1) + ACK)

    def test_pings(self):
        """PINGs are answered and dropped, those from before the early SETTINGS too; so are PING ACKs."""
        conversation = talk(SETTINGS + PING + headers(1))
        self.assertEqual(conversation.engage(), refusal.SERVER_SETTINGS + PONG)
        self.assertEqual(conversation.receive(PING + ACK + PONG), PONG)
        self.assertEqual(conversation.replay(), PREFACE + SETTINGS + headers(1))

    def test_half_a_frame(self):
        """A frame that is not whole when the client is handed over is passed on in two parts."""
        conversation = talk(SETTINGS)
        conversation.engage()
        data = DataFrame(1, data=b"abcdef").serialize()
        conversation.receive(ACK + headers(1) + data[:12])
        self.assertEqual(conversation.replay(), PREFACE + SETTINGS + headers(1) + data[:12])

    def test_late_acknowledgement(self):
        """An acknowledgement that comes after joining is dropped, wherever it is cut; nothing else is."""
        later = headers(1) + DataFrame(1, data=b"abc").serialize() + ACK + PING + ACK + headers(3)
        expected = later.replace(ACK, b"", 1)
        for size in range(1, len(later) + 1):
            conversation = talk(SETTINGS)
            conversation.engage()
            passed = [conversation.replay()]
            place = 0
            while conversation.ack_pending:
                passed.append(conversation.pass_on(later[place : place + size]))
                place += size
            self.assertEqual(b"".join(passed) + later[place:], PREFACE + SETTINGS + expected)

    def test_late_half_frame(self):
        """Half a frame from before joining goes with its other half when the acknowledgement is late."""
        conversation = talk(SETTINGS)
        conversation.engage()
        conversation.receive(headers(1)[:5])
        replayed = conversation.replay()
        passed = conversation.pass_on(headers(1)[5:] + ACK + b"\0\0")
        self.assertEqual(replayed + passed, PREFACE + SETTINGS + headers(1) + b"\0\0")

    def test_violation_after_joining(self):
        """What a joined client sends wrong is its builder's business: it is passed on whole."""
        conversation = talk(SETTINGS)
        conversation.engage()
        conversation.replay()
        wrong = headers(1) + b"\xff" * 20
        self.assertEqual((conversation.pass_on(wrong), conversation.ack_pending), (wrong, False))


class RefusalTests(SynchronousTestCase):
    """What the client is told when the builder does not come."""

    words = "buildkitd not ready after 5m0s: 100 % busy, größer"

    def check(self, answers, streams):
        """See that each stream is ended by trailers alone, with status 9 and the reason."""
        self.assertEqual(set(answers), set(streams))
        for flags, fields in answers.values():
            self.assertEqual(flags, 0x5)
            message = "buildkitd not ready after 5m0s: 100 %25 busy, gr%C3%B6%C3%9Fer"
            self.assertEqual(
                fields,
                {
                    ":status": "200",
                    "content-type": "application/grpc",
                    "grpc-status": "9",
                    "grpc-message": message,
                },
            )

    def test_open_streams(self):
        """Every open call is answered; SETTINGS are sent, and the client's acknowledged."""
        conversation = talk(SETTINGS + headers(1) + headers(3) + reset(3) + headers(5))
        answer = conversation.refuse(self.words)
        self.assertTrue(answer.startswith(refusal.SERVER_SETTINGS + refusal.SETTINGS_ACK))
        self.check(answered(answer), [1, 5])

    def test_blanks_around(self):
        """Blanks around the reason are left out: a header field that has them ends the whole connection."""
        answer = talk(SETTINGS + headers(1)).refuse(f" {self.words} \n")
        self.check(answered(answer), [1])

    def test_later_streams(self):
        """Later calls are answered as well, when their header block is whole; PINGs and SETTINGS too."""
        conversation = talk(SETTINGS)
        conversation.engage()
        conversation.refuse(self.words)
        self.assertEqual(conversation.receive(ACK + DataFrame(1, data=b"x").serialize()), b"")
        self.assertEqual(conversation.receive(PING + SETTINGS), PONG + refusal.SETTINGS_ACK)
        self.assertEqual(conversation.receive(headers(7, flags=())), b"")
        block = ContinuationFrame(7, data=b"\x83", flags=["END_HEADERS"]).serialize()
        self.check(answered(conversation.receive(block + headers(9))), [7, 9])

    def test_every_table_size(self):
        """The answer needs no dynamic table, so that a client that allows none can read it."""
        conversation = talk(SETTINGS + headers(1))
        for frame in FrameReader().feed(conversation.refuse(self.words)):
            if frame.kind == 1:
                decoder = Decoder()
                decoder.header_table_size = decoder.max_allowed_table_size = 0
                self.assertIn(("grpc-status", "9"), [tuple(field) for field in decoder.decode(frame.payload)])

    def test_no_goaway(self):
        """No GOAWAY is sent: the client would connect again and wake the builder again."""
        conversation = talk(SETTINGS + headers(1))
        kinds = {frame.kind for frame in FrameReader().feed(conversation.refuse(self.words))}
        self.assertEqual(kinds, {1, 4})

    def test_twice(self):
        """Refusing twice says nothing more."""
        conversation = talk(SETTINGS + headers(1))
        conversation.refuse(self.words)
        self.assertEqual((conversation.refuse("other"), conversation.stance), (b"", Stance.REFUSING))


class CancelTests(SynchronousTestCase):
    """A client that no longer wants a builder."""

    def test_recorded(self):
        """The recorded interrupted build wants no builder any more; that its traces cannot be taken it
        reads at once."""
        first, *others = recorded("build-interrupted-early")
        conversation = talk(first.removeprefix(PREFACE))
        conversation.engage()
        conversation.receive(others[0])
        self.assertTrue(conversation.needs_builder)
        answers = conversation.receive(others[1])
        self.assertFalse(conversation.needs_builder)
        self.assertEqual(set(answered(answers)), {3})
        self.assertEqual(answered(conversation.refuse("gone")), {})

    def test_replay_after_traces(self):
        """The builder of a client that goes on after its traces were turned away hears that they are over."""
        conversation = talk(SETTINGS)
        conversation.engage()
        traces = headers(1, Encoder().encode([(":path", TRACES_PATH)]))
        self.assertEqual(set(answered(conversation.receive(ACK + traces))), {1})
        conversation.receive(headers(3))
        self.assertTrue(conversation.needs_builder)
        self.assertEqual(conversation.replay(), PREFACE + SETTINGS + traces + headers(3) + reset(1))

    def test_traces_of_a_build(self):
        """Traces handed in while other calls are open are kept for the builder like these."""
        conversation = talk(SETTINGS + headers(1))
        conversation.engage()
        traces = headers(3, Encoder().encode([(":path", TRACES_PATH)]))
        self.assertEqual(conversation.receive(ACK + traces), b"")
        self.assertEqual(conversation.replay(), PREFACE + SETTINGS + headers(1) + traces)


class BoundTests(SynchronousTestCase):
    """How much may be held."""

    def test_data(self):
        """A client may send its whole first window of DATA, and not one byte more."""
        conversation = talk(SETTINGS + headers(1))
        conversation.engage()
        for _ in range(4):
            conversation.receive(DataFrame(1, data=b"x" * 16_383).serialize())
        conversation.receive(DataFrame(1, data=b"x" * (MAX_DATA_BYTES - 4 * 16_383)).serialize())
        wrong = DataFrame(1, data=b"x").serialize()
        self.assertRaises(Violation, conversation.receive, wrong)

    def test_headers(self):
        """Header blocks and other frames are bounded."""
        conversation = HeldConversation()
        flood = WindowUpdateFrame(0, window_increment=1).serialize()
        conversation.receive(flood * (MAX_OTHER_BYTES // len(flood)))
        self.assertRaises(Violation, conversation.receive, flood)

    def test_pings(self):
        """PINGs are bounded, too."""
        conversation = HeldConversation()
        conversation.engage()
        for _ in range(MAX_PINGS):
            conversation.receive(PING)
        self.assertRaises(Violation, conversation.receive, PING)

    def test_fuzz(self):
        """Whatever comes, in whichever stance, is answered or refused, and what is kept stays bounded."""
        chance = random.Random(5)
        parts = (SETTINGS, ACK, PING, PONG, headers(1), headers(3), reset(1), reset(3), headers(5, flags=()))
        for _ in range(3000):
            conversation = HeldConversation()
            try:
                for _ in range(chance.randrange(12)):
                    act = chance.random()
                    if act < 0.1:
                        conversation.engage()
                    elif act < 0.15:
                        conversation.refuse("no")
                    elif act < 0.3:
                        conversation.receive(chance.randbytes(chance.randrange(30)))
                    else:
                        conversation.receive(chance.choice(parts))
                conversation.replay()
            except Violation:
                continue
