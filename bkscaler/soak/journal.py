"""
Reading bkscaler's log in JSON, line by line, as ``docs/logs.md`` describes it. Pure.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Line:
    """
    One line.

    :param at_s: when, in seconds since 1970.
    :param level: ``info``, ``warn`` and so on.
    :param event: what has happened; ``""`` for a line that is only words.
    :param words: the message.
    :param fields: everything that it says.
    """

    at_s: float
    level: str
    event: str
    words: str
    fields: dict[str, Any]

    @property
    def is_bad(self) -> bool:
        """Whether it tells of a bug: nothing else is an error, or has a traceback."""
        return self.level in ("error", "critical") or "traceback" in self.fields


def read_line(text: str) -> Line:
    """
    Read a line.

    :raises ValueError: when it is not what the log is made of.
    """
    fields = json.loads(text)
    try:
        return Line(
            at_s=datetime.fromisoformat(fields["time"]).timestamp(),
            level=fields["level"],
            event=fields.get("event", ""),
            words=fields["message"],
            fields=fields,
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"no line of the log: {text!r}") from error


def read_metrics(text: str) -> dict[str, float]:
    """Read what ``/metrics`` answers, in Prometheus' text format, to the value of each series."""
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return {series: float(value) for series, _, value in (line.rpartition(" ") for line in lines)}
