"""
The scene of a demo: a sandbox and ``twistd -n bkscaler``, as processes with a directory of their own.

Every port is one that the system chose, so that several demos can run side by side; the children say which.
Imported by ``demo.story``.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import treq
from twisted.internet.defer import Deferred, FirstError, gatherResults
from twisted.internet.error import ConnectError
from twisted.internet.task import deferLater
from twisted.web.client import ResponseFailed

from bkscaler.config import SETTINGS
from bkscaler.demo.children import Child
from bkscaler.demo.timeline import Step, Timeline
from bkscaler.demo.watching import Audience
from bkscaler.kube.kubeconfig import load

T = TypeVar("T")

ASK_EVERY_S = 0.05
"""Seconds between two questions to ``/readyz``."""
ANSWER_LIMIT_S = 2.0
TWISTD = (sys.executable, "-c", "from twisted.scripts.twistd import run; run()")
_SANDBOX = (sys.executable, "-m", "bkscaler.sandbox")


@dataclass(frozen=True, kw_only=True)
class Scene:
    """
    What a demo is set up with. Durations are as the command lines of the two programs take them.

    :param start_delay: how long a pod takes to start.
    :param stop_delay: how long it takes to stop.
    :param idle_timeout: bkscaler's ``--idle-timeout``.
    :param backend: the sandbox's ``--backend``.
    :param backend_command: the sandbox's ``--backend-command``, or None for what ``backend`` says.
    :param fail: the sandbox's ``--fail``, or None.
    :param flags: further flags of bkscaler.
    """

    start_delay: str = "2s"
    stop_delay: str = "1s"
    idle_timeout: str = "3s"
    backend: str = "echo"
    backend_command: str | None = None
    fail: str | None = None
    flags: tuple[str, ...] = ()


def inherited(environ: Mapping[str, str]) -> dict[str, str]:
    """Give the environment for the children: ours, without what would override the demo's own settings."""
    ours = {setting.env for setting in SETTINGS}
    return {**{k: v for k, v in environ.items() if k not in ours}, "PYTHONUNBUFFERED": "1"}


async def together(waits: Sequence[Deferred[T]]) -> list[T]:
    """
    Wait for several things at once.

    :returns: the results, in the order of the waits.
    :raises Exception: the first failure there is, as it is.
    """
    try:
        return await gatherResults(waits, consumeErrors=True)
    except FirstError as error:
        error.subFailure.raiseException()


class Stage:
    """
    Both processes and who watches them. :meth:`open` it once; :meth:`close` it whatever happens.

    :param scene: what it is set up with.
    :param timeline: told when the two are ready.
    :param reactor: spawns, connects and tells time.
    :param random: gives a number in [0, 1), for jitter.
    :ivar scene: as given.
    :ivar children: those that have been started, bkscaler last.
    :ivar audience: watches the cluster; None until it is there.
    :ivar lost: fires with the :class:`~bkscaler.demo.children.Child` that ended first, unless we ended it.
    :ivar port: where clients connect, on 127.0.0.1; 0 until it is known.
    :ivar admin_port: where ``/readyz`` is served.
    :ivar directory: holds the kubeconfig; made by :meth:`open`, removed by :meth:`close`.
    """

    def __init__(self, scene: Scene, timeline: Timeline, reactor: Any, random: Callable[[], float]) -> None:
        self.children: list[Child] = []
        self.audience: Audience | None = None
        self.lost: Deferred[Child] = Deferred()
        self.port = self.admin_port = 0
        self.directory = ""
        self.scene = scene
        self._timeline = timeline
        self._reactor = reactor
        self._random = random
        self._environ = inherited(os.environ)
        self._ending = self._closed = False

    def __repr__(self) -> str:
        return f"<Stage of {self.children}, clients connect to port {self.port}>"

    @property
    def kubeconfig(self) -> str:
        """Path of the file that leads to the sandbox."""
        return os.path.join(self.directory, "kubeconfig")

    async def open(self) -> None:
        """
        Start both and wait until they are ready.

        :raises ChildEnded: when one of them ended instead.
        :raises CancelledError: when the caller cancels; :meth:`close` still has to be called.
        """
        self.directory = tempfile.mkdtemp(prefix="bkscaler-demo-")
        await self._start_sandbox()
        await self._start_bkscaler()

    def end_bkscaler(self) -> Deferred[int]:
        """Tell bkscaler to end, as Kubernetes would; fires with its exit status."""
        self._ending = True
        return self.children[-1].end()

    async def close(self) -> None:
        """End both, bkscaler first, and remove the directory. May be called again, then it does nothing."""
        if self._closed:
            return
        self._ending = self._closed = True
        if self.audience is not None:
            await self.audience.stop()
        for child in reversed(self.children):
            await child.end()
        if self.directory:
            shutil.rmtree(self.directory, ignore_errors=True)

    async def _start_sandbox(self) -> None:
        scene = self.scene
        words = ["--kubeconfig", self.kubeconfig, "--backend", scene.backend]
        words += ["--start-delay", scene.start_delay, "--stop-delay", scene.stop_delay]
        words += ["--backend-command", scene.backend_command] if scene.backend_command else []
        words += ["--fail", scene.fail] if scene.fail else []
        sandbox = self._spawn("the sandbox", *_SANDBOX, *words)
        ready = await sandbox.said(r"sandbox ready: server=(\S+) .*statefulset=([^/\s]+)/(\S+)")
        self.audience = Audience(
            self._timeline,
            access=load(self.kubeconfig),
            namespace=ready[2],
            name=ready[3],
            reactor=self._reactor,
            random=self._random,
        )
        self.audience.start()
        self._timeline.happened(
            Step.CLUSTER_UP, f"a sandbox at {ready[1]}, StatefulSet {ready[2]}/{ready[3]}"
        )

    async def _start_bkscaler(self) -> None:
        words = ["-n", "--pidfile=", "bkscaler", "--kubeconfig", self.kubeconfig]
        words += ["--listen-addr", "127.0.0.1:0", "--admin-addr", "127.0.0.1:0"]
        words += ["--idle-timeout", self.scene.idle_timeout, *self.scene.flags]
        bkscaler = self._spawn("bkscaler", *TWISTD, *words)
        flags = ("listen-addr", "admin-addr")
        said = [bkscaler.said(rf"--{flag}: listening on .*port=(\d+)") for flag in flags]
        ports = await together(said)
        self.port, self.admin_port = (int(found[1]) for found in ports)
        while await self._readiness() != 200:
            await deferLater(self._reactor, ASK_EVERY_S)
        self._timeline.happened(
            Step.PROXY_READY,
            f"clients connect to 127.0.0.1:{self.port}; :{self.admin_port}/readyz answers 200",
        )

    def _spawn(self, name: str, *words: str) -> Child:
        child = Child.spawn(name, words, self._environ, self._reactor)
        self.children.append(child)
        child.ended().addCallback(lambda _: self._ended(child))
        return child

    def _ended(self, child: Child) -> None:
        if not self._ending and not self.lost.called:
            self.lost.callback(child)

    async def _readiness(self) -> int:
        """Ask ``/readyz`` for its status; 0 when there is no answer."""
        url = f"http://127.0.0.1:{self.admin_port}/readyz"
        try:
            answer = await treq.get(url, reactor=self._reactor, timeout=ANSWER_LIMIT_S, persistent=False)
            await answer.content()
        except (ConnectError, ResponseFailed):
            return 0
        return int(answer.code)
