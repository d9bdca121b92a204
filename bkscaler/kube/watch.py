"""
List and watch: one kind of object kept in view for as long as somebody wants it.

The loop of one :class:`Reflector`::

    list --> watch --clean end--> watch from the last version; list if something newer is known
      ^        |
      |        +--silence--> watch from the last version, on a new connection; list after many of them
      |        +--410 (HTTP status or ERROR line)--> list again at once
      +--------+--any other failure--> wait (back-off, Retry-After) --> list again

Three times are involved. The server sends a bookmark about every 60 s, if the version of its data has gone
on, and ends a watch after the ``timeoutSeconds`` we ask for, 240-300 s, random so that many clients do not
come back together. A watch can also die without a word (an API server that is shutting down keeps it open
and silent for 60 s). A silent one may be either, so after :data:`SILENCE_S` it is asked for anew: from a dead
server no answer comes, and that is the failure. Where this is too slow for somebody who waits,
:meth:`bkscaler.kube.cluster.ClusterView.refresh` asks directly. Imported by ``kube.watches``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from bkscaler.backoff import Backoff
from bkscaler.durations import format_duration
from bkscaler.errors import ApiError, ApiStatus, ApiUnreachable, Gone, Throttled, WatchSilent, WentBack
from bkscaler.kube import fields
from bkscaler.kube.client import ApiClient
from bkscaler.kube.wire import WatchDecoder

OnRestart = Callable[[str], None]
"""Told why a watch has ended and is begun anew: ``ended`` (as the server was asked to), ``silent``,
``expired`` (410), ``unreachable``, ``refused`` (an error status) or ``failed`` (anything else)."""
SILENCE_S = 90.0
"""A watch that says nothing for this long may be dead: one and a half times the interval of bookmarks."""
SILENT_WATCHES = 7
"""
After so many in a row without a word, list anew: a server whose data has gone back in time (restored from a
backup) is silent for ever about a version it does not have. Longer than ten minutes, as etcd by default
reports its progress no oftener, without which an idle cluster has no new bookmark to send.
"""
WATCH_MIN_S, WATCH_MAX_S = 240, 300
"""What we ask for as ``timeoutSeconds``, between these."""
SHORT_WATCH_S = 1.0
"""A watch that ends sooner, with nothing said, counts as failed: else a broken proxy would spin us."""
RETRY = Backoff(first_s=0.5, limit_s=30.0)


class Listener(Protocol):
    """
    Who wants the objects. Called one at a time, from the reactor; what else a method raises is logged, and
    the reflector goes on. Any of them may call :meth:`Reflector.stop`.
    """

    def on_listing(self) -> None:
        """Hear that a list is about to be asked for: its answer will be no older than this moment."""

    def on_list(self, items: list[dict[str, Any]], resource_version: str) -> None:
        """
        Take everything there is, and the version of the whole list.

        :raises WentBack: when it is not to be believed, and to be asked for again later.
        """

    def on_event(self, kind: str, content: dict[str, Any]) -> None:
        """Take one change, ``ADDED``, ``MODIFIED`` or ``DELETED``, and the object; more may follow."""

    def on_settled(self) -> None:
        """Hear that all changes have been told that came together, so that it is time to act on them."""

    def on_state(self, ok: bool, error: ApiError | None) -> None:
        """Hear that the watch is live (True, None), or of each failure (False, why)."""


class Reflector:
    """
    Keeps one kind of object in view, from :meth:`start` to :meth:`stop`.

    :param client: asks the API server.
    :param clock: for delays and limits.
    :param random: gives a number in [0, 1), for jitter.
    :param path: of the collection.
    :param selector: ``fieldSelector`` and/or ``labelSelector``, not yet quoted.
    :param what: what is watched, for the log.
    :param listener: who wants the objects.
    :param retry: delays after failures.
    :param silence_s: longest time without a byte in a watch, > 60 to live with bookmarks.
    :param on_restart: told of each restart, for metrics; what it raises is logged.
    :param may_resume: says whether a watch that has ended may go on from a version. It may not where
        something newer is known: a server that was restored would tell of another history.
    """

    _log = Logger()

    def __init__(
        self,
        *,
        client: ApiClient,
        clock: IReactorTime,
        random: Callable[[], float],
        path: str,
        selector: Mapping[str, str],
        what: str,
        listener: Listener,
        retry: Backoff = RETRY,
        silence_s: float = SILENCE_S,
        on_restart: OnRestart | None = None,
        may_resume: Callable[[str], bool] = lambda _: True,
    ) -> None:
        self._client = client
        self._clock = clock
        self._random = random
        self._path = path
        self._selector = dict(selector)
        self._what = what
        self._listener = listener
        self._retry = retry
        self._silence_s = silence_s
        self._on_restart = on_restart or (lambda _: None)
        self._may_resume = may_resume
        self._work: Deferred[None] | None = None
        self._waiters: list[Deferred[None]] = []
        self._stopping = False
        self._calling = 0
        self._live = False
        self._lost_at_s: float | None = None
        self._lost_by = ""
        self._failures = 0
        self._version = ""
        self._heard = False
        self._settling: IDelayedCall | None = None

    def __repr__(self) -> str:
        return f"<Reflector of {self._what}, {'in touch' if self._live else 'not in touch'}>"

    @property
    def in_touch(self) -> bool:
        """Whether the watch is live: accepted by the server, and not failed since."""
        return self._live

    def start(self) -> None:
        """Begin. Call it once; the first list may be asked for, and answered, before this returns."""
        self._work = Deferred.fromCoroutine(self._run())
        self._work.addErrback(lambda failure: failure.trap(CancelledError) and None)
        self._work.addBoth(self._ended)

    def stop(self) -> Deferred[None]:
        """
        End. The listener is not called again; the open connection is closed and no delayed call is left.

        :returns: fires with None when all is closed, possibly at once; never fails; cancelling it only
            stops waiting. May be called again, and from the listener.
        """
        self._live = False
        if self._settling is not None:
            self._settling.cancel()
            self._settling = None
        if not self._stopping:
            self._stopping = True
            if self._work is not None and not self._calling:
                self._work.cancel()
        if self._work is None or self._work.called:
            return succeed(None)
        waiter: Deferred[None] = Deferred()
        self._waiters.append(waiter)
        return waiter

    def _ended(self, _: object) -> None:
        """Tell everyone who waits that nothing is left."""
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.called:
                waiter.callback(None)

    async def _run(self) -> None:
        """Go on for ever; only cancelling ends it."""
        while not self._stopping:
            try:
                await self._list_and_watch()
            except ApiError as error:
                await self._pause_after(error)
            except CancelledError:
                raise
            except Exception as error:
                self._log.failure("unexpected failure while watching {what}", what=self._what)
                await self._pause_after(ApiError(f"{type(error).__name__}: {error}"))

    async def _list_and_watch(self) -> None:
        """List, then watch until something fails, or nothing has been heard for very long."""
        self._call(self._listener.on_listing)
        answer = await self._client.request("GET", self._path, params=self._selector)
        version = fields.text(answer, "metadata", "resourceVersion")
        if not version:
            raise ApiError("the list has no resourceVersion")
        self._version = version
        self._call(self._listener.on_list, fields.items(answer, "items"), version)
        silent = 0
        while silent < SILENT_WATCHES:
            reason = "ended"
            try:
                await self._watch()
            except WatchSilent:
                reason = "silent"
            silent = 0 if self._heard else silent + 1
            self._call(self._on_restart, reason)
            if not self._may_resume(self._version):
                return

    async def _watch(self) -> None:
        """Watch once, from the last version seen, until a clean end; raises what else ends it."""
        decoder = WatchDecoder()
        self._heard = False
        began_s = self._clock.seconds()
        try:
            await self._client.stream(
                self._path,
                params=self._watch_params(),
                on_open=self._opened,
                on_bytes=lambda data: self._take(decoder, data),
                silence_s=self._silence_s,
            )
            decoder.finish()
        finally:
            short = not self._heard and self._clock.seconds() - began_s < SHORT_WATCH_S
            self._failures = self._failures if short else 0
        if short:
            raise ApiError("the watch ended as soon as it had begun")

    def _watch_params(self) -> dict[str, str]:
        """Say what to watch, from where, and for how long."""
        seconds = WATCH_MIN_S + int((WATCH_MAX_S - WATCH_MIN_S) * self._random())
        return {
            **self._selector,
            "watch": "1",
            "resourceVersion": self._version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(seconds),
        }

    def _take(self, decoder: WatchDecoder, data: bytes) -> None:
        """Hand on the events that these bytes complete, and remember where to resume."""
        told = False
        try:
            for event in decoder.feed(data):
                self._heard = True
                if event.type != "BOOKMARK":
                    told = True
                    self._call(self._listener.on_event, event.type, event.object)
                self._version = event.resource_version or self._version
        finally:
            if told and not self._stopping and self._settling is None:
                self._settling = self._clock.callLater(0, self._settle)

    def _settle(self) -> None:
        """Act on all that one read has brought: servers send each event in a piece of its own."""
        self._settling = None
        try:
            self._call(self._listener.on_settled)
        except CancelledError:
            if self._work is not None:
                self._work.cancel()

    def _opened(self) -> None:
        """Note that the watch is live; say so if it was not."""
        if self._live:
            return
        self._live = True
        if self._lost_at_s is not None:
            lasted = format_duration(round(self._clock.seconds() - self._lost_at_s))
            self._log.info(
                "in touch with {what} again after {lasted}",
                event="watch_restored",
                what=self._what,
                lasted=lasted,
            )
            self._lost_at_s = None
        self._call(self._listener.on_state, True, None)

    async def _pause_after(self, error: ApiError) -> None:
        """Report a failure and wait; the first 410 in a row is no failure, and needs no waiting."""
        if self._stopping:
            raise CancelledError()
        self._failures += 1
        self._call(self._on_restart, _reason(error))
        if isinstance(error, Gone) and self._failures == 1:
            return
        self._live = False
        self._mention(error)
        self._call(self._listener.on_state, False, error)
        delay_s = max(self._retry.delay_s(self._failures, self._random), _asked_to_wait_s(error))
        await deferLater(self._clock, delay_s)

    def _mention(self, error: ApiError) -> None:
        """Log what is wrong: when it begins, and when it becomes something else; not each failure."""
        if self._lost_at_s is None:
            self._lost_at_s = self._clock.seconds()
            self._log.warn(
                "lost touch with {what}: {error}", event="watch_lost", what=self._what, error=str(error)
            )
        elif self._lost_by != error.kind:
            self._log.warn(
                "still not in touch with {what}: {error}",
                event="watch_lost",
                what=self._what,
                error=str(error),
            )
        self._lost_by = error.kind

    def _call(self, method: Callable[..., None], *args: Any) -> None:
        """Call the listener; its failures are logged, and its wish to stop is followed at once."""
        self._calling += 1
        try:
            method(*args)
        except WentBack:
            raise
        except Exception:
            self._log.failure("the listener of {what} failed", what=self._what)
        finally:
            self._calling -= 1
        if self._stopping:
            raise CancelledError()


def _reason(error: ApiError) -> str:
    """Choose the word of :data:`OnRestart` for an error."""
    if isinstance(error, Gone):
        return "expired"
    if isinstance(error, ApiUnreachable):
        return "unreachable"
    return "refused" if isinstance(error, ApiStatus) else "failed"


def _asked_to_wait_s(error: ApiError) -> float:
    """Say how long the server wants to be left alone, in seconds."""
    if not isinstance(error, ApiStatus):
        return 0.0
    return error.retry_after_s or (1.0 if isinstance(error, Throttled) else 0.0)
