"""
The crowd of a soak: so many clients at a time, each with an errand that chance has drawn.

Imported by ``soak.course`` and ``soak.faults``.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from twisted.internet.protocol import ClientFactory, connectionDone
from twisted.internet.task import LoopingCall
from twisted.python.failure import Failure

from bkscaler.soak.clients import EchoClient, GrpcClient, Pattern
from bkscaler.soak.errands import Ending, Errand, draw
from bkscaler.soak.gate import LOOPBACK
from bkscaler.soak.views import View

Client = EchoClient | GrpcClient
TICK_S = 0.05
NEW_PER_TICK = 12
"""How many clients come at once at most, of themselves."""
CONNECT_LIMIT_S = 10.0
FIRST_ADDRESS = 1 << 16
"""Clients dial from 127.1.0.0 on, each from an address of its own; pods are at 127.16.0.0 and beyond."""
MOST_CLIENTS = 15 << 16


class Crowd:
    """
    Clients come from :meth:`come` to :meth:`cease`, and leave when they are done, or at :meth:`leave`.

    :param reactor: connects and tells time.
    :param chance: draws errands.
    :param port: where to, on 127.0.0.1.
    :param dialled: told each client when it dials.
    :param over: told each client of which nothing is left.
    :ivar count: how many have dialled.
    """

    def __init__(
        self,
        reactor: Any,
        chance: Random,
        *,
        port: Callable[[], int],
        dialled: Callable[[View], None],
        over: Callable[[View], None],
    ) -> None:
        self.count = 0
        self._reactor = reactor
        self._chance = chance
        self._port = port
        self._dialled = dialled
        self._over = over
        self._pattern = Pattern(chance)
        self._clients: dict[str, Client] = {}
        self._target = 0
        self._ticking = LoopingCall(self._tick)
        self._ticking.clock = reactor

    def __repr__(self) -> str:
        return f"<Crowd of {len(self)}, {self._target} are wanted>"

    def __len__(self) -> int:
        """Say how many there are, those that are still connecting included."""
        return len(self._clients)

    def come(self, target: int) -> None:
        """Let clients come until there are so many, and one for each that leaves."""
        self._target = target
        if not self._ticking.running:
            self._ticking.start(TICK_S)

    def cease(self) -> None:
        """Let no more clients come."""
        if self._ticking.running:
            self._ticking.stop()
        self._target = 0

    def send(self, errand: Errand) -> Client:
        """Let one client come."""
        assert self.count < MOST_CLIENTS
        number, self.count = self.count, self.count + 1
        address = FIRST_ADDRESS + number
        ip = f"127.{address >> 16}.{address >> 8 & 255}.{address & 255}"
        view = View(
            name=f"{number:08d}",
            kind=errand.kind,
            ip=ip,
            dialled_s=self._reactor.seconds(),
            honest=errand.honest,
        )
        client: Client
        if errand.speaks_http2:
            client = GrpcClient(view, errand, self._reactor)
        else:
            client = EchoClient(view, errand, self._pattern, self._reactor)
        self._clients[ip] = client
        self._dialled(view)
        factory = _Connecting(client, self._lost)
        self._reactor.connectTCP(LOOPBACK, self._port(), factory, CONNECT_LIMIT_S, (ip, 0))
        return client

    def leave(self, ending: Ending | None = None) -> None:
        """Let everybody leave at once who is connected; see :meth:`EchoClient.leave`."""
        for client in list(self._clients.values()):
            if client.connected:
                client.leave(ending)

    def _tick(self) -> None:
        missing = self._target - len(self)
        for _ in range(min(missing, NEW_PER_TICK)):
            self.send(draw(self._chance))

    def _lost(self, client: Client) -> None:
        del self._clients[client.view.ip]
        self._over(client.view)


class _Connecting(ClientFactory):
    """Connects one client, and hears of its end."""

    noisy = False

    def __init__(self, client: Client, lost: Callable[[Client], None]) -> None:
        self._client = client
        self._lost = lost

    def buildProtocol(self, addr: object) -> Client:
        """Give the client."""
        return self._client

    def clientConnectionLost(self, connector: object, reason: Failure = connectionDone) -> None:
        """Tell; its own ``connectionLost`` was called before."""
        self._lost(self._client)

    def clientConnectionFailed(self, connector: object, reason: Failure) -> None:
        """Tell why it could not connect."""
        self._client.view.failed = reason.getErrorMessage()
        self._lost(self._client)
