"""``python -m bkscaler.bench``: bkscaler and other proxies of this machine side by side, in one table."""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
from collections.abc import Sequence
from random import SystemRandom
from typing import Any

from bkscaler.bench import peers
from bkscaler.bench.course import Course
from bkscaler.bench.field import Field
from bkscaler.bench.measures import MEASURES, WRK_SCRIPT, Amounts, Load, rows
from bkscaler.bench.table import table
from bkscaler.bench.tools import Toolbox
from bkscaler.demo.running import INTERRUPTED, Run
from bkscaler.readers import one_of, positive_int

QUICK_ROUNDS, QUICK_SECONDS = 2, 1


def _write(line: str) -> None:
    print(line, flush=True)


def _note(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _names(known: Sequence[str]) -> Any:
    """Make a reader of names between commas."""
    read_one = one_of(*known)

    def read(text: str) -> tuple[str, ...]:
        try:
            return tuple(read_one(name) for name in text.split(","))
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return read


def _counts(text: str) -> tuple[int, ...]:
    """Read numbers between commas."""
    try:
        return tuple(sorted({positive_int(word) for word in text.split(",")}))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """
    Read the command line.

    :raises SystemExit: with status 2 when it is wrong, with 0 after ``--help``.
    """
    measures, names = [each.name for each in MEASURES], [each.name for each in peers.PEERS]
    parser = argparse.ArgumentParser(prog="python -m bkscaler.bench", description=__doc__)
    add = parser.add_argument
    add("--quick", action="store_true", help=f"{QUICK_ROUNDS} rounds of {QUICK_SECONDS} s")
    add("--rounds", type=positive_int, default=5, help="how many rounds (5)")
    add("--seconds", type=positive_int, default=2, help="how long each load lasts (2)")
    add(
        "--only",
        type=_names(measures),
        default=tuple(measures),
        help=f"what is measured ({','.join(measures)})",
    )
    add("--peers", type=_names(names), default=tuple(names), help=f"beside bkscaler ({','.join(names)})")
    add("--crowd", type=positive_int, default=1000, help="connections, one of them in bulk (1000)")
    add("--held", type=_counts, default=(1000, 3000), help="idle connections (1000,3000)")
    add("--relay", choices=("auto", "splice", "copy"), default="auto", help="bkscaler's --relay (auto)")
    asked = parser.parse_args(arguments)
    if asked.quick:
        asked.rounds, asked.seconds = QUICK_ROUNDS, QUICK_SECONDS
    return asked


def prepare(asked: argparse.Namespace, reactor: Any, box: Toolbox, wrk_script: str) -> Course:
    """Make the course."""
    chance = SystemRandom()
    amounts = Amounts(seconds=asked.seconds, crowd=asked.crowd, held=asked.held)
    return Course(
        Load(box=box, amounts=amounts, wrk_script=wrk_script, reactor=reactor),
        measures=[measure for measure in MEASURES if measure.name in asked.only],
        peers=[peer for peer in peers.PEERS if peer.name in asked.peers],
        rounds=asked.rounds,
        make_field=lambda kind, beside: Field(
            kind, beside, box=box, flags=("--relay", asked.relay), reactor=reactor, random=chance.random
        ),
        note=_note,
    )


def report(course: Course, amounts: Amounts) -> int:
    """
    Print the table and what went wrong.

    :returns: exit status: 0 when everything was measured that could be.
    """
    names = [peers.BKSCALER, *(peer.name for peer in peers.PEERS), peers.DIRECT]
    for line in table(rows(amounts), names, course.samples):
        _write(line)
    for failure in course.failures:
        _write(f"FAILED: {failure}")
    return 1 if course.failures else 0


def _raise_descriptor_limit() -> None:
    """Allow everybody that we start as many descriptors as may be: a joined connection needs two."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def main(arguments: Sequence[str]) -> int:
    """
    Run the command line.

    :returns: exit status.
    """
    asked = parse(arguments)
    from twisted.internet import reactor  # noqa: PLC0415  # installed only when it is needed

    _raise_descriptor_limit()
    box = Toolbox()
    for line in box.advice():
        _note(line)
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(WRK_SCRIPT)
        script.flush()
        course = prepare(asked, reactor, box, script.name)

        async def act() -> int:
            await course.run()
            return report(course, course.amounts)

        whole = Run(act, course.close, reactor, interrupted=INTERRUPTED, write=_note)
        whole.run()
    return whole.status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
