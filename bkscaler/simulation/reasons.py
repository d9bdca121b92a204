"""
Whether the end of a connection has a reason: in what its client did, in what was done to it, or in time.

An end without one is a failure of bkscaler. Both functions give words on what is wrong, or ``""``.
"""

from __future__ import annotations

import math
from typing import Any
from urllib.parse import unquote

from bkscaler.frontend.sniff import PREFACE
from bkscaler.observability.outcomes import Outcome
from bkscaler.simulation.callers import Builds
from bkscaler.simulation.clients import SPOKEN_S, Client, Garbage

ROUNDING_S = 0.002
JUST_NOW_S = 1.0
"""How long it may take until the end of a connection to a builder is told of."""
LINGER_S = 60.0
"""How long a client that was told why, or wants nothing any more, must be let stay."""
MISSING_FOR_S = 10.0
"""How long after a set, or a right, was missing clients may be told so."""


def unexplained_outcome(judge: Any, client: Client, outcome: Outcome) -> str:
    """
    Judge the word that bkscaler has for an end.

    :param judge: knows the world.
    """
    served = client.name in judge.served_from
    if served and outcome in BEFORE_SERVICE:
        return "it was served by a builder"
    return RULES[outcome](judge, client)


def unexplained_end(judge: Any, client: Client) -> str:
    """Judge an end as the client sees it: a build is never cut for no reason, and nothing of it is lost."""
    link, due = client.transport.link, judge.due_words.get(client.peer)
    if due and not client.ending and not _was_told(client):
        unknown = link.server.read_bytes < len(PREFACE if isinstance(client, Builds) else b"GET ")
        excused = link.harmed or unknown or _was_overtaken(judge, client)
        return "" if excused else f"{client} was turned away without a word"
    if due and not link.harmed and (wrong := _wrongly_told(judge, client, due)):
        return wrong
    ends = judge.served_from.get(client.name, [])
    harmed = [end for end in (*ends, client.transport) if end.link.harmed or not end.host.alive]
    if not ends or harmed or judge.outcomes.get(client.peer) is Outcome.SHUTTING_DOWN:
        return ""
    if not client.ending:
        return f"{client} was cut while it was served"
    if client.ending == "finished" and not client.complete:
        return f"{client} got {len(client.received)} of {len(client.sent)} bytes back"
    return ""


def _was_overtaken(judge: Any, client: Client) -> bool:
    """Whether what a client was told may have been on its way when the process ended."""
    _, acceptor = judge.accepted[client.peer]
    waits = judge.outcomes[client.peer] is Outcome.SHUTTING_DOWN  # until it has been told
    just_told = not waits and judge.truth.now_s < judge.ended_s[client.peer] + 2 * SPOKEN_S
    return bool(acceptor.draining and (client.latency_s or just_told))


def _was_told(client: Client) -> bool:
    """Whether a client that speaks a language for it was told that there is no builder."""
    if isinstance(client, Garbage):
        return not client.words.startswith(b"GET ") or client.received.startswith(b"HTTP/1.1 503 ")
    return client.complete if isinstance(client, Builds) else True


def _wrongly_told(judge: Any, client: Client, due: frozenset[str]) -> str:
    """Judge what a client was told, and that it had its time afterwards."""
    wrong = [words for words in _words_to(client) if words not in due]
    if wrong:
        return f"{client} was told {wrong[0]!r}"
    early = _was_dropped_early(judge, client)
    return f"{client} was told, and dropped before it could leave" if early else ""


def _was_dropped_early(judge: Any, client: Client) -> bool:
    """Whether a gRPC client that was told why had less time to leave than it needs."""
    _, acceptor = judge.accepted[client.peer]
    told_for_s = judge.truth.now_s - judge.ended_s[client.peer]
    stayed = isinstance(client, Builds) and client.refusals and not (client.ending or acceptor.draining)
    return bool(stayed and told_for_s < LINGER_S - ROUNDING_S)


def _words_to(client: Client) -> list[str]:
    """List what a client was told in place of being served."""
    if isinstance(client, Builds):
        return [unquote(words) for words in client.refusals]
    text = client.received if isinstance(client, Garbage) else b""
    return [text.partition(b"\r\n\r\n")[2].decode().strip()] if text.startswith(b"HTTP/1.1 503 ") else []


def _gone(judge: Any, client: Client) -> bool:
    """Whether the client has ended its connection, or the network has."""
    link, _ = judge.accepted[client.peer]
    return bool(client.ending or link.harmed or client.wrong)


def _left(judge: Any, client: Client) -> str:
    return "" if _gone(judge, client) else "it has not left"


def _client_lost(judge: Any, client: Client) -> str:
    link, _ = judge.accepted[client.peer]
    if client.ending == "finished" and not link.harmed and not client.wrong:
        return "it has finished in good order"
    return _left(judge, client)


def _left_while_held(judge: Any, client: Client) -> str:
    link, _ = judge.accepted[client.peer]
    lasted_s = judge.truth.now_s - judge.linked_s[link]
    if not link.server.read_bytes and lasted_s < judge.world.settings.probe_grace_s - ROUNDING_S:
        return "it was a probe"
    if client.kind == "plain" and client.ending == "finished" and not link.harmed:
        return "it has only half-closed, and waits"
    return _left(judge, client)


def _builder_lost(judge: Any, client: Client) -> str:
    return "" if _harmed(judge) else "no builder has died, and no connection to one was harmed"


def _harmed(judge: Any) -> bool:
    """Whether a connection to a builder was harmed that is still there, or was a moment ago."""
    now_s = judge.truth.now_s
    links = judge.builder_links.items()
    return any(link.harmed and now_s <= ended_s + JUST_NOW_S for link, ended_s in links)


def _probe(judge: Any, client: Client) -> str:
    link, _ = judge.accepted[client.peer]
    if link.server.read_bytes:
        return "it has spoken"
    return _left(judge, client)


def _cancelled(judge: Any, client: Client) -> str:
    link, _ = judge.accepted[client.peer]
    if not isinstance(client, Builds) or not client.has_cancelled:
        return "it has not cancelled"
    if client.ending or link.harmed or client.wrong:
        return ""
    if client.wants and _was_heard(judge, client, client.asked_s):
        return "it wants something again"
    held_s = judge.truth.now_s - client.cancelled_s
    enough = held_s >= LINGER_S - ROUNDING_S or _was_brief(client)
    return "" if enough else f"it was let go {held_s:.3f} s after it had"


def _was_brief(client: Builds) -> bool:
    """Whether a client has cancelled its last call so soon that both may have come at once."""
    return client.cancelled_s - client.asked_s <= client.latency_s + SPOKEN_S


def _was_heard(judge: Any, client: Client, spoke_s: float) -> bool:
    """Whether what a client has said at some time has arrived by now."""
    return bool(judge.truth.now_s > spoke_s + client.latency_s + SPOKEN_S)


def _misbehaved(judge: Any, client: Client) -> str:
    return "" if isinstance(client, Garbage) else "it has not misbehaved"


def _too_late(judge: Any, client: Client) -> str:
    link, _ = judge.accepted[client.peer]
    if not link.harmed and _has_been_heard_to_cancel(judge, client):
        return "it wants nothing any more"
    waited_s = _waited_s(judge, client)
    limit_s = judge.world.settings.ready_wait_timeout_s
    return "" if waited_s >= limit_s - ROUNDING_S else f"it has waited for {waited_s:.3f} s only"


def _has_been_heard_to_cancel(judge: Any, client: Client) -> bool:
    """Whether a client has cancelled all that it wanted, and that has arrived."""
    if not isinstance(client, Builds) or not client.wants_nothing:
        return False
    return _was_heard(judge, client, client.cancelled_s)


def _waited_s(judge: Any, client: Client) -> float:
    """
    Tell how long a client may seem to have wanted a builder. That it has cancelled what it wanted before does
    not always arrive from the far end of a harmed connection.
    """
    link, _ = judge.accepted[client.peer]
    unheard = link.harmed and isinstance(client, Builds) and client.has_cancelled
    return float(judge.truth.now_s - (judge.linked_s[link] if unheard else client.asked_from_s))


def _cannot_wake(judge: Any, client: Client) -> str:
    settings, now_s = judge.world.settings, judge.truth.now_s
    amiss_s = max(judge.truth.refused_s, judge.missing_s)
    stale = judge.world.api.trouble.stale  # the set may have been missing when what it tells was so
    amiss = now_s < amiss_s + MISSING_FOR_S or stale or not judge.world.identity.is_well
    if amiss or math.isfinite(judge.draining_since_s):
        return ""
    waited_s = _waited_s(judge, client)
    if math.isfinite(settings.give_up_after_s) and waited_s >= settings.give_up_after_s - ROUNDING_S:
        return "" if not judge.truth.calm else "nothing is wrong with the pods"
    return "there is nothing that keeps the builder from coming"


def _over_limit(judge: Any, client: Client) -> str:
    others = [end for end in judge.truth.client_ends() if judge.truth.client_of(end) is not client]
    limit = judge.world.settings.max_connections
    return "" if len(others) >= limit else f"there are only {len(others)} others"


def _shut_down(judge: Any, client: Client) -> str:
    over_s = judge.draining_since_s + judge.world.settings.drain_timeout_s - ROUNDING_S
    return "" if judge.truth.now_s >= over_s else "the drain timeout is not over"


def _bug(judge: Any, client: Client) -> str:
    return "that must never be"


def _completed(judge: Any, client: Client) -> str:
    if _gone(judge, client) or (client.name not in judge.served_from and _harmed(judge)):
        return ""
    return "it has not left" if client.name in judge.served_from else "no builder has served it"


RULES = {
    Outcome.COMPLETED: _completed,
    Outcome.CLIENT_LOST: _client_lost,
    Outcome.BUILDER_LOST: _builder_lost,
    Outcome.PROBE: _probe,
    Outcome.LEFT_WHILE_HELD: _left_while_held,
    Outcome.CANCELLED_WHILE_HELD: _cancelled,
    Outcome.PROTOCOL_ERROR: _misbehaved,
    Outcome.NOT_READY_IN_TIME: _too_late,
    Outcome.BUILDER_REFUSED: _too_late,
    Outcome.CANNOT_WAKE: _cannot_wake,
    Outcome.OVER_LIMIT: _over_limit,
    Outcome.SHUTTING_DOWN: _shut_down,
    Outcome.INTERNAL_ERROR: _bug,
}
"""What justifies each outcome."""
BEFORE_SERVICE = frozenset(RULES) - {
    Outcome.COMPLETED,
    Outcome.CLIENT_LOST,
    Outcome.BUILDER_LOST,
    Outcome.SHUTTING_DOWN,
}
"""Outcomes of clients that no builder has served."""
