"""
What runs in a pod: the interface between the kubelet and its runner, and two runners without processes.

:class:`FakePodRunner` is for tests and simulations; :class:`BrokenRunner` stands for containers that
crash or never become ready. Real processes are in :mod:`~bkscaler.sandbox.processes`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from bkscaler.sandbox.objects import Random

SIGKILL_CODE = 137
"""Exit code of a container that was killed."""


class FailureMode(Enum):
    """Ways in which every pod fails, as ``--fail`` names them."""

    UNSCHEDULABLE = "unschedulable"
    IMAGEPULL = "imagepull"
    CRASH = "crash"
    NEVERREADY = "neverready"


@dataclass(kw_only=True)
class Behaviour:
    """
    How pods behave. Mutable: a test may change it at any time, and what happens later follows it.

    :param start_delay_s: seconds a container is being created, >= 0.
    :param stop_delay_s: seconds from a pod's deletion to its SIGTERM, >= 0.
    :param failure: how every pod fails, or None.
    """

    start_delay_s: float = 2.0
    stop_delay_s: float = 1.0
    failure: FailureMode | None = None


@dataclass(frozen=True, kw_only=True)
class PodProcess:
    """
    What to run.

    :param name: the pod's name.
    :param uid: the pod's uid.
    :param ip: address to listen on, the pod's own.
    :param port: port to listen on.
    """

    name: str
    uid: str
    ip: str
    port: int


class ContainerEvents(Protocol):
    """Who hears of a container."""

    def readiness_changed(self, ready: bool) -> None:
        """Hear that the container accepts connections, or no longer does. Ignored after its exit."""

    def exited(self, code: int) -> None:
        """Hear, exactly once, that the container has ended; 128 and more is a signal."""


class Container(Protocol):
    """One running container."""

    def terminate(self) -> None:
        """Ask it to end (SIGTERM). Harmless when it has ended."""

    def kill(self) -> None:
        """Make it end (SIGKILL). Harmless when it has ended."""


class PodRunner(Protocol):
    """Runs containers."""

    def new_address(self) -> str:
        """Give an IP address that no pod has had."""

    def start(self, process: PodProcess, events: ContainerEvents) -> Container:
        """
        Start a container. Must not fail: what cannot run reports an exit with a code.

        :param events: may be called before this returns, and is not called after ``exited``.
        """

    def stop(self) -> Deferred[None]:
        """
        Kill whatever still runs.

        :returns: fires with None when every process is gone; never fails.
        """


class Addresses:
    """
    Gives out addresses in 127.0.0.0/8, each once.

    Where it begins is left to chance, so that two sandboxes on one machine hardly ever meet.

    :param random: called twice, now.
    """

    def __init__(self, random: Random) -> None:
        self._first = 16 + int(random() * 224)
        self._second = int(random() * 256)
        self._count = 0

    def next(self) -> str:
        """Give the next address."""
        carry, last = divmod(self._count, 254)
        self._count += 1
        return f"127.{self._first}.{(self._second + carry) % 256}.{last + 1}"


@dataclass(kw_only=True)
class FakeContainer:
    """
    A container without a process, in the hands of a test.

    :ivar process: what it stands for.
    :ivar terminated: whether it has been asked to end.
    :ivar alive: whether it has not ended.
    """

    process: PodProcess
    events: ContainerEvents
    runner: FakePodRunner
    terminated: bool = False
    alive: bool = True

    def set_ready(self, ready: bool = True) -> None:
        """Change its readiness, unless it has ended."""
        if self.alive:
            self.events.readiness_changed(ready)

    def exit(self, code: int = 0) -> None:
        """End it, unless it has ended."""
        if self.alive:
            self.alive = False
            self.events.exited(code)

    def terminate(self) -> None:
        """Take the SIGTERM: end with 0 after ``exit_after_s``, or ignore it when that is None."""
        self.terminated = True
        if self.runner.exit_after_s is not None:
            self.runner.later(self.runner.exit_after_s, self.exit)

    def kill(self) -> None:
        """Take the SIGKILL."""
        self.exit(SIGKILL_CODE)


@dataclass(kw_only=True)
class FakePodRunner:
    """
    A runner without processes.

    :param clock: for its delays.
    :param random: for its addresses.
    :param ready_after_s: seconds from start to readiness; None leaves it to ``containers[...].set_ready()``.
    :param exit_after_s: seconds from SIGTERM to the exit; None ignores SIGTERM.
    :ivar containers: the newest container of each pod name.
    """

    clock: IReactorTime
    random: Random
    ready_after_s: float | None = 0.15
    exit_after_s: float | None = 0.0
    containers: dict[str, FakeContainer] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._addresses = Addresses(self.random)
        self._calls: list[IDelayedCall] = []

    def new_address(self) -> str:
        """Give an IP address that no pod has had."""
        return self._addresses.next()

    def start(self, process: PodProcess, events: ContainerEvents) -> FakeContainer:
        """Start a container that becomes ready after ``ready_after_s``."""
        container = FakeContainer(process=process, events=events, runner=self)
        self.containers[process.name] = container
        if self.ready_after_s is not None:
            self.later(self.ready_after_s, container.set_ready)
        return container

    def later(self, seconds: float, function: Callable[[], None]) -> None:
        """Call a function by the clock, unless the runner stops before."""
        self._calls = [call for call in self._calls if call.active()]
        self._calls.append(self.clock.callLater(seconds, function))

    def stop(self) -> Deferred[None]:
        """Forget the containers; there is nothing to wait for."""
        for container in self.containers.values():
            container.alive = False
        for call in self._calls:
            if call.active():
                call.cancel()
        return succeed(None)


class BrokenRunner(FakePodRunner):
    """
    Containers that do not work.

    :param crash_after_s: seconds until each exits with 1; None: it runs and never becomes ready.
    """

    def __init__(self, clock: IReactorTime, random: Random, crash_after_s: float | None) -> None:
        super().__init__(clock=clock, random=random, ready_after_s=None)
        self._crash_after_s = crash_after_s

    def start(self, process: PodProcess, events: ContainerEvents) -> FakeContainer:
        """Start a container that does not work."""
        container = super().start(process, events)
        if self._crash_after_s is not None:
            self.later(self._crash_after_s, lambda: container.exit(1))
        return container
