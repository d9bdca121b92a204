"""Demand: a set of names, and what is told of it."""

from twisted.trial.unittest import SynchronousTestCase

from bkscaler.scaling.demand import Demand, Needs


class NeedsTests(SynchronousTestCase):
    """Demand at one moment."""

    def test_holds(self):
        """Own and foreign holds add up, and unknown foreign demand is one."""
        self.assertEqual(Needs().holds, 0)
        self.assertEqual(Needs(own=2, foreign=3).holds, 5)
        self.assertEqual(Needs(own=2, foreign=None).holds, 3)


class DemandTests(SynchronousTestCase):
    """The set of holds."""

    def setUp(self):
        self.told = []
        self.demand = Demand(lambda: self.told.append(len(self.demand)))

    def test_told_of_first_and_last(self):
        """Only the first hold and the end of the last one are told."""
        self.demand.add("a")
        self.demand.add("b")
        self.demand.discard("a")
        self.assertEqual(self.told, [1])
        self.demand.discard("b")
        self.assertEqual(self.told, [1, 0])

    def test_discard_is_idempotent(self):
        """Discarding twice, or what never was, changes and tells nothing."""
        self.demand.discard("never")
        self.demand.add("a")
        self.demand.discard("a")
        self.demand.discard("a")
        self.assertEqual(self.told, [1, 0])

    def test_name_exists(self):
        """A name that exists is refused; the hold that has it stays."""
        self.demand.add("a")
        self.assertRaises(ValueError, self.demand.add, "a")
        self.assertEqual((len(self.demand), self.told), (1, [1]))

    def test_from_inside_the_callback(self):
        """Whoever is told may change the demand at once."""
        demand = Demand(lambda: demand.discard("a"))
        demand.add("a")
        self.assertEqual(len(demand), 0)
