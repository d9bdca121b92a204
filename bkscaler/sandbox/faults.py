"""
A hook for trouble: asked before each request is served, so that tests can make the API fail.

The sandbox itself never injects anything.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from twisted.web.server import Request

from bkscaler.sandbox.replies import send_text


class FaultKind(Enum):
    """What is done to a request instead of serving it."""

    ANSWER = "answer"
    """Answer in plain text, as priority and fairness does (429)."""
    HANG = "hang"
    """Never answer."""
    CUT = "cut"
    """Close the connection without an answer."""


@dataclass(frozen=True, kw_only=True)
class Fault:
    """
    Trouble for one request.

    :param kind: what happens.
    :param code: HTTP status of an answer.
    :param text: its body.
    :param retry_after_s: its ``Retry-After`` header, whole seconds; None for none.
    """

    kind: FaultKind = FaultKind.ANSWER
    code: int = 429
    text: str = "Too many requests, please try again later.\n"
    retry_after_s: int | None = 1


FaultHook = Callable[[str, str], Fault | None]
"""Gets method and path with query; gives the trouble for this request, or None to serve it."""


def no_faults(_method: str, _uri: str) -> Fault | None:
    """Serve every request."""
    return None


def inflict(request: Request, fault: Fault) -> None:
    """Do to a request what the fault says."""
    if fault.kind is FaultKind.ANSWER:
        headers = {} if fault.retry_after_s is None else {"Retry-After": str(fault.retry_after_s)}
        send_text(request, fault.text, code=fault.code, headers=headers)
    elif fault.kind is FaultKind.CUT:
        request.loseConnection()
