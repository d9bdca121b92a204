"""
What the tests of the kube room share: an API server played by hand, in memory, and recorded objects.

No tests in here. The client's real agent talks to :class:`Connection` objects, so that every failure is
the one that Twisted really makes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost, ConnectionRefusedError
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure
from twisted.web.client import Agent, HTTPConnectionPool
from twisted.web.iweb import IAgentEndpointFactory
from zope.interface import implementer

from bkscaler.kube.auth import ClusterAccess, StaticToken
from bkscaler.kube.client import ApiClient

DATA = Path(__file__).parent / "data" / "kube"


def recorded_object(name: str) -> dict[str, Any]:
    """Read one recorded object."""
    return json.loads((DATA / name).read_text())


def recorded_timeline(name: str) -> list[dict[str, Any]]:
    """Read one recorded timeline: lines with ``t``, ``kind`` and ``event``."""
    return [json.loads(line) for line in (DATA / name).read_text().splitlines() if line]


class MemoryTransport(StringTransport):
    """A transport whose end is told to the protocol a moment later, as the reactor does."""

    gone = False

    def __init__(self, clock, protocol):
        super().__init__()
        self.clock = clock
        self.protocol = protocol

    def abortConnection(self):
        self.close(ConnectionAborted())

    def loseConnection(self):
        self.close(ConnectionDone())

    def close(self, reason):
        """Tell the protocol that the connection has ended, once."""
        if not self.gone:
            self.gone = True
            self.clock.callLater(0, self.protocol.connectionLost, Failure(reason))


class Connection:
    """The server's end of one connection: reads requests, writes answers by hand."""

    def __init__(self, clock, factory):
        self.clock = clock
        self.protocol = factory.buildProtocol(None)
        self.transport = MemoryTransport(clock, self.protocol)
        self.protocol.makeConnection(self.transport)
        self.body = ""

    @property
    def open(self) -> bool:
        """Whether the client has kept it open."""
        return not self.transport.gone

    def request(self) -> tuple[str, str, dict[str, str], str]:
        """Take the request that was sent: verb, target, headers in lower case, body."""
        head, _, body = self.transport.value().decode().partition("\r\n\r\n")
        self.transport.clear()
        first, *lines = head.split("\r\n")
        verb, target, _ = first.split(" ")
        return verb, target, {k.lower(): v for k, v in (line.split(": ", 1) for line in lines)}, body

    def request_line(self) -> tuple[str, str]:
        """Take the request: verb and target; the body is left in ``body``."""
        verb, target, _, self.body = self.request()
        return verb, target

    def answer(self, code: int, body: Any, headers: dict[str, str] | None = None) -> None:
        """Answer with JSON, or with text given as str."""
        content = body if isinstance(body, str) else json.dumps(body)
        head = {"Content-Length": str(len(content)), **(headers or {})}
        lines = [f"HTTP/1.1 {code} Whatever", *(f"{k}: {v}" for k, v in head.items()), "", content]
        self.protocol.dataReceived("\r\n".join(lines).encode())

    def stream(self) -> None:
        """Begin a chunked answer."""
        self.protocol.dataReceived(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")

    def chunk(self, *pieces: bytes) -> None:
        """Go on with it: pieces that come in one read, after which the reactor does what was put off."""
        self.protocol.dataReceived(b"".join(b"%x\r\n%s\r\n" % (len(each), each) for each in pieces))
        self.clock.advance(0)

    def event(self, kind: str, content: dict[str, Any]) -> None:
        """Send a watch event."""
        self.chunk(json.dumps({"type": kind, "object": content}).encode() + b"\n")

    def end(self) -> None:
        """End a chunked answer in the orderly way."""
        self.protocol.dataReceived(b"0\r\n\r\n")

    def cut(self) -> None:
        """Break the connection."""
        self.transport.close(ConnectionLost())
        self.clock.advance(0)


@implementer(IAgentEndpointFactory)
class _Endpoints:
    def __init__(self, reactor):
        self.reactor = reactor

    def endpointForURI(self, uri):
        return TCP4ClientEndpoint(self.reactor, "192.0.2.1", 6443, timeout=10)


class Api:
    """A client with its real agent, and the hand that plays the server."""

    def __init__(self, credentials: Any = None, *, on_response: Any = None, persistent: bool = False) -> None:
        self.clock = MemoryReactorClock()
        self.pool = HTTPConnectionPool(self.clock, persistent=persistent)
        agent = Agent.usingEndpointFactory(self.clock, _Endpoints(self.clock), pool=self.pool)
        access = ClusterAccess(
            server="https://kube.example:6443/prefix",
            ca_pem=None,
            credentials=StaticToken("sesame") if credentials is None else credentials,
        )
        self.client = ApiClient(
            access=access, agent=agent, clock=self.clock, pool=self.pool, on_response=on_response
        )

    @property
    def dials(self) -> int:
        """How many connection attempts wait for :meth:`accept` or :meth:`refuse`."""
        return len(self.clock.tcpClients)

    def accept(self) -> Connection:
        """Accept the oldest connection attempt."""
        return Connection(self.clock, self.clock.tcpClients.pop(0)[2])

    def refuse(self) -> None:
        """Refuse the oldest connection attempt."""
        factory = self.clock.tcpClients.pop(0)[2]
        factory.clientConnectionFailed(None, Failure(ConnectionRefusedError()))  # type: ignore[arg-type]  # no connector is needed to fail

    def pending_calls(self) -> list[Any]:
        """Say what is left on the clock after closed connections have gone."""
        self.clock.advance(0)
        return list(self.clock.getDelayedCalls())

    def start(self, coroutine: Any) -> Outcome:
        """Start a coroutine."""
        return Outcome(Deferred.fromCoroutine(coroutine))


class ChangingToken:
    """Credentials that count how often they are read again."""

    def __init__(self):
        self.rereads = 0

    async def header(self):
        return b"Bearer token-%d" % self.rereads

    async def reread(self):
        self.rereads += 1


class Outcome:
    """What became of a coroutine: ``result``, ``error``, or neither yet."""

    def __init__(self, deferred):
        self.deferred = deferred
        self.result = None
        self.error = None
        self.done = False
        deferred.addCallbacks(self._succeeded, self._failed)

    def _succeeded(self, result):
        self.result, self.done = result, True

    def _failed(self, failure):
        self.error, self.done = failure.value, True

    def cancel(self):
        """Cancel it."""
        self.deferred.cancel()


def status(code: int, reason: str, message: str = "words") -> dict[str, Any]:
    """Make a Status."""
    return {"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": message}


def set_object(*, replicas: int = 1, version: int = 10, generation: int = 1, **more: Any) -> dict[str, Any]:
    """
    Make a StatefulSet.

    :param more: ``observed`` (generation; default the same), ``uid``, ``name``, ``selector``.
    """
    spec: dict[str, Any] = {"selector": {"matchLabels": {"app": more.get("selector", "buildkitd")}}}
    if replicas:
        spec["replicas"] = replicas
    return {
        "metadata": {
            "name": more.get("name", "buildkitd"),
            "uid": more.get("uid", "set-1"),
            "resourceVersion": str(version),
            "generation": generation,
        },
        "spec": spec,
        "status": {"observedGeneration": more.get("observed", generation)},
    }


def pod_object(*, uid: str = "pod-a", ordinal: int = 0, version: int = 11, **more: Any) -> dict[str, Any]:
    """
    Make a pod, ready unless told otherwise.

    :param more: ``ready``, ``terminating``, ``ip``, ``owner``, ``phase``.
    """
    metadata: dict[str, Any] = {
        "name": f"buildkitd-{ordinal}",
        "uid": uid,
        "resourceVersion": str(version),
        "ownerReferences": [{"uid": more.get("owner", "set-1"), "controller": True}],
    }
    if more.get("terminating"):
        metadata["deletionTimestamp"] = "2026-11-23T21:33:04Z"
    ready = "True" if more.get("ready", True) else "False"
    return {
        "metadata": metadata,
        "status": {
            "phase": more.get("phase", "Running"),
            "podIP": more.get("ip", "10.0.0.1"),
            "conditions": [{"type": "Ready", "status": ready}],
        },
    }


def listing(version: int, *items: dict[str, Any]) -> dict[str, Any]:
    """Make a list."""
    return {"kind": "List", "metadata": {"resourceVersion": str(version)}, "items": list(items)}
