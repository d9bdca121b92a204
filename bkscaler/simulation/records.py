"""
Whether what is logged of a connection is so: its reason, its times and its bytes.

Imported by :mod:`bkscaler.simulation.judge`.
"""

from __future__ import annotations

from typing import Any

from bkscaler.durations import format_duration
from bkscaler.observability.outcomes import NO_BUILDER, Outcome
from bkscaler.simulation.clients import Client

ROUNDING_S = 0.002
KNOWN_FOR_S, POD_KNOWN_FOR_S = 18.0, 12.0
"""After how long bkscaler must know that the API server does not answer, and what keeps a pod from coming."""
API, MISSING = "the Kubernetes API", "there is no StatefulSet"
MISSING_GRACE_S = 5.0
"""How long a set must be missing until clients are told: whoever replaces it deletes it for a moment."""
IN_BACKOFF_S = 40.0
"""How long after trouble with the API server requests may go without an answer."""


def wrong_record(judge: Any, client: Client, outcome: Outcome, told: dict[str, Any]) -> str:
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
    if API in reason and truth.api_trouble_s + IN_BACKOFF_S < truth.now_s and truth.api_is_fine():
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
    answered_s = max(truth.answered_s, judge.world.api.read_s, judge.dialled_s)  # watches tell all the same
    if truth.now_s > answered_s + KNOWN_FOR_S and not truth.api_answers():
        return API
    long = truth.now_s > max(truth.hopeful_s, truth.api_trouble_s) + POD_KNOWN_FOR_S
    return "pod buildkitd-0" if long and truth.api_is_fine() and truth.hopeless() else ""


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
        least_s, most_s = (
            round(judge.truth.now_s - since_s) for since_s in (client.asked_s, client.asked_from_s)
        )
        about = map(format_duration, range(max(0, least_s - 1), most_s + 2))
        return frozenset(f"buildkitd not ready after {waited}: {reason}" for waited in about)
    if outcome is Outcome.CANNOT_WAKE:
        return frozenset({f"buildkitd not ready: {reason}"})
    if outcome is Outcome.SHUTTING_DOWN and told["joined_s"] is None:
        return frozenset({"buildkitd not ready: bkscaler is shutting down"})
    return frozenset()
