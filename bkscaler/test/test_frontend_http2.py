"""Tests of reading frames."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

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

from bkscaler.frontend.http2 import MAX_FRAME_BYTES, Frame, FrameReader, Violation
from bkscaler.frontend.sniff import PREFACE

WIRE = Path(__file__).parent / "data" / "wire"
FUZZ_INPUTS = int(os.environ.get("BKSCALER_FUZZ_INPUTS", "20000"))
"""How many random inputs the fuzz test reads; a million takes a minute or two."""

UNKNOWN = b"\0\0\7\xfa\0\0\0\0\7unknown"
EVERYTHING = UNKNOWN + b"".join(
    frame.serialize()
    for frame in (
        SettingsFrame(0, settings={4: 70000}),
        HeadersFrame(1, data=b"block", flags=[]),
        ContinuationFrame(1, data=b"more", flags=["END_HEADERS"]),
        DataFrame(1, data=b"x" * MAX_FRAME_BYTES),
        WindowUpdateFrame(0, window_increment=5),
        PingFrame(0, opaque_data=b"12345678"),
        RstStreamFrame(1, error_code=8),
    )
)


def recorded(name, side="client"):
    """Give what one side of a recorded conversation sent, read by read."""
    lines = [json.loads(line) for line in (WIRE / f"{name}.jsonl").read_text().splitlines()]
    return [bytes.fromhex(line["hex"]) for line in lines if line["from"] == side and "hex" in line]


def frames_of(*chunks):
    """Read chunks; give the frames."""
    reader = FrameReader()
    return [frame for chunk in chunks for frame in reader.feed(chunk)]


class FrameReaderTests(SynchronousTestCase):
    """Bytes in any chunking become the same frames."""

    def test_one_byte_at_a_time(self):
        """Frames are the same whether they come in one piece or byte by byte."""
        whole = frames_of(EVERYTHING)
        self.assertEqual(len(whole), 8)
        self.assertEqual(b"".join(frame.raw for frame in whole), EVERYTHING)
        self.assertEqual(frames_of(*(EVERYTHING[i : i + 1] for i in range(len(EVERYTHING)))), whole)

    def test_any_chunks(self):
        """Frames are the same however the bytes are cut."""
        whole, chance = frames_of(EVERYTHING), random.Random(3)
        for _ in range(50):
            cuts = sorted(chance.sample(range(len(EVERYTHING)), 5))
            pieces = [EVERYTHING[a:b] for a, b in zip([0, *cuts], [*cuts, None], strict=True)]
            self.assertEqual(frames_of(*pieces), whole)

    def test_parts(self):
        """A frame is told by its type, flags, stream (without the reserved bit) and payload."""
        (frame,) = frames_of(b"\0\0\3\xfa\x41\x80\0\1\2abc")
        self.assertEqual((frame.kind, frame.flags, frame.stream, frame.payload), (0xFA, 0x41, 258, b"abc"))

    def test_rest(self):
        """What is not a whole frame yet stays in the rest."""
        reader = FrameReader()
        frames = list(reader.feed(EVERYTHING + b"\0\0\4"))
        self.assertEqual((len(frames), reader.rest), (8, b"\0\0\4"))

    def test_recorded(self):
        """Every recorded conversation of real clients is read to its last byte."""
        for name in (
            "build-early",
            "buildx-early",
            "build-interrupted-early",
            "workers-early",
            "build-direct",
        ):
            stream = b"".join(recorded(name)).removeprefix(PREFACE)
            reader = FrameReader()
            frames = list(reader.feed(stream.split(PREFACE)[0]))
            self.assertEqual((reader.rest, frames[0].kind), (b"", 4), name)

    def test_acknowledgement(self):
        """Only SETTINGS with the flag acknowledge SETTINGS."""
        for raw, answer in ((b"\4\1", True), (b"\4\0", False), (b"\6\1", False)):
            self.assertIs(Frame(raw[0], raw[1], 0, b"").is_settings_ack, answer)

    def test_violations(self):
        """What no correct client sends is refused, and begins the rest."""
        headers = HeadersFrame(1, data=b"x", flags=[]).serialize()
        for wrong in (
            b"\0\x40\1\0\0\0\0\0\1",
            b"\xff\xff\xff\xff",
            headers + SettingsFrame(0).serialize(),
            headers + ContinuationFrame(3, data=b"x").serialize(),
            ContinuationFrame(1, data=b"x").serialize(),
            b"\0\0\0\0\0\0\0\0\0",
            b"\0\0\0\1\4\0\0\0\0",
            b"\0\0\4\3\0\0\0\0\0\0\0\0\0",
            b"\0\0\0\4\0\0\0\0\1",
            b"\0\0\0\6\0\0\0\0\0",
            b"\0\0\x08\6\0\0\0\0\1" + b"x" * 8,
        ):
            reader = FrameReader()
            padded = wrong + b"\0" * 9
            self.assertRaises(Violation, list, reader.feed(padded))
            self.assertTrue(padded.endswith(reader.rest) and len(reader.rest) > 9, wrong)

    def test_fuzz(self):
        """Random bytes, and damaged conversations, give frames or a Violation; what is kept stays bounded."""
        chance, sample = random.Random(11), EVERYTHING
        for _ in range(FUZZ_INPUTS):
            if chance.random() < 0.5:
                data = chance.randbytes(chance.randrange(200))
            else:
                damaged = bytearray(sample[: chance.randrange(80)])
                for _ in range(chance.randrange(4)):
                    damaged[chance.randrange(len(damaged)) if damaged else 0 :][:1] = chance.randbytes(1)
                data = bytes(damaged)
            reader, cut = FrameReader(), chance.randrange(len(data) + 1)
            try:
                frames = [*reader.feed(data[:cut]), *reader.feed(data[cut:])]
            except Violation:
                continue
            self.assertEqual(b"".join(frame.raw for frame in frames) + reader.rest, data)
            self.assertLessEqual(len(reader.rest), 9 + MAX_FRAME_BYTES)
