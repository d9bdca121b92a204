"""
The watches of a StatefulSet and of its pods, which put what they hear into the store.

The StatefulSet is watched by name (``fieldSelector``, which a Role with ``resourceNames`` needs), its pods by
its own selector, from when that is known.

A list that is older than what was known before it was asked for changes nothing at first; see
:mod:`bkscaler.kube.behind`. When it is to be believed, and it is not a watch's own, the watches begin anew:
they would go on from where they were, and never tell what lies between.

Imported by ``kube.cluster``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IReactorTime

from bkscaler.errors import ApiError, WentBack
from bkscaler.kube import pods, statefulset
from bkscaler.kube.behind import Behind
from bkscaler.kube.client import ApiClient
from bkscaler.kube.store import ClusterStore, Mark
from bkscaler.kube.versions import is_older
from bkscaler.kube.watch import OnRestart, Reflector


def named(name: str) -> dict[str, str]:
    """Give the parameters of a request that select one StatefulSet."""
    return {"fieldSelector": f"metadata.name={name}"}


class Watches:
    """
    One watch of a StatefulSet, and one of its pods as soon as their selector is known.

    :param client: asks the API server.
    :param namespace: of the StatefulSet.
    :param name: of the StatefulSet, which need not exist.
    :param clock: for delays and limits.
    :param random: gives a number in [0, 1), for jitter.
    :param store: what is heard goes there.
    :param on_change: called, from the reactor, when something was put there. It may call :meth:`stop`.
    :param on_restart: see :class:`bkscaler.kube.watch.Reflector`.
    """

    def __init__(
        self,
        *,
        client: ApiClient,
        namespace: str,
        name: str,
        clock: IReactorTime,
        random: Callable[[], float],
        store: ClusterStore,
        on_change: Callable[[], None],
        on_restart: OnRestart | None,
    ) -> None:
        self._store = store
        self._on_change = on_change
        self._client = client
        self._namespace = namespace
        self._name = name
        self._clock = clock
        self._random = random
        self._on_restart = on_restart
        self._set_behind, self._pods_behind = Behind(clock), Behind(clock)
        self._set = _Watch(self, is_set=True)
        self._pods: _Watch | None = None
        self._retired: list[Deferred[None]] = []
        self._stopped = False

    def __repr__(self) -> str:
        return f"<Watches of {self._namespace}/{self._name}, {'' if self.in_touch else 'not '}in touch>"

    @property
    def in_touch(self) -> bool:
        """Whether every watch is live, so that changes reach us by themselves."""
        return all(watch.reflector.in_touch for watch in self._present())

    @property
    def trouble(self) -> ApiError | None:
        """Why we are not in touch: the last error of a watch that has failed and not recovered."""
        return next((watch.error for watch in self._present() if watch.error is not None), None)

    def start(self) -> None:
        """Begin to list and watch the StatefulSet. Once only."""
        self._set.reflector.start()

    def stop(self) -> Deferred[None]:
        """
        End. Nothing is put into the store any more, and nothing begins.

        :returns: fires with None when no watch is open and no delayed call is left; never fails; do not
            cancel it. May be called again.
        """
        self._stopped = True
        ends = [watch.reflector.stop() for watch in self._present()] + self._retired
        return gatherResults(ends).addCallback(lambda _: None)

    def follow_selector(self) -> None:
        """Watch the pods of the selector that the set has now."""
        known = self._store.stateful_set
        if known is None or not known.selector:
            return
        if self._pods is None or self._pods.selector != known.selector:
            self._watch_pods(known.selector)

    def weigh_set(self, version: str, floor: str, asked_s: float) -> None:
        """
        Believe no read of the set that is older than what is known; follow a server back by new watches.

        :param version: of the answer.
        :param floor: what was known when it was asked for.
        :param asked_s: when that was, by the clock.
        :raises WentBack: when it is not to be believed.
        """
        self._weigh(self._set_behind, version, floor, asked_s)

    def weigh_pods(self, version: str, floor: str, asked_s: float) -> None:
        """Do the same with a read of the pods."""
        self._weigh(self._pods_behind, version, floor, asked_s)

    def _weigh(self, behind: Behind, version: str, floor: str, asked_s: float) -> None:
        behind.weigh(version, floor, asked_s)
        if not is_older(version, floor):
            return
        self._set_behind.follow()
        self._pods_behind.follow()
        if not self._stopped:
            self._begin_anew()
        raise WentBack(f"the API server has gone back to version {version}, from {floor}")

    def _begin_anew(self) -> None:
        """Begin all watches from where the server is now; one that waits after a failure need not wait on."""
        self._retire(self._set)
        self._set = _Watch(self, is_set=True)
        self._set.reflector.start()
        if self._pods is not None:
            self._watch_pods(self._pods.selector)

    def _is_not_behind(self) -> None:
        """Take note that the server was not behind all the time."""
        self._set_behind.begin_anew()
        self._pods_behind.begin_anew()

    def _watch_pods(self, selector: str) -> None:
        """Watch the pods of a selector from where the server is now."""
        if self._pods is not None:
            self._retire(self._pods)
        self._pods = _Watch(self, selector=selector)
        self._pods.reflector.start()

    def _retire(self, watch: _Watch) -> None:
        """Stop a watch, and remember it until it has ended."""
        self._retired = [each for each in self._retired if not each.called]
        self._retired.append(watch.reflector.stop())

    def _present(self) -> list[_Watch]:
        """List the watches that there are now."""
        return [self._set] if self._pods is None else [self._set, self._pods]


class _Watch:
    """
    One reflector with what belongs to it: it puts what it hears into the store.

    :param watches: whose watch.
    :param is_set: whether it watches the StatefulSet; otherwise the pods of ``selector``.
    :param selector: label selector of the pods.
    """

    def __init__(self, watches: Watches, *, is_set: bool = False, selector: str = "") -> None:
        self.selector = selector
        self.error: ApiError | None = None
        self._watches = watches
        self._store = watches._store
        self._is_set = is_set
        self._mark: Mark = self._store.mark()
        self._asked_s = 0.0
        kind = statefulset if is_set else pods
        whose = f"{watches._namespace}/{watches._name}"
        self.reflector = Reflector(
            client=watches._client,
            clock=watches._clock,
            random=watches._random,
            path=kind.collection_path(watches._namespace),
            selector=named(watches._name) if is_set else {"labelSelector": selector},
            what=f"{'StatefulSet' if is_set else 'pods of'} {whose}",
            listener=self,
            on_restart=watches._on_restart,
            may_resume=self._may_resume,
        )

    def on_listing(self) -> None:
        """Remember what is known now: the list can be no older."""
        self._mark = self._store.mark()
        self._asked_s = self._watches._clock.seconds()

    def on_list(self, items: list[dict[str, Any]], resource_version: str) -> None:
        """Merge a list, if it may be believed."""
        if self._is_set:
            self._watches._set_behind.weigh(resource_version, self._mark.set_floor, self._asked_s)
            self._store.set_read(items, resource_version, self._mark)
        else:
            self._watches._pods_behind.weigh(resource_version, self._mark.pods_floor, self._asked_s)
            self._store.pods_read(items, resource_version, self._mark)
        self._watches._on_change()

    def on_event(self, kind: str, content: dict[str, Any]) -> None:
        """Merge an event; a server that has news is not behind."""
        before = self._store.mark()
        (self._store.set_event if self._is_set else self._store.pod_event)(kind, content)
        if self._store.mark() != before:
            self._watches._is_not_behind()

    def _may_resume(self, version: str) -> bool:
        """Whether a watch may go on from a version: not where an answer has told more than the watch has."""
        known = self._store.mark()
        return not is_older(version, known.set_floor if self._is_set else known.pods_floor)

    def on_settled(self) -> None:
        """Follow up on what has been merged: a pod that became ready may be going by now."""
        self._watches._on_change()

    def on_state(self, ok: bool, error: ApiError | None) -> None:
        """Keep the error until the watch is live again; until it was lost the server was as it should be."""
        if self.error is None and error is not None and not isinstance(error, WentBack):
            self._watches._is_not_behind()
        self.error = None if ok else error
