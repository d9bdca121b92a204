"""Tests of measuring wakes, and of the history."""

from __future__ import annotations

from itertools import pairwise

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from bkscaler.model import Stage
from bkscaler.observability.history import MAX_SPANS, WINDOW_S, History, Kind, Mode
from bkscaler.observability.outcomes import Outcome
from bkscaler.observability.wakes import Phase, Result
from bkscaler.scaling.machine import State
from bkscaler.test.observed import PULLING, Played


class WakeTests(SynchronousTestCase):
    """From the first client's need to the builder, or to nobody who needs it."""

    def setUp(self):
        self.played = Played()
        self.played.asleep()

    def wake(self):
        """Give the one wake that there was."""
        (wake,) = self.played.history.wakes
        return wake

    def test_phases(self):
        """A wake is split into phases that make up the whole; one more lasts until a client is joined."""
        self.played.arrive()
        self.played.wake(patch_s=0.25, node_s=1.0, start_s=8.0, ready_s=2.0)
        wake = self.wake()
        self.assertEqual((wake.result, wake.took_s), (Result.READY, 11.25))
        first_byte = wake.phases.pop(Phase.FIRST_BYTE)
        self.assertAlmostEqual(first_byte, 0.02)
        self.assertEqual([round(each, 3) for each in wake.phases.values()], [0.25, 1.0, 8.0, 2.0])

    def test_a_pod_that_goes_away(self):
        """Stages of the pod before, which is still terminating, do not count for the wake."""
        played = self.played
        played.arrive()
        played.be(State.GOING_TO_SLEEP, holds=1, observation=played.see(stage=Stage.STARTED))
        played.clock.advance(3)
        played.be(State.WAKING, holds=1, observation=played.see(0))
        played.wake(patch_s=1.0, node_s=2.0, start_s=3.0, ready_s=4.0)
        phases = [round(each, 2) for each in self.wake().phases.values()]
        self.assertEqual(phases, [4.0, 2.0, 3.0, 4.0, 0.02])

    def test_abandoned(self):
        """A wake that its clients have left is abandoned; it ends when the last one leaves."""
        self.played.arrive(2)
        self.played.begin_wake()
        self.played.clock.advance(4.9)
        self.played.end(Outcome.LEFT_WHILE_HELD)
        self.played.clock.advance(60)
        self.played.recorder.settle()
        self.assertEqual((self.wake().result, self.wake().took_s), (Result.ABANDONED, 5.0))

    def test_failed(self):
        """A wake is failed when a client was told that there is no builder, with what the client was told."""
        self.played.arrive(2)
        self.played.begin_wake()
        self.played.clock.advance(300)
        self.played.end(Outcome.NOT_READY_IN_TIME, why=PULLING)
        self.assertEqual((self.wake().result, self.wake().reason), (Result.FAILED, PULLING))

    def test_missing_set(self):
        """Waiting for a set that does not exist is a wake that fails."""
        self.played.arrive()
        self.played.be(State.MISSING, holds=1, waiting_for="there is no StatefulSet buildkitd")
        self.played.clock.advance(5)
        self.played.end(Outcome.CANNOT_WAKE)
        self.assertEqual((self.wake().result, self.wake().took_s), (Result.FAILED, 5))

    def test_told_and_ready_all_the_same(self):
        """A wake that ends with a builder is ready, though somebody was told too early that there is none."""
        self.played.arrive()
        self.played.begin_wake()
        self.played.recorder.ended(Outcome.NOT_READY_IN_TIME, self.played.alive[0])
        self.played.awake()
        self.assertIs(self.wake().result, Result.READY)

    def test_warm(self):
        """A client of a builder that is awake makes no wake."""
        self.played.arrive()
        self.played.awake()
        self.played.join()
        self.assertEqual(list(self.played.history.wakes), [])

    def test_lost_builder(self):
        """A builder that is lost under its clients is a wake as well, without a scale request."""
        self.played.arrive()
        self.played.awake()
        self.played.be(State.WAKING, observation=self.played.see(stage=Stage.ABSENT))
        self.played.clock.advance(7)
        self.played.awake()
        self.assertEqual((self.wake().took_s, Phase.PATCH in self.wake().phases), (7, False))


class HistoryTests(SynchronousTestCase):
    """What is remembered."""

    def test_day(self):
        """The modes of the last 24 hours are there without gaps; what is older is forgotten."""
        played = Played()
        played.asleep()
        played.clock.advance(WINDOW_S)
        played.one_build(600)
        played.clock.advance(600)
        spans = played.history.spans()
        self.assertEqual(
            [span.mode for span in spans], [Mode.ASLEEP, Mode.WAKING, Mode.AWAKE, Mode.IDLE, Mode.ASLEEP]
        )
        self.assertAlmostEqual(spans[-1].to_s - spans[0].from_s, WINDOW_S)
        for before, after in pairwise(spans):
            self.assertEqual(before.to_s, after.from_s)

    def test_bounded(self):
        """However often the builder is used, memory is bounded, and the time asleep stays exact."""
        clock = Clock()
        history = History(clock)
        for number in range(20_000):
            history.enter(State.AWAKE if number % 2 else State.IDLE)
            clock.advance(1)
            if number % 1000 == 0:
                history.enter(State.ASLEEP)
                clock.advance(100)
        spans = history.spans()
        self.assertLessEqual(len(spans), MAX_SPANS)
        asleep_s = sum(span.to_s - span.from_s for span in spans if span.mode is Mode.ASLEEP)
        self.assertEqual((asleep_s, spans[-1].to_s - spans[0].from_s), (2000, 22_000))

    def test_bounded_when_asleep_all_the_time(self):
        """Spans that must stay exact are dropped from the oldest on when there are too many."""
        clock = Clock()
        history = History(clock)
        for _ in range(3000):
            history.enter(State.ASLEEP)
            clock.advance(5)
            history.enter(State.AWAKE)
            clock.advance(5)
        self.assertLessEqual(len(history.spans()), MAX_SPANS)

    def test_the_same_again(self):
        """The same happening in a row is counted, not repeated."""
        history = History(Clock())
        for _ in range(500):
            history.happened(Kind.FAILURE, "over_limit", bad=True)
        history.happened(Kind.STATE, "builder is idle")
        self.assertEqual([each.count for each in history.happenings], [500, 1])
