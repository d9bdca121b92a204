"""
The API server of a world: the sandbox's, on a host of the network, with the faults of real ones.

A fault is a state of this server that the acts of a plan switch on and off. What a client has been told is
recorded as it leaves, for the judge.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from twisted.web import http
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site

from bkscaler.sandbox.cluster import Cluster
from bkscaler.sandbox.failures import ApiFailure
from bkscaler.sandbox.replies import send_text
from bkscaler.sandbox.state import Backup
from bkscaler.simulation.asking import Asking
from bkscaler.simulation.links import Link
from bkscaler.simulation.network import Host, Network

PORT = 6443
IDLE_CONNECTIONS_S = (5.0, 31.0, 180.0)
"""After how long the server, or something in front of it, closes a connection that is not used."""
LATE_S = 0.4
"""What takes so long to arrive is late."""
WATCHED = (b"statefulsets", b"pods")
FOLLOWED_S = 45.0
"""
How long bkscaler may go on believing what it knew, from the first list of a server that was restored, and
after more trouble from the next one: 15 s, and the longest wait of a watch.
"""
Random = Callable[[], float]


@dataclass(kw_only=True)
class Trouble:
    """
    What is wrong with the server now.

    :param code: status that requests are answered with in place of their answer; 0: none.
    :param only: the method that this happens to; ``""``: all.
    :param retry_after_s: its ``Retry-After``; 0 for none.
    :param slow_s: the longest that a request waits before it is looked at.
    :param lose_answers: whether requests are carried out and their connection is cut before the answer.
    :param spoil_answers: whether requests are carried out and answered with 504, as by something in between.
    :param cut_requests: whether connections are cut before the request is looked at.
    :param stale: whether lists are answered as they were when this began.
    """

    code: int = 0
    only: str = ""
    retry_after_s: int = 0
    slow_s: float = 0.0
    lose_answers: bool = False
    spoil_answers: bool = False
    cut_requests: bool = False
    stale: bool = False


class ApiServer:
    """
    The API server. Runs from :meth:`start`; may be stopped and started again.

    :ivar trouble: what is wrong with it now.
    :ivar log: told each request with what is done about it.
    :ivar requests: how many have come.
    :ivar read_s: when it last answered a read of the StatefulSet.
    :ivar on_read: told the connection of each read of the StatefulSet that has come.
    :ivar on_asked: says how things stand when a scale request comes.
    :ivar on_scale: told that a scale request has come, before it is looked at.
    :ivar facts: what it has said of the request that is being carried out.
    :ivar spoil_scaling: whether scale requests are carried out and answered with 504.
    :ivar on_restored: told that what there is now is what there was at the time of a backup.
    :ivar asking: looks after what clients owe to it.
    :ivar on_scaled: told the replicas, and the connection, of each scale request that was carried out, before
        anybody hears of it.
    """

    def __init__(self, network: Network, ip: str, cluster: Cluster, random: Random) -> None:
        self.trouble = Trouble()
        self.log: Callable[[str], None] = lambda line: None
        self.on_read: Callable[[Link], None] = lambda link: None
        self.on_asked: Callable[[], Any] = lambda: None
        self.on_scale: Callable[[], None] = lambda: None
        self.on_restored: Callable[[], None] = lambda: None
        self.facts: Any = None
        self.spoil_scaling = False
        self.on_scaled: Callable[[int, Link], None] = lambda replicas, link: None
        self.requests = 0
        self.read_s = -math.inf
        self.host: Host | None = None
        self.asking = Asking(network.clock)
        self._network = network
        self.ip = ip
        self._cluster = cluster
        self._random = random
        self._idle_s = IDLE_CONNECTIONS_S[int(random() * len(IDLE_CONNECTIONS_S))]
        self._unheard, self._followed_s = False, -math.inf
        self._unfollowed: set[bytes] = set()
        self._lists: dict[bytes, Any] = {}
        self._old_lists: dict[bytes, Any] = {}
        self._told_stale: set[bytes] = set()

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://{self.ip}:{PORT}"

    @property
    def up(self) -> bool:
        """Whether it accepts connections."""
        return self.host is not None and PORT in self.host.ports

    def start(self) -> None:
        """Listen."""
        if self.up:
            return
        self.host = Host(self._network, "api", self.ip)
        clock = self._network.clock
        site = Site(_Gate(self), reactor=clock, timeout=self._idle_s, parsePOSTFormSubmission=False)
        site.displayTracebacks = False
        self.host.listen(PORT, _Unlogged(site))

    def restore(self, backup: Backup, unheard: bool) -> None:
        """
        Come back with what there was at the time of a backup.

        :param unheard: whether who was connected has not heard of the end, and takes its watches for alive.
        """
        self._cluster.restore(backup)
        self._forget_lists()
        self.on_restored()
        self._unheard, self._followed_s, self._unfollowed = unheard, math.inf, set(WATCHED)
        self.start()

    @property
    def is_followed(self) -> bool:
        """Whether it can be expected that what it says is believed."""
        return self._network.clock.rightNow > self._followed_s

    def unsettle(self) -> None:
        """While it is not followed yet, more trouble lets it take as long again, from the next list on."""
        if not self.is_followed:
            self._followed_s = math.inf

    def _look_who_follows(self, request: Any) -> None:
        """A list shows what the server is like now; who watches from a version that there is has followed."""
        if b"watch=" not in request.uri:
            if request.method == b"GET" and not self._unheard:
                self._followed_s = min(self._followed_s, self._network.clock.rightNow + FOLLOWED_S)
        elif int(request.args[b"resourceVersion"][0]) <= self._cluster.state.version:
            self._unfollowed.discard(request.path.rpartition(b"/")[2])
            if not self._unfollowed:
                self._followed_s = -math.inf

    def kill(self) -> None:
        """Be gone: every connection is reset."""
        if self.host is not None:
            self.host.die()

    def terminate(self, linger_s: float) -> None:
        """Stop as a server does on SIGTERM: refuse, keep watches open and silent, end after a while."""
        if self.host is None or not self.up:
            return
        host = self.host
        for listening in list(host.ports.values()):
            listening.close()
        for link in self.links():
            link.fall_silent(linger_s)

    def links(self) -> list[Link]:
        """List the connections to it."""
        return [] if self.host is None else [end.link for end in self.host.ends if end.connected]

    @property
    def is_late(self) -> bool:
        """Whether what it sends on some connection takes long to arrive."""
        return any(link.client.latency_s > LATE_S for link in self.links())

    def recover(self) -> None:
        """Be well again."""
        self.trouble = Trouble()

    def begin_stale(self) -> None:
        """
        From now on answer lists as they were answered last, but not as of before a scale-down: nobody could
        tell what has become of one whose answer was lost. Nor twice in a row without anything newer between:
        nobody could tell that from a server that was restored.
        """
        self._old_lists = {uri: text for uri, text in self._lists.items() if uri not in self._told_stale}
        self.trouble.stale = True

    def serve(self, request: Any) -> None:
        """Look at a request, later if the server is slow."""
        self.requests += 1
        if _reads_set(request):
            self.on_read(request.channel.transport.link)
        if request.path.endswith(b"/scale"):
            request.facts = self.on_asked()
            self.on_scale()
        trouble = self.trouble
        if trouble.slow_s:
            self._network.clock.callLater(trouble.slow_s * self._random(), self._serve_late, request)
        else:
            self._serve(request)

    def _serve_late(self, request: Any) -> None:
        """A request whose client has gone is dropped, as Go's servers cancel its context."""
        if request.channel is not None and not request._disconnected:
            self._serve(request)

    def _serve(self, request: Any) -> None:
        trouble, link = self.trouble, request.channel.transport.link
        what = f"{request.method.decode()} {request.uri.decode()}"
        self.asking.look(request, link)
        applies = not trouble.only or trouble.only == request.method.decode()
        if trouble.cut_requests and applies:
            self.log(f"{what}: cut")
            link.cut()
        elif trouble.code and applies:
            self.log(f"{what}: {trouble.code}")
            self._refuse(request, trouble, link)
        else:
            self._answer(request, what, trouble, link)

    def _answer(self, request: Any, what: str, trouble: Trouble, link: Link) -> None:
        old = self._old_lists.get(request.uri) if trouble.stale and request.method == b"GET" else None
        if _reads_set(request):
            self.read_s = self._network.clock.rightNow
        if old is not None:
            self.log(f"{what}: stale")
            self._told_stale.add(request.uri)
            send_text(request, old)
            return
        if request.method == b"GET" and b"watch=" not in request.uri:
            self._keep(request)
        down = self.spoil_scaling and request.method == b"PATCH" and request.path.endswith(b"/scale")
        if down or (trouble.spoil_answers and trouble.only in {"", request.method.decode()}):
            self._spoil(request)
        if not self.is_followed:
            self._look_who_follows(request)
        self.facts = getattr(request, "facts", None)
        self._cluster.root.render(request)
        self.log(f"{what}: {request.code}")
        if trouble.lose_answers and (not trouble.only or trouble.only == request.method.decode()):
            self.log(f"{what}: answer lost")
            link.cut()
        if request.method == b"PATCH" and request.path.endswith(b"/scale") and request.code in {200, 504}:
            self._was_scaled(self._cluster.stateful_set()["spec"].get("replicas", 0), link)

    def _was_scaled(self, replicas: int, link: Link) -> None:
        if not replicas:
            self._forget_lists()
        self.asking.done()
        self.on_scaled(replicas, link)

    def _forget_lists(self) -> None:
        self._old_lists.clear()
        self._lists.clear()

    def _refuse(self, request: Any, trouble: Trouble, link: Link) -> None:
        self.asking.refused(request, link, trouble.retry_after_s)
        headers = {"Retry-After": str(trouble.retry_after_s)} if trouble.retry_after_s else {}
        words = {409: "the object has been modified", 429: "Too many requests"}.get(trouble.code, "oh no")
        send_text(request, words, code=trouble.code, headers=headers)

    def _spoil(self, request: Any) -> None:
        """Let a request that is carried out be answered with 504."""
        write = request.write

        def spoil(data: bytes) -> None:
            if request.code == 200:
                request.setResponseCode(504)
            write(data)

        request.write = spoil

    def _keep(self, request: Any) -> None:
        """Remember a list's answer, to give it again when it has become stale."""
        write, uri = request.write, request.uri

        def keep(data: bytes) -> None:
            if request.code == http.OK:
                self._lists[uri] = data.decode()
                self._told_stale.discard(uri)
            write(data)

        request.write = keep

    def fail_watches(self, code: int) -> None:
        """End every watch with an ERROR line."""
        for stream in list(self._cluster.root.watches._streams):
            stream.fail(ApiFailure(code, "Expired" if code == 410 else "InternalError", "too old"))


def _reads_set(request: Any) -> bool:
    return b"/statefulsets?" in request.uri and b"watch=" not in request.uri


class _Gate(Resource):
    """Every request passes through here."""

    isLeaf = True

    def __init__(self, server: ApiServer) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # not annotated by Twisted
        self._server = server

    def render(self, request: Any) -> int:
        self._server.serve(request)
        return NOT_DONE_YET


class _Unlogged:
    """A site whose access log, and the clock for it, are left off."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def buildProtocol(self, addr: Any) -> Any:
        return self._site.buildProtocol(addr)
