"""What the tests of the sandbox share: a cluster on a Clock, its API asked in memory. No tests in here."""

from __future__ import annotations

import json
from typing import Any

from treq.testing import StubTreq
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock

from bkscaler.sandbox.cluster import Cluster, ClusterSettings, make_cluster

TICK_S = 0.005
"""Step of the clock; shorter than every delay of the sandbox that tests look at."""


class MemoryAnswer:
    """An answer: status, headers, and its body as far as it has come."""

    def __init__(self, response: Any) -> None:
        self.code = response.code
        self.headers = {k.decode(): v[-1].decode() for k, v in response.headers.getAllRawHeaders()}
        self.data = b""
        self.ended = False
        response.deliverBody(_Collector(self))

    @property
    def body(self) -> Any:
        """The body, decoded when it is JSON."""
        is_json = self.headers.get("Content-Type", "").startswith("application/json")
        return json.loads(self.data) if is_json else self.data.decode()

    @property
    def lines(self) -> list[Any]:
        """The lines of a watch so far."""
        return [json.loads(line) for line in self.data.splitlines()]


class _Collector(Protocol):
    def __init__(self, answer: MemoryAnswer) -> None:
        self.answer = answer

    def dataReceived(self, data: bytes) -> None:
        self.answer.data += data

    def connectionLost(self, reason: Any = None) -> None:
        self.answer.ended = True


class World:
    """
    A cluster whose pods have no processes, on a clock in the test's hands.

    :param settings: of the cluster; the namespace is ``builds`` unless it says otherwise.
    """

    def __init__(self, **settings: Any) -> None:
        self.clock = Clock()
        self.cluster: Cluster = make_cluster(
            ClusterSettings(**{"namespace": "builds", "container_port": 1234, **settings}), self.clock
        )
        self.cluster.start()
        self._treq = StubTreq(self.cluster.root)
        self.sets = "/apis/apps/v1/namespaces/builds/statefulsets"
        self.core = "/api/v1/namespaces/builds"

    def pump(self, seconds: float) -> None:
        """Let time pass, in small steps."""
        self.clock.pump([TICK_S] * round(seconds / TICK_S))
        self._treq.flush()

    def begin(self, method: str, target: str, body: Any = None, **headers: str) -> MemoryAnswer | None:
        """
        Send a request.

        :param body: an object, text, bytes or None.
        :param headers: with ``_`` for ``-``; the token is added unless ``Authorization`` is among them.
        :returns: the answer, or None when there is none yet.
        """
        data = json.dumps(body) if isinstance(body, dict) else body
        names = {"Authorization": f"Bearer {self.cluster.token}"}
        names.update({name.replace("_", "-"): value for name, value in headers.items()})
        if isinstance(body, dict):
            names.setdefault("Content-Type", "application/json")
        names = {name: value for name, value in names.items() if value}
        content = data.encode() if isinstance(data, str) else data
        answers: list[MemoryAnswer] = []
        asked: Deferred[Any] = self._treq.request(  # type: ignore[attr-defined]  # StubTreq makes it
            method, f"https://sandbox{target}", headers=names, data=content
        )
        asked.addCallback(lambda response: answers.append(MemoryAnswer(response)))
        self._pending = (asked, answers)
        self._treq.flush()
        return answers[0] if answers else None

    def call(self, method: str, target: str, body: Any = None, **headers: str) -> MemoryAnswer:
        """Send a request that is answered within the patience of a list."""
        answer = self.begin(method, target, body, **headers)
        if answer is None:
            self.pump(3.5)
            answer = self._pending[1][0]
        return answer

    def patch_scale(self, replicas: int) -> MemoryAnswer:
        """Scale the set."""
        body = {"spec": {"replicas": replicas}}
        target = f"{self.sets}/buildkitd/scale"
        return self.call("PATCH", target, body, Content_Type="application/merge-patch+json")

    def watch(self, target: str) -> MemoryAnswer:
        """Open a watch; its lines come as the world goes on."""
        mark = "&" if "?" in target else "?"
        return self.call("GET", f"{target}{mark}watch=1")

    def stop(self) -> list[Any]:
        """Stop the cluster; give what is left on the clock."""
        self.cluster.stop()
        return list(self.clock.getDelayedCalls())
