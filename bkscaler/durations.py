"""
Go-style durations (``2m0s``, ``1h30m``, ``250ms``) to seconds and back. Any room may import it.

The original program took its durations in this notation, so existing manifests keep working.
"""

from __future__ import annotations

import re

_UNITS_S = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART = re.compile(r"(\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h)")
MAX_DURATION_S = float(2**63) * 1e-9
"""The longest duration Go can hold, about 292 years, in seconds."""


def parse_duration(text: str) -> float:
    """
    Read a duration.

    :param text: one or more decimal numbers, each with a unit (``ns us ms s m h``); a bare ``0`` is
        allowed, and so is a sign in front, as in Go.
    :returns: seconds; negative for a negative duration.
    :raises ValueError: for anything else, and for more than :data:`MAX_DURATION_S`.
    """
    body = text[1:] if text[:1] in ("-", "+") else text
    if body == "0":
        return 0.0
    parts = list(_PART.finditer(body))
    if not parts or "".join(part.group(0) for part in parts) != body:
        raise ValueError(f"{text!r} is not a duration; write it like 2m0s, 1h30m or 250ms")
    total = sum(float(part.group(1)) * _UNITS_S[part.group(2)] for part in parts)
    if total > MAX_DURATION_S:
        raise ValueError(f"{text!r} is longer than 292 years")
    return -total if text.startswith("-") else total


def format_duration(seconds: float) -> str:
    """
    Write a duration as Go prints it: ``300.0`` is ``5m0s``, ``0.25`` is ``250ms``, zero is ``0s``.

    :param seconds: any finite number; rounded to the millisecond.
    :returns: text that :func:`parse_duration` reads back to the same value.
    """
    sign = "-" if seconds < 0 else ""
    millis = round(abs(seconds) * 1000)
    if millis < 1000:
        return f"{sign}{millis}ms" if millis else "0s"
    minutes, rest = divmod(millis, 60_000)
    secs = f"{rest / 1000:.3f}".rstrip("0").rstrip(".")
    hours, minutes = divmod(minutes, 60)
    text = f"{hours}h{minutes}m" if hours else f"{minutes}m" if minutes else ""
    return f"{sign}{text}{secs}s"
