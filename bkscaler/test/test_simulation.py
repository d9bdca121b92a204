"""The simulation: some hundred worlds, seeds that once failed, and whether it would notice anything."""

from __future__ import annotations

import gc
import os
import re
import subprocess
import sys
from dataclasses import replace

from twisted.trial.unittest import SynchronousTestCase

from bkscaler.scaling.service import Scaler
from bkscaler.simulation.breaking import NothingToBreak, broken, line, value
from bkscaler.simulation.mutants import WAYS, catch, mutated
from bkscaler.simulation.plan import make_plan
from bkscaler.simulation.run import Run, run_seed

SEEDS = int(os.environ.get("BKSCALER_SIMULATED_SEEDS", "300"))
ONCE_FAILED = (
    388, 200000910, 310005728, 310007254, 310010919, 310035149, 310036371, 400007994, 800010500,
    900029925, 900036631, 1000007456, 1100027027, 1100027839,
    2000041683, 1200001036, 1200002423, 1300000412, 1300007515, 1400046524,
    1500021930, 1700010244, 1710007031, 1730031009, 1750003684,
    1760017803, 1780060434, 1790076675, 1860079318,
)  # fmt: skip
"""
Seeds that failed once with the acts that there are now: a change of the acts changes what every seed means.
What older worlds have found in the product has tests of its own, and is in :data:`ONCE_DEFECTS`.
"""
ONCE_DEFECTS = {
    "a set that was missing when the API was lost is missing": 3,
    "who was told of the shutdown is not dropped": 90,
    "after half a preface what was ready is dialled": 68,
    "after a health check what was ready is dialled": 345,
    "a look of another idle time counts": 91,
    "endless conflicts are no reason": 1268,
}
"""What was a defect of the product once, as a way to break it, with a seed that finds it out."""


def log_of(seed):
    """Run a seed; give all that happened in it."""
    run = Run(make_plan(seed))
    run.result()
    return run.world.text()


class WorldsTests(SynchronousTestCase):
    """What holds in every world."""

    def test_many(self):
        """Nothing fails in the first so many worlds."""
        failed = {seed: result.failures for seed in range(SEEDS) if (result := run_seed(seed)).failures}
        self.assertEqual(failed, {})

    def test_once_failed(self):
        """What has been mended stays mended."""
        for seed in ONCE_FAILED:
            self.assertEqual(run_seed(seed).failures, [], seed)
        for name, seed in ONCE_DEFECTS.items():
            self.assertEqual(run_seed(seed).failures, [], seed)
            with mutated(name):
                self.assertNotEqual(run_seed(seed).failures, [], f"{name}: another seed is needed")
            gc.collect()  # or what was left in the midst of things is heard of in worlds to come
            self.flushLoggedErrors()

    def test_same_again(self):
        """The same seed gives the same log, byte for byte, in another process, too."""
        for seed in (7, 18, 31, 46):
            first = log_of(seed)
            self.assertEqual(log_of(seed), first)
            self.assertGreater(len(first.splitlines()), 10)
        words = (sys.executable, "-m", "bkscaler.simulation", "--seed", "46")
        for hash_seed in ("1", "2"):
            environ = {**os.environ, "PYTHONHASHSEED": hash_seed}
            told = subprocess.run(words, env=environ, capture_output=True, text=True, check=True).stdout
            self.assertTrue(told.startswith(first), told[:500])

    def test_prefix(self):
        """A world whose acts are left out is another world, in which nothing fails either."""
        plan = make_plan(18)
        self.assertEqual(Run(replace(plan, steps=plan.steps[:1])).result().failures, [])


BROKEN = """
import sys
from bkscaler.simulation.__main__ import main
from bkscaler.simulation.mutants import mutated
with mutated("the hold ends when the client is joined"):
    sys.exit(main(["--seeds", "70", "--jobs", "2"]))
"""


class CommandLineTests(SynchronousTestCase):
    """What people see."""

    def test_failures(self):
        """Seeds that fail are told with the shortest beginning that does and what happened, and counted."""
        done = subprocess.run([sys.executable, "-c", BROKEN], capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 1, done.stderr)
        told = re.findall(r"^seed \d+ \(.*\n\d+ calls in \d+ s\nFAILED: ", done.stdout, re.MULTILINE)
        self.assertGreater(len(told), 3)
        self.assertIn(" by bkscaler\n", done.stdout)
        self.assertRegex(done.stdout, rf"\nsimulated 70 seeds, {len(told)} failed\n$")


class MutantsTests(SynchronousTestCase):
    """A product that is broken is found out; ``python -m bkscaler.simulation.mutants`` tries all the ways."""

    def assert_caught(self, name, about):
        """Some of the first worlds fail, in the expected way."""
        _, seed, words = catch(name, within=300)
        self.flushLoggedErrors()
        self.assertIsNotNone(seed)
        self.assertRegex(words, about)

    def test_every_way(self):
        """Each way to break the product fits its source, and leaves it as it was."""
        before = Scaler.drain
        for name in WAYS:
            with mutated(name):
                pass
        self.assertIs(Scaler.drain, before)

    def test_no_way(self):
        """A way that does not fit the source is an error, not a product that is whole."""
        for way in (line("scaling.service:Scaler.drain", "no such text", ""), value("shutdown:NOTHING", 1)):
            with self.assertRaises(NothingToBreak), broken(way):
                pass

    def test_terminating_pods_are_used(self):
        """A product that looks at no deletionTimestamp is caught."""
        self.assert_caught("pods that are terminating are used", "is dialled|goes by")

    def test_sleeps_too_early(self):
        """A product that does not wait for the idle timeout is caught."""
        self.assert_caught("the builder sleeps a second early", "without demand")

    def test_never_sleeps(self):
        """A product that never puts the builder to sleep is caught."""
        self.assert_caught("the builder never sleeps", "still awake|more happens than can be")

    def test_hold_ends_early(self):
        """A product that gives the builder back while a client is joined to it is caught."""
        self.assert_caught("the hold ends when the client is joined", "scaled down")
