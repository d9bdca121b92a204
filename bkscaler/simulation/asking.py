"""
What the clients of an API server owe to it: to leave it alone for as long as it has asked for, and to ask no
further for a version that it has said is gone. Imported by :mod:`bkscaler.simulation.apiserver`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bkscaler.simulation.clock import VirtualTime
from bkscaler.simulation.links import Link

ROUNDING_S = 0.1
"""The answer was on its way before the wait began."""
GONE = b'"code":410'
"""In the ERROR line of a watch."""


class Asking:
    """
    Looks at each request before it is answered.

    :param clock: tells the time.
    :ivar on_fault: told what a client has done that it should not have.
    :ivar on_watch: told each watch that is asked for: by whom, its path, and from which version.
    """

    def __init__(self, clock: VirtualTime) -> None:
        self.on_fault: Callable[[str], None] = lambda words: None
        self.on_watch: Callable[[Any, bytes, str], None] = lambda host, path, version: None
        self._clock = clock
        self._leave_alone: dict[tuple[Any, bytes], tuple[float, Link]] = {}
        self._gone: dict[tuple[Any, bytes], tuple[bytes, float, Link]] = {}

    def look(self, request: Any, link: Link) -> None:
        """Look at a request that has come over a link."""
        if request.path.endswith(b"/scale"):
            self._look_at_time(request, link)
        elif request.method == b"GET":
            self._look_at_version(request, link)

    def refused(self, request: Any, link: Link, retry_after_s: float) -> None:
        """Take note that a request is refused, and for how long the client is to wait, in seconds."""
        if request.path.endswith(b"/scale"):
            self._leave_alone[_scaling(request, link)] = self._clock.rightNow + retry_after_s, link

    def done(self) -> None:
        """Take note that a scale request was carried out: what comes next has another reason."""
        self._leave_alone.clear()

    def _look_at_time(self, request: Any, link: Link) -> None:
        free_s, told = self._leave_alone.pop(_scaling(request, link), (0.0, link))
        early_s = free_s - self._clock.rightNow
        if early_s > ROUNDING_S and not told.harmed:
            self.on_fault(f"the server was asked again {early_s:.1f} s too early")

    def _look_at_version(self, request: Any, link: Link) -> None:
        """A watch does not begin again where it cannot, unless there was a look at what there is."""
        kind, version = (link.client.host, request.path), request.args.get(b"resourceVersion", [b""])[0]
        gone, known_s, told = self._gone.pop(kind, (b"", 0.0, link))
        if b"watch" not in request.args:
            return
        if not link.harmed:  # or whoever asked may have given it up long ago
            self.on_watch(link.client.host, request.path, version.decode())
        if version and version == gone and self._clock.rightNow > known_s and not told.harmed:
            self.on_fault(f"version {version.decode()} is asked for again, which is gone")
        write = request.write

        def keep(data: bytes) -> None:
            if GONE in data:
                self._gone[kind] = version, self._clock.rightNow + link.client.latency_s, link
            write(data)

        request.write = keep


def _scaling(request: Any, link: Link) -> tuple[Any, bytes]:
    """Say who asks for which scale."""
    asked = request.content.read()
    request.content.seek(0)
    return link.client.host, asked.partition(b"replicas")[2]
