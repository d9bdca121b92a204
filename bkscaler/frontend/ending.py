"""
How a connection ended, in one word and in one line. Imported by ``frontend.session`` and its neighbours.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bkscaler.durations import format_duration
from bkscaler.model import Connection
from bkscaler.observability.outcomes import Outcome
from bkscaler.relay.pair import End

BY_END = {
    End.COMPLETED: Outcome.COMPLETED,
    End.CLIENT_LOST: Outcome.CLIENT_LOST,
    End.BUILDER_LOST: Outcome.BUILDER_LOST,
    End.CUT: Outcome.SHUTTING_DOWN,
}
"""The outcome of a client that was joined."""


def log_end(write: Callable[..., None], outcome: Outcome, end: Connection) -> None:
    """
    Write the line of a connection that has ended.

    :param write: logs at some level.
    """
    write(
        "{peer} {outcome}{because} after waiting {waited}, joined for {lasted}, {bytes_up} bytes up, "
        "{bytes_down} down",
        event="connection_ended",
        peer=end.peer,
        outcome=outcome.value,
        because=f" ({end.why})" if end.why else "",
        reason=end.why,
        waited=format_duration(end.waited_s),
        lasted=format_duration(end.joined_s or 0.0),
        waited_s=round(end.waited_s, 3),
        joined_s=None if end.joined_s is None else round(end.joined_s, 3),
        bytes_up=end.bytes_up,
        bytes_down=end.bytes_down,
        failed_dials=end.failed_dials,
    )


def written(address: Any) -> str:
    """
    Write an address as the log shows it; an IPv4 client of an IPv6 socket as what it is.

    :param address: of Twisted's; one that is no IP address is that of a local client.
    """
    host = getattr(address, "host", None)
    return "a local client" if host is None else written_ip(host, address.port)


def written_ip(host: str, port: int) -> str:
    """Write an IP address and a port; see :func:`written`."""
    host = host.removeprefix("::ffff:")
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
