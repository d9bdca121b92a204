"""The simulation: some hundred worlds, seeds that once failed, and whether it would notice anything."""

from __future__ import annotations

import os
from dataclasses import replace

from twisted.trial.unittest import SynchronousTestCase

from bkscaler.kube import pods
from bkscaler.scaling import policy
from bkscaler.scaling import service as scaling_service
from bkscaler.scaling.policy import ScaleTo
from bkscaler.simulation.plan import make_plan
from bkscaler.simulation.run import Run, run_seed

SEEDS = int(os.environ.get("BKSCALER_SIMULATED_SEEDS", "100"))
ONCE_FAILED = (8, 1510)
"""
A list that was older than what had been seen brought a dead pod back; another hid that the builder was up.
Both are told in ``kube/store``.
"""


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

    def test_same_again(self):
        """The same seed gives the same log, byte for byte."""
        for seed in (7, 18, 31, 46):
            first = log_of(seed)
            self.assertEqual(log_of(seed), first)
            self.assertGreater(len(first.splitlines()), 10)

    def test_prefix(self):
        """A world whose acts are left out is another world, in which nothing fails either."""
        plan = make_plan(18)
        self.assertEqual(Run(replace(plan, steps=plan.steps[:1])).result().failures, [])


class MutantsTests(SynchronousTestCase):
    """A product that is broken is found out."""

    def assert_caught(self, within, about):
        """Some of the first worlds fail, in the expected way."""
        for seed in range(within):
            failures = run_seed(seed).failures
            self.flushLoggedErrors()
            if failures:
                self.assertRegex(failures[0], about)
                return
        self.fail(f"not caught within {within} seeds")

    def test_terminating_pods_are_used(self):
        """A product that looks at no deletionTimestamp is caught."""
        parse = pods.parse
        self.patch(pods, "parse", lambda value: replace(parse(value), terminating=False))
        self.assert_caught(400, "is dialled")

    def test_sleeps_too_early(self):
        """A product that does not wait for the idle timeout is caught."""
        decide = policy.decide

        def hasty(observation, needs, limits, now_s, idle_since_s):
            decision = decide(observation, needs, limits, now_s + 1.0, idle_since_s)
            return (
                decision
                if isinstance(decision, ScaleTo)
                else decide(observation, needs, limits, now_s, idle_since_s)
            )

        self.patch(scaling_service, "decide", hasty)
        self.assert_caught(50, "without demand|still awake")

    def test_never_sleeps(self):
        """A product that never puts the builder to sleep is caught."""
        decide = policy.decide

        def restless(*facts):
            decision = decide(*facts)
            return policy.Leave() if isinstance(decision, ScaleTo) and decision.down else decision

        self.patch(scaling_service, "decide", restless)
        self.assert_caught(20, "still awake|come to rest")
