"""Ways to break what is done for clients, and the end of the process; see ``simulation.misscaling``."""

from __future__ import annotations

from bkscaler.backoff import Backoff
from bkscaler.simulation.breaking import Ways, line, value

FAST, SLOW = Backoff(first_s=0.001, limit_s=0.002), Backoff(first_s=0.05, limit_s=1e9)

FRONTEND: Ways = {
    "ready-wait-timeout is doubled": (
        line(
            "frontend.session:Session._wait_in_earnest",
            "self._asked_s + self._shared.ready_wait_timeout_s",
            "self._asked_s + 2 * self._shared.ready_wait_timeout_s",
        ),
    ),
    "clients are held for ever": (
        line(
            "frontend.session:Session._wait_in_earnest",
            'self._timers.keep("deadline", self._asked_s + self._shared.ready_wait_timeout_s, self._expired)',
            "pass",
        ),
    ),
    "health checks wake the builder": (
        line("frontend.session:Session._serve", "if self.held.kind is Kind.SILENT:", "if False:"),
    ),
    "a held gRPC client hears nothing": (
        line(
            "frontend.session:Session._wait_in_earnest",
            "self._began_s + self._shared.hold_after_s",
            "self._began_s + 1e9",
        ),
    ),
    "who speaks late is not told that a server is there": (
        line("frontend.held:HeldClient.engage", "self._engage_at_once = True", "pass"),
    ),
    "PINGs of held clients are not answered": (
        line("frontend.conversation:HeldConversation._react", "refusal.ping_ack(frame.payload)", 'b""'),
    ),
    "the acknowledgement of our SETTINGS is passed on": (
        line(
            "frontend.conversation:HeldConversation._react",
            "if frame.is_settings_ack and self._ack_pending:",
            "if False:",
        ),
        line(
            "frontend.session:Session._joined",
            "late_ack = conversation is not None and conversation.ack_pending",
            "late_ack = False",
        ),
    ),
    "a PING is answered, and passed on as well": (
        line(
            "frontend.conversation:HeldConversation._react",
            "if frame.kind == PING:",
            "if frame.kind == PING and (self._kept.append(frame) or True):",
        ),
    ),
    "the SETTINGS of held clients are acknowledged at once": (
        line(
            "frontend.conversation:HeldConversation.engage",
            "return refusal.SERVER_SETTINGS",
            "return refusal.SERVER_SETTINGS + refusal.SETTINGS_ACK",
        ),
    ),
    "the SETTINGS of who is turned away are not acknowledged": (
        line(
            "frontend.conversation:HeldConversation.refuse",
            "if frame.kind == SETTINGS]",
            "if False]",
        ),
    ),
    "only the last call is told why": (
        line(
            "frontend.conversation:HeldConversation.refuse",
            "self._answer(self._calls.open, words)",
            "self._answer(self._calls.open[-1:], words)",
        ),
    ),
    "calls made after a refusal are not answered": (
        line("frontend.conversation:HeldConversation._refuse_frame", "if whole", "if False"),
    ),
    "a held client may say a third of what it may": (value("frontend.conversation:MAX_DATA_BYTES", 21_845),),
    "what comes with a late acknowledgement is lost": (
        line("frontend.lateack:LateAck.received", "if passed:", "if False:"),
    ),
    "an HTTP/1 client is not told why": (
        line("frontend.held:HeldClient.dismiss", "(Kind.HTTP2, Kind.HTTP1)", "(Kind.HTTP2,)"),
    ),
    "who has half-closed and then resets is not noticed": (
        line(
            "frontend.held:HeldClient.finished",
            "self._watch = self._hangups.watch(leg.transport, self._hung_up)",
            "pass",
        ),
    ),
    "a half-close while paused is taken for a departure": (
        line(
            "frontend.held:HeldClient._hung_up",
            "hangup is Hangup.LOST or self.kind.leaves_by_finishing",
            "True",
        ),
    ),
    "early bytes are sent twice": (
        line("relay.pair:CopyRelay.start", "self._up.start(early)", "self._up.start(early + early)"),
    ),
    "what was held beyond 10,000 bytes is lost": (
        line("relay.pair:CopyRelay.start", "self._up.start(early)", "self._up.start(early[:10_000])"),
    ),
    "the builder's greeting is passed on twice": (
        line(
            "relay.pair:CopyRelay.start",
            "self._down.start(greeting)",
            "self._down.start(greeting + greeting)",
        ),
    ),
    "a half-close is not passed on": (
        line("relay.pair:_Flow.finish", "self.sink.transport.loseWriteConnection()", "pass"),
    ),
    "a half-close before joining is not passed on": (
        line("relay.pair:_Flow.start", "    if self.source.has_finished:\n        self.finish()", ""),
    ),
    "a half-close is taken for a departure": (
        line("frontend.held:HeldClient.finished", "elif self.kind.leaves_by_finishing:", "elif True:"),
    ),
    "a reset is not passed on": (line("relay.pair:CopyRelay.lost", "if not orderly:", "if False:"),),
    "one connection too many": (
        line("frontend.listener:ProxyFactory._admit", "< self._max_connections", "<= self._max_connections"),
    ),
    "clients are held without a bound": (
        line(
            "frontend.held:HeldClient._pause", "if self._watch is None and not self.leg.is_lost:", "if False:"
        ),
    ),
    "who waits to be spoken to is never spoken to": (
        line(
            "frontend.session:Session._more_bytes_until",
            'self._timers.keep("bytes", limit_s, self.client_spoke)',
            "pass",
        ),
    ),
    "who leaves while its transport is paused is not noticed": (
        line(
            "frontend.held:HeldClient._pause",
            "self._watch = self._hangups.watch(self.leg.transport, self._hung_up)",
            "pass",
        ),
    ),
    "calls that are cancelled keep the builder awake": (
        line("frontend.held:HeldClient._converse", "self._listener.client_cancelled()", "pass"),
    ),
    "a client that comes back is forgotten": (
        line("frontend.session:Session.client_returned", "self._begin()", "pass"),
    ),
    "who comes back has only the time that was left": (
        line("frontend.session:Session._begin", "self._asked_s = self._shared.clock.seconds()", "pass"),
    ),
    "who comes back is let go all the same": (
        line("frontend.session:Session._begin", 'self._timers.cancel("linger")', "pass"),
    ),
    "who comes back is taken for one that wants nothing": (
        line("frontend.session:Session.client_returned", "self._unwanted = False", "pass"),
    ),
    "the deadline outlasts a cancellation": (
        line("frontend.session:Session._finished", 'for timer in ("deadline", "bytes"):', "for timer in ():"),
    ),
    "who has cancelled is not told that a server is there": (
        line("frontend.session:Session._finished", "self._shared.hold_after_s", "1e9"),
    ),
    "who has cancelled and leaves is not forgotten": (
        line("frontend.session:Session._give_up", "if self._work.called:", "if False:"),
    ),
    "who may linger is dropped at once": (value("frontend.session:LINGER_S", 5.0),),
    "a client that left is called cancelled": (
        line(
            "frontend.session:Session.client_left", "Outcome.LEFT_WHILE_HELD", "Outcome.CANCELLED_WHILE_HELD"
        ),
    ),
    "a probe is called a client that left": (
        line("frontend.session:Session.client_left", "Outcome.PROBE if self._hold is None else ", ""),
    ),
    "refused and not ready are mistaken for each other": (
        line(
            "frontend.session:Session._expired",
            "Outcome.BUILDER_REFUSED if refused else Outcome.NOT_READY_IN_TIME",
            "Outcome.NOT_READY_IN_TIME if refused else Outcome.BUILDER_REFUSED",
        ),
    ),
    "a dial without an answer is no reason": (
        line("frontend.session:Session._expired", "if not refused and dialled is not None:", "if False:"),
    ),
    "clients are not told why": (
        line("frontend.session:Session._end", "self.held.dismiss(self._words())", "self.held.dismiss()"),
    ),
    "clients are told that the reason is not known": (
        line(
            "frontend.session:Session._words",
            "{self._why or 'the reason is not known'}",
            "the reason is not known",
        ),
    ),
    "clients are told to try again": (value("frontend.refusal:FAILED_PRECONDITION", 14),),
    "who is held at a shutdown is not told why": (
        line(
            "frontend.session:Session._words",
            "self.outcome is Outcome.SHUTTING_DOWN and self._relay is None",
            "False",
        ),
    ),
    "who has cancelled may stay for ever": (
        line(
            "frontend.session:Session._finished",
            'self._timers.keep("linger", over_s, lambda: self._give_up(Outcome.CANCELLED_WHILE_HELD))',
            "pass",
        ),
    ),
    "the moment of joining is not kept": (
        line("frontend.session:Session._joined", "self._joined_s = self._shared.clock.seconds()", "pass"),
    ),
    "a builder that resets is waited for": (
        line(
            "frontend.greeting:_Greeting.lost", 'self._fail("the builder accepts and resets at once")', "pass"
        ),
    ),
    "who was told why is never dropped": (
        line(
            "frontend.session:Session._end",
            "self.held.dismiss(self._words()):",
            "self.held.dismiss(self._words()) and False:",
        ),
    ),
    "a new pod is not asked for its health": (
        line("frontend.dial:Dialer.is_known_to_serve", "== replica", "is not None"),
    ),
    "a builder that is there and refuses is dialled for ever": (
        line("frontend.session:Session._reach", "if failures or not ready.called:", "if not ready.called:"),
    ),
    "builders are dialled in a loop": (value("frontend.session:REDIAL", FAST),),
    "builders are dialled less and less": (value("frontend.session:REDIAL", SLOW),),
    "a dial may take two minutes": (value("plugin:DIAL_TIMEOUT_S", 120.0),),
    "a builder's first words are not waited for": (
        line("frontend.session:Session._dial", "if self.held.kind is not Kind.HTTP2:", "if True:"),
    ),
    "a builder's first words are waited for for ever": (value("frontend.greeting:GREETING_TIMEOUT_S", 1e6),),
    "the hold ends when the client is joined": (
        line(
            "frontend.session:Session._serve",
            "self._timers.cancel_all()",
            "self._timers.cancel_all() or hold.release()",
        ),
    ),
    "the hold ends when a dial fails": (
        line("frontend.session:Session._reach", "failures += 1", "failures += 1 + (hold.release() or 0)"),
    ),
    "sessions that are over are not forgotten": (
        line("frontend.session:Session.client_closed", "self._on_end(self)", "pass"),
    ),
    "after half a preface what was ready is dialled": (
        line("frontend.session:Session._after_preface", "replica = hold.ready_now()", "replica = self._old"),
        line(
            "frontend.session:Session._reach",
            "replica = await self._after_preface(hold)",
            "self._old = replica; replica = await self._after_preface(hold)",
        ),
    ),
    "after a health check what was ready is dialled": (
        line("frontend.dial:Dialer._check_and_dial", "if not is_ready():", "if False:"),
    ),
    "a late acknowledgement is not waited for": (
        line(
            "frontend.session:Session._joined",
            "late_ack = conversation is not None and conversation.ack_pending",
            "late_ack = False",
        ),
    ),
}
RELAY: Ways = {
    "nobody is paused by a slow reader": (
        line(
            "relay.pair:_Flow.pauseProducing",
            "    self.source.transport.pauseProducing()\n    self._keep_watch()",
            "    pass",
        ),
    ),
    "who has half-closed and resets later is not noticed": (
        line("relay.pair:_Flow.finish", "self._keep_watch()", "pass"),
    ),
    "both have finished, and nobody closes": (
        line("relay.pair:CopyRelay._close_if_finished", "leg.transport.loseConnection()", "pass"),
    ),
    "one end is taken for both": (line("relay.pair:CopyRelay.lost", "all(each", "any(each"),),
    "who is to blame is mistaken": (
        line("relay.pair:CopyRelay._blame", "leg is self._up.source", "leg is not self._up.source"),
    ),
    "bytes are counted that were not sent": (
        line("relay.pair:_Flow.write", "self.bytes += len(data)", "self.bytes += len(data) + 1"),
    ),
    "who was paused is not resumed": (
        line(
            "relay.pair:_Flow.resumeProducing",
            "        self.source.transport.resumeProducing()",
            "        pass",
        ),
    ),
    "a paused peer's reset is not noticed": (
        line(
            "relay.pair:_Flow._keep_watch", "if self._watch is None and not self.source.is_lost:", "if False:"
        ),
    ),
}
SHUTDOWN: Ways = {
    "SIGTERM is ignored": (
        line("shutdown:Drain._signalled", "self._reactor.callFromThread(self.begin)", "pass"),
    ),
    "a second SIGTERM is ignored": (line("shutdown:Drain._signalled", "if self.draining:", "if False:"),),
    "the drain timeout is ignored": (
        line("shutdown:Drain._drain", "self._emptied_within(self._limit_s)", "self._emptied_within(1e6)"),
    ),
    "draining cuts at once": (
        line("shutdown:Drain._drain", "self._emptied_within(self._limit_s)", "self._emptied_within(0.0)"),
    ),
    "a draining process accepts clients": (
        line("shutdown:Drain._drain", "await self._stop_accepting()", "pass"),
    ),
    "who was told of the shutdown is not dropped": (
        line(
            "shutdown:Drain._drain",
            "self._connections.cut_all()\n            await self._emptied",
            "await self._emptied",
        ),
    ),
    "only the oldest connection is cut": (
        line(
            "frontend.listener:ProxyFactory.cut_all",
            "list(self._sessions.values())",
            "list(self._sessions.values())[:1]",
        ),
    ),
}
