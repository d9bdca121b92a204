"""Go's notation of durations."""

import random

from twisted.trial.unittest import SynchronousTestCase

from bkscaler.durations import format_duration, parse_duration


class DurationTests(SynchronousTestCase):
    """Reading and writing durations."""

    def test_values(self):
        """Known texts have known values."""
        for text, seconds in [
            ("2m0s", 120), ("1h30m", 5400), ("250ms", 0.25), ("0", 0), ("1.5h", 5400), ("-3s", -3),
            ("+1s", 1), (".5s", 0.5), ("1us", 1e-6), ("1µs", 1e-6), ("5m", 300), ("1h0m0.5s", 3600.5),
        ]:  # fmt: skip
            self.assertAlmostEqual(parse_duration(text), seconds, msg=text)

    def test_rejected(self):
        """Anything else is refused with the text in the message."""
        for text in ["", "5", "s", "1x", "1 s", "--1s", "1,5s", "1d", "inf", "1e3s", "-", "300000000h"]:
            self.assertIn(repr(text), str(self.assertRaises(ValueError, parse_duration, text)))

    def test_round_trip(self):
        """What is written is read back to the same millisecond."""
        chance = random.Random(1)
        for _ in range(500):
            seconds = round(chance.uniform(-1e6, 1e6), 3)
            self.assertAlmostEqual(parse_duration(format_duration(seconds)), seconds, places=3)

    def test_written(self):
        """Durations are written as Go writes them."""
        samples = {300.0: "5m0s", 0.25: "250ms", 0: "0s", 3600: "1h0m0s", 1.5: "1.5s", 59.9996: "1m0s"}
        self.assertEqual({s: format_duration(s) for s in samples}, samples)
