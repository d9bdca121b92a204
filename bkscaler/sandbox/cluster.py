"""
One embedded cluster without its network: state, controllers and API root, joined.

In tests and simulations::

    clock = Clock()
    cluster = make_cluster(ClusterSettings(), clock)
    cluster.start()
    agent = RequestTraversalAgent(cluster.root)     # or a Site around cluster.root
    ...
    cluster.set_replicas(1)
    clock.pump([0.01] * 300)

Everything happens on the clock that is passed in; without ``now`` the wall clock is that clock, counted
from :data:`EPOCH`; without ``random`` it is a fixed seed; without a runner, pods have no processes.
"""

from __future__ import annotations

import random as random_module
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from bkscaler.sandbox.api import ApiRoot
from bkscaler.sandbox.authorization import ADMIN
from bkscaler.sandbox.controller import StatefulSetController
from bkscaler.sandbox.eventlog import EventLog
from bkscaler.sandbox.kinds import NAMESPACES, NODES, PODS, SERVICES, STATEFULSETS
from bkscaler.sandbox.kubelet import Kubelet
from bkscaler.sandbox.manifests import namespace_manifest, node_manifest, service_manifest, set_manifest
from bkscaler.sandbox.objects import Now, Object, Random, clone, random_hex
from bkscaler.sandbox.pods import Behaviour, FailureMode, FakePodRunner, PodRunner
from bkscaler.sandbox.scale import ScaleVerbs
from bkscaler.sandbox.state import Backup, State
from bkscaler.sandbox.verbs import Verbs

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
"""Wall-clock time at a clock's zero, when no other wall clock is passed in."""


@dataclass(frozen=True, kw_only=True)
class ClusterSettings:
    """
    What a cluster begins with.

    :param namespace: namespace of the StatefulSet.
    :param statefulset: its name; its headless Service is ``<name>-headless``.
    :param replicas: its first ``spec.replicas``, >= 0.
    :param container_port: port of its container, 1-65535.
    :param policy: ``OrderedReady`` or ``Parallel``.
    :param start_delay_s: seconds a container is being created, >= 0.
    :param stop_delay_s: seconds from a pod's deletion to its SIGTERM, >= 0.
    :param failure: how every pod fails, or None.
    """

    namespace: str = "default"
    statefulset: str = "buildkitd"
    replicas: int = 0
    container_port: int = 8273
    policy: str = "OrderedReady"
    start_delay_s: float = 2.0
    stop_delay_s: float = 1.0
    failure: FailureMode | None = None


def clock_now(clock: IReactorTime) -> Now:
    """Make a wall clock out of a clock, counted from :data:`EPOCH`."""
    return lambda: EPOCH + timedelta(seconds=clock.seconds())


class Cluster:
    """
    One embedded cluster. Works from :meth:`start` to :meth:`stop`.

    :ivar settings: what it began with.
    :ivar state: its objects; tests may read and write it.
    :ivar root: its API, a web resource.
    :ivar token: the bearer token that the API asks for.
    :ivar tokens: user by token; more may be added.
    :ivar behaviour: delays and failures of its pods; may be changed at any time.
    :ivar runner: runs its pods.
    :ivar controller: makes and deletes its pods; may be made to lag.
    """

    def __init__(
        self, settings: ClusterSettings, clock: IReactorTime, *, now: Now, random: Random, runner: PodRunner
    ) -> None:
        self.settings = settings
        self.state = State()
        self.runner = runner
        self.token = random_hex(random, 32)
        self.tokens = {self.token: ADMIN}
        self.behaviour = Behaviour(
            start_delay_s=settings.start_delay_s,
            stop_delay_s=settings.stop_delay_s,
            failure=settings.failure,
        )
        self.root = ApiRoot(self.state, clock=clock, now=now, random=random, tokens=self.tokens)
        self._verbs = Verbs(self.state, now=now, random=random)
        events = EventLog(self.state, now=now, random=random)
        self.controller = StatefulSetController(
            self.state, clock=clock, now=now, random=random, events=events
        )
        self._kubelet = Kubelet(
            self.state,
            clock=clock,
            now=now,
            random=random,
            events=events,
            behaviour=self.behaviour,
            runner=runner,
        )
        self._populate()

    def __repr__(self) -> str:
        return f"<Cluster {self.settings.namespace}/{self.settings.statefulset} {self.state!r}>"

    def start(self) -> None:
        """Let the controllers work."""
        self._kubelet.start()
        self.controller.start()

    def stop(self) -> Deferred[None]:
        """
        End every watch, stop the controllers and kill the pods.

        :returns: fires with None when no process is left; never fails.
        """
        self.root.watches.end_all()
        self.controller.stop()
        self._kubelet.stop()
        return self.runner.stop()

    def restore(self, backup: Backup) -> None:
        """
        Let the state be what it was, as when etcd is restored from a backup, which begins with the end of the
        API server: nobody may watch. Containers of pods that were not there are killed; pods without a
        container get one.
        """
        self.root.watches.end_all()
        self.state.restore(backup)
        self.controller.restart()
        self._kubelet.resync()

    def set_replicas(self, replicas: int) -> None:
        """Scale the StatefulSet, as a client would."""
        scale: Object = {"spec": {"replicas": replicas}}
        ScaleVerbs(self._verbs).replace(self.settings.namespace, self.settings.statefulset, scale)

    def delete_set(self) -> None:
        """Delete the StatefulSet; its pods go with it."""
        self._verbs.delete(STATEFULSETS, self.settings.namespace, self.settings.statefulset, {})

    def create_set(self, replicas: int) -> None:
        """Create a StatefulSet like the first one."""
        self._verbs.create(STATEFULSETS, self.settings.namespace, self._set_manifest(replicas))

    def touch_set(self, note: str) -> None:
        """Annotate the StatefulSet, which gives it a new version."""

        def annotate(value: Object) -> None:
            value["metadata"].setdefault("annotations", {})["touched"] = note

        self.state.edit("statefulsets", self.settings.namespace, self.settings.statefulset, annotate)

    def delete_pod(self, name: str, grace_s: int) -> None:
        """Delete a pod, as a person or an eviction does."""
        self._verbs.delete(PODS, self.settings.namespace, name, {"gracePeriodSeconds": grace_s})

    def stateful_set(self) -> Object:
        """
        Give a copy of the StatefulSet as a client sees it.

        :raises ApiFailure: 404 when it has been deleted.
        """
        return clone(self._verbs.get(STATEFULSETS, self.settings.namespace, self.settings.statefulset))

    def pods(self) -> list[Object]:
        """Give copies of the pods of the StatefulSet's namespace, by name."""
        return self.state.objects("pods", self.settings.namespace)

    def _populate(self) -> None:
        """Create what a cluster has before anybody has asked it for anything."""
        settings, create = self.settings, self._verbs.create
        names = dict.fromkeys(("default", "kube-system", settings.namespace))
        for name in names:
            create(NAMESPACES, "", namespace_manifest(name))
        create(NODES, "", node_manifest())
        name, namespace, port = settings.statefulset, settings.namespace, settings.container_port
        create(SERVICES, namespace, service_manifest(f"{name}-headless", name, port))
        create(STATEFULSETS, namespace, self._set_manifest(settings.replicas))

    def _set_manifest(self, replicas: int) -> Object:
        settings = self.settings
        return set_manifest(
            settings.statefulset, replicas=replicas, port=settings.container_port, policy=settings.policy
        )


def make_cluster(
    settings: ClusterSettings,
    clock: IReactorTime,
    *,
    now: Now | None = None,
    random: Random | None = None,
    runner: PodRunner | None = None,
) -> Cluster:
    """
    Make a cluster, not yet started.

    :param now: wall clock; None counts from :data:`EPOCH` by ``clock``.
    :param random: chance; None is a fixed seed, the same for every cluster.
    :param runner: runs the pods; None makes a :class:`~bkscaler.sandbox.pods.FakePodRunner`.
    """
    random = random or random_module.Random(0).random
    return Cluster(
        settings,
        clock,
        now=now or clock_now(clock),
        random=random,
        runner=runner or FakePodRunner(clock=clock, random=random),
    )
