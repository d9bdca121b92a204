"""
One world: a cluster, its API server, bkscaler, clients and a log, on one clock.

Nothing of the product is replaced but the reactor, the clock and chance; the cluster is the sandbox's.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from random import Random
from typing import Any

from twisted.logger import ILogObserver, LogLevel, formatEvent
from zope.interface import implementer

from bkscaler.config import Settings, read_settings
from bkscaler.kube.auth import ClusterAccess
from bkscaler.sandbox.cluster import EPOCH, ClusterSettings, make_cluster
from bkscaler.sandbox.failures import ApiFailure
from bkscaler.sandbox.objects import stamp
from bkscaler.simulation.apiserver import ApiServer
from bkscaler.simulation.builders import Builders
from bkscaler.simulation.clients import Client, Connecting
from bkscaler.simulation.clock import VirtualTime
from bkscaler.simulation.identity import Identity, TokenInMemory
from bkscaler.simulation.names import Names
from bkscaler.simulation.network import Host, Network
from bkscaler.simulation.process import Process
from bkscaler.simulation.serving import Manner

PROXY_IP, API_IP = "10.0.0.1", "10.0.0.2"
LISTEN_PORT = 8080


@implementer(ILogObserver)
class World:
    """
    Everything there is, from the start to the end of one seed.

    :param seed: whose chance it is.
    :param flags: bkscaler's command line, by flag name.
    :ivar log: what has happened, a line each.
    :ivar process: the bkscaler that runs, or the last one that did.
    :ivar processes: all that ever ran; kept, so that the dead ones are not cleared away in between.
    :ivar clients: every client there ever was, by name.
    :ivar judge: told of everything; set by whoever runs the world.
    """

    judge: Any

    def __init__(self, seed: int, flags: dict[str, str], cluster: ClusterSettings) -> None:
        self.seed = seed
        self.clock = VirtualTime()
        self.log: list[tuple[float, Callable[[], str]]] = []
        self.clients: dict[str, Client] = {}
        self.by_peer: dict[str, Client] = {}
        self.wall_offset_s = 0.0
        self.restart_after_s = 1.0
        self.ended = self.leaving = False
        self._troubles: list[Callable[[], object]] = []
        fixed = {"listen-addr": f":{LISTEN_PORT}", "admin-addr": "off", "relay": "copy"}
        self.settings: Settings = read_settings({**fixed, **flags}, {})
        self.network = Network(self.clock, self.chance("network").random)
        self.builders = Builders(self.network, self.chance("addresses").random)
        self.cluster = make_cluster(
            cluster, self.clock, random=self.chance("cluster").random, runner=self.builders
        )
        self.identity = Identity(self.cluster)
        unready_too = self.settings.readiness != "pod"
        self.network.resolve = Names(self.cluster.pods, self.clock, unready_too)
        self.api = ApiServer(self.network, API_IP, self.cluster, self.chance("api").random)
        self.api.log = self.say
        self.process: Process | None = None
        self.processes: list[Process] = []
        self._product = self.chance("product")

    def chance(self, what: str) -> Random:
        """Give a source of chance of its own to each part, so that none disturbs another's."""
        return Random(f"{self.seed} {what}")

    def say(self, line: str) -> None:
        """Write a line into the log."""
        self.log.append((self.clock.rightNow, lambda: line))

    def text(self) -> str:
        """Give the log, a line for each thing, with the seconds on the clock."""
        return "".join(f"{at_s:12.6f} {line()}\n" for at_s, line in self.log)

    def start(self) -> None:
        """Begin."""
        self.cluster.start()
        self.api.start()
        self.start_process()

    def start_process(self) -> None:
        """Start bkscaler, and again after each end, as a Deployment does."""
        if self.ended:
            return
        self.process = process = Process(
            self.network,
            PROXY_IP,
            name=f"bkscaler-{len(self.processes) + 1}",
            settings=self.settings,
            access=ClusterAccess(server=self.api.url, ca_pem=None, credentials=TokenInMemory(self.identity)),
            random=self._product.random,
            now=self.wall_time,
        )
        self.processes.append(process)
        self.say(f"{process.name} starts")
        process.over.addCallback(lambda how: self._process_over(process, how))
        self.judge.started()
        process.start()

    def wall_time(self) -> datetime:
        """Give bkscaler's wall clock, which may jump."""
        return EPOCH + timedelta(seconds=self.clock.rightNow + self.wall_offset_s)

    def add(self, client: Client) -> Client:
        """Connect a client."""
        self.clients[client.name] = client
        client.on_end = self.judge.client_ended
        host = Host(self.network, client.name, f"10.1.{len(self.clients) >> 8}.{len(self.clients) & 255}")
        refused = lambda: self.say(f"{client} is refused")  # noqa: E731  # one line
        self.network.connect(host, PROXY_IP, LISTEN_PORT, Connecting(client, refused))
        return client

    def __call__(self, event: Any) -> None:
        """Take an event of bkscaler's log, or of Twisted's."""
        if event.get("log_failure") is None and event.get("log_level") in {LogLevel.debug, None}:
            return
        if event["log_namespace"].startswith("bkscaler"):
            self.log.append((self.clock.rightNow, lambda: f"log: {formatEvent(event)}"))
        self.judge.heard(event)

    def _process_over(self, process: Process, how: str) -> None:
        self.say(f"{process.name} has {how}")
        self.judge.process_over(process, how)
        self.clock.callLater(self.restart_after_s, self.start_process)

    def later(self, seconds: float, act: Callable[[], object]) -> None:
        """Do something later."""
        self.clock.callLater(seconds, act)

    def visit(self, act: Callable[[World, Random], None], chance: Random) -> None:
        """Let clients come that something else has brought about, unless everybody has left."""
        if not self.leaving:
            self.say(f"-- {act.__name__}")
            act(self, chance)

    def by_hand(self, act: Callable[[], object]) -> None:
        """
        Let somebody else than bkscaler change the cluster; what cannot be done just now is not done, and
        nothing when everybody has left.
        """
        if self.leaving:
            return
        self.judge.truth.hand = "somebody"
        try:
            act()
        except ApiFailure as failure:
            self.say(f"somebody was refused: {failure}")
        finally:
            self.judge.truth.hand = "bkscaler"

    def condemn_set(self) -> None:
        """Begin to delete the StatefulSet, as with ``--cascade=foreground``: it is there, and going."""
        self.cluster.stateful_set()
        key = self.settings.sts_namespace, self.settings.sts_name
        going = {"deletionTimestamp": stamp(self.wall_time()), "deletionGracePeriodSeconds": 0}
        self.cluster.state.edit("statefulsets", *key, lambda value: value["metadata"].update(going))

    def trouble_until(self, seconds: float, over: Callable[[], object]) -> None:
        """Let a trouble last for so long, or until everything is mended."""
        self._troubles.append(over)

        def end() -> None:
            if over in self._troubles:
                self._troubles.remove(over)
                over()

        self.clock.callLater(seconds, end)

    def mend_builders(self) -> None:
        """Let pods come and go in good health."""
        self.cluster.behaviour.failure = None
        self.cluster.behaviour.start_delay_s = self.cluster.settings.start_delay_s
        self.cluster.behaviour.stop_delay_s = self.cluster.settings.stop_delay_s
        self.builders.ready_after_s, self.builders.exit_after_s = 0.15, 0.0
        self.builders.late = Manner.SERVES, 0.0
        self.builders.check_s, self.builders.on_reached = 0.0, lambda: None

    def mend_everything(self) -> None:
        """End all trouble."""
        while self._troubles:
            self._troubles.pop(0)()

    def everybody_leaves(self) -> None:
        """Let each client that is still there leave, and each that is about to connect when it has."""
        self.leaving = True
        for client in self.clients.values():
            client.hang_up()
            if client.transport is None:
                client.after(0.0, client.hang_up)

    def signal(self, number: int) -> None:
        """Send bkscaler a signal."""
        process = self.process
        if process is not None and process.alive:
            self.say(f"{process.name} gets signal {number}")
            again = process.draining
            if not again:
                self.judge.draining_since_s = self.clock.rightNow
            process.signal(number)
            if again and process.alive:
                self.judge.fail(f"{process.name} does not end at a second signal")
