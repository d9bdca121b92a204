"""
A field: one server, and in front of it bkscaler and its peers, all running.

bkscaler runs as users run it, ``twistd -n bkscaler`` with a sandbox as its cluster, and its builder is the
server that all the others stand in front of as well. Imported by ``bench.course``.
"""

from __future__ import annotations

import os
import shlex
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.error import ConnectError
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater

from bkscaler.bench import backend
from bkscaler.bench.peers import BKSCALER, DIRECT, Front, Peer
from bkscaler.bench.tools import Toolbox
from bkscaler.bench.usage import Usage
from bkscaler.demo.children import Child
from bkscaler.demo.stage import Scene, Stage, inherited
from bkscaler.demo.timeline import Timeline
from bkscaler.errors import BkscalerError

LOOPBACK = "127.0.0.1"
BACKEND = "bkscaler.bench.backend"
TRIES = 100
TRY_EVERY_S = 0.05


class NoAnswer(BkscalerError):
    """A proxy that was started does not accept. Give up, and show what it said."""


@dataclass(frozen=True, kw_only=True)
class Spot:
    """
    One way to the server.

    :param name: of the proxy, or ``direct``.
    :param host: an IP address.
    :param port: where clients connect.
    :param usage: tells what the proxy has used; None for ``direct``.
    """

    name: str
    host: str
    port: int
    usage: Usage | None


def free_port() -> int:
    """Give a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


class Field:
    """
    Opened for a while; :meth:`close` it whatever happens.

    :param kind: of the server, see :mod:`bkscaler.bench.backend`.
    :param peers: who stands beside bkscaler.
    :param box: what this machine has.
    :param flags: further flags of bkscaler.
    :param reactor: spawns, connects and tells time.
    :param random: gives a number in [0, 1), for jitter.
    :ivar spots: the ways to the server, bkscaler's first; there after :meth:`open`.
    """

    def __init__(
        self,
        kind: str,
        peers: Sequence[Peer],
        *,
        box: Toolbox,
        flags: tuple[str, ...],
        reactor: Any,
        random: Callable[[], float],
    ) -> None:
        self.spots: list[Spot] = []
        self._kind = kind
        self._peers = peers
        self._box = box
        self._flags = flags
        self._reactor = reactor
        self._random = random
        self._directory = ""
        self._stage: Stage | None = None
        self._children: list[Child] = []

    def __repr__(self) -> str:
        return f"<Field of {self._kind}: {', '.join(spot.name for spot in self.spots)}>"

    async def open(self) -> None:
        """
        Start everything, wake the builder, and wait until every proxy accepts.

        :raises NoAnswer: when one does not.
        :raises ChildEnded: when the sandbox or bkscaler ended.
        """
        self._directory = tempfile.mkdtemp(prefix="bkscaler-bench-")
        await self._open_stage()
        with open(os.path.join(self._directory, backend.ADDRESS), encoding="utf-8") as file:
            target = file.read()
        for peer in self._peers:
            await self._start(peer, target)
        host, _, port = target.partition(":")
        self.spots.append(Spot(name=DIRECT, host=host, port=int(port), usage=None))

    async def close(self) -> None:
        """End everything. May be called again, then it does nothing."""
        children, self._children = self._children, []
        for child in children:
            await child.end()
        if self._stage is not None:
            await self._stage.close()
        shutil.rmtree(self._directory, ignore_errors=True)

    async def _open_stage(self) -> None:
        """Start the sandbox and bkscaler; come to it as a client, so that the builder wakes."""
        timeline = Timeline(self._reactor, lambda _: None)
        words = (
            sys.executable,
            "-m",
            BACKEND,
            self._kind,
            "{ip}",
            "{port}",
            self._directory,
        )
        scene = Scene(
            start_delay="0s",
            stop_delay="0s",
            idle_timeout="24h",
            backend_command=shlex.join(words),
            flags=self._flags,
        )
        self._stage = Stage(scene, timeline, self._reactor, self._random)
        await self._stage.open()
        bkscaler = self._stage.children[-1]
        awake = bkscaler.said("builder is awake")
        client = await self._connect(self._stage.port)
        await awake
        client.transport.abortConnection()
        self._add(BKSCALER, self._stage.port, bkscaler)

    async def _start(self, peer: Peer, target: str) -> None:
        port = free_port()
        front = Front(port=port, target=target, directory=self._directory, box=self._box)
        launch = peer.launch(front)
        for path, text in launch.files.items():
            with open(path, "w", encoding="utf-8") as file:
                file.write(text)
        child = Child.spawn(peer.name, launch.words, inherited(os.environ), self._reactor)
        self._children.append(child)
        for _ in range(TRIES):
            try:
                client = await self._connect(port)
            except ConnectError:
                await deferLater(self._reactor, TRY_EVERY_S)
                continue
            client.transport.abortConnection()
            self._add(peer.name, port, child)
            return
        raise NoAnswer(f"{peer.name} does not accept connections: {'; '.join(child.tail)}")

    def _connect(self, port: int) -> Deferred[Any]:
        return TCP4ClientEndpoint(self._reactor, LOOPBACK, port).connect(Factory.forProtocol(Protocol))

    def _add(self, name: str, port: int, child: Child) -> None:
        usage = Usage(child.transport.pid)  # type: ignore[union-attr]  # a process
        self.spots.append(Spot(name=name, host=LOOPBACK, port=port, usage=usage))
