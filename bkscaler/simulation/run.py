"""Running one world from its beginning to its end, and making a failing one short."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random
from signal import SIGTERM

from twisted.logger import globalLogPublisher

from bkscaler.simulation.bounds import SLEEP, Bounds
from bkscaler.simulation.judge import Judge
from bkscaler.simulation.plan import Plan, Step, make_plan
from bkscaler.simulation.world import World

MAX_EVENTS = 200_000
"""A world that needs more does not come to rest."""
LEAVING_S = 80.0
"""How long it may take until the last client is gone: one that has vanished is found out, or lingers."""
UNHEARD_S = 900.0
"""How long nobody may notice that a server whose watches are silent was restored from a backup."""
STOPPING_S = 30.0
"""How long a process may take to end when nothing is left to be waited for."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """
    What became of a world.

    :param plan: what was to happen.
    :param failures: what did not hold.
    :param text: gives what has happened, with times.
    :param events: how many calls were carried out.
    :param lasted_s: virtual seconds.
    """

    plan: Plan
    failures: list[str]
    text: Callable[[], str]
    events: int
    lasted_s: float


class Run:
    """One run of a plan."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.world = World(plan.seed, plan.flags, plan.cluster)
        self.judge = self.world.judge = Judge(self.world)
        self.bounds = Bounds(self.judge)
        self.events = 0

    def result(self) -> Result:
        """Run it."""
        globalLogPublisher.addObserver(self.world)
        try:
            self._live()
        finally:
            globalLogPublisher.removeObserver(self.world)
            self.world.cluster.stop()
            for client in self.world.clients.values():
                client.forget()
        return Result(
            plan=self.plan,
            failures=self.judge.failures,
            text=self.world.text,
            events=self.events,
            lasted_s=self.world.clock.rightNow,
        )

    def _live(self) -> None:
        """Begin; let everything happen; let everybody leave; see it fall asleep, and end."""
        world, clock = self.world, self.world.clock
        world.start()
        for step in self.plan.steps:
            clock.callLater(step.at_s, self._act, step)
        self._until(self.plan.lasts_s)
        world.mend_everything()
        world.everybody_leaves()
        settings = world.settings
        late_s = SLEEP.calm if self.judge.truth.calm else SLEEP.api
        if not world.api.is_followed:
            late_s += UNHEARD_S
        late_s += settings.drain_timeout_s + settings.idle_timeout_s + LEAVING_S
        self._until(clock.rightNow + late_s, self._at_rest)
        if not self.judge.failures and not self._at_rest():
            self.judge.fail("it does not come to rest")
        world.ended = True
        world.signal(SIGTERM)
        self._until(clock.rightNow + STOPPING_S, lambda: self.judge.truth.process() is None)
        if not self.judge.failures and self.judge.truth.process() is not None:
            self.judge.fail("it does not end")

    def _at_rest(self) -> bool:
        """Whether bkscaler runs, has no clients, and the builder has been sent away."""
        truth = self.judge.truth
        if truth.process() is None or truth.client_ends() or truth.stateful_set() is None:
            return False
        return truth.replicas() == 0

    def _act(self, step: Step) -> None:
        self.world.say(f"-- {step.act.__name__}")
        step.act(self.world, Random(step.chance))

    def _until(self, end_s: float, done: Callable[[], bool] | None = None) -> None:
        """Let one thing happen after another, up to a time, until something has failed or is done."""
        clock, failures = self.world.clock, self.judge.failures
        while not failures and (done is None or not done()):
            next_s = clock.next_s()
            if next_s is None or next_s > end_s:
                clock.rightNow = max(clock.rightNow, end_s)
                return
            self.events += 1
            self.bounds.look(next_s)
            try:
                clock.run_next()
            except Exception as error:
                self.judge.fail(f"raised {error!r}\n{traceback.format_exc(limit=-5)}")
            if self.events > MAX_EVENTS:
                self.judge.fail("more happens than can be")


def run_seed(seed: int, prefix: int | None = None) -> Result:
    """Run the world of a seed, or only the first so many acts of it."""
    plan = make_plan(seed)
    if prefix is not None:
        plan = replace(plan, steps=plan.steps[:prefix])
    return Run(plan).result()


def shortest(seed: int) -> Result:
    """Find the shortest prefix of a failing world's acts that fails, and give its result."""
    for count in range(len(make_plan(seed).steps)):
        result = run_seed(seed, count)
        if result.failures:
            return result
    return run_seed(seed)
