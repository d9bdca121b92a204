"""
What a soak runs on: a sandbox with its HTTPS API and its pods, a gate before that, and bkscaler under twistd.

The cluster lives in the soak's own process, so that what takes effect in it is seen in that moment; its pods
are processes, and bkscaler reaches its API through sockets only. Imported by ``soak.faults``.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

import treq
from twisted.internet.defer import gatherResults
from twisted.internet.error import ConnectError
from twisted.internet.task import deferLater
from twisted.web.client import ResponseFailed

from bkscaler.config import Settings, read_settings
from bkscaler.demo.stage import TWISTD, inherited
from bkscaler.errors import BkscalerError
from bkscaler.sandbox.cluster import Cluster
from bkscaler.sandbox.faults import no_faults
from bkscaler.sandbox.options import read_settings as read_sandbox_settings
from bkscaler.sandbox.processes import LocalRunner
from bkscaler.sandbox.service import makeSandbox
from bkscaler.sandbox.state import Change
from bkscaler.soak.gate import LOOPBACK, Gate
from bkscaler.soak.program import Program
from bkscaler.soak.rests import Rest, take_rest

ASK_EVERY_S = 0.05
PATIENCE_S = 15.0
"""How long anything of the stage may take."""
BUILDER = "bkscaler.soak.builder"
START_DELAY, STOP_DELAY = "300ms", "200ms"
FLAGS = {
    "listen-addr": "127.0.0.1:0",
    "admin-addr": "127.0.0.1:0",
    "log-format": "json",
    "idle-timeout": "2s",
    "hold-after": "500ms",
    "ready-wait-timeout": "60s",
    "drain-timeout": "60s",
    "max-connections": "1300",
}
"""How bkscaler is run; all else as it is by default."""


class StageFailed(BkscalerError):
    """Something of the stage does not come about. Give up, and show why."""


class Stage:
    """
    Open it once, and close it whatever happens; in between bkscaler may be ended and started again.

    :param directory: for kubeconfigs and logs; exists.
    :param reactor: does everything.
    :param now: the wall clock.
    :param random: gives numbers in [0, 1), for the cluster.
    :param on_line: told each line of bkscaler's log.
    :param on_scaled: told each change of the StatefulSet's replicas: before and after.
    :ivar settings: bkscaler's.
    :ivar program: bkscaler, as it runs; None before and in between.
    :ivar port: where clients connect, on 127.0.0.1.
    :ivar gate: before the API.
    """

    gate: Gate
    cluster: Cluster

    def __init__(
        self,
        directory: str,
        reactor: Any,
        *,
        now: Callable[[], datetime],
        random: Callable[[], float],
        on_line: Callable[[str], None],
        on_scaled: Callable[[int, int], None],
    ) -> None:
        self.settings: Settings = read_settings(FLAGS, {})
        self.directory = directory
        self.program: Program | None = None
        self.port = self.admin_port = 0
        self._reactor = reactor
        self._on_line = on_line
        self._on_scaled = on_scaled
        self._processes = 0
        command = f"{sys.executable} -m {BUILDER} {{ip}} {{port}}"
        words = ["--kubeconfig", os.path.join(directory, "direct"), "--backend-command", command]
        words += ["--start-delay", START_DELAY, "--stop-delay", STOP_DELAY]
        self._sandbox = makeSandbox(read_sandbox_settings(words), reactor, now=now, random=random)

    def __repr__(self) -> str:
        return f"<Stage {self.directory}, clients connect to port {self.port}>"

    @property
    def kubeconfig(self) -> str:
        """Path of the file that leads bkscaler to the cluster, through the gate."""
        return os.path.join(self.directory, "kubeconfig")

    @property
    def runner(self) -> LocalRunner:
        """What runs the pods."""
        runner = self.cluster.runner
        assert isinstance(runner, LocalRunner)
        return runner

    async def open(self) -> None:
        """Start the cluster and the gate. bkscaler is started for itself."""
        ready = await self._sandbox.listen()
        self.cluster = self._sandbox.cluster
        self.cluster.state.subscribe("statefulsets", self._set_changed)
        port = urlsplit(ready.url).port or 0
        self.gate = Gate(self._reactor, port)
        self.gate.open()
        with open(ready.kubeconfig, encoding="utf-8") as file:
            text = file.read()
        with open(self.kubeconfig, "w", encoding="utf-8") as file:
            file.write(text.replace(f":{port}", f":{self.gate.port}"))

    async def start(self) -> None:
        """
        Start bkscaler and wait until it is ready.

        :raises ChildEnded: when it ended instead.
        :raises StageFailed: when it does not become ready.
        """
        self._processes += 1
        path = os.path.join(self.directory, f"bkscaler-{self._processes}.log")
        words = [*TWISTD, "-n", "--pidfile=", "bkscaler", "--kubeconfig", self.kubeconfig]
        words += [word for flag, value in FLAGS.items() for word in (f"--{flag}", value)]
        self.program = program = Program.run(
            "bkscaler", words, inherited(os.environ), path=path, on_line=self._on_line, reactor=self._reactor
        )
        flags = ("listen-addr", "admin-addr")
        said = gatherResults([program.said(rf"--{flag}: listening on .*port=(\d+)") for flag in flags])
        self.port, self.admin_port = (int(found[1]) for found in await said)
        await self.until(self._is_ready, "bkscaler is not ready")

    async def end(self) -> int:
        """Tell bkscaler to end, as Kubernetes would, and wait; give its exit status."""
        assert self.program is not None
        program, self.program = self.program, None
        program.signal(signal.SIGTERM)
        return await program.ended()

    async def close(self) -> None:
        """End everything. May be called at any time, and again."""
        if self.program is not None:
            program, self.program = self.program, None
            await program.end()
        if self._sandbox.running:
            await self.gate.close()
            await self._sandbox.stopService()

    async def metrics(self) -> str:
        """Give what ``/metrics`` answers."""
        return await self._ask("metrics")

    def rest(self) -> Rest:
        """Look at what bkscaler holds."""
        assert self.program is not None
        return take_rest(
            self.program.pid,
            {
                self.gate.port: "to the API",
                self.port: "of clients",
                self.admin_port: "of the admin port",
                self.settings.target_port: "to builders",
            },
        )

    def mend(self) -> None:
        """Let the cluster be in good health from now on."""
        self.cluster.root.faults = no_faults
        self.gate.open()

    async def until(self, condition: Callable[[], Any], why_not: str, limit_s: float = PATIENCE_S) -> None:
        """
        Look again and again until something holds.

        :param condition: plain, or a coroutine function.
        :raises StageFailed: when it does not come about.
        """
        give_up_s = self._reactor.seconds() + limit_s
        while True:
            holds = condition()
            if await holds if hasattr(holds, "__await__") else holds:
                return
            if self._reactor.seconds() > give_up_s:
                raise StageFailed(f"{why_not} within {limit_s:g} s")
            await deferLater(self._reactor, ASK_EVERY_S)

    async def _is_ready(self) -> bool:
        try:
            return (await self._ask("readyz")).startswith("ready")
        except (ConnectError, ResponseFailed):
            return False

    async def _ask(self, what: str) -> str:
        url = f"http://{LOOPBACK}:{self.admin_port}/{what}"
        answer = await treq.get(url, reactor=self._reactor, timeout=PATIENCE_S, persistent=False)
        return str(await answer.text())

    def _set_changed(self, change: Change) -> None:
        before = 0 if change.previous is None else change.previous["spec"].get("replicas", 1)
        after = 0 if change.type == "DELETED" else change.object["spec"].get("replicas", 1)
        if before != after:
            self._on_scaled(before, after)
