"""
Watching over our own rights: asked for at the start, named when one is missing, until all are granted.

Readiness waits for the essential ones, once: when they have been there, neither their loss nor that of the
API takes readiness away, since a builder that is up can be served without either. What is lost later shows
as a refused request; :meth:`Permissions.doubt` then has it named here. At rest nothing is asked, and for
rights that are only helpful nothing is asked twice. Imported by the plugin.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from bkscaler.backoff import Backoff
from bkscaler.errors import ApiError, ApiStatus, Throttled, Unauthorized
from bkscaler.kube.client import ApiClient
from bkscaler.kube.rights import Missing, Right, missing_rights

AGAIN = Backoff(first_s=5.0, limit_s=30.0)
"""Delays between asking for rights that are missing: somebody may be granting them right now."""
DOUBT_GAP_S = 30.0
"""Requests can be refused for other reasons than rights, so that asking again soon may not help."""
STARTING_S = 5.0
"""A server that has just started refuses everybody until it has read the roles; a doubt waits that long."""


class Permissions:
    """
    What we may do, as far as the server has told.

    :param client: asks the API server; not closed by us.
    :param clock: for waits.
    :param random: gives numbers in [0, 1), for jitter.
    :param namespace: of the StatefulSet.
    :param rights: what is needed.
    """

    _log = Logger()

    def __init__(
        self,
        *,
        client: ApiClient,
        clock: IReactorTime,
        random: Callable[[], float],
        namespace: str,
        rights: tuple[Right, ...],
    ) -> None:
        self._client = client
        self._clock = clock
        self._random = random
        self._namespace = namespace
        self._rights = rights
        self._work: Deferred[None] | None = None
        self._missing: tuple[Missing, ...] = ()
        self._asked = False
        self._once = False
        self._stopped = False
        self._mentioned = ""
        self._answered_s = -math.inf

    def __repr__(self) -> str:
        return f"<Permissions in {self._namespace}: {len(self._missing)} missing>"

    @property
    def missing(self) -> tuple[Missing, ...]:
        """What was missing when the server was last asked."""
        return self._missing

    def lines(self) -> list[str]:
        """Say what keeps us from being ready, a line each; nothing once all that is essential was granted."""
        if self._once:
            return []
        if not self._asked:
            return ["the API server has not said yet what our rights are"]
        return [missing.words for missing in self._missing if missing.essential]

    def start(self) -> None:
        """Begin to ask. Once only."""
        self._begin()

    def doubt(self) -> None:
        """Ask again, because a request was refused; not while we are asking anyway, or did a moment ago."""
        due = self._clock.seconds() >= self._answered_s + DOUBT_GAP_S
        if self._work is None and not self._stopped and due:
            self._begin(STARTING_S)

    def stop(self) -> Deferred[None]:
        """
        Ask no more.

        :returns: fires with None when no request is open and no delayed call is left; never fails.
        """
        self._stopped = True
        if self._work is None:
            return succeed(None)
        work, stopped = self._work, Deferred[None]()
        work.addBoth(lambda _: stopped.callback(None))
        work.cancel()
        return stopped

    def _begin(self, wait_s: float = 0.0) -> None:
        work = self._work = Deferred.fromCoroutine(self._until_granted(wait_s))
        work.addBoth(self._ended)
        if work.called and not self._stopped:
            self._work = None

    def _ended(self, result: object) -> None:
        self._work = None
        if isinstance(result, Failure) and not result.check(CancelledError):
            self._log.failure("unexpected failure while asking for rights", result)

    async def _until_granted(self, wait_s: float) -> None:
        """Ask until nothing essential is missing, or the server will not say."""
        if wait_s:
            await deferLater(self._clock, wait_s)
        tries, wanted = 0, self._rights
        while True:
            tries += 1
            try:
                self._take(await missing_rights(self._client, self._namespace, wanted))
            except (Unauthorized, Throttled) as error:
                self._mention(error)
            except ApiStatus as error:
                self._mention(error)
                self._keep(())
            except ApiError as error:
                self._mention(error)
            else:
                self._mentioned = ""
            if self._asked and not any(each.essential for each in self._missing):
                return
            wanted = tuple(right for each in self._missing for right in each.rights) or wanted
            await deferLater(self._clock, AGAIN.delay_s(tries, self._random))

    def _take(self, missing: tuple[Missing, ...]) -> None:
        """Keep what is missing, and log what has changed."""
        before = {each.words for each in self._missing}
        for each in missing:
            if each.words not in before:
                self._log.warn("{words}", words=each.words)
        lacked = not self._asked or any(each.essential for each in self._missing)
        if lacked and not any(each.essential for each in missing):
            self._log.info("all needed rights are granted")
        self._keep(missing)

    def _keep(self, missing: tuple[Missing, ...]) -> None:
        self._asked, self._missing, self._answered_s = True, missing, self._clock.seconds()
        self._once = self._once or not any(each.essential for each in missing)

    def _mention(self, error: ApiError) -> None:
        """Log why the server cannot be asked, once for each kind; the watches report an API that is away."""
        if isinstance(error, ApiStatus) and self._mentioned != error.kind:
            self._log.warn("the API server does not say what our rights are: {error}", error=str(error))
        self._mentioned = error.kind
