"""
``python -m bkscaler.simulation``: many seeds, on several processors, with one line at the end.

The exit status is 0 when nothing has failed. A seed that fails is printed with the shortest prefix of its
acts that fails, and what happened in it; ``--seed`` runs one again.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from multiprocessing import Pool

from bkscaler.simulation.run import Result, run_seed, shortest
from bkscaler.simulation.thrift import prepare

SEEDS_AT_ONCE = 50
"""How many worlds a process runs. Nothing of them is cleared away, about 1.4 MB each, but with the process:
to look for it costs as much as a fifth of the world."""

TOLD_EVERY = 5000
"""After how many seeds a log is told how far it is."""


def main(words: list[str] | None = None) -> int:
    """Run what the command line says; give the exit status."""
    options = _options().parse_args(words)
    prepare()
    if options.seed is not None:
        result = run_seed(options.seed, options.prefix)
        sys.stdout.write(result.text())
        sys.stdout.write(_verdict(result))
        return 1 if result.failures else 0
    failed = 0
    began_s = time.monotonic()
    for count, reports in enumerate(_failing(options.first, options.seeds, options.jobs), 1):
        failed += len(reports)
        for report in reports:
            print(f"\n{report}", end="", flush=True)
        _progress(min(options.seeds, count * SEEDS_AT_ONCE), options.seeds, failed)
    took_s = time.monotonic() - began_s
    sys.stdout.write(f"\n{took_s:.0f} s, seeds from {options.first}\n")
    sys.stdout.write(f"simulated {options.seeds} seeds, {failed} failed\n")
    return 1 if failed else 0


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bkscaler.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000, help="how many (1000)")
    parser.add_argument("--first", type=int, default=0, help="the first one (0)")
    parser.add_argument("--jobs", type=int, default=2, help="on how many processors (2)")
    parser.add_argument("--seed", type=int, help="run this one alone and print what happens in it")
    parser.add_argument("--prefix", type=int, help="of --seed, only so many acts")
    return parser


def _progress(done: int, seeds: int, failed: int) -> None:
    """Tell how far it is: on a terminal always in the same line, elsewhere now and then."""
    words = f"{done} of {seeds} seeds, {failed} failed"
    if sys.stderr.isatty():
        sys.stderr.write(f"\r{words}")
    elif done % TOLD_EVERY == 0:
        sys.stderr.write(f"{words}\n")


def _failing(first: int, seeds: int, jobs: int) -> Iterator[list[str]]:
    """
    Run seeds; give, for so many at once, what is to be told of those that have failed.

    This process runs none itself: it would fork while it has locks that nobody gives back in the child.
    """
    parts = [
        range(at, min(at + SEEDS_AT_ONCE, first + seeds)) for at in range(first, first + seeds, SEEDS_AT_ONCE)
    ]
    with Pool(jobs, initializer=prepare, maxtasksperchild=1) as pool:
        yield from pool.imap(_run, parts)


def _run(seeds: range) -> list[str]:
    return [_report(seed) for seed in seeds if run_seed(seed).failures]


def _report(seed: int) -> str:
    result = shortest(seed)
    return f"{result.text()}{_verdict(result)}"


def _verdict(result: Result) -> str:
    plan = result.plan
    words = "".join(f"FAILED: {words}\n" for words in result.failures) or "nothing failed\n"
    words = f"{result.events} calls in {result.lasted_s:.0f} s\n{words}"
    acts = ", ".join(f"{step.act.__name__} at {step.at_s:.3f}" for step in plan.steps)
    return f"seed {plan.seed} ({plan.mood}; {plan.flags}; {plan.cluster}): {acts}\n{words}"


if __name__ == "__main__":
    sys.exit(main())
