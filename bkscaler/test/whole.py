"""A sandbox and the whole of bkscaler in this process, in a time that runs faster."""

from __future__ import annotations

from datetime import UTC, datetime
from random import SystemRandom
from typing import Any

from zope.interface import directlyProvides, providedBy

from bkscaler.plugin import Options, makeService
from bkscaler.sandbox.options import read_settings
from bkscaler.sandbox.service import makeSandbox
from bkscaler.test.loopback import LOOPBACK, FastTime


class FastReactor(FastTime):
    """
    A reactor whose time runs faster.

    :param reactor: does everything else.
    """

    def __init__(self, reactor: Any) -> None:
        super().__init__(reactor)
        directlyProvides(self, providedBy(reactor))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)


class Whole:
    """
    A sandbox and a bkscaler before it; both are started by :meth:`start`.

    :param reactor: runs them.
    :param kubeconfig: where to write it.
    :param sandbox: options of the sandbox.
    :param bkscaler: options of bkscaler.
    :ivar port: where it listens, once started.
    """

    port: int

    def __init__(
        self, reactor: Any, kubeconfig: str, *, sandbox: tuple[str, ...] = (), bkscaler: tuple[str, ...] = ()
    ) -> None:
        self.kubeconfig = kubeconfig
        self.time = FastReactor(reactor)
        settings = read_settings(["--kubeconfig", kubeconfig, "--backend", "echo", *sandbox])
        random, now = SystemRandom().random, lambda: datetime.now(UTC)
        self._sandbox = makeSandbox(settings, self.time, now=now, random=random)
        self._words = ("--kubeconfig", kubeconfig, "--admin-addr", "off", *bkscaler)

    async def start(self) -> None:
        """Start both."""
        await self._sandbox.listen()
        options = Options({})
        options.parseOptions(["--listen-addr", f"{LOOPBACK}:0", *self._words])
        self._service = makeService(options, self.time)
        self._service.privilegedStartService()
        self._service.startService()
        listening = await self._service.getServiceNamed("listen-addr")._waitingForPort
        self.port = listening.getHost().port

    async def stop(self) -> None:
        """End both, with the connections that are left."""
        connections = self._service.getServiceNamed("listen-addr").factory
        for _ in range(2):  # the second time drops whoever was told why and lingers
            connections.cut_all()
        await connections.when_empty()
        await self._service.stopService()
        await self._sandbox.stopService()
