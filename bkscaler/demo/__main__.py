"""``python -m bkscaler.demo``: the demo, or with ``--stay`` the same set-up for trying things out."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Coroutine, Sequence
from random import SystemRandom
from typing import Any

from twisted.logger import (
    FilteringLogObserver,
    LogLevel,
    LogLevelFilterPredicate,
    globalLogBeginner,
    textFileLogObserver,
)

from bkscaler import readers
from bkscaler.demo.running import INTERRUPTED, Run
from bkscaler.demo.stage import Scene, Stage
from bkscaler.demo.story import Demo, Plan, show, stay
from bkscaler.demo.timeline import Timeline
from bkscaler.sandbox.backends import Backend, choose
from bkscaler.sandbox.pods import FailureMode


def _checked(read: Callable[[str], object]) -> Callable[[str], str]:
    """Make a check for argparse that keeps the text."""

    def check(text: str) -> str:
        try:
            read(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error
        return text

    return check


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """
    Read the command line.

    :raises SystemExit: with status 2 when it is wrong, with 0 after ``--help``.
    """
    delay, above_zero = _checked(readers.duration), _checked(readers.positive_duration)
    parser = argparse.ArgumentParser(prog="python -m bkscaler.demo", description=__doc__)
    add = parser.add_argument
    add("--stay", action="store_true", help="set everything up and keep it until Ctrl-C")
    add("--clients", type=readers.positive_int, default=3, help="how many clients come (3)")
    add("--mebibytes", type=readers.positive_int, default=4, help="what each sends and gets back, in MiB (4)")
    add("--start-delay", type=delay, default="2s", help="how long a pod takes to start (2s)")
    add("--stop-delay", type=delay, default="1s", help="how long it takes to stop (1s)")
    add("--idle-timeout", type=above_zero, default="3s", help="of bkscaler (3s)")
    add("--limit", type=above_zero, default="28s", help="when the demo gives up (28s)")
    add("--fail", choices=[mode.value for mode in FailureMode], help="let every pod fail in this way")
    return parser.parse_args(arguments)


def prepare(asked: argparse.Namespace, reactor: Any) -> tuple[Stage, Callable[[], Coroutine[Any, Any, int]]]:
    """Make the stage, and what is to happen on it."""
    # A stay is for trying real builds too, where this machine can; the demo's clients need an echo.
    scene = Scene(
        start_delay=asked.start_delay,
        stop_delay=asked.stop_delay,
        idle_timeout=asked.idle_timeout,
        backend=(choose(Backend.AUTO) if asked.stay else Backend.ECHO).value,
        fail=asked.fail,
    )
    timeline = Timeline(reactor, _write)
    stage = Stage(scene, timeline, reactor, SystemRandom().random)
    if asked.stay:
        return stage, lambda: stay(stage, _write)
    plan = Plan(
        clients=asked.clients,
        mebibytes=asked.mebibytes,
        idle_s=readers.positive_duration(asked.idle_timeout),
        limit_s=readers.positive_duration(asked.limit),
    )
    demo = Demo(stage, timeline, plan, reactor, os.urandom)
    return stage, lambda: show(demo, stage, timeline, _write)


def _write(line: str) -> None:
    print(line, flush=True)


def _log_warnings() -> None:
    """Send our own warnings, such as those of the watches, to standard error."""
    observer = FilteringLogObserver(textFileLogObserver(sys.stderr), [LogLevelFilterPredicate(LogLevel.warn)])
    globalLogBeginner.beginLoggingTo([observer], redirectStandardIO=False)


def main(arguments: Sequence[str]) -> int:
    """
    Run the command line.

    :returns: exit status.
    """
    asked = parse(arguments)
    from twisted.internet import reactor  # noqa: PLC0415  # installed only when it is needed

    _log_warnings()
    stage, act = prepare(asked, reactor)
    whole = Run(act, stage.close, reactor, interrupted=0 if asked.stay else INTERRUPTED, write=_write)
    whole.run()
    return whole.status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
