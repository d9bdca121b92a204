"""
Running an act under the reactor from beginning to end, whatever ends it. Imported by the programs that people
start: the demo, the bench and the soak.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Coroutine
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

INTERRUPTED = 130
"""Exit status of a program that was interrupted, as a shell's."""


class Run:
    """
    One act, until it is over or a signal comes. What it has opened is closed in any case.

    :param act: returns the exit status.
    :param close: ends what the act has started.
    :param reactor: not running yet.
    :param interrupted: the exit status after SIGINT, SIGTERM or SIGHUP.
    :param write: takes a line for the user.
    :ivar status: the exit status.
    """

    def __init__(
        self,
        act: Callable[[], Coroutine[Any, Any, int]],
        close: Callable[[], Coroutine[Any, Any, None]],
        reactor: Any,
        *,
        interrupted: int,
        write: Callable[[str], None],
    ) -> None:
        self.status = 1
        self._act = act
        self._close = close
        self._write = write
        self._reactor = reactor
        self._interrupted = interrupted
        self._over: Deferred[None] | None = None
        self._stopping = False

    def run(self) -> None:
        """Run the reactor until everything is over."""
        self._reactor.callWhenRunning(self._begin)
        self._reactor.addSystemEventTrigger("before", "shutdown", self._stop)
        self._reactor.run()

    def _begin(self) -> None:
        signal.signal(signal.SIGHUP, lambda *_: self._reactor.callFromThread(self._reactor.stop))
        self._over = Deferred.fromCoroutine(self._whole()).addErrback(self._failed)
        self._over.addCallback(lambda _: None if self._stopping else self._reactor.stop())

    def _stop(self) -> Deferred[None] | None:
        """Break off what is going on; the reactor waits until everything is closed."""
        self._stopping = True
        if self._over is not None:
            self._over.cancel()
        return self._over

    async def _whole(self) -> None:
        try:
            self.status = await self._act()
        finally:
            await self._close()

    def _failed(self, failure: Failure) -> None:
        if failure.check(CancelledError):
            self.status = self._interrupted
            self._write("\nInterrupted.")
        else:
            self._write(f"\nFAILED: {failure.getErrorMessage()}")
