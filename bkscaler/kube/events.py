"""
Events on the StatefulSet (``events.k8s.io/v1``), for ``kubectl describe``: best effort, never in the way.

What happens again in the same words becomes one Event with a series, which is updated at most every
:data:`GAP_S`. One request at a time, each with a short time limit; what cannot be written is dropped, and
that is logged once. Nothing is sent unless something has happened. The API refuses Events whose namespace is
not that of their object, so the StatefulSet's is used. Imported by the plugin.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from bkscaler.errors import ApiError, NotFound
from bkscaler.kube import fields
from bkscaler.kube.client import MERGE_PATCH, ApiClient, path_to
from bkscaler.kube.statefulset import StatefulSetView
from bkscaler.model import Happening
from bkscaler.timers import Timers

CONTROLLER = "bkscaler"
"""Who reports, as ``kubectl describe`` shows it."""
TIMEOUT_S = 5.0
GAP_S = 10.0
"""Least time between two updates of one series: a storm of failing clients is one request in this time."""
SERIES_S = 1800.0
"""How long after its last update an Event is still added to: servers drop it after an hour."""
MAX_NOTE_CHARS, MAX_INSTANCE_CHARS = 1024, 128
MAX_PENDING, MAX_WRITTEN = 16, 32

_ACTIONS = {
    Happening.WAKING_UP: "Wake",
    Happening.READY: "Wake",
    Happening.WAKE_FAILED: "Wake",
    Happening.GOING_TO_SLEEP: "Sleep",
}


@dataclass(frozen=True, kw_only=True)
class _Key:
    """What is the same in all occurrences of a series."""

    uid: str
    what: Happening
    note: str


@dataclass(kw_only=True)
class _Occurrences:
    """What has happened and is not written yet."""

    first: datetime
    last: datetime
    count: int = 1


@dataclass(kw_only=True)
class _Written:
    """An Event that the server has."""

    name: str
    at_s: float
    count: int = field(default=1)


class Events:
    """
    Writes Events about one StatefulSet. Lives as long as the process; :meth:`stop` it.

    :param client: asks the API server; not closed by us.
    :param clock: for waits and limits.
    :param now: wall clock for stamps.
    :param namespace: of the StatefulSet.
    :param regarding: gives the StatefulSet; without one nothing is written.
    :param instance: which bkscaler reports, for example the pod's name.
    """

    _log = Logger()

    def __init__(
        self,
        *,
        client: ApiClient,
        clock: IReactorTime,
        now: Callable[[], datetime],
        namespace: str,
        regarding: Callable[[], StatefulSetView | None],
        instance: str,
    ) -> None:
        self._client = client
        self._clock = clock
        self._now = now
        self._namespace = namespace
        self._regarding = regarding
        self._instance = instance[:MAX_INSTANCE_CHARS] or CONTROLLER
        self._timers = Timers(clock)
        self._pending: dict[_Key, _Occurrences] = {}
        self._written: dict[_Key, _Written] = {}
        self._work: Deferred[None] | None = None
        self._stopped = False
        self._mentioned = ""

    def __repr__(self) -> str:
        return f"<Events of {self._namespace}, {len(self._pending)} pending>"

    def happened(self, what: Happening, words: str) -> None:
        """
        Write an Event, some time soon, or never. Returns at once; never raises.

        :param what: gives the Event's reason.
        :param words: its note, cut to what the server takes.
        """
        owner = self._regarding()
        if owner is None or self._stopped:
            return
        key = _Key(uid=owner.uid, what=what, note=fields.one_line(words, MAX_NOTE_CHARS))
        now = self._now()
        if key in self._pending:
            self._pending[key].count += 1
            self._pending[key].last = now
        elif len(self._pending) < MAX_PENDING:
            self._pending[key] = _Occurrences(first=now, last=now)
        self._go_on()

    def stop(self) -> Deferred[None]:
        """
        Write nothing more.

        :returns: fires with None when no request is open and no delayed call is left; never fails.
        """
        self._stopped = True
        self._timers.cancel_all()
        if self._work is None:
            return succeed(None)
        work, stopped = self._work, Deferred[None]()
        work.addBoth(lambda _: stopped.callback(None))
        work.cancel()
        return stopped

    def _go_on(self) -> None:
        """Write what is due, if nothing is being written."""
        if self._work is not None or self._stopped:
            return
        now_s = self._clock.seconds()
        due = {key: self._due_s(key) for key in self._pending}
        key = next((key for key, due_s in due.items() if due_s <= now_s), None)
        if key is None:
            self._timers.keep("due", min(due.values(), default=math.inf), self._go_on)
            return
        self._timers.cancel("due")
        work = self._work = Deferred.fromCoroutine(self._write(key, self._pending.pop(key)))
        work.addBoth(self._done)

    def _due_s(self, key: _Key) -> float:
        written = self._written.get(key)
        return -math.inf if written is None else written.at_s + GAP_S

    def _done(self, result: object) -> None:
        self._work = None
        if isinstance(result, Failure) and not result.check(CancelledError):
            self._log.failure("unexpected failure while writing an Event", result)
        if self._pending and not self._stopped:
            self._timers.keep("due", self._clock.seconds(), self._go_on)

    async def _write(self, key: _Key, occurrences: _Occurrences) -> None:
        """Write what has happened, or forget it."""
        try:
            if not await self._add_to_series(key, occurrences):
                await self._create(key, occurrences)
            self._mentioned = ""
        except ApiError as error:
            if self._mentioned != error.kind:
                self._log.warn("Events cannot be written: {error}", error=str(error))
            self._mentioned = error.kind

    async def _add_to_series(self, key: _Key, occurrences: _Occurrences) -> bool:
        """Add to an Event that is there; say whether that was possible."""
        written = self._written.get(key)
        if written is None or self._clock.seconds() > written.at_s + SERIES_S:
            return False
        written.at_s = self._clock.seconds()
        count = written.count + occurrences.count
        try:
            await self._client.request(
                "PATCH",
                f"{collection_path(self._namespace)}/{path_to(written.name)[1:]}",
                body={"series": {"count": count, "lastObservedTime": stamp(occurrences.last)}},
                content_type=MERGE_PATCH,
                timeout_s=TIMEOUT_S,
            )
        except NotFound:
            return False
        written.count = count
        return True

    async def _create(self, key: _Key, occurrences: _Occurrences) -> None:
        """Write a new Event, and remember it."""
        owner = self._regarding()
        if owner is None or owner.uid != key.uid:
            return
        body = self._event(key, owner.name, occurrences)
        answer = await self._client.request(
            "POST", collection_path(self._namespace), body=body, timeout_s=TIMEOUT_S
        )
        self._written.pop(key, None)
        if len(self._written) >= MAX_WRITTEN:
            del self._written[next(iter(self._written))]
        name = fields.text(answer, "metadata", "name")
        if name:
            at_s = self._clock.seconds()
            self._written[key] = _Written(name=name, at_s=at_s, count=occurrences.count)

    def _event(self, key: _Key, name: str, occurrences: _Occurrences) -> dict[str, Any]:
        event: dict[str, Any] = {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"generateName": f"{name.rstrip('.')[:200]}-", "namespace": self._namespace},
            "eventTime": stamp(occurrences.first),
            "type": "Warning" if key.what is Happening.WAKE_FAILED else "Normal",
            "reason": key.what.value,
            "action": _ACTIONS[key.what],
            "note": key.note,
            "regarding": {
                "apiVersion": "apps/v1",
                "kind": "StatefulSet",
                "namespace": self._namespace,
                "name": name,
                "uid": key.uid,
            },
            "reportingController": CONTROLLER,
            "reportingInstance": self._instance,
        }
        if occurrences.count > 1:
            event["series"] = {"count": occurrences.count, "lastObservedTime": stamp(occurrences.last)}
        return event


def collection_path(namespace: str) -> str:
    """Give the path of the Events of a namespace."""
    return path_to("apis", "events.k8s.io", "v1", "namespaces", namespace, "events")


def stamp(moment: datetime) -> str:
    """
    Write a time as the API wants it: UTC, with exactly six fractional digits.

    :param moment: with a zone.
    """
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
