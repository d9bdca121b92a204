"""
Performing scale requests: one at a time, with conflicts, lost answers and refusals sorted out.

Imported by :mod:`bkscaler.scaling.service`. It knows the cluster only as :class:`Cluster`, so that this
room never imports the Kubernetes one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from bkscaler.backoff import Backoff
from bkscaler.errors import ApiError, ApiStatus, ApiUnreachable, Conflict, Forbidden
from bkscaler.scaling.policy import ScaleTo

RETRY = Backoff(first_s=0.2, limit_s=5.0)
"""Delays between requests that fail; short at most, as a client may be waiting for the API to return."""


class Cluster(Protocol):
    """What this room asks of a cluster. Errors are :class:`~bkscaler.errors.ApiError`."""

    def scale(self, replicas: int, resource_version: str) -> Awaitable[None]:
        """Set ``spec.replicas`` if the set is still at that version; on return it has been observed."""

    def refresh(self) -> Awaitable[None]:
        """Read the set and its pods anew; on return they have been observed."""


def may_have_happened(error: ApiError) -> bool:
    """
    Say whether a request that failed may still have taken effect.

    :param error: how it failed. An answer below 500 and a request that never left are certain.
    """
    if isinstance(error, ApiUnreachable):
        return error.sent
    return not (isinstance(error, ApiStatus) and error.code < 500)


class ScaleRequests:
    """
    Carries decisions out. Lives as long as its scaler.

    :param clock: for the delays between tries.
    :param cluster: where requests go.
    :param random: gives numbers in [0, 1), for jitter.
    :param on_settled: called when the fate of a request is known, whatever it is.
    :param on_forbidden: called with the server's words when the right to scale is missing.
    :param on_free: called when the next request may be started.
    """

    log = Logger()

    def __init__(
        self,
        *,
        clock: IReactorTime,
        cluster: Cluster,
        random: Callable[[], float],
        on_settled: Callable[[], None],
        on_forbidden: Callable[[str], None],
        on_free: Callable[[], None],
    ) -> None:
        self._clock = clock
        self._cluster = cluster
        self._random = random
        self._on_settled = on_settled
        self._on_forbidden = on_forbidden
        self._on_free = on_free
        self._failures = 0
        self._running: Deferred[None] | None = None
        self._reading: Deferred[None] | None = None

    @property
    def busy(self) -> bool:
        """Whether a request is on its way, or is waiting to be tried again."""
        return self._running is not None

    def start(self, decision: ScaleTo) -> None:
        """Carry a decision out. Only while not :attr:`busy`."""
        self.log.info("scaling to {replicas}: {reason}", replicas=decision.replicas, reason=decision.reason)
        self._running = self._spawn(self._perform(decision))
        self._running.addBoth(self._free)

    def refresh(self) -> None:
        """Read the cluster anew, unless such a read is on its way; a failure is left to the next one."""
        if self._reading is None:
            self._reading = self._spawn(self._look())
            self._reading.addBoth(self._read)

    def stop(self) -> None:
        """Cancel everything. No callback is called afterwards."""
        self._on_free = self._on_settled = lambda: None
        for pending in (self._running, self._reading):
            if pending is not None:
                pending.cancel()

    def _spawn(self, work: Coroutine[Deferred[Any], Any, Any]) -> Deferred[None]:
        """Run a coroutine; log what nobody expected, and let nothing out."""

        def note(failure: Any) -> None:
            if failure.check(CancelledError) is None:
                self.log.failure("unexpected failure while scaling", failure)

        return Deferred.fromCoroutine(work).addErrback(note)

    def _free(self, _: None) -> None:
        self._running = None
        self._on_settled()
        self._on_free()

    def _read(self, _: None) -> None:
        self._reading = None

    async def _perform(self, decision: ScaleTo) -> None:
        """Send the request; on failure find out what is so, then wait a little."""
        try:
            await self._cluster.scale(decision.replicas, decision.resource_version)
        except ApiError as error:
            self._failures += 1
            await self._recover(error)
        else:
            self._failures = 0

    async def _recover(self, error: ApiError) -> None:
        """Return when the next decision may be carried out."""
        if isinstance(error, Conflict):
            await self._look()
            if self._failures == 1:
                return
        else:
            self.log.warn("scaling failed: {error}", error=str(error))
        if isinstance(error, Forbidden):
            self._on_forbidden(error.message)
        while may_have_happened(error) and not await self._look():
            await self._pause(None)
        self._on_settled()
        await self._pause(error)

    async def _look(self) -> bool:
        """Read the cluster anew; say whether that succeeded."""
        try:
            await self._cluster.refresh()
        except ApiError as error:
            self.log.debug("reading the cluster failed: {error}", error=str(error))
            return False
        return True

    async def _pause(self, error: ApiError | None) -> None:
        """Wait as long as the server asks, or as back-off says."""
        asked_s = error.retry_after_s if isinstance(error, ApiStatus) else None
        await deferLater(self._clock, asked_s or RETRY.delay_s(max(1, self._failures), self._random))
