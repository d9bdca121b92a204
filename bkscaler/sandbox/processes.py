"""
Pods as local processes, each on an address of its own, ready when it accepts a connection.

Each process leads a session of its own, so that signals reach its children too. Its standard input is a
pipe from the sandbox: it closes when the sandbox dies, however that happens. Its output goes to the
sandbox's standard error.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from typing import Any

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import Factory, ProcessProtocol, Protocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from bkscaler.sandbox.backends import Command
from bkscaler.sandbox.objects import Random
from bkscaler.sandbox.pods import Addresses, ContainerEvents, PodProcess

PROBE_EVERY_S = 0.1
"""Seconds between two readiness probes."""

PROBE_LIMIT_S = 1.0
"""Seconds one readiness probe may take."""

_IN_A_SESSION = """
import os, sys
os.setsid()
try:
    os.execvp(sys.argv[1], sys.argv[1:])
except OSError as error:
    sys.exit(f"cannot run {sys.argv[1]}: {error.strerror}")
"""
_QUICKLY = ("-I", "-S", "-c", _IN_A_SESSION)


class LocalProcess(ProcessProtocol):
    """
    One process. Lives until it has been reaped; reports that to its events exactly once.

    :param process: what it runs.
    :param events: hears of readiness and of the exit.
    :ivar ended: fires with None when the process is gone; never fails.
    :ivar pid: its number; 0 before it has been started.
    """

    log = Logger()

    def __init__(self, process: PodProcess, events: ContainerEvents, reactor: Any) -> None:
        self.process = process
        self.ended: Deferred[None] = Deferred()
        self._events = events
        self._reactor = reactor
        self._probe_call: IDelayedCall | None = None
        self._alive = False
        self.pid = 0

    def __repr__(self) -> str:
        return f"<LocalProcess {self.process.name} on {self.process.ip}:{self.process.port}>"

    def connectionMade(self) -> None:
        """Begin to probe."""
        self.pid = getattr(self.transport, "pid", 0)
        self._alive = True
        self._probe_call = self._reactor.callLater(PROBE_EVERY_S, self._probe)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self._signal(signal.SIGKILL)

    def processExited(self, reason: Failure) -> None:
        """Kill what the process has left behind, as the end of a container does."""
        self._alive = False
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    def processEnded(self, reason: Failure) -> None:
        """Report the exit; 128 and more is a signal."""
        if self._probe_call is not None and self._probe_call.active():
            self._probe_call.cancel()
        value = reason.value
        signalled, code = getattr(value, "signal", None), getattr(value, "exitCode", None)
        self._events.exited(128 + signalled if signalled else code or 0)
        self.ended.callback(None)

    def _signal(self, number: signal.Signals) -> None:
        if not self._alive:
            return
        try:
            os.killpg(self.pid, number)
        except ProcessLookupError:
            # It has not become the leader of its session yet.
            os.kill(self.pid, number)

    def _probe(self) -> None:
        endpoint = TCP4ClientEndpoint(
            self._reactor, self.process.ip, self.process.port, timeout=PROBE_LIMIT_S
        )
        probing = endpoint.connect(Factory.forProtocol(Protocol))
        probing.addCallbacks(self._accepted, self._refused)
        probing.addErrback(lambda failure: self.log.failure("probe of a pod", failure))

    def _accepted(self, probe: Protocol) -> None:
        if probe.transport is not None:
            probe.transport.loseConnection()
        if self._alive:
            self._events.readiness_changed(True)

    def _refused(self, _failure: Failure) -> None:
        if self._alive:
            self._probe_call = self._reactor.callLater(PROBE_EVERY_S, self._probe)


class LocalRunner:
    """
    Runs pods as local processes.

    :param reactor: spawns and connects.
    :param random: for the first address.
    :param command: gives the program for a pod.
    """

    def __init__(self, reactor: Any, *, random: Random, command: Command) -> None:
        self._reactor = reactor
        self._command = command
        self._addresses = Addresses(random)
        self._running: list[LocalProcess] = []

    @property
    def running(self) -> list[LocalProcess]:
        """The processes that have not been reaped, oldest first."""
        return list(self._running)

    def new_address(self) -> str:
        """Give an IP address that no pod has had."""
        return self._addresses.next()

    def start(self, process: PodProcess, events: ContainerEvents) -> LocalProcess:
        """Start a process; one that cannot be executed reports an exit with 1."""
        local = LocalProcess(process, events, self._reactor)
        arguments = [sys.executable, *_QUICKLY, *self._command(process)]
        self._reactor.spawnProcess(
            local, sys.executable, arguments, env=dict(os.environ), childFDs={0: "w", 1: 2, 2: 2}
        )
        self._running.append(local)
        local.ended.addCallback(lambda _: self._running.remove(local))
        return local

    def stop(self) -> Deferred[None]:
        """
        Kill whatever still runs.

        :returns: fires with None when every process has been reaped.
        """
        waiting: list[Deferred[None]] = []
        for local in list(self._running):
            gone: Deferred[None] = Deferred()
            local.ended.addCallback(gone.callback)
            waiting.append(gone)
            local.kill()
        return DeferredList(waiting).addCallback(lambda _: None)
