"""Tests of when a server that has gone back is believed."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from bkscaler.errors import WentBack
from bkscaler.kube.behind import FOLLOWED_AFTER_S, FORGOTTEN_AFTER_S, Behind


class BehindTests(SynchronousTestCase):
    """Versions that are read, one after another."""

    def setUp(self):
        """Know nothing."""
        self.clock = Clock()
        self.behind = Behind(self.clock)

    def believed(self, version, floor="20", after_s=0.0, took_s=0.0):
        """Weigh a version whose answer took so long."""
        self.clock.advance(after_s)
        try:
            self.behind.weigh(version, floor, self.clock.seconds() - took_s)
        except WentBack as error:
            self.assertIn(f"version {version}, after {floor}", str(error))
            return False
        return True

    def test_not_older(self):
        """What is as new, newer, or cannot be compared is believed."""
        for version, floor in (("20", "20"), ("21", "20"), ("9", ""), ("x", "20")):
            self.assertTrue(self.believed(version, floor))

    def test_older_for_long(self):
        """What stays older is believed after a while, and is what is known from then on."""
        self.assertFalse(self.believed("19"))
        self.assertFalse(self.believed("18", after_s=FOLLOWED_AFTER_S - 1))
        self.assertTrue(self.believed("18", after_s=1))
        self.assertTrue(self.believed("18", floor="18", after_s=1))

    def test_old_answer(self):
        """An answer that was long under way says nothing of the time after it was asked for."""
        self.assertFalse(self.believed("19"))
        self.assertFalse(self.believed("19", after_s=FOLLOWED_AFTER_S + 4, took_s=5))
        self.assertTrue(self.believed("19", after_s=1, took_s=5))

    def test_older_again(self):
        """After that what is older yet has to stay so as well: a server that was restored may answer late."""
        self.behind.follow()
        self.assertTrue(self.believed("10"))
        self.assertFalse(self.believed("10", floor="12", after_s=FOLLOWED_AFTER_S))

    def test_begins_anew(self):
        """One newer answer in between, or none of either kind for long, and the time begins anew."""
        self.assertFalse(self.believed("19"))
        self.assertTrue(self.believed("20", after_s=FOLLOWED_AFTER_S))
        self.assertFalse(self.believed("19"))
        self.assertFalse(self.believed("19", after_s=FORGOTTEN_AFTER_S + 1))
        self.assertTrue(self.believed("19", after_s=FOLLOWED_AFTER_S))
