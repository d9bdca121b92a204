"""The decision, as a table and as properties over many random worlds."""

import math
import random

from twisted.trial.unittest import SynchronousTestCase

from bkscaler.model import Observation
from bkscaler.scaling.demand import Needs
from bkscaler.scaling.policy import Leave, Limits, ScaleTo, WaitUntil, decide

LIMITS = Limits(idle_timeout_s=120.0)
NOBODY, SOMEBODY = Needs(), Needs(own=1)


def seen(replicas: int, *, exists: bool = True) -> Observation:
    """Make an observation at version 7."""
    return Observation(exists=exists, replicas=replicas, resource_version="7" if exists else "")


class DecideTests(SynchronousTestCase):
    """One function of what is observed and needed."""

    def test_unknown_or_missing(self):
        """Nothing is done to a set that was not seen or does not exist, whoever needs it."""
        for observation in (None, seen(0, exists=False)):
            for needs in (NOBODY, SOMEBODY):
                self.assertEqual(decide(observation, needs, LIMITS, 0, None), Leave())

    def test_wake(self):
        """Demand for a set that is too small is met at once, on the version seen, and says for whom."""
        for needs, reason in [(SOMEBODY, "1 client waits"), (Needs(own=5), "5 clients wait")]:
            self.assertEqual(
                decide(seen(0), needs, LIMITS, 50, None),
                ScaleTo(replicas=1, resource_version="7", reason=reason),
            )

    def test_enough(self):
        """A set that is as large as needed, or larger, is left alone under demand."""
        for replicas in (1, 3):
            self.assertEqual(decide(seen(replicas), SOMEBODY, LIMITS, 9999, 0), Leave())

    def test_idle(self):
        """Without demand the decision is to wait, until the idle timeout has passed."""
        self.assertEqual(decide(seen(1), NOBODY, LIMITS, 10, 10), WaitUntil(at_s=130))
        self.assertEqual(decide(seen(1), NOBODY, LIMITS, 129.9, 10), WaitUntil(at_s=130))
        self.assertEqual(
            decide(seen(3), NOBODY, LIMITS, 130, 10),
            ScaleTo(replicas=0, resource_version="7", reason="idle for 2m0s", down=True),
        )

    def test_asleep(self):
        """A set at its minimum is left alone without demand; so is one of which nobody says it is idle."""
        self.assertEqual(decide(seen(0), NOBODY, LIMITS, 10, None), Leave())
        self.assertEqual(decide(seen(1), NOBODY, Limits(idle_timeout_s=1, minimum=1), 10, 0), Leave())
        self.assertEqual(decide(seen(1), NOBODY, LIMITS, 10, None), Leave())

    def test_never(self):
        """An infinite idle timeout never ends."""
        decision = decide(seen(1), NOBODY, Limits(idle_timeout_s=math.inf), 1e9, 0)
        self.assertEqual(decision, WaitUntil(at_s=math.inf))

    def test_foreign_demand(self):
        """Demand of other proxies counts; when it is unknown it counts as one."""
        self.assertIsInstance(decide(seen(0), Needs(foreign=2), LIMITS, 0, None), ScaleTo)
        self.assertIsInstance(decide(seen(0), Needs(foreign=None), LIMITS, 0, None), ScaleTo)
        self.assertEqual(decide(seen(1), Needs(foreign=None), LIMITS, 1e9, 0), Leave())

    def test_several_replicas(self):
        """With a number of holds per replica the demand is divided, between minimum and maximum."""
        limits = Limits(idle_timeout_s=1, minimum=1, maximum=4, holds_per_replica=10)
        wanted = [limits.wanted(Needs(own=holds)) for holds in (0, 1, 10, 11, 40, 41, 4000)]
        self.assertEqual(wanted, [1, 1, 1, 2, 4, 4, 4])


class PropertyTests(SynchronousTestCase):
    """What holds in every world."""

    def test_random_worlds(self):
        """Nothing is shrunk under demand, nothing leaves the limits, and what was decided stands."""
        chance = random.Random(20261123)
        for _ in range(5000):
            minimum = chance.randint(0, 3)
            limits = Limits(
                idle_timeout_s=chance.choice([0.001, 60.0, math.inf]),
                minimum=minimum,
                maximum=chance.randint(max(1, minimum), 6),
                holds_per_replica=chance.choice([None, 1, 3]),
            )
            needs = Needs(own=chance.randint(0, 9), foreign=chance.choice([0, 0, 2, None]))
            observation = seen(chance.randint(0, 8))
            idle_since_s = None if needs.holds else chance.choice([None, 0.0, 90.0])
            decision = decide(observation, needs, limits, 100.0, idle_since_s)
            if isinstance(decision, WaitUntil):
                self.assertGreater(decision.at_s, 100.0)
            if not isinstance(decision, ScaleTo):
                continue
            self.assertTrue(limits.minimum <= decision.replicas <= limits.maximum)
            self.assertEqual(decision.down, decision.replicas < observation.replicas)
            self.assertFalse(decision.down and needs.holds)
            self.assertNotEqual(decision.replicas, observation.replicas)
            after = decide(seen(decision.replicas), needs, limits, 100.0, idle_since_s)
            self.assertNotIsInstance(after, ScaleTo)
