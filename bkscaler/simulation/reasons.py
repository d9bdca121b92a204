"""
Whether the end of a connection has a reason: in what its client did, in what was done to it, or in time.

An end without one is a failure of bkscaler. Both functions give words on what is wrong, or ``""``.
"""

from __future__ import annotations

import math
from typing import Any
from urllib.parse import unquote

from bkscaler.durations import format_duration
from bkscaler.frontend.sniff import PREFACE
from bkscaler.observability.outcomes import NO_BUILDER, Outcome
from bkscaler.simulation.callers import Builds
from bkscaler.simulation.clients import Client, Garbage

ROUNDING_S = 0.002
JUST_NOW_S = 1.0
"""How long it may take until the end of a connection to a builder is told of."""
MISSING_FOR_S = 10.0
"""How long after a set, or a right, was missing clients may be told so."""

KNOWN_FOR_S, POD_KNOWN_FOR_S = 18.0, 12.0
"""After how long bkscaler must know that the API server does not answer, and what keeps a pod from coming."""
API, MISSING = "the Kubernetes API", "there is no StatefulSet"
MISSING_GRACE_S = 5.0
"""How long a set must be missing until clients are told: whoever replaces it deletes it for a moment."""
IN_BACKOFF_S = 40.0
"""How long after trouble with the API server requests may go without an answer."""


def unexplained_outcome(judge: Any, client: Client, outcome: Outcome) -> str:
    """
    Judge the word that bkscaler has for an end.

    :param judge: knows the world.
    """
    served = client.name in judge.served_from
    if served and outcome in BEFORE_SERVICE:
        return "it was served by a builder"
    return RULES[outcome](judge, client)


def wrong_numbers(judge: Any, client: Client, outcome: Outcome, told: dict[str, Any]) -> str:
    """Judge what the log says of a connection that has ended."""
    if outcome is Outcome.BUILDER_REFUSED and not told["failed_dials"]:
        return "no dial has failed"
    wrong = _wrong_reason(judge, outcome, told["reason"]) if outcome in NO_BUILDER else ""
    if wrong or outcome is Outcome.OVER_LIMIT:
        return wrong
    return _wrong_times(judge, client, told) or _wrong_bytes(judge, client, outcome, told)


def _wrong_bytes(judge: Any, client: Client, outcome: Outcome, told: dict[str, Any]) -> str:
    """Compare the bytes in the log with those of a client that has got everything."""
    harmed = any(end.link.harmed for end in judge.served_from.get(client.name, []))
    if client.kind != "plain" or outcome is not Outcome.COMPLETED or client.ending != "finished" or harmed:
        return ""
    if (told["bytes_up"], told["bytes_down"]) != (len(client.sent), len(client.sent)):
        return f"{told['bytes_up']} bytes up and {told['bytes_down']} down are logged"
    return ""


def _wrong_reason(judge: Any, outcome: Outcome, reason: str) -> str:
    """Compare the reason in the log with what is so."""
    truth = judge.truth
    if not reason:
        return "no reason is logged"
    if API in reason and truth.api_trouble_s + IN_BACKOFF_S < truth.now_s:
        return f"{reason!r} is logged, and that is over"
    gone_for_s = truth.now_s - judge.deleted_s
    missing = outcome is Outcome.CANNOT_WAKE and MISSING in reason and judge.is_well
    if missing and gone_for_s < MISSING_GRACE_S - ROUNDING_S:
        return f"{reason!r} is logged {gone_for_s:.3f} s after it was deleted"
    if outcome is Outcome.NOT_READY_IN_TIME and (known := _known_reason(judge)) not in reason:
        return f"{reason!r} is logged, and the reason is {known}"
    return ""


def _known_reason(judge: Any) -> str:
    """Say why no builder comes, in a word that must be told; ``""`` when that is not so sure."""
    truth = judge.truth
    if truth.now_s > truth.answered_s + KNOWN_FOR_S and not truth.api_answers():
        return API
    return "pod buildkitd-0" if truth.now_s > truth.hopeful_s + POD_KNOWN_FOR_S else ""


def _wrong_times(judge: Any, client: Client, told: dict[str, Any]) -> str:
    """Compare the times in the log with when connections were made."""
    link, _ = judge.accepted[client.peer]
    waited_s, joined_s, began_s = told["waited_s"], told["joined_s"], judge.linked_s[link]
    logged_s, lasted_s = waited_s + (joined_s or 0.0), judge.truth.now_s - began_s
    if abs(logged_s - lasted_s) > ROUNDING_S:
        return f"{logged_s:.3f} s are logged, and it has lasted for {lasted_s:.3f} s"
    ends = judge.served_from.get(client.name)
    if ends and (joined_s is None or began_s + waited_s < judge.linked_s[ends[0].link] - ROUNDING_S):
        return "it was joined later than is logged"
    return ""


def due_words(judge: Any, client: Client, outcome: Outcome, told: dict[str, Any]) -> frozenset[str]:
    """Say what a client that gets no builder is to be told; any of these."""
    reason = told["reason"].strip() or "the reason is not known"
    if outcome in {Outcome.NOT_READY_IN_TIME, Outcome.BUILDER_REFUSED}:
        waited_s = round(judge.truth.now_s - client.asked_s)
        about = (format_duration(max(0, waited_s + more_s)) for more_s in (-1, 0, 1))
        return frozenset(f"buildkitd not ready after {waited}: {reason}" for waited in about)
    if outcome is Outcome.CANNOT_WAKE:
        return frozenset({f"buildkitd not ready: {reason}"})
    if outcome is Outcome.SHUTTING_DOWN and told["joined_s"] is None:
        return frozenset({"buildkitd not ready: bkscaler is shutting down"})
    return frozenset()


def unexplained_end(judge: Any, client: Client) -> str:
    """Judge an end as the client sees it: a build is never cut for no reason, and nothing of it is lost."""
    link, due = client.transport.link, judge.due_words.get(client.peer)
    if due and not client.ending and not _was_told(client):
        unknown = link.server.read_bytes < len(PREFACE if isinstance(client, Builds) else b"GET ")
        _, acceptor = judge.accepted[client.peer]
        overtaken = client.latency_s and acceptor.draining  # by the end of the process
        return "" if link.harmed or unknown or overtaken else f"{client} was turned away without a word"
    if due and not link.harmed and (wrong := [words for words in _words_to(client) if words not in due]):
        return f"{client} was told {wrong[0]!r}"
    ends = judge.served_from.get(client.name, [])
    harmed = [end for end in (*ends, client.transport) if end.link.harmed or not end.host.alive]
    if not ends or harmed or judge.outcomes.get(client.peer) is Outcome.SHUTTING_DOWN:
        return ""
    if not client.ending:
        return f"{client} was cut while it was served"
    if client.ending == "finished" and not client.complete:
        return f"{client} got {len(client.received)} of {len(client.sent)} bytes back"
    return ""


def _was_told(client: Client) -> bool:
    """Whether a client that speaks a language for it was told that there is no builder."""
    if isinstance(client, Garbage):
        return not client.words.startswith(b"GET ") or client.received.startswith(b"HTTP/1.1 503 ")
    return client.complete if isinstance(client, Builds) else True


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
    if not isinstance(client, Builds) or not client.has_cancelled:
        return "it has not cancelled"
    return ""


def _misbehaved(judge: Any, client: Client) -> str:
    return "" if isinstance(client, Garbage) else "it has not misbehaved"


def _too_late(judge: Any, client: Client) -> str:
    link, _ = judge.accepted[client.peer]
    if link.harmed and isinstance(client, Builds) and client.has_cancelled:
        return ""  # that it has cancelled, and wants something again, may not have arrived
    waited_s = judge.truth.now_s - client.asked_s
    limit_s = judge.world.settings.ready_wait_timeout_s
    return "" if waited_s >= limit_s - ROUNDING_S else f"it has waited for {waited_s:.3f} s only"


def _cannot_wake(judge: Any, client: Client) -> str:
    settings, now_s = judge.world.settings, judge.truth.now_s
    amiss_s = max(judge.truth.refused_s, judge.missing_s)
    if now_s < amiss_s + MISSING_FOR_S or math.isfinite(judge.draining_since_s):
        return ""
    waited_s = now_s - client.asked_s
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
