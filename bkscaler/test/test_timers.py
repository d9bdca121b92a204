"""Named timers."""

import math

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from bkscaler.timers import TimeLimit, Timers


class TimersTests(SynchronousTestCase):
    """A few named timers on one clock."""

    def setUp(self):
        self.clock = Clock()
        self.timers = Timers(self.clock)
        self.fired = []

    def keep(self, name, at_s):
        self.timers.keep(name, at_s, lambda: self.fired.append((name, self.clock.seconds())))

    def test_fires_at_its_moment(self):
        """A timer fires at the time on the clock that it was given, once."""
        self.clock.advance(3)
        self.keep("a", 5.0)
        self.clock.pump([1.0] * 5)
        self.assertEqual(self.fired, [("a", 5.0)])

    def test_kept_as_it_is(self):
        """Keeping a timer at its moment, however often, leaves the one delayed call that there is."""
        self.clock.advance(0.1)
        self.keep("a", 0.7)
        call = self.clock.getDelayedCalls()[0]
        for _ in range(5):
            self.clock.advance(0.1)
            self.keep("a", 0.7)
        self.assertIs(self.clock.getDelayedCalls()[0], call)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)

    def test_past(self):
        """A moment in the past comes as soon as possible."""
        self.clock.advance(10)
        self.keep("a", 5.0)
        self.assertEqual(self.fired, [])
        self.clock.advance(0)
        self.assertEqual(self.fired, [("a", 10.0)])

    def test_moved(self):
        """A timer that is kept at another moment moves there; others stay."""
        self.keep("a", 5.0)
        self.keep("b", 6.0)
        self.keep("a", 7.0)
        self.clock.pump([1.0] * 9)
        self.assertEqual(self.fired, [("b", 6.0), ("a", 7.0)])

    def test_never(self):
        """An infinite moment cancels the timer; cancelling what is not there does nothing."""
        self.keep("a", 5.0)
        self.keep("a", math.inf)
        self.timers.cancel("never was")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_cancel_all(self):
        """Nothing is left after all are cancelled."""
        self.keep("a", 5.0)
        self.keep("b", 6.0)
        self.timers.cancel_all()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_again_from_its_own_call(self):
        """A timer may be armed again, or all be cancelled, from the call that it makes."""
        self.timers.keep("a", 1.0, lambda: self.keep("a", 2.0))
        self.clock.advance(1)
        self.clock.advance(1)
        self.assertEqual(self.fired, [("a", 2.0)])


class TimeLimitTests(SynchronousTestCase):
    """One limit for many."""

    def setUp(self):
        self.clock, self.reached = Clock(), []
        self.limit = TimeLimit(self.clock, 10.0)

    def begin(self, who):
        """Begin to count for somebody."""
        self.limit.begin(who, lambda: self.reached.append(who))

    def test_reached(self):
        """Each reaches it in its own time, and one delayed call is enough for all."""
        for who in "abc":
            self.begin(who)
            self.assertEqual(len(self.clock.getDelayedCalls()), 1)
            self.clock.advance(3.0)
        self.limit.end("b")
        self.clock.advance(1.0)
        self.assertEqual(self.reached, ["a"])
        self.clock.advance(5.9)
        self.assertEqual(self.reached, ["a"])
        self.clock.advance(0.1)
        self.assertEqual((self.reached, self.clock.getDelayedCalls()), (["a", "c"], []))

    def test_begins_again(self):
        """One that is called may begin anew; ending what does not count does nothing."""
        self.limit.begin("a", lambda: self.begin("a"))
        self.limit.end("b")
        self.clock.advance(10.0)
        self.clock.advance(10.0)
        self.assertEqual(self.reached, ["a"])

    def test_stop(self):
        """Stopped, it calls for nobody and leaves nothing."""
        self.limit.stop()
        self.begin("a")
        self.limit.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
