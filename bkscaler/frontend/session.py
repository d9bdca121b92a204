"""
The life of one client's connection, from accept to exactly one outcome.

::

    accepted --> sniffed --> held --> connecting --> joined --> ended
                    |          |  ^       |             |
                    |          |  +-------+ dial failed |
                    +----------+----------+-------------+--> ended

It is one coroutine, :meth:`Session._serve`, in the order of the words above. Whatever ends it early (the
client leaves, its deadline passes, we shut down) names the outcome first and then cancels the coroutine,
whose ``finally`` gives the demand back. Imported by ``frontend.listener``.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from bkscaler.backoff import Backoff
from bkscaler.durations import format_duration
from bkscaler.errors import WakeImpossible
from bkscaler.frontend.dial import DialFailed
from bkscaler.frontend.ending import BY_END, log_end
from bkscaler.frontend.greeting import greeting_of
from bkscaler.frontend.held import HeldClient
from bkscaler.frontend.lateack import LateAck
from bkscaler.frontend.sniff import Kind
from bkscaler.frontend.surroundings import HeadStart, Hold, Surroundings
from bkscaler.model import Connection, Replica
from bkscaler.observability.outcomes import Outcome
from bkscaler.relay.leg import Leg
from bkscaler.relay.pair import Relay
from bkscaler.timers import Timers

LINGER_S = 60.0
"""How long a client that was told why may take to leave; grpc-go takes up to 34 s when it is interrupted."""
PREFACE_LIMIT_S = 1.0
"""How long a client that has begun an HTTP/2 preface may take to complete it while a builder waits."""
UNFINISHED = "the client has not finished its HTTP/2 preface"
REDIAL = Backoff(first_s=0.05, limit_s=1.0)
"""Delays after failed dials: short, as a pod that is ready refuses for a moment at most."""


class Session:
    """
    One client's connection.

    :param name: unique, also across proxies; names the demand.
    :param peer: the client's address, for the log.
    :param shared: what all sessions share.
    :param on_end: called once, when the outcome is known and the client's connection is gone.
    :param start: what has been done for the client already; None: nothing, it has just come.
    :ivar name: as given.
    :ivar outcome: how it ended; None until then.
    """

    log = Logger()

    def __init__(
        self,
        *,
        name: str,
        peer: str,
        shared: Surroundings,
        on_end: Callable[[Session], None],
        start: HeadStart | None = None,
    ) -> None:
        self.name = name
        self.outcome: Outcome | None = None
        self.held = HeldClient(hangups=shared.hangups, listener=self)
        self._peer = peer
        self._shared = shared
        self._on_end = on_end
        self._timers = Timers(shared.clock)
        self._spoke: Deferred[None] | None = None
        self._work: Deferred[Outcome] | None = None
        self._unwanted = False
        self._hold: Hold | None = None
        self._relay: Relay | None = None
        self._why = ""
        self._dialled: Replica | None = None
        start = start or HeadStart(began_s=shared.clock.seconds())
        self._early_hold = start.hold
        self._failed_dials = start.failed_dials
        self._began_s = self._asked_s = self._joined_s = start.began_s

    def __repr__(self) -> str:
        return f"<Session {self.name} of {self._peer}: {self._relay or self.held}>"

    def report(self) -> Connection:
        """Say how the connection stands."""
        relay, now_s = self._relay, self._shared.clock.seconds()
        return Connection(
            peer=self._peer,
            waited_s=(now_s if relay is None else self._joined_s) - self._began_s,
            joined_s=None if relay is None else now_s - self._joined_s,
            bytes_up=0 if relay is None else relay.bytes_up,
            bytes_down=0 if relay is None else relay.bytes_down,
            failed_dials=self._failed_dials,
            why=self._why if relay is None else "",
        )

    def cut(self) -> None:
        """End now: a joined pair is reset, a held client is told and let go, one that was told is dropped."""
        if self._relay is not None:
            self._relay.cut()
        elif self.outcome is not None:
            self.held.drop()
        else:
            self._give_up(Outcome.SHUTTING_DOWN)

    def client_connected(self) -> None:
        """Begin, with the client connected."""
        self._begin()

    def client_spoke(self) -> None:
        """Go on, if bytes are what is being waited for."""
        spoke, self._spoke = self._spoke, None
        if spoke is not None:
            self._timers.cancel("bytes")
            spoke.callback(None)

    def client_left(self) -> None:
        """Give up what the client no longer wants."""
        if self._unwanted:
            self._give_up(Outcome.CANCELLED_WHILE_HELD)
        else:
            self._give_up(Outcome.PROBE if self._hold is None else Outcome.LEFT_WHILE_HELD)

    def client_cancelled(self) -> None:
        """Give the builder back at once; the client may yet want it again, over the same connection."""
        if self._work is not None:
            self._unwanted = True
            self._work.cancel()

    def client_returned(self) -> None:
        """Want the builder again, for as long as at first."""
        self._unwanted = False
        self._begin()

    def client_misbehaved(self, why: str) -> None:
        """Serve no longer who breaks the protocol."""
        self._why = why
        self._give_up(Outcome.PROTOCOL_ERROR)

    def client_closed(self) -> None:
        """End: nothing is left of the client's connection."""
        self._timers.cancel_all()
        self._on_end(self)

    def _begin(self) -> None:
        """Serve the client, which wants a builder."""
        self._timers.cancel("linger")
        self._asked_s = self._shared.clock.seconds()
        self._work = Deferred.fromCoroutine(self._serve())
        self._work.addBoth(self._finished)

    async def _serve(self) -> Outcome:
        """Go through the life of the connection."""
        hold, self._early_hold = self._early_hold, None
        if hold is None:
            if self.held.kind is Kind.SILENT:
                await self._more_bytes_until(self._began_s + self._shared.probe_grace_s)
            hold = self._shared.capacity.hold(self.name)
        self._hold = hold
        try:
            builder, greeting = await self._reach(hold)
            self._timers.cancel_all()
            return await self._joined(builder, greeting)
        except WakeImpossible as error:
            self._why = error.reason
            return Outcome.CANNOT_WAKE
        finally:
            hold.release()

    async def _more_bytes_until(self, limit_s: float) -> None:
        """Wait for bytes, but no longer than until a moment on the clock."""
        self._spoke = Deferred()
        self._timers.keep("bytes", limit_s, self.client_spoke)
        await self._spoke

    async def _reach(self, hold: Hold) -> tuple[Leg, bytes]:
        """Connect to a builder that is ready, however many dials it takes; give its leg and first words."""
        failures = 0
        while True:
            self._dialled = None
            ready = hold.when_ready()
            if not ready.called:
                self._why = ""
            if failures or not ready.called:
                self._wait_in_earnest()
            replica = await ready
            if self.held.kind is Kind.HTTP2_PART:
                replica = await self._after_preface(hold)
            self._dialled = replica
            try:
                return await self._dial(hold, replica)
            except DialFailed as error:
                failures += 1
                self._failed_dials += 1
                self._why = str(error)
                self.log.debug("dial failed: {error}", error=str(error))
            await deferLater(self._shared.clock, REDIAL.delay_s(failures, self._shared.random))

    async def _after_preface(self, hold: Hold) -> Replica:
        """Wait for the rest of a preface, a little; a builder that was ready before need not be so then."""
        await self._more_bytes_until(self._shared.clock.seconds() + PREFACE_LIMIT_S)
        replica = hold.ready_now()
        if replica is None:
            self._wait_in_earnest()
            replica = await hold.when_ready()
        return replica

    def _wait_in_earnest(self) -> None:
        """Keep the timers of a wait; a first dial to a builder that is there has limits of its own."""
        self._timers.keep("engage", self._began_s + self._shared.hold_after_s, self.held.engage)
        self._timers.keep("deadline", self._asked_s + self._shared.ready_wait_timeout_s, self._expired)

    async def _dial(self, hold: Hold, replica: Replica) -> tuple[Leg, bytes]:
        """Connect to one replica; from an HTTP/2 client's builder wait for the first words."""
        builder = await self._shared.dialer.dial(replica, lambda: hold.ready_now() == replica)
        if self.held.kind is not Kind.HTTP2:
            return builder, b""
        return builder, await greeting_of(builder, self._shared.clock)

    async def _joined(self, builder: Leg, greeting: bytes) -> Outcome:
        """Relay until both connections are gone."""
        self._joined_s = self._shared.clock.seconds()
        client = self.held.leg
        conversation = self.held.conversation
        late_ack = conversation is not None and conversation.ack_pending
        self._relay = relay = self._shared.join(client, builder, not late_ack)
        relay.start(self.held.hand_over(), greeting)
        if conversation is not None and late_ack:
            client.owner = LateAck(conversation, relay)
        if self._shared.reports is not None:
            self._shared.reports.joined(self._joined_s - self._began_s)
        return BY_END[await relay.ended]

    def _expired(self) -> None:
        """Give up at the deadline; a dial that failed tells a builder that is there from one that is not."""
        refused, dialled = bool(self._why), self._dialled
        if not refused and dialled is not None:
            self._why = f"pod {dialled.name} ({dialled.ip}): no answer yet"
        elif not refused and self._hold is not None:
            unfinished = UNFINISHED if self.held.kind is Kind.HTTP2_PART else ""
            self._why = self._hold.waiting_for or unfinished
        self._give_up(Outcome.BUILDER_REFUSED if refused else Outcome.NOT_READY_IN_TIME)

    def _give_up(self, outcome: Outcome) -> None:
        """Name the outcome, then cancel what is being done for the client, if anything is."""
        if self.outcome is None and self._work is not None:
            self.outcome = outcome
            if self._work.called:
                self._end()
            else:
                self._work.cancel()

    def _finished(self, result: Outcome | Failure) -> None:
        """End, unless it is only that the client wants no builder just now; then wait a little for it."""
        if self._unwanted and self.outcome is None:
            for timer in ("deadline", "bytes"):
                self._timers.cancel(timer)
            over_s = self._shared.clock.seconds() + LINGER_S
            self._timers.keep("linger", over_s, lambda: self._give_up(Outcome.CANCELLED_WHILE_HELD))
            self._timers.keep("engage", self._began_s + self._shared.hold_after_s, self.held.engage)
            return
        if self.outcome is None:
            self.outcome = Outcome.INTERNAL_ERROR if isinstance(result, Failure) else result
            if isinstance(result, Failure):
                self.log.failure("a session failed", result)
        self._end()

    def _end(self) -> None:
        """Tell how it ended, in the log and to the client; let the client go."""
        self._timers.cancel_all()
        self._log_end()
        if self.held.dismiss(self._words()):
            self._timers.keep("linger", self._shared.clock.seconds() + LINGER_S, self.held.drop)

    def _words(self) -> str:
        """Say to the client's user why there is no builder; nothing to one who has gone or was served."""
        waited = format_duration(round(self._shared.clock.seconds() - self._asked_s))
        if self.outcome in (Outcome.NOT_READY_IN_TIME, Outcome.BUILDER_REFUSED):
            return f"buildkitd not ready after {waited}: {self._why or 'the reason is not known'}"
        if self.outcome is Outcome.CANNOT_WAKE:
            return f"buildkitd not ready: {self._why}"
        if self.outcome is Outcome.SHUTTING_DOWN and self._relay is None:
            return "buildkitd not ready: bkscaler is shutting down"
        return ""

    def _log_end(self) -> None:
        """Write the one line of this connection, and report it."""
        assert self.outcome is not None
        end = self.report()
        log_end(self.log.info, self.outcome, end)
        if self._shared.reports is not None:
            self._shared.reports.ended(self.outcome, end)
