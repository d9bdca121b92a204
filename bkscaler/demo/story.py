"""
What happens on the stage: the demo that ends by itself, and the set-up that stays until it is ended.

Both return an exit status. Imported by ``demo.__main__``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.task import deferLater

from bkscaler.demo.children import ChildEnded
from bkscaler.demo.clients import EchoClient
from bkscaler.demo.stage import Stage, together
from bkscaler.demo.timeline import Step, Timeline
from bkscaler.durations import format_duration
from bkscaler.errors import BkscalerError
from bkscaler.sandbox.backends import Backend

MIB = 1024 * 1024
BETWEEN_CLIENTS_S = 0.2
"""How long after one client the next one comes: the later ones find a builder that is being woken."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """
    What the demo's clients do.

    :param clients: how many, >= 1; all of them come while the builder sleeps or wakes.
    :param mebibytes: what each sends and gets back, >= 1.
    :param idle_s: bkscaler's idle timeout.
    :param limit_s: when the demo gives up.
    """

    clients: int = 3
    mebibytes: int = 4
    idle_s: float = 3.0
    limit_s: float = 28.0


class Demo:
    """
    One performance, from opening the stage to the last step. Lives until :meth:`run` has returned.

    :param stage: not opened yet; closed by who made it.
    :param timeline: told of everything.
    :param plan: what the clients do.
    :param reactor: connects and tells time.
    :param random_bytes: gives that many random bytes.
    """

    def __init__(
        self, stage: Stage, timeline: Timeline, plan: Plan, reactor: Any, random_bytes: Callable[[int], bytes]
    ) -> None:
        self._stage = stage
        self._timeline = timeline
        self._plan = plan
        self._reactor = reactor
        self._random_bytes = random_bytes
        self._equal = 0

    async def run(self) -> str:
        """
        Perform everything, for as long as the plan allows.

        :returns: what kept it from its end; ``""`` when nothing did.
        :raises CancelledError: when the caller cancels.
        """
        reasons: list[str] = []
        work = Deferred.fromCoroutine(self._perform())

        def stop(why: str) -> None:
            reasons.append(why)
            work.cancel()

        limit = f"not finished within {format_duration(self._plan.limit_s)}"
        late = self._reactor.callLater(self._plan.limit_s, stop, limit)
        self._stage.lost.addCallback(lambda child: stop(f"{child.name} ended with status {child.status}"))
        try:
            await work
        except (CancelledError, BkscalerError) as error:
            if isinstance(error, CancelledError) and not reasons:
                raise
            return reasons[0] if reasons else str(error)
        finally:
            if late.active():
                late.cancel()
        return ""

    async def _perform(self) -> None:
        """Go through the steps."""
        await self._stage.open()
        await self._serve_clients()
        await self._fall_asleep()
        status = await self._stage.end_bkscaler()
        if status == 0:
            self._timeline.happened(Step.ENDED, "status 0 after SIGTERM")

    async def _serve_clients(self) -> None:
        """Let all clients come, one after another, and wait until all have left."""
        clients = []
        for number in range(1, self._plan.clients + 1):
            clients.append((await self._connect(number)).done)
            if number < self._plan.clients:
                await deferLater(self._reactor, BETWEEN_CLIENTS_S)
        await together(clients)
        self._timeline.happened(Step.LAST_GONE)

    async def _connect(self, number: int) -> EchoClient:
        """Connect one client."""
        who = f"client {number} of {self._plan.clients}"
        came_s = self._timeline.elapsed_s

        def answered() -> None:
            waited_s = self._timeline.elapsed_s - came_s
            self._timeline.happened(Step.ANSWERED, f"{who}, after it has waited {waited_s:.3f} s")

        payload = self._random_bytes(self._plan.mebibytes * MIB)
        client = EchoClient(payload, on_first_byte=answered, on_equal=self._one_equal)
        endpoint = TCP4ClientEndpoint(self._reactor, "127.0.0.1", self._stage.port)
        await connectProtocol(endpoint, client)
        self._timeline.happened(Step.CONNECTED, who)
        return client

    def _one_equal(self) -> None:
        """Count the clients that have got back what they sent."""
        self._equal += 1
        if self._equal == self._plan.clients:
            each = f"{self._equal} x {self._plan.mebibytes} MiB of random bytes"
            self._timeline.happened(Step.COMPARED, f"{each}, there and back: equal")

    async def _fall_asleep(self) -> None:
        """See that the builder is kept for a while, and then that it is put to sleep."""
        await deferLater(self._reactor, self._plan.idle_s / 2)
        if self._stage.audience is not None and self._stage.audience.replicas == 1:
            kept = format_duration(self._plan.idle_s)
            self._timeline.happened(Step.IDLE, f"the builder is kept for {kept}, in case somebody comes back")
        await self._timeline.when(Step.ASLEEP)
        await self._timeline.when(Step.POD_GONE)


async def show(demo: Demo, stage: Stage, timeline: Timeline, write: Callable[[str], object]) -> int:
    """
    Run a demo and say what came of it.

    :returns: 0 when every step has happened, else 1.
    """
    why = await demo.run()
    missing = timeline.missing
    if not missing and not why:
        write(f"\nAll {len(Step)} steps happened, in {timeline.elapsed_s:.1f} s.")
        return 0
    write(f"\nFAILED: {why or 'a step did not happen'}.")
    write("Missing: " + ", ".join(step.value for step in missing))
    for line in last_words(stage):
        write(line)
    return 1


async def stay(stage: Stage, write: Callable[[str], object]) -> int:
    """
    Keep the set-up running until it breaks, which nobody expects, or the caller cancels, which is its end.

    :returns: 1, when a child has ended.
    """
    try:
        await stage.open()
        for line in invitation(stage):
            write(line)
        child = await stage.lost
        why = f"{child.name} ended with status {child.status}"
    except ChildEnded as error:
        why = str(error)
    write(f"\nFAILED: {why}.")
    for line in last_words(stage):
        write(line)
    return 1


def last_words(stage: Stage) -> list[str]:
    """Give the last lines of every child, each under its name."""
    lines = []
    for child in stage.children:
        lines += [f"\nLast lines of {child.name}:", *(f"    {line}" for line in child.tail or ["(none)"])]
    return lines


def invitation(stage: Stage) -> list[str]:
    """Give the lines to type for somebody who wants to play with it."""
    address, kubectl = f"127.0.0.1:{stage.port}", f"kubectl --kubeconfig {stage.kubeconfig}"
    return [
        "",
        "From other terminals. Wake the builder with a client; it goes to sleep when the last one has left:",
        f"    nc 127.0.0.1 {stage.port}",
        "Look at the cluster:",
        f"    {kubectl} get sts,pods",
        f"    {kubectl} get pods --watch",
        f"    {kubectl} describe sts buildkitd",
        "Ask whether bkscaler is ready:",
        f"    curl http://127.0.0.1:{stage.admin_port}/readyz",
        *_about_builds(stage),
        f"    docker buildx create --name bkscaler-sandbox --driver remote tcp://{address}",
        "    docker buildx build --builder bkscaler-sandbox .",
        "    docker buildx rm bkscaler-sandbox",
        "",
        "Ctrl-C here ends it all. What happens meanwhile:",
        "",
    ]


def _about_builds(stage: Stage) -> list[str]:
    """Say whether there is a builder that can build."""
    if stage.scene.backend == Backend.BUILDKITD.value:
        return ["Build something:"]
    return [
        "Build something (not now: this builder is an echo; root with buildkitd on PATH gets a real one):"
    ]
