"""The pods' containers: builders in memory, each a host of its own that can die."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred, succeed

from bkscaler.sandbox.pods import SIGKILL_CODE, Addresses, ContainerEvents, PodProcess
from bkscaler.simulation.links import End
from bkscaler.simulation.network import Fate, Host, Network
from bkscaler.simulation.serving import Manner, Served, Services

FATES = {Manner.REFUSES: Fate.REFUSED, Manner.LOSES: Fate.LOST}
"""What becomes of dials of containers that do not even accept."""


class Builder(Host):
    """
    One container. Listens when it is ready, dies with everything it serves.

    :ivar uid: of its pod.
    :ivar serving: the connections that it has, with whom each serves; ``""`` when that is not known yet.
    :ivar manner: how it takes connections while it seems ready; see :meth:`behave`.
    """

    manner = Manner.SERVES

    def __init__(self, runner: Builders, process: PodProcess, events: ContainerEvents) -> None:
        super().__init__(runner.network, f"{process.name}/{process.uid[:4]}", process.ip)
        self.uid = process.uid
        self.serving: dict[Served, str] = {}
        self.runner = runner
        self._process = process
        self._events = events
        self._ready = False
        self._applies: Callable[[], bool] = lambda: True

    @property
    def is_frozen(self) -> bool:
        """Whether it does nothing at all."""
        return self.manner is Manner.FREEZES

    def behave(self, manner: Manner = Manner.SERVES, applies: Callable[[], bool] = lambda: True) -> None:
        """
        Take connections in some manner from now on, whatever the readiness says.

        :param applies: asked at each connection whether it is taken in that manner.
        """
        was_frozen = self.is_frozen
        self.manner, self._applies = manner, applies
        if self.alive and self.is_frozen != was_frozen:
            for served in list(self.serving):
                served.freeze() if self.is_frozen else served.thaw()

    def manner_now(self) -> Manner:
        """Choose how a connection is taken that comes now."""
        return self.manner if self.manner is not Manner.SERVES and self._applies() else Manner.SERVES

    def set_ready(self, ready: bool = True) -> None:
        """Accept connections, or refuse them, and be seen to."""
        if not self.alive or ready == self._ready:
            return
        self._ready = ready
        if ready and (self.ip, self._process.port) not in self.network.listening:
            self.listen(self._process.port, Services(self))
            manner, seconds = self.runner.late
            if manner is not Manner.SERVES:
                self.behave(manner)
                self.runner.later(seconds, self.behave)
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


class Builders:
    """
    Runs the containers of a world.

    :param random: gives numbers in [0, 1), for addresses.
    :ivar ready_after_s: seconds from a container's start to its readiness; None: never.
    :ivar exit_after_s: seconds from SIGTERM to the exit; None ignores SIGTERM.
    :ivar reuse: whether the next pod gets the last one's address, once that is free.
    :ivar late: how containers that become ready from now on take connections at first, and for how many
        seconds.
    :ivar check_s: how long the answer to a health check takes.
    :ivar checked: which hosts were told that a pod serves, by its address, when they asked for its health.
    :ivar on_reached: told that somebody has connected to a container.
    :ivar in_use: says whether a pod has an address.
    :ivar containers: the running container of each pod name.
    :ivar on_served: told whom a builder serves, once for each connection or call.
    """

    def __init__(self, network: Network, random: Callable[[], float]) -> None:
        self.network = network
        self.ready_after_s: float | None = 0.15
        self.exit_after_s: float | None = 0.0
        self.reuse = False
        self.late: tuple[Manner, float] = (Manner.SERVES, 0.0)
        self.check_s = 0.0
        self.checked: set[tuple[Host, str]] = set()
        self.on_reached: Callable[[], None] = lambda: None
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

    def fate(self, ip: str) -> Fate:
        """Say what becomes of a dial to an address."""
        builder = next((each for each in self.containers.values() if each.ip == ip), None)
        if builder is None or builder.manner not in FATES:
            return Fate.ARRIVES
        return FATES.get(builder.manner_now(), Fate.ARRIVES)

    def put_off(self, answer: Callable[[], None]) -> None:
        """Answer a health check, later if that takes long now."""
        if self.check_s:
            self.later(self.check_s, answer)
        else:
            answer()

    def later(self, seconds: float, function: Callable[[], object]) -> None:
        """Call a function by the clock."""
        self.network.clock.callLater(seconds, function)

    def stop(self) -> Deferred[None]:
        """Kill the containers."""
        for builder in list(self.containers.values()):
            builder.die()
        return succeed(None)
