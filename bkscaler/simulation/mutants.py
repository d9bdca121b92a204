"""
Would it notice? The product is broken in chosen ways, one at a time, until a seed finds it out.

``python -m bkscaler.simulation.mutants`` prints a line for each; the exit status is 0 when all were caught.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from multiprocessing import Pool

from bkscaler.simulation.breaking import broken
from bkscaler.simulation.misscaling import KUBE, SCALING
from bkscaler.simulation.misserving import FRONTEND, RELAY, SHUTDOWN
from bkscaler.simulation.run import run_seed
from bkscaler.simulation.thrift import clear_away, prepare

WAYS = SCALING | KUBE | FRONTEND | RELAY | SHUTDOWN
"""Every way to break the product."""
WITHIN = 2000
"""How many seeds are tried."""
SEEDS_AT_ONCE = 50
"""After how many what they have left is cleared away."""


@contextmanager
def mutated(name: str) -> Iterator[None]:
    """Break the product in one of the :data:`WAYS`, for a while."""
    with ExitStack() as stack:
        for way in WAYS[name]:
            stack.enter_context(broken(way))
        yield


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


def main(words: list[str] | None = None) -> int:
    """Try all, or those that are named; give the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bkscaler.simulation.mutants", description=__doc__)
    parser.add_argument("--within", type=int, default=WITHIN, help=f"how many seeds are tried ({WITHIN})")
    parser.add_argument("--jobs", type=int, default=2, help="on how many processors (2)")
    parser.add_argument("names", nargs="*", help="parts of their names; all")
    options = parser.parse_args(words)
    chosen = [name for name in WAYS if not options.names or any(part in name for part in options.names)]
    missed = 0
    with Pool(options.jobs, initializer=prepare) as pool:
        for name, seed, why in pool.imap(partial(catch, within=options.within), chosen):
            missed += seed is None
            told = f"seed {seed}: {why[:80]}" if seed is not None else f"NOT caught in {options.within} seeds"
            sys.stdout.write(f"{name}: {told}\n")
            sys.stdout.flush()
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
