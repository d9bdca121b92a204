"""
Small tools for Kubernetes objects as plain JSON values: stamps, names, uids, a safe look inside.

Pure; chance and wall clock come in as values. Any module of the sandbox may import it.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

Object = dict[str, Any]
"""One Kubernetes object, list or Status as decoded JSON."""

Random = Callable[[], float]
"""Gives a number in [0, 1); uids, tokens, name suffixes and addresses all come from one of these."""

Now = Callable[[], datetime]
"""Gives the wall clock as an aware datetime in UTC; used for stamps only, never for durations."""

_SUFFIX_LETTERS = "bcdfghjklmnpqrstvwxz2456789"


def stamp(when: datetime) -> str:
    """Write a time as ``metav1.Time`` does: whole seconds, ``Z``."""
    return when.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="seconds") + "Z"


def micro_stamp(when: datetime) -> str:
    """Write a time as ``metav1.MicroTime`` does: exactly six fractional digits, ``Z``."""
    return when.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def parse_stamp(text: str) -> datetime:
    """
    Read a time written by :func:`stamp` or :func:`micro_stamp`.

    :raises ValueError: when it is no ISO 8601 time.
    """
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def dig(value: Any, *path: str) -> Any:
    """
    Look inside nested mappings.

    :returns: the value at ``path``, or None as soon as a step is missing or is not a mapping.
    """
    for step in path:
        if not isinstance(value, dict):
            return None
        value = value.get(step)
    return value


def clone(value: Object) -> Object:
    """Copy an object so deeply that the copy can be changed freely."""
    copy: Object = _clone(value)
    return copy


def _clone(value: Any) -> Any:
    # Many times as fast as copy.deepcopy, which watches for circles that JSON cannot have. Most of what is in
    # a JSON value is text and numbers, for which nothing is called.
    copy = value.copy()
    for place, item in copy.items() if type(copy) is dict else enumerate(copy):
        if type(item) is dict or type(item) is list:
            copy[place] = _clone(item)
    return copy


def random_hex(random: Random, digits: int) -> str:
    """Make a string of random hexadecimal digits, two for each call of ``random``."""
    return bytes([int(random() * 256) for _ in range((digits + 1) // 2)]).hex()[:digits]


def make_uid(random: Random) -> str:
    """Make an object's uid, in the shape of a version 4 UUID."""
    digits = random_hex(random, 32)
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-{digits[20:]}"


def make_suffix(random: Random, length: int = 5) -> str:
    """Make the random end of a generated name, from the letters Kubernetes uses."""
    return "".join(_SUFFIX_LETTERS[int(random() * len(_SUFFIX_LETTERS))] for _ in range(length))


def letters_of(number: int, length: int = 10) -> str:
    """Write a number with the letters of generated names; equal numbers give equal text."""
    text = ""
    for _ in range(length):
        number, index = divmod(number, len(_SUFFIX_LETTERS))
        text += _SUFFIX_LETTERS[index]
    return text
