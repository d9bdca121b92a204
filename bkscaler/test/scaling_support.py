"""What the tests of the scaling room share: a cluster played by hand, and a scaler on a virtual clock."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from bkscaler.errors import ApiUnreachable
from bkscaler.model import Happening, Observation, Replica
from bkscaler.scaling.policy import Limits
from bkscaler.scaling.service import Scaler

IDLE_S = 120.0
REFUSED = ApiUnreachable("connection refused", sent=False)


def pod(uid: str = "a", ordinal: int = 0) -> Replica:
    """Make a replica that may be given clients."""
    return Replica(ordinal=ordinal, name=f"buildkitd-{ordinal}", uid=uid, ip=f"10.0.0.{ordinal + 1}")


class ScaleCall:
    """One scale request as it reached the cluster; the test decides what becomes of it."""

    def __init__(self, cluster: StandInCluster, replicas: int, version: str) -> None:
        self.cluster = cluster
        self.replicas = replicas
        self.version = version
        self.cancelled = False
        self.deferred: Deferred[None] = Deferred(self._cancel)

    def _cancel(self, _: object) -> None:
        self.cancelled = True

    def take_effect(self) -> None:
        """Change the set, unless the version is stale; a set at zero has no usable pod."""
        if self.version == self.cluster.truth.resource_version:
            pods = self.cluster.truth.ready if self.replicas else ()
            self.cluster.change(replicas=self.replicas, ready=pods)

    def ok(self) -> None:
        """Carry it out, show that, and answer."""
        self.take_effect()
        self.cluster.show()
        self.deferred.callback(None)

    def fails(self, error: Exception) -> None:
        """Answer with a failure."""
        self.deferred.errback(error)

    def answer_lost(self, *, took_effect: bool) -> None:
        """Lose the answer of a request that did, or did not, take effect."""
        if took_effect:
            self.take_effect()
        self.fails(ApiUnreachable("connection lost", sent=True))


class StandInCluster:
    """
    A StatefulSet that changes when the test says so, and is seen when it is shown or read.

    :ivar truth: what is so; :meth:`show` makes it known.
    :ivar scales: every scale request, in order.
    :ivar looks: how many reads were asked for.
    :ivar trouble: what reads fail with; None lets them succeed at once.
    :ivar slow: leaves reads unanswered, in ``open_looks``.
    """

    def __init__(self, **first: Any) -> None:
        self.truth = Observation(**{"replicas": 0, "resource_version": "1", **first})
        self.observer: Any = None
        self.scales: list[ScaleCall] = []
        self.looks = 0
        self.trouble: Exception | None = None
        self.slow = False
        self.open_looks: list[Deferred[None]] = []

    @property
    def asked(self) -> list[int]:
        """The replicas that were asked for, in order."""
        return [call.replicas for call in self.scales]

    def scale(self, replicas: int, resource_version: str) -> Deferred[None]:
        """Record a request."""
        call = ScaleCall(self, replicas, resource_version)
        self.scales.append(call)
        return call.deferred

    def refresh(self) -> Deferred[None]:
        """Show what is so, or fail, or leave it open."""
        self.looks += 1
        if self.slow:
            self.open_looks.append(Deferred())
            return self.open_looks[-1]
        if self.trouble is not None:
            return fail(self.trouble)
        self.show()
        return succeed(None)

    def change(self, **fields: Any) -> None:
        """Change the set, which gives it a new version; nobody hears of it yet."""
        version = str(int(self.truth.resource_version or "0") + 1)
        self.truth = replace(self.truth, **{"resource_version": version, **fields})

    def show(self, **fields: Any) -> None:
        """Let the scaler observe the set, changed as given."""
        if fields:
            self.change(**fields)
        self.observer(self.truth)

    def answer_look(self, error: Exception | None = None) -> None:
        """Answer the oldest open read."""
        look = self.open_looks.pop(0)
        if error is not None:
            look.errback(error)
            return
        self.show()
        look.callback(None)


class Client:
    """One hold and what its wait has come to."""

    def __init__(self, scaler: Scaler, name: str) -> None:
        self.hold = scaler.hold(name)
        self.replica: Replica | None = None
        self.error: BaseException | None = None
        self.wait = self.hold.when_ready()
        self.wait.addCallbacks(self._served, self._failed)

    def _served(self, replica: Replica) -> None:
        self.replica = replica

    def _failed(self, failure: Any) -> None:
        self.error = failure.value

    @property
    def waiting(self) -> bool:
        """Whether it has no answer yet."""
        return self.replica is None and self.error is None

    def leave(self) -> None:
        """Give up waiting, if it still waits, and release the hold."""
        self.wait.cancel()
        self.hold.release()


class ScalerTestCase(SynchronousTestCase):
    """Builds scalers, and sees to it that each ends with nothing left on its clock."""

    def build(
        self, *, started: bool = True, shown: bool = True, give_up_after_s: float = math.inf, **first: Any
    ) -> tuple[Scaler, Any]:
        """
        Make a scaler and its controls: the cluster, which holds the clock as ``cluster.clock``.

        :param started: whether the service runs.
        :param shown: whether the cluster has been observed.
        :param give_up_after_s: see the scaler.
        :param first: fields of the first observation.

        What the scaler tells is in ``self.happenings``.
        """
        clock = Clock()
        cluster: Any = StandInCluster(**first)
        cluster.clock = clock
        self.happenings: list[tuple[Happening, str]] = []
        cluster.snapshots, cluster.scaled = [], []
        limits = Limits(idle_timeout_s=IDLE_S)
        scaler = Scaler(
            clock=clock,
            cluster=cluster,
            limits=limits,
            random=lambda: 0.0,
            give_up_after_s=give_up_after_s,
            report=lambda what, words: self.happenings.append((what, words)),
            on_change=cluster.snapshots.append,
            on_result=lambda decision, error: cluster.scaled.append((decision, error)),
        )
        cluster.observer = scaler.observed
        if started:
            scaler.startService()
        if shown:
            cluster.show()
        self.addCleanup(self._end, scaler, clock)
        return scaler, cluster

    def build_warm(self) -> tuple[Scaler, Any]:
        """Make a scaler whose set has one replica, ready."""
        return self.build(replicas=1, ready=(pod(),))

    def fall_asleep(self, cluster: Any) -> ScaleCall:
        """Let the idle timeout pass and give the scale-down that was sent."""
        cluster.clock.advance(IDLE_S)
        call: ScaleCall = cluster.scales[-1]
        self.assertEqual(call.replicas, 0)
        return call

    def _end(self, scaler: Scaler, clock: Clock) -> None:
        self.successResultOf(scaler.stopService())
        self.assertEqual(clock.getDelayedCalls(), [])
