"""Tests of how the limit of open files is raised."""

from __future__ import annotations

import resource

from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from bkscaler.resources import OTHER_DESCRIPTORS, allow_descriptors

NONE = resource.RLIM_INFINITY


class DescriptorTests(SynchronousTestCase):
    """A process that serves up to 300 connections; the limits are played."""

    def allow(self, soft, hard):
        """Raise the limit; return what it has become, and what was logged."""
        self.limits = (soft, hard)
        self.patch(resource, "getrlimit", lambda which: self.limits)
        self.patch(resource, "setrlimit", lambda which, limits: setattr(self, "limits", limits))
        with capturedLogs() as events:
            allow_descriptors(300)
        return self.limits, [formatEvent(event) for event in events]

    def test_raised(self):
        """It is raised to what connections and pipes need, and no further."""
        wanted = 800 + OTHER_DESCRIPTORS
        for hard in (4096, NONE):
            self.assertEqual(self.allow(256, hard), ((wanted, hard), []))

    def test_enough(self):
        """What is enough is left alone."""
        for limits in ((1024, 4096), (NONE, NONE), (1024, NONE)):
            self.assertEqual(self.allow(*limits), (limits, []))

    def test_not_enough_for_pipes(self):
        """As far as it may be; fewer pipes are nothing to warn of."""
        self.assertEqual(self.allow(256, 700), ((700, 700), []))

    def test_not_enough(self):
        """Too few for the connections are told of, with the setting and both numbers."""
        limits, (line,) = self.allow(256, 512)
        self.assertEqual(limits, (512, 512))
        self.assertRegex(line, rf"--max-connections 300.* {600 + OTHER_DESCRIPTORS} files.* 512 are allowed")
