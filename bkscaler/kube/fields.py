"""
Reading of Kubernetes objects, which leave out what is zero, empty or unknown. Pure.

Every function accepts any JSON value and any path through it: a missing or mistyped part gives the
empty value, never an exception, so that a watch survives an odd object. Imported by the kube room only.
"""

from __future__ import annotations

from typing import Any


def mapping(value: Any, *path: str) -> dict[str, Any]:
    """
    Follow keys to an object.

    :param value: any JSON value.
    :param path: keys, outermost first.
    :returns: the object there, or ``{}``.
    """
    found = _at(value, path)
    return found if isinstance(found, dict) else {}


def items(value: Any, *path: str) -> list[dict[str, Any]]:
    """Follow keys to a list of objects; elements that are no objects are left out, no list is ``[]``."""
    found = _at(value, path)
    return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []


def text(value: Any, *path: str) -> str:
    """Follow keys to a string; anything else is ``""``."""
    found = _at(value, path)
    return found if isinstance(found, str) else ""


def number(value: Any, *path: str) -> int:
    """Follow keys to a whole number; anything else is 0, as Kubernetes omits zeros."""
    found = _at(value, path)
    return found if isinstance(found, int) and not isinstance(found, bool) else 0


def flag(value: Any, *path: str) -> bool:
    """Follow keys to ``true``; anything else is False."""
    return _at(value, path) is True


def condition(value: Any, kind: str) -> dict[str, Any]:
    """
    Find one of ``status.conditions``.

    :param value: a Kubernetes object.
    :param kind: its ``type``, for example ``Ready``.
    :returns: the condition, or ``{}``.
    """
    return next((each for each in items(value, "status", "conditions") if each.get("type") == kind), {})


def one_line(words: str, limit_chars: int) -> str:
    """
    Make a peer's words fit one line of a log.

    :param words: any text; runs of white space and line ends become one space, control characters go.
    :param limit_chars: the most that is kept, > 1; a cut text ends in ``…``.
    """
    flat = " ".join(words.split())
    if not flat.isprintable():
        flat = "".join(filter(str.isprintable, flat))
    return flat if len(flat) <= limit_chars else flat[: limit_chars - 1] + "…"


def _at(value: Any, path: tuple[str, ...]) -> Any:
    """Follow keys; None where the way ends."""
    for key in path:
        if not isinstance(value, dict):
            return None
        value = value.get(key)
    return value
