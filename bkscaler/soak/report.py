"""What a soak has to say in the end. Pure. Imported by ``soak.__main__``."""

from __future__ import annotations

from collections.abc import Mapping

from bkscaler.soak.course import Course
from bkscaler.soak.judge import Judge
from bkscaler.soak.rests import Rest, growth_kib, warmed_up


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in sorted(counts.items())) or "none"


def _memory(rests: list[Rest]) -> str:
    sizes = [rest.resident_kib / 1024 for rest in rests]
    counts = [rest.descriptors.total() for rest in rests]
    growth = growth_kib(warmed_up(rests))
    grown = "" if growth is None else f", {growth:+.0f} KiB from the second third to the last"
    return (
        f"{len(rests)} rests; resident MiB: first {sizes[0]:.1f}, last {sizes[-1]:.1f}, "
        f"most {max(sizes):.1f}{grown}; descriptors: first {counts[0]}, last {counts[-1]}, "
        f"most {max(counts)} ({_counted(rests[-1].descriptors)})"
    )


def report(course: Course, judge: Judge, minutes: float) -> list[str]:
    """
    Sum a soak up.

    :param minutes: how long it has taken.
    :returns: lines; the last one says how many failures there were.
    """
    ledger = judge.ledger
    lines = [
        "",
        f"connections by outcome: {_counted(ledger.outcomes)}",
        f"clients by kind: {_counted(ledger.kinds)}",
        f"{judge.wakes} wakes, {judge.sleeps} sleeps, {judge.warnings} warnings in the log",
        f"what was done: {_counted(course.done)}",
        *(f"bkscaler {number}: {_memory(rests)}" for number, rests in enumerate(course.rests, 1)),
        *(f"FAILED: {words}" for words in judge.failures),
        f"soaked {minutes:.1f} minutes, {ledger.clients:,} connections, {judge.failed} failures",
    ]
    return lines
