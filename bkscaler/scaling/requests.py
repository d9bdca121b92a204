"""
Performing scale requests: one at a time, with conflicts, lost answers and refusals sorted out.

A request that takes replicas away is preceded by a read (:meth:`ScaleRequests.check`). While the API is out
of reach the read fails, and nothing has been risked; a request sent blindly could leave us without knowing
whether the pods are dying, and then nobody could be given one until the API is back.

Imported by :mod:`bkscaler.scaling.service`. It knows the cluster only as :class:`Cluster`, so that this
room never imports the Kubernetes one.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol

from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from bkscaler.backoff import Backoff
from bkscaler.errors import ApiError, ApiStatus, ApiUnreachable, Conflict
from bkscaler.scaling.policy import ScaleTo
from bkscaler.scaling.refusals import Refusals
from bkscaler.timers import Timers

UP_RETRY = Backoff(first_s=0.2, limit_s=5.0)
"""Delays between requests that fail; short at most, as a client may be waiting for the API to return."""
DOWN_RETRY = Backoff(first_s=0.5, limit_s=60.0)
"""The same for requests that nobody waits for."""
QUICK_S = 10.0
"""The same number asked for again within this time: somebody else undoes what we do, or the server does."""
ASKED_LIMIT_S = 30.0
"""While a client waits, no ``Retry-After`` keeps us from asking for longer than this."""

READ, SCALE = "read", "scale"
"""What may be asked of the API, in the words of its reports."""


class Cluster(Protocol):
    """What this room asks of a cluster. Errors are :class:`~bkscaler.errors.ApiError`."""

    def scale(self, replicas: int, resource_version: str) -> Awaitable[None]:
        """Set ``spec.replicas`` if the set is still at that version; on return it has been observed."""

    def refresh(self) -> Awaitable[None]:
        """Read the set and its pods anew; on return they have been observed."""


def may_have_happened(error: Exception) -> bool:
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
    :param on_free: called when another request may be started: the fate of the last one is known, whatever
        it is, or the wait after a failure is over.
    :param on_checked: called when a :meth:`check` has succeeded, with the time when it began: what is
        observed now is no older.
    :param on_forbidden: called with the server's words when the right to scale up has been missing for
        :data:`bkscaler.scaling.refusals.GRACE_S`.
    :param on_answer: called after each request with what was asked, :data:`READ` or :data:`SCALE`, and what
        it failed with, or None.
    :param on_scaled: called with each decision that has been carried out.
    :param on_result: told each scale request with what it failed with, or None; for reports.
    """

    log = Logger()

    def __init__(
        self,
        *,
        clock: IReactorTime,
        cluster: Cluster,
        random: Callable[[], float],
        on_free: Callable[[], None],
        on_checked: Callable[[float], None],
        on_forbidden: Callable[[str], None],
        on_answer: Callable[[str, Exception | None], None],
        on_scaled: Callable[[ScaleTo], None],
        on_result: Callable[[ScaleTo, Exception | None], None] = lambda _decision, _error: None,
    ) -> None:
        self._clock = clock
        self._cluster = cluster
        self._random = random
        self._on_free = on_free
        self._on_checked = on_checked
        self._on_forbidden = on_forbidden
        self._on_answer = on_answer
        self._on_scaled = on_scaled
        self._on_result = on_result
        self._timers = Timers(clock)
        self._pending: dict[Deferred[None], None] = {}
        self._stopped = False
        self._sending = self._reading = False
        self._checking: object = None
        self._last: ScaleTo | None = None
        self._paused, self._paused_until_s = False, -math.inf
        self._failures = self._conflicts = 0
        self._done: tuple[int, float] | None = None
        self._repeats = 0
        self._unanswered = False
        self._refusals = Refusals(clock)
        self._mentioned = ""
        self._announced: int | None = None
        self._read_again_s = -math.inf

    @property
    def sending(self) -> bool:
        """Whether a request is on its way, or its fate is not known."""
        return self._sending

    def free_for(self, decision: ScaleTo) -> bool:
        """
        Say whether a decision may be carried out now. A wait after a failure holds back only its like, so
        that a scale-down that fails does not keep anybody from being served.
        """
        if self._sending or self._stopped:
            return False
        same = self._last is not None and self._last.replicas == decision.replicas
        return not (same and (self._paused or self._checking is not None))

    @property
    def undone(self) -> bool:
        """Whether what was asked for last had been asked for a moment before, and was undone by somebody."""
        return self._repeats > 0

    def start(self, decision: ScaleTo) -> None:
        """Send a decision; a check under way is of no more interest. Only while :meth:`free_for` it."""
        self._begin(decision)
        if self._announced != decision.replicas:
            self._announced = decision.replicas
            self.log.info(
                "scaling to {replicas}: {reason}",
                event="scaling",
                direction="down" if decision.down else "up",
                replicas=decision.replicas,
                reason=decision.reason,
            )
        self._sending = True
        self._spawn(self._send(decision))

    def check(self, decision: ScaleTo) -> None:
        """Look before a decision is carried out. Only while :meth:`free_for` it."""
        self._begin(decision)
        self._checking = token = object()
        self._spawn(self._check(token))

    @property
    def unfinished(self) -> bool:
        """Whether the fate of a request is not known, or one to scale up waits for its next try."""
        return self._sending or (self._paused and self._last is not None and not self._last.down)

    def lapsed(self, replicas: int | None) -> None:
        """
        Forget what has failed: nothing is left to be asked for. A wait that has begun goes on.

        :param replicas: how many there are; None when it is not known. As many as a request without a good
            answer has asked for: it was carried out all the same.
        """
        last, unanswered = self._last, self._unanswered
        self._failures = self._conflicts = 0
        self._unanswered = False
        if unanswered and last is not None and last.replicas == replicas:
            self._on_answer(SCALE, None)
            self._carried_out(last, answered=False)

    def refresh(self) -> None:
        """
        Read the cluster anew, unless such a read is on its way or the server wants to be left alone; a
        failure is left to the next one.
        """
        if not self._reading and not self._stopped and self._clock.seconds() >= self._read_again_s:
            self._reading = True
            self._spawn(self._read())

    def stop(self) -> Deferred[None]:
        """
        Cancel everything. No callback is called afterwards. Not to be called from inside the cluster's
        methods.

        :returns: fires with None when nothing is pending; never fails; do not cancel it.
        """
        self._stopped = True
        self._timers.cancel_all()
        pending = list(self._pending)
        for each in pending:
            each.cancel()
        return DeferredList(pending).addCallback(lambda _: None)

    def _begin(self, decision: ScaleTo) -> None:
        """Forget what held for other decisions."""
        if self._last is None or self._last.replicas != decision.replicas:
            self._failures = self._conflicts = self._repeats = 0
        self._last, self._checking, self._paused = decision, None, False
        self._unanswered = False
        self._timers.cancel("pause")

    def _spawn(self, work: Coroutine[Deferred[Any], Any, None]) -> None:
        """Run a coroutine; log what nobody expected, and let nothing out."""

        def ended(result: Failure | None) -> None:
            self._pending.pop(deferred, None)
            if isinstance(result, Failure) and result.check(CancelledError) is None:
                self.log.failure("unexpected failure while scaling", result)

        deferred = Deferred.fromCoroutine(work)
        self._pending[deferred] = None
        deferred.addBoth(ended)

    async def _send(self, decision: ScaleTo) -> None:
        """Send a request and find out what became of it."""
        forbidden = ""
        try:
            await self._cluster.scale(decision.replicas, decision.resource_version)
        except CancelledError:
            raise
        except Exception as error:
            self._on_result(decision, error)
            usual = isinstance(error, Conflict) and not self._conflicts
            self._on_answer(SCALE, None if usual else error)
            await self._recover(error)
            forbidden = "" if decision.down else self._refusals.believed(error)
        else:
            self._mentioned = ""
            self._announced = None
            self._on_result(decision, None)
            self._on_answer(SCALE, None)
            self._refusals.believed(None)
            self._carried_out(decision, answered=True)
            self._on_scaled(decision)
        if self._stopped:
            return
        self._sending = False
        self._on_free()
        if forbidden:
            self._on_forbidden(forbidden)

    def _carried_out(self, decision: ScaleTo, *, answered: bool) -> None:
        """Go slowly when the same has been done a moment ago, and undone; or again if nobody has said so."""
        now_s = self._clock.seconds()
        quick = self._done is not None and self._done[0] == decision.replicas
        quick = quick and self._done is not None and now_s < self._done[1] + QUICK_S
        self._repeats = self._repeats + 1 if quick else int(not answered)
        self._failures = self._conflicts = 0
        self._done = (decision.replicas, now_s)
        if self._repeats:
            self._pause(UP_RETRY.delay_s(self._repeats, self._random))

    async def _recover(self, error: Exception) -> None:
        """Return when it is known whether a request that failed has taken effect."""
        if isinstance(error, Conflict):
            await self._look()
        elif isinstance(error, ApiError):
            self._mention(error)
        else:
            self.log.failure("unexpected failure of a scale request")
        looks = 0
        while may_have_happened(error) and not await self._look():
            looks += 1
            await deferLater(self._clock, UP_RETRY.delay_s(looks, self._random))
        self._unanswered = may_have_happened(error)
        self._failed(error)

    def _mention(self, error: ApiError) -> None:
        """Log a failure, if it is of another kind than the last one; the tries go on."""
        if self._mentioned != error.kind:
            self.log.warn("scaling failed, trying on: {error}", event="scaling_failed", error=str(error))
        self._mentioned = error.kind

    def _failed(self, error: Exception | None) -> None:
        """Wait as long as the server asks, or as back-off says, but not for the first conflict in a row."""
        self._failures += 1
        self._conflicts = self._conflicts + 1 if isinstance(error, Conflict) else 0
        if self._conflicts == 1:
            return
        down = self._last is not None and self._last.down
        asked_s = _asked_to_wait_s(error, math.inf if down else ASKED_LIMIT_S)
        retry = DOWN_RETRY if down else UP_RETRY
        self._pause(asked_s or retry.delay_s(self._failures, self._random))

    def _pause(self, delay_s: float) -> None:
        """Wait so long, or as long as is waited already."""
        before_s = self._paused_until_s if self._paused else -math.inf
        self._paused, self._paused_until_s = True, max(before_s, self._clock.seconds() + delay_s)
        self._timers.keep("pause", self._paused_until_s, self._resume)

    def _resume(self) -> None:
        self._paused = False
        self._on_free()

    async def _check(self, token: object) -> None:
        """Look; the result counts only if nothing else was started meanwhile."""
        began_s = self._clock.seconds()
        seen = await self._look()
        if self._checking is not token or self._stopped:
            return
        self._checking = None
        if seen:
            self._on_checked(began_s)
        else:
            self._failed(None)

    async def _read(self) -> None:
        await self._look()
        self._reading = False

    async def _look(self) -> bool:
        """Read the cluster anew; say whether that succeeded."""
        try:
            await self._cluster.refresh()
        except CancelledError:
            raise
        except ApiError as error:
            self.log.debug("reading the cluster failed: {error}", error=str(error))
            self._read_again_s = self._clock.seconds() + _asked_to_wait_s(error, ASKED_LIMIT_S)
            self._on_answer(READ, error)
            return False
        except Exception:
            self.log.failure("unexpected failure of a read of the cluster")
            return False
        self._on_answer(READ, None)
        return True


def _asked_to_wait_s(error: Exception | None, limit_s: float) -> float:
    """Say how long the server wants to be left alone, at most the limit; 0 when it does not say."""
    return min(limit_s, (isinstance(error, ApiStatus) and error.retry_after_s) or 0.0)
