"""
From accept to join without a transport, for a client that need not wait. Linux.

Making, reading and closing Twisted's transports is half of what a short connection costs. A client that has
spoken within the grace, does not speak HTTP/2, and whose builder is ready and accepts, needs none of that::

    accepted --first bytes are seen--> connecting --> joined --> ended
        |                                  |
        +----------- detour ---------------+--> an ordinary Session

Nothing is read from the client before it is joined, the first bytes are only looked at. So whatever turns
out otherwise (it is silent, leaves, speaks HTTP/2, there is no builder, a dial fails, we shut down) needs no
care in here: the client becomes an ordinary session, which finds its bytes where they were, and gets its
demand and the time it came. Imported by ``frontend.listener`` and the plugin.
"""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Callable
from dataclasses import dataclass
from errno import EINPROGRESS, EINVAL

from twisted.logger import Logger

from bkscaler.frontend.dial import DIAL_TIMEOUT_S
from bkscaler.frontend.ending import BY_END, log_end
from bkscaler.frontend.held import SNIFFED_BYTES
from bkscaler.frontend.sniff import Kind, classify
from bkscaler.frontend.surroundings import HeadStart, Hold, Surroundings
from bkscaler.model import Connection, Replica
from bkscaler.observability.outcomes import Outcome
from bkscaler.relay import sockets
from bkscaler.relay.bare import bare_leg
from bkscaler.relay.leg import Parked
from bkscaler.relay.pair import End
from bkscaler.relay.poller import OnEvents, Registration
from bkscaler.relay.splice import EVENTS, SpliceRelay, SpliceWorks
from bkscaler.timers import TimeLimit

_PLAIN = (Kind.TLS, Kind.HTTP1, Kind.OTHER)
_FAILED = select.EPOLLERR | select.EPOLLHUP if EVENTS else 0
_HANGUP = select.EPOLLERR | select.EPOLLHUP | select.EPOLLRDHUP if EVENTS else 0
_HEARD = _HANGUP | select.EPOLLIN if EVENTS else 0
_OWNER = Parked()


@dataclass(frozen=True, kw_only=True)
class Shortcuts:
    """
    What all shortcuts share. Lives as long as the process.

    :param shared: what all sessions share, too.
    :param works: joins.
    :param port: of every builder; replicas are dialled by their IP.
    :param silence: ends the wait for first bytes, after ``--probe-grace``.
    :param dialling: ends dials.
    """

    shared: Surroundings
    works: SpliceWorks
    port: int
    silence: TimeLimit
    dialling: TimeLimit

    @classmethod
    def made_of(cls, shared: Surroundings, works: SpliceWorks, port: int) -> Shortcuts:
        """Make the rest."""
        return cls(
            shared=shared,
            works=works,
            port=port,
            silence=TimeLimit(shared.clock, shared.probe_grace_s),
            dialling=TimeLimit(shared.clock, DIAL_TIMEOUT_S),
        )


class Shortcut:
    """
    One client that is on its way, or was joined.

    :param name: unique, also across proxies; names the demand.
    :param peer: the client's address, for the log.
    :param client: its socket, non-blocking, its options set.
    :param ways: what all share.
    :param on_end: called once, when the outcome is known and the client's connection is gone.
    :param on_detour: called at most once, instead: from now on the client is a session's.
    :ivar name: as given.
    :ivar outcome: how it ended; None until then.
    """

    log = Logger()

    def __init__(
        self,
        *,
        name: str,
        peer: str,
        client: socket.socket,
        ways: Shortcuts,
        on_end: Callable[[Shortcut], None],
        on_detour: Callable[[HeadStart], None],
    ) -> None:
        self.name = name
        self.outcome: Outcome | None = None
        self._peer = peer
        self._client = client
        self._ways = ways
        self._on_end = on_end
        self._on_detour = on_detour
        self._hold: Hold | None = None
        self._replica: Replica | None = None
        self._builder: socket.socket | None = None
        self._relay: SpliceRelay | None = None
        self._began_s = self._joined_s = ways.shared.clock.seconds()
        self._hears_client = self._hear(client, EVENTS, self._client_spoke)
        self._hears_builder: Registration | None = None
        ways.silence.begin(self, self.detour)

    def __repr__(self) -> str:
        return f"<Shortcut {self.name} of {self._peer}: {self._relay or self._replica}>"

    def report(self) -> Connection:
        """Say how the connection stands."""
        relay, now_s = self._relay, self._ways.shared.clock.seconds()
        if relay is None:
            return Connection(peer=self._peer, waited_s=now_s - self._began_s)
        return Connection(
            peer=self._peer,
            waited_s=self._joined_s - self._began_s,
            joined_s=now_s - self._joined_s,
            bytes_up=relay.bytes_up,
            bytes_down=relay.bytes_down,
        )

    def cut(self) -> None:
        """Reset a joined pair; nothing happens before, as a session is cut instead."""
        if self._relay is not None:
            self._relay.cut()

    @property
    def is_joined(self) -> bool:
        """Whether the client has been joined, so that it stays here."""
        return self._relay is not None

    def detour(self, failed_dials: int = 0) -> None:
        """Let the client become a session."""
        ways, builder = self._ways, self._builder
        ways.silence.end(self)
        ways.works.poller.forget(self._hears_client)
        if builder is not None:
            self._forget_builder(builder)
        self._on_detour(HeadStart(began_s=self._began_s, hold=self._hold, failed_dials=failed_dials))

    def _hear(self, handle: socket.socket, events: int, step: OnEvents) -> Registration:
        """Go on with a step when a socket has something to tell; the poller must not be raised at."""

        def heard(what: int) -> None:
            try:
                step(what)
            except Exception:
                self._failed()

        return self._ways.works.poller.register(handle.fileno(), events, heard)

    def _client_spoke(self, events: int) -> None:
        """Look at the first bytes, and connect if all is as it should be."""
        if self._hold is not None or events & _HANGUP:
            if events & _HANGUP:
                self.detour()
            return
        self._ways.silence.end(self)
        try:
            first = self._client.recv(SNIFFED_BYTES, socket.MSG_PEEK)
        except OSError:
            first = b""
        if classify(first) not in _PLAIN:
            self.detour()
            return
        shared = self._ways.shared
        self._hold = hold = shared.capacity.hold(self.name)
        replica = hold.ready_now()
        if replica is None or not shared.dialer.is_known_to_serve(replica):
            self.detour()
        else:
            self._connect(replica)

    def _connect(self, replica: Replica) -> None:
        self._replica = replica
        family = socket.AF_INET6 if ":" in replica.ip else socket.AF_INET
        try:
            self._builder = builder = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            sockets.tune_handle(builder)
            error = builder.connect_ex((replica.ip, self._ways.port))
        except OSError as failure:
            error = failure.errno or EINVAL
        if self._builder is None or error not in (0, EINPROGRESS):
            self._dial_failed(os.strerror(error))
            return
        self._hears_builder = self._hear(builder, EVENTS | select.EPOLLOUT, self._builder_stirred)
        self._ways.dialling.begin(self, lambda: self._dial_failed(f"no answer within {DIAL_TIMEOUT_S:g} s"))

    def _builder_stirred(self, events: int) -> None:
        """Join when the connection is there, or has failed."""
        assert self._builder is not None
        failed = events & _FAILED and self._builder.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if failed:
            self._dial_failed(os.strerror(failed))
        else:
            self._ways.dialling.end(self)
            self._join(self._builder, events)

    def _dial_failed(self, why: str) -> None:
        assert self._replica is not None
        self.log.debug("dial failed: {error}", error=f"pod {self._replica.name} ({self._replica.ip}): {why}")
        self._ways.shared.dialer.doubt(self._replica)
        self.detour(failed_dials=1)

    def _join(self, builder: socket.socket, events: int) -> None:
        """Join, and let the relay know what has come before."""
        assert self._hears_builder is not None
        del self._on_detour  # there is none from here, and what it needs is let go
        shared = self._ways.shared
        self._joined_s = shared.clock.seconds()
        legs = (bare_leg(self._client, _OWNER), bare_leg(builder, _OWNER))
        hears = (self._hears_client, self._hears_builder)
        self._relay = relay = SpliceRelay(*legs, self._ways.works, hears)
        relay.start(b"")
        if shared.reports is not None:
            shared.reports.joined(self._joined_s - self._began_s)
        relay.ended.addCallback(self._relay_ended)
        hears[0].on_events(select.EPOLLIN)
        if self.outcome is None and events & _HEARD:
            hears[1].on_events(events)

    def _relay_ended(self, end: End) -> None:
        self._end(BY_END[end])

    def _failed(self) -> None:
        """End after a bug."""
        self.log.failure("a shortcut failed")
        ways = self._ways
        if self._relay is not None:
            self._relay.cut()
        elif self.outcome is None:
            ways.silence.end(self)
            ways.works.poller.forget(self._hears_client, closing=True)
            self._client.close()
            if self._builder is not None:
                self._forget_builder(self._builder)
            self._end(Outcome.INTERNAL_ERROR)

    def _forget_builder(self, builder: socket.socket) -> None:
        self._ways.dialling.end(self)
        if self._hears_builder is not None:
            self._ways.works.poller.forget(self._hears_builder, closing=True)
        builder.close()
        self._builder = None

    def _end(self, outcome: Outcome) -> None:
        """Give the demand back, write the one line of this connection, and report it."""
        self.outcome = outcome
        if self._hold is not None:
            self._hold.release()
        end = self.report()
        log_end(self.log.info, outcome, end)
        if self._ways.shared.reports is not None:
            self._ways.shared.reports.ended(outcome, end)
        self._on_end(self)
