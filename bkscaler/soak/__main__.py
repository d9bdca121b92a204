"""
``python -m bkscaler.soak``: bkscaler on real sockets and in real time, among clients and faults.

The exit status is 0 when nothing has failed. Otherwise the seed is told and where the logs are.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from random import Random, SystemRandom
from typing import Any

from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogBeginner, textFileLogObserver
from zope.interface import implementer

from bkscaler.config import read_settings
from bkscaler.demo.running import INTERRUPTED, Run
from bkscaler.soak.course import Course
from bkscaler.soak.crowd import Crowd
from bkscaler.soak.faults import Field
from bkscaler.soak.judge import Judge
from bkscaler.soak.report import report
from bkscaler.soak.stage import FLAGS, Stage

DESCRIPTORS = 4096
"""What every process of a soak may have to open."""


def _write(line: str) -> None:
    print(line, flush=True)


def _minutes(text: str) -> float:
    minutes = float(text)
    if not 0 < minutes < 24 * 60:
        raise ValueError(text)
    return minutes


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """
    Read the command line.

    :raises SystemExit: with status 2 when it is wrong, with 0 after ``--help``.
    """
    parser = argparse.ArgumentParser(prog="python -m bkscaler.soak", description=__doc__)
    parser.add_argument("--minutes", type=_minutes, default=5.0, help="how long, about (5)")
    parser.add_argument("--seed", type=int, help="what chance is drawn from (another one each time)")
    return parser.parse_args(arguments)


@implementer(ILogObserver)
class Failures:
    """
    Tells the judge of what fails in this process: clients and the cluster run in it.

    :param judge: told.
    """

    def __init__(self, judge: Judge) -> None:
        self._judge = judge

    def __call__(self, event: LogEvent) -> None:
        """Look at an event."""
        failure = event.get("log_failure")
        if failure is not None:
            self._judge.fail(f"in the soak itself: {formatEvent(event)}\n{failure.getTraceback()}")


def prepare(asked: argparse.Namespace, directory: str, reactor: Any) -> tuple[Course, Judge]:
    """Make everything."""
    chance = {what: Random(f"{asked.seed} {what}") for what in ("faults", "crowd", "cluster")}
    judge = Judge(read_settings(FLAGS, {}), _write)
    stage = Stage(
        directory,
        reactor,
        now=lambda: datetime.now(UTC),
        random=chance["cluster"].random,
        on_line=judge.heard,
        on_scaled=lambda before, after: judge.scaled(before, after, reactor.seconds()),
    )
    crowd = Crowd(
        reactor,
        chance["crowd"],
        port=lambda: stage.port,
        dialled=judge.ledger.dialled,
        over=judge.client_over,
    )
    field = Field(stage=stage, crowd=crowd, judge=judge, chance=chance["faults"], reactor=reactor)
    return Course(field, seconds=asked.minutes * 60, write=_write), judge


def _raise_descriptor_limit() -> None:
    """Allow everybody that we start as many descriptors as may be."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard < DESCRIPTORS:
        raise SystemExit(f"a soak needs {DESCRIPTORS} descriptors for each process, and {hard} are allowed")


def main(arguments: Sequence[str]) -> int:
    """
    Run the command line.

    :returns: exit status.
    """
    asked = parse(arguments)
    if asked.seed is None:
        asked.seed = SystemRandom().randrange(1_000_000)
    from twisted.internet import reactor  # noqa: PLC0415  # installed only when it is needed

    _raise_descriptor_limit()
    directory = tempfile.mkdtemp(prefix="bkscaler-soak-")
    course, judge = prepare(asked, directory, reactor)
    log = open(os.path.join(directory, "soak.log"), "w", encoding="utf-8")  # noqa: SIM115  # to the end
    observers = [textFileLogObserver(log), Failures(judge)]
    globalLogBeginner.beginLoggingTo(observers, redirectStandardIO=False, discardBuffer=True)
    _write(f"seed {asked.seed}, logs in {directory}")

    async def act() -> int:
        await course.run()
        await course.close()
        for line in report(course, judge, course.elapsed_s / 60):
            _write(line)
        return 1 if judge.failed else 0

    whole = Run(act, course.close, reactor, interrupted=INTERRUPTED, write=_write)
    whole.run()
    if whole.status == 1:
        _write(f"seed {asked.seed}, logs in {directory}")
    else:
        shutil.rmtree(directory)
    return whole.status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
