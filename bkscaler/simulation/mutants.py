"""
Would it notice? The product is broken in chosen ways, one at a time, until a seed finds it out.

``python -m bkscaler.simulation.mutants`` prints a line for each; the exit status is 0 when all were caught.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from multiprocessing import Pool
from typing import Any

from bkscaler.errors import Gone
from bkscaler.frontend.dial import DialFailed
from bkscaler.frontend.held import HeldClient
from bkscaler.frontend.session import Session
from bkscaler.kube import behind, pods, store
from bkscaler.kube.store import ClusterStore
from bkscaler.kube.watch import Reflector
from bkscaler.relay.pair import CopyRelay
from bkscaler.scaling import requests, service
from bkscaler.scaling.policy import Leave, ScaleTo
from bkscaler.scaling.waiters import Waiters
from bkscaler.simulation.run import run_seed
from bkscaler.simulation.thrift import clear_away, prepare

WITHIN = 2000
"""How many seeds are tried."""
SEEDS_AT_ONCE = 50
"""After how many what they have left is cleared away."""
Broken = tuple[Any, str, Callable[[Any], Any]]
"""What is broken: an object, a name in it, and what makes the broken thing of the good one."""


def _uses_terminating_pods(parse: Any) -> Any:
    return lambda value: replace(parse(value), terminating=False)


def _does_nothing(_: Any) -> Any:
    return lambda *args, **kw: None


def _hurries(decide: Any) -> Any:
    def broken(observation: Any, needs: Any, limits: Any, now_s: float, idle_since_s: Any) -> Any:
        early = decide(observation, needs, limits, now_s + 1.0, idle_since_s)
        return (
            early if isinstance(early, ScaleTo) else decide(observation, needs, limits, now_s, idle_since_s)
        )

    return broken


def _never_sleeps(decide: Any) -> Any:
    def broken(*facts: Any) -> Any:
        decision = decide(*facts)
        return Leave() if isinstance(decision, ScaleTo) and decision.down else decision

    return broken


def _releases_when_joined(reach: Any) -> Any:
    async def broken(session: Any, hold: Any) -> Any:
        reached = await reach(session, hold)
        hold.release()
        return reached

    return broken


def _releases_when_refused(dial: Any) -> Any:
    async def broken(session: Any, replica: Any) -> Any:
        try:
            return await dial(session, replica)
        except DialFailed:
            session._hold.release()
            raise

    return broken


def _ignores_410(watch: Any) -> Any:
    async def broken(reflector: Any) -> None:
        try:
            await watch(reflector)
        except Gone:
            return

    return broken


def _never_happened(_: Any) -> Any:
    return lambda *args, **kw: False


def _none(_: Any) -> Any:
    return 0


def _one_leaves_all_leave(add: Any) -> Any:
    def broken(waiters: Any) -> Any:
        waiter = add(waiters)
        cancel = waiter.cancel

        def cancel_all() -> None:
            cancel()
            waiters.fail("somebody has left")

        waiter.cancel = cancel_all
        return waiter

    return broken


def _forgets_the_early(start: Any) -> Any:
    return lambda relay, early, greeting=b"": start(relay, early[:10_000], greeting)


MUTANTS: dict[str, Broken] = {
    "pods that are terminating are used": (pods, "parse", _uses_terminating_pods),
    "pods that the spec does not ask for are no suspects": (ClusterStore, "_condemn", _does_nothing),
    "pods that are gone may come back": (store, "GONE_KEPT", _none),
    "a read that is older than what is known is believed": (behind, "is_older", _never_happened),
    "the builder sleeps a second early": (service, "decide", _hurries),
    "the builder never sleeps": (service, "decide", _never_sleeps),
    "the hold ends when the client is joined": (Session, "_reach", _releases_when_joined),
    "the hold ends when a dial fails": (Session, "_dial", _releases_when_refused),
    "410 is taken for an ordinary end": (Reflector, "_watch", _ignores_410),
    "a lost answer is taken for a request that was not carried out": (
        requests,
        "may_have_happened",
        _never_happened,
    ),
    "one waiter that leaves takes the others along": (Waiters, "add", _one_leaves_all_leave),
    "clients are held without a bound": (HeldClient, "_pause", _does_nothing),
    "clients are held for ever": (Session, "_wait_in_earnest", _does_nothing),
    "what was held beyond 10,000 bytes is lost": (CopyRelay, "start", _forgets_the_early),
}
"""Each way in which the product is broken."""


@contextmanager
def mutated(name: str) -> Iterator[None]:
    """Break the product in one way, for a while."""
    where, attribute, break_it = MUTANTS[name]
    good = getattr(where, attribute)
    setattr(where, attribute, break_it(good))
    try:
        yield
    finally:
        setattr(where, attribute, good)


def catch(name: str, within: int = WITHIN) -> tuple[str, int | None, str]:
    """
    Look for the first seed that finds a mutant out.

    :returns: the mutant's name, the seed, and what did not hold; None and ``""`` when no seed did.
    """
    with mutated(name):
        for seed in range(within):
            failures = run_seed(seed).failures
            if failures:
                return name, seed, failures[0].partition("\n")[0]
            if seed % SEEDS_AT_ONCE == SEEDS_AT_ONCE - 1:
                clear_away()
    return name, None, ""


def main(within: int = WITHIN, jobs: int = 2) -> int:
    """Try all; give the exit status."""
    missed = 0
    with Pool(jobs, initializer=prepare) as pool:
        for name, seed, words in pool.imap(partial(catch, within=within), MUTANTS):
            missed += seed is None
            told = f"seed {seed}: {words[:80]}" if seed is not None else f"NOT caught within {within} seeds"
            sys.stdout.write(f"{name}: {told}\n")
            sys.stdout.flush()
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
