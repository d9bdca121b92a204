"""``python -m bkscaler.sandbox``: one embedded Kubernetes until SIGTERM or SIGINT."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from random import SystemRandom
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import (
    FilteringLogObserver,
    LogLevel,
    LogLevelFilterPredicate,
    globalLogBeginner,
    textFileLogObserver,
)
from twisted.python.failure import Failure

from bkscaler.errors import ConfigurationError
from bkscaler.sandbox.options import help_text, read_settings
from bkscaler.sandbox.service import Ready, SandboxService, makeSandbox


def _start_logging() -> None:
    """Send warnings and worse to standard error."""
    observer = FilteringLogObserver(textFileLogObserver(sys.stderr), [LogLevelFilterPredicate(LogLevel.warn)])
    globalLogBeginner.beginLoggingTo([observer], redirectStandardIO=False)


def _say_ready(ready: Ready) -> None:
    print(
        f"sandbox ready: server={ready.url} kubeconfig={ready.kubeconfig} statefulset={ready.statefulset}",
        flush=True,
    )


def run(service: SandboxService, reactor: Any) -> int:
    """
    Run a sandbox until the reactor stops.

    :returns: exit code: 0, or 1 when it could not start.
    """
    failures: list[Failure] = []

    def failed(failure: Failure) -> None:
        print(f"cannot start: {failure.getErrorMessage()}", file=sys.stderr)
        failures.append(failure)
        reactor.stop()

    def begin() -> None:
        Deferred.fromCoroutine(service.listen()).addCallback(_say_ready).addErrback(failed)

    reactor.callWhenRunning(begin)
    reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
    reactor.run()
    return 1 if failures else 0


def main(arguments: Sequence[str]) -> int:
    """
    Run the command line.

    :returns: exit code.
    """
    if "--help" in arguments:
        print(help_text(), end="")
        return 0
    from twisted.internet import reactor  # noqa: PLC0415  # installed only when it is needed

    try:
        settings = read_settings(arguments)
        random = SystemRandom().random
        service = makeSandbox(settings, reactor, now=lambda: datetime.now(UTC), random=random)
    except ConfigurationError as error:
        for problem in error.problems:
            print(problem, file=sys.stderr)
        return 1
    _start_logging()
    return run(service, reactor)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
