"""
Ending well: the first SIGTERM or SIGINT drains, the second ends at once.

twistd's own handler would cut every build and exit with 143, so ours takes its place once the reactor
runs. Draining means: no new connections, not ready, the builder is not put to sleep any more (our
successor will decide), and the process exits with 0 when the last connection has ended or the time limit is
over. Imported by the plugin.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger

from bkscaler.durations import format_duration

SIGNALS = (signal.SIGTERM, signal.SIGINT)
CUT_LIMIT_S = 5.0
"""How long closing may take after everything has been cut."""
DROP_LIMIT_S = 1.0
"""The last part of it: who was told why, and has not left, is dropped then."""


class Connections(Protocol):
    """The connections that are waited for."""

    def when_empty(self) -> Deferred[None]:
        """Wait until none is left; cancelling ends the wait alone."""

    def cut_all(self) -> None:
        """End them now."""

    def __len__(self) -> int:
        """Count them."""


class Drain(Service):
    """
    Drains when told, by a signal or by :meth:`begin`. One for the process.

    :param reactor: runs the process, and is stopped at the end.
    :param connections: what is waited for.
    :param stop_accepting: called first; what it returns is awaited.
    :param limit_s: see ``--drain-timeout``; 0 cuts at once.
    :param exit_now: ends the process on the spot with a status.
    :param set_handler: as :func:`signal.signal`.
    :ivar draining: whether draining has begun.
    """

    log = Logger()

    def __init__(
        self,
        *,
        reactor: Any,
        connections: Connections,
        stop_accepting: Callable[[], Awaitable[Any]],
        limit_s: float,
        exit_now: Callable[[int], Any] = os._exit,
        set_handler: Callable[[int, Any], Any] = signal.signal,
    ) -> None:
        self.draining = False
        self._reactor = reactor
        self._connections = connections
        self._stop_accepting = stop_accepting
        self._limit_s = limit_s
        self._exit_now = exit_now
        self._set_handler = set_handler

    def startService(self) -> None:
        """Take the signals over as soon as the reactor, which sets its own handlers, runs."""
        super().startService()  # type: ignore[no-untyped-call]  # Service has no annotations
        self._reactor.callWhenRunning(self._take_signals)

    def begin(self) -> Deferred[None]:
        """
        Drain, then stop the reactor. May be called again; then nothing happens.

        :returns: fires with None when the reactor has been told to stop; never fails; do not cancel it.
        """
        work = Deferred.fromCoroutine(self._drain())
        return work.addErrback(lambda failure: self.log.failure("draining failed", failure))

    def _take_signals(self) -> None:
        for number in SIGNALS:
            self._set_handler(number, self._signalled)

    def _signalled(self, number: int, _frame: object) -> None:
        """Hear of a signal, between any two byte codes: the rest is done in the reactor's own time."""
        if self.draining:
            self._exit_now(1)
        self.draining = True
        self._reactor.callFromThread(self.begin)

    async def _drain(self) -> None:
        self.draining = True
        self.log.info(
            "draining: {count} connections may go on for {limit}; a second signal ends at once",
            count=len(self._connections),
            limit=format_duration(self._limit_s),
        )
        await self._stop_accepting()
        if not await self._emptied_within(self._limit_s):
            self.log.warn("the drain timeout is over: cutting {count}", count=len(self._connections))
            self._connections.cut_all()
            if not await self._emptied_within(CUT_LIMIT_S - DROP_LIMIT_S):
                self._connections.cut_all()
                await self._emptied_within(DROP_LIMIT_S)
        self.log.info("drained")
        self._reactor.stop()

    async def _emptied_within(self, limit_s: float) -> bool:
        """Wait until no connection is left; say whether that came about in time."""
        if not len(self._connections):
            return True
        empty = self._connections.when_empty()
        limit = self._reactor.callLater(limit_s, empty.cancel)
        try:
            await empty
        except CancelledError:
            return False
        limit.cancel()
        return True
