"""
The cluster as the scaling room sees it: one observation that is always current, and two requests.

The watches of :mod:`bkscaler.kube.watches` feed :class:`bkscaler.kube.store.ClusterStore`, which holds the
rules that keep the picture right; this module makes the requests, and tells what has changed. A watch can
be dead for a minute and more without anybody noticing, so who waits for a wake calls
:meth:`ClusterView.refresh` every 2 s or so. A refresh reads the StatefulSet and *then* its pods, in that
order, because it also clears pods that an earlier scale-down has made suspect: see *Condemned pods* in the
store. When such a pod is all that is missing, the view asks for one refresh by itself.

Imported by the plugin; the scaling room knows it by shape only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from bkscaler.errors import ApiError, ApiUnreachable
from bkscaler.kube import fields, pods, statefulset
from bkscaler.kube.client import REQUEST_TIMEOUT_S, ApiClient
from bkscaler.kube.statefulset import StatefulSetView
from bkscaler.kube.store import ClusterStore
from bkscaler.kube.watch import OnRestart
from bkscaler.kube.watches import Watches, named
from bkscaler.model import Observation

OnChange = Callable[[Observation], None]

READ_PATIENCE_S = 4.0
"""
How long a refresh waits for an answer, so that a connection that has died unnoticed costs no more. An API
server that is only slow is given twice as long after each refresh that took too long, up to
:data:`~bkscaler.kube.client.REQUEST_TIMEOUT_S`, until one is answered.
"""


class ClusterView:
    """
    One StatefulSet and its pods, kept in view from :meth:`start` to :meth:`stop`.

    :param client: asks the API server; not closed by us.
    :param namespace: of the StatefulSet.
    :param name: of the StatefulSet, which need not exist.
    :param clock: for delays and limits.
    :param random: gives a number in [0, 1), for jitter.
    :param on_change: told every observation that differs from the one before, from the reactor; what it
        raises is logged. It may call :meth:`scale`, :meth:`refresh` and :meth:`stop`; then it may be called
        again before it returns. None drops them; it can be set later, as an attribute.
    :param require_ready: False takes running pods for ready, for a caller that asks the builder itself.
    :param on_restart: see :class:`bkscaler.kube.watch.Reflector`.
    """

    _log = Logger()

    def __init__(
        self,
        *,
        client: ApiClient,
        namespace: str,
        name: str,
        clock: IReactorTime,
        random: Callable[[], float],
        on_change: OnChange | None = None,
        require_ready: bool = True,
        on_restart: OnRestart | None = None,
    ) -> None:
        self.on_change = on_change
        self._client = client
        self._namespace = namespace
        self._name = name
        self._clock = clock
        self._store = ClusterStore(name, require_ready=require_ready)
        self._watches = Watches(
            client=client,
            namespace=namespace,
            name=name,
            clock=clock,
            random=random,
            store=self._store,
            on_change=self._changed,
            on_restart=on_restart,
        )
        self._observation: Observation | None = None
        self._stopped = False
        self._reading = False
        self._soon: IDelayedCall | None = None
        self._asking: Deferred[None] | None = None
        self._asked_for: tuple[str, int] | None = None
        self._patience_s = READ_PATIENCE_S

    def __repr__(self) -> str:
        return f"<ClusterView {self._namespace}/{self._name}: {self._observation}>"

    @property
    def observation(self) -> Observation | None:
        """What is known; None until the first lists (of the pods too, when the set exists) have come."""
        return self._observation

    @property
    def stateful_set(self) -> StatefulSetView | None:
        """The newest version seen of the StatefulSet; None when there is none or nothing is known."""
        return self._store.stateful_set

    @property
    def in_touch(self) -> bool:
        """Whether every watch is live, so that changes reach us by themselves."""
        return self._watches.in_touch

    @property
    def trouble(self) -> ApiError | None:
        """Why we are not in touch: the last error of a watch that has failed and not recovered."""
        return self._watches.trouble

    def start(self) -> None:
        """Begin to list and watch. Once only."""
        self._watches.start()

    def stop(self) -> Deferred[None]:
        """
        End. ``on_change`` is not called again; requests made by others go on.

        :returns: fires with None when no watch of ours is open and no delayed call is left; never fails;
            do not cancel it. May be called again.
        """
        self._stopped = True
        if self._soon is not None:
            self._soon.cancel()
            self._soon = None
        if self._asking is not None and not self._reading:
            self._asking.cancel()
        return self._watches.stop()

    async def scale(self, replicas: int, resource_version: str) -> None:
        """
        Set ``spec.replicas`` if the set is still at that version. On return it has been observed.

        :param replicas: wanted, >= 0.
        :param resource_version: of the observation that was decided on.
        :raises Conflict: when the set has changed since; refresh and decide again.
        :raises ApiError: as :meth:`bkscaler.kube.client.ApiClient.request`; where it may have taken effect,
            refresh before believing anything.
        :raises CancelledError: when the caller cancels; it may have taken effect.
        """
        answer = await statefulset.scale(
            self._client, self._namespace, self._name, replicas, resource_version
        )
        self._store.scaled(*answer)
        self._changed()

    async def refresh(self) -> None:
        """
        Read the set, and then its pods, anew. On return they have been observed.

        May be called at any time, also before :meth:`start`, and while another refresh is under way.

        :raises ApiError: as :meth:`bkscaler.kube.client.ApiClient.request`; what was read until then has
            been observed.
        :raises WentBack: when the server's data are older than what was known before it was asked.
        :raises CancelledError: when the caller cancels, which closes the connection.
        """
        mark, asked_s = self._store.mark(), self._clock.seconds()
        answer = await self._list(statefulset.collection_path(self._namespace), named(self._name))
        items, version = _listed(answer)
        self._watches.weigh_set(version, mark.set_floor, asked_s)
        caught_up = self._store.set_read(items, version, mark)
        self._read()
        known = self._store.stateful_set
        if self._stopped or known is None or not known.selector:
            return
        mark, asked_s = self._store.mark(), self._clock.seconds()
        answer = await self._list(pods.collection_path(self._namespace), {"labelSelector": known.selector})
        items, version = _listed(answer)
        self._watches.weigh_pods(version, mark.pods_floor, asked_s)
        self._store.pods_read(items, version, mark, caught_up)
        self._read()

    async def _list(self, path: str, params: dict[str, str]) -> dict[str, Any]:
        """Ask for a list, with limited patience."""
        patience_s, began_s = self._patience_s, self._clock.seconds()
        try:
            answer = await self._client.request("GET", path, params=params, timeout_s=patience_s)
        except ApiUnreachable:
            if self._clock.seconds() - began_s >= patience_s:
                self._patience_s = min(2 * patience_s, REQUEST_TIMEOUT_S)
            raise
        self._patience_s = READ_PATIENCE_S
        return answer

    def _read(self) -> None:
        """Follow up on what a refresh has read, while it runs: a running coroutine cannot be cancelled."""
        before, self._reading = self._reading, True
        self._changed()
        self._reading = before

    def _changed(self) -> None:
        """Follow up on a merged fact."""
        if self._stopped:
            return
        self._watches.follow_selector()
        self._ask_soon()
        now = self._store.observation()
        if now is None or now == self._observation:
            return
        self._observation = now
        if self.on_change is None:
            return
        try:
            self.on_change(now)
        except Exception:
            self._log.failure("the listener of the cluster failed")

    def _ask_soon(self) -> None:
        """Ask for one refresh per generation when only suspicion stands between us and a replica."""
        known = self._store.stateful_set
        if known is None or not self._store.refresh_would_help or self._soon or self._asking:
            return
        if self._asked_for == (known.uid, known.generation):
            return
        self._asked_for = (known.uid, known.generation)
        self._soon = self._clock.callLater(0, self._ask)

    def _ask(self) -> None:
        """Refresh; a failure is forgotten, so that the next change asks again."""
        self._soon = None
        self._asking = asking = Deferred.fromCoroutine(self.refresh())
        asking.addErrback(self._not_answered).addBoth(lambda _: self._answered())

    def _not_answered(self, failure: Failure) -> None:
        """Note that our own refresh failed; the watches report the trouble."""
        self._asked_for = None
        if not failure.check(ApiError, CancelledError):
            self._log.failure("unexpected failure of a refresh", failure)

    def _answered(self) -> None:
        self._asking = None


def _listed(answer: dict[str, Any]) -> tuple[list[dict[str, Any]], str]:
    """Take a list apart."""
    return fields.items(answer, "items"), fields.text(answer, "metadata", "resourceVersion")
