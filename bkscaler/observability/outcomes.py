"""
The closed vocabulary of how a client's connection ends.

Exactly one of these words is given to each accepted connection, and the same word stands in the log, the
metric and ``docs/connections.md``, which a test compares with this list. Imported by the frontend; imports
nothing of ours.
"""

from __future__ import annotations

from enum import Enum


class Outcome(Enum):
    """How one client connection ended; the value is the word users see."""

    COMPLETED = "completed"
    """Joined; both sides finished."""
    CLIENT_LOST = "client_lost"
    """Joined; the client's connection was reset, or died without a word."""
    BUILDER_LOST = "builder_lost"
    """Joined; the builder's connection was reset, or died without a word."""
    PROBE = "probe"
    """Hung up within the probe grace without a byte: a health check. Woke nothing."""
    LEFT_WHILE_HELD = "left_while_held"
    """The client hung up before the builder was ready."""
    CANCELLED_WHILE_HELD = "cancelled_while_held"
    """A held gRPC client reset all its calls (Ctrl-C), although its connection was still there."""
    PROTOCOL_ERROR = "protocol_error"
    """A held gRPC client sent what HTTP/2 does not let it send, or more than that."""
    NOT_READY_IN_TIME = "not_ready_in_time"
    """No builder became ready within ``--ready-wait-timeout``."""
    BUILDER_REFUSED = "builder_refused"
    """A builder was said to be ready, and no connection to it came about within ``--ready-wait-timeout``."""
    CANNOT_WAKE = "cannot_wake"
    """The cluster said that the builder cannot come: no such StatefulSet, a missing right."""
    OVER_LIMIT = "over_limit"
    """Closed at once, since ``--max-connections`` were being served."""
    SHUTTING_DOWN = "shutting_down"
    """Cut when ``--drain-timeout`` was over, or because bkscaler was told to stop at once."""
    INTERNAL_ERROR = "internal_error"
    """A bug in bkscaler, with a traceback in the log."""


NO_BUILDER = frozenset({Outcome.NOT_READY_IN_TIME, Outcome.BUILDER_REFUSED, Outcome.CANNOT_WAKE})
"""The client was told that there is no builder."""
NOT_SERVED = NO_BUILDER | {Outcome.BUILDER_LOST, Outcome.OVER_LIMIT, Outcome.INTERNAL_ERROR}
"""Something that somebody should look into, when it happens often."""
