"""Tests of when the lines of the log are written."""

from __future__ import annotations

from io import StringIO
from threading import get_ident

from twisted.internet.task import Clock
from twisted.logger import Logger
from twisted.python import threadable
from twisted.trial.unittest import SynchronousTestCase

from bkscaler.observability import logs


class Counting(StringIO):
    """Counts how often it is written to."""

    def __init__(self):
        super().__init__()
        self.writes = 0

    def write(self, text):
        """Count."""
        self.writes += bool(text)
        return super().write(text)

    def take(self):
        """Give the number of writes and the messages, and forget them."""
        taken = self.writes, [line.split()[-1] for line in self.getvalue().splitlines()]
        self.writes = 0
        self.seek(0)
        self.truncate()
        return taken


class PlayedReactor(Clock):
    """A reactor that runs, or does not."""

    running = True


class TurnTests(SynchronousTestCase):
    """Lines that come many at a time, in a reactor that runs."""

    def setUp(self):
        """Log from the reactor's thread, which is this one."""
        self.out = Counting()
        self.reactor = PlayedReactor()
        self.observer = logs.observer("text", "info", self.out, self.reactor)
        self.log = Logger("x", observer=self.observer)
        self.patch(threadable, "ioThread", get_ident())

    def test_together(self):
        """The lines of one turn are written together at its end, in order, and then all is as before."""
        for _ in range(2):
            self.log.info("one")
            self.log.info("two")
            self.assertEqual(self.out.take(), (0, []))
            self.reactor.advance(0)
            self.assertEqual(self.out.take(), (1, ["one", "two"]))
            self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_warnings_do_not_wait(self):
        """A warning is written at once, behind what has waited; what comes after it waits again."""
        self.log.info("one")
        self.log.warn("two")
        self.assertEqual(self.out.take(), (1, ["one", "two"]))
        self.log.info("three")
        self.assertEqual(self.out.take(), (0, []))
        self.reactor.advance(0)
        self.assertEqual(self.out.take(), (1, ["three"]))

    def test_not_running(self):
        """Before the reactor runs, and after, nothing waits; nor is what waited when it stopped lost."""
        self.log.info("one")
        self.reactor.running = False
        self.observer.write()  # as the interpreter does at its exit
        self.log.info("two")
        self.assertEqual(self.out.take(), (2, ["one", "two"]))

    def test_other_threads(self):
        """What another thread logs does not touch the reactor."""
        self.patch(threadable, "ioThread", -1)
        self.log.info("one")
        self.assertEqual(self.out.take(), (1, ["one"]))
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_no_space_left(self):
        """What cannot be written is lost, without a word that could not be written either."""
        self.out.close()
        self.log.info("one")
        self.log.warn("two")
        self.reactor.advance(0)
        self.assertEqual(self.reactor.getDelayedCalls(), [])
