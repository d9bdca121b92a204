"""
The pods' containers: builders in memory, which echo what they are sent and tell whom they serve.

A builder answers an HTTP/2 client through ``h2``, which accepts nothing that the protocol does not allow, and
any other by sending each byte back. To one that says nothing it speaks first, as buildkitd does. So a client
that gets its own bytes back, all of them, in their order, knows that both directions are in order.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import h2.config
import h2.connection
import h2.events
import h2.exceptions
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from bkscaler.frontend.sniff import PREFACE
from bkscaler.sandbox.pods import SIGKILL_CODE, Addresses, ContainerEvents, PodProcess
from bkscaler.simulation.links import End
from bkscaler.simulation.network import Host, Network

GREETING_S = 0.15
"""When a builder speaks first: after the first bytes of whoever has some to send."""
TAG_BYTES = 8
"""A plain client begins with so many bytes that name it; an HTTP/2 client has a header for that."""


class Builder(Host):
    """
    One container. Listens when it is ready, dies with everything it serves.

    :ivar uid: of its pod.
    :ivar serving: the connections that it has, with whom each serves; ``""`` when that is not known yet.
    """

    def __init__(self, runner: Builders, process: PodProcess, events: ContainerEvents) -> None:
        super().__init__(runner.network, f"{process.name}/{process.uid[:4]}", process.ip)
        self.uid = process.uid
        self.serving: dict[Served, str] = {}
        self.runner = runner
        self._process = process
        self._events = events
        self._ready = False

    def set_ready(self, ready: bool = True) -> None:
        """Accept connections, or refuse them, and be seen to."""
        if not self.alive or ready == self._ready:
            return
        self._ready = ready
        if ready and (self.ip, self._process.port) not in self.network.listening:
            self.listen(self._process.port, _Services(self))
        elif not ready:
            for listening in list(self.ports.values()):
                listening.close()
        self._events.readiness_changed(ready)

    def exit(self, code: int = 0) -> None:
        """End, cutting what is served."""
        if self.alive:
            self.runner.containers.pop(self._process.name, None)
            self.die()
            self._events.exited(code)

    def terminate(self) -> None:
        """Take the SIGTERM."""
        if self.alive and self.runner.exit_after_s is not None:
            self.runner.later(self.runner.exit_after_s, self.exit)

    def kill(self) -> None:
        """Take the SIGKILL."""
        self.exit(SIGKILL_CODE)


class _Services(Factory):
    def __init__(self, builder: Builder) -> None:
        self._builder = builder

    def buildProtocol(self, addr: object) -> Served:
        return Served(self._builder)


@implementer(IHalfCloseableProtocol)
class Served(Protocol):
    """One connection of a builder."""

    transport: Any = None

    def __init__(self, builder: Builder) -> None:
        self._builder = builder
        self._first = b""
        self._calls: Calls | None = None
        builder.serving[self] = ""

    def connectionMade(self) -> None:
        """Speak first, if need be."""
        self._builder.runner.later(GREETING_S, self._greet)

    def _greet(self) -> None:
        if self._calls is None and not self._first and self in self._builder.serving and self._builder.alive:
            self._calls = Calls(self._serve, self.transport)

    def dataReceived(self, data: bytes) -> None:
        """Answer; find out who it is first."""
        if self._calls is not None:
            self._calls.received(data)
        elif self._known:
            self.transport.write(data)
        else:
            self._first += data
            self._find_out()

    def _find_out(self) -> None:
        """Keep the first bytes until they tell who it is."""
        first, beginning = self._first, self._first[: len(PREFACE)]
        if len(first) >= TAG_BYTES and not PREFACE.startswith(beginning):
            self._serve(first[:TAG_BYTES].decode("latin-1"))
            self.transport.write(first)
        elif beginning == PREFACE:
            self._calls = Calls(self._serve, self.transport)
            self._calls.received(first)

    @property
    def _known(self) -> bool:
        return self._builder.serving.get(self, "") != ""

    def _serve(self, who: str) -> None:
        self._builder.serving[self] = who
        self._builder.runner.on_served(who, self._builder, self.transport)

    def readConnectionLost(self) -> None:
        """All has come; close behind what is still to be written, bytes of somebody unknown included."""
        if not self._known and self._calls is None:
            self.transport.write(self._first)
        self.transport.loseConnection()

    def writeConnectionLost(self) -> None:
        """Do nothing."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Forget it."""
        self._builder.serving.pop(self, None)


class Calls:
    """The HTTP/2 side of a builder: each call's body is sent back when it is complete."""

    def __init__(self, serve: Callable[[str], None], transport: Any) -> None:
        self._serve = serve
        self._transport = transport
        self._broken = False
        self._bodies: dict[int, bytearray] = {}
        self._h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        self._h2.initiate_connection()
        self._send()

    def received(self, data: bytes) -> None:
        """Take bytes; after what is no HTTP/2 nothing is said any more."""
        if self._broken:
            return
        try:
            events = self._h2.receive_data(data)
        except h2.exceptions.H2Error:
            self._broken = True
            self._transport.loseConnection()
            return
        given_up = {event.stream_id for event in events if isinstance(event, h2.events.StreamReset)}
        for event in events:
            if isinstance(event, h2.events.RequestReceived):
                headers = dict(event.headers)
                self._serve(headers[b"client"].decode())
                self._bodies[event.stream_id] = bytearray()
            elif isinstance(event, h2.events.DataReceived):
                self._bodies[event.stream_id] += event.data
                self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, h2.events.StreamEnded) and event.stream_id not in given_up:
                self._answer(event.stream_id)
            elif isinstance(event, h2.events.StreamReset):
                self._bodies.pop(event.stream_id, None)
        self._send()

    def _answer(self, stream: int) -> None:
        body = bytes(self._bodies.pop(stream, b""))
        self._h2.send_headers(stream, [(":status", "200"), ("content-type", "application/grpc")])
        self._h2.send_data(stream, body)
        self._h2.send_headers(stream, [("grpc-status", "0")], end_stream=True)

    def _send(self) -> None:
        self._transport.write(self._h2.data_to_send())


class Builders:
    """
    Runs the containers of a world.

    :param random: gives numbers in [0, 1), for addresses.
    :ivar ready_after_s: seconds from a container's start to its readiness; None: never.
    :ivar exit_after_s: seconds from SIGTERM to the exit; None ignores SIGTERM.
    :ivar reuse: whether the next pod gets the last one's address, once that is free.
    :ivar in_use: says whether a pod has an address.
    :ivar containers: the running container of each pod name.
    :ivar on_served: told whom a builder serves, once for each connection or call.
    """

    def __init__(self, network: Network, random: Callable[[], float]) -> None:
        self.network = network
        self.ready_after_s: float | None = 0.15
        self.exit_after_s: float | None = 0.0
        self.reuse = False
        self.in_use: Callable[[str], bool] = lambda ip: False
        self.containers: dict[str, Builder] = {}
        self.on_served: Callable[[str, Builder, End], None] = lambda who, builder, end: None
        self._addresses = Addresses(random)
        self._last = ""

    def new_address(self) -> str:
        """Give an address."""
        if not self.reuse or not self._last or self.in_use(self._last):
            self._last = self._addresses.next()
        return self._last

    def start(self, process: PodProcess, events: ContainerEvents) -> Builder:
        """Start a container that becomes ready after ``ready_after_s``."""
        builder = Builder(self, process, events)
        self.containers[process.name] = builder
        if self.ready_after_s is not None:
            self.later(self.ready_after_s, builder.set_ready)
        return builder

    def later(self, seconds: float, function: Callable[[], object]) -> None:
        """Call a function by the clock."""
        self.network.clock.callLater(seconds, function)

    def stop(self) -> Deferred[None]:
        """Kill the containers."""
        for builder in list(self.containers.values()):
            builder.die()
        return succeed(None)
