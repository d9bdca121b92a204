"""Label and field selectors: from a query's text to a test of an object. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable

from bkscaler.sandbox.failures import bad_request
from bkscaler.sandbox.kinds import PODS, Kind
from bkscaler.sandbox.objects import Object, dig

Selector = Callable[[Object], bool]
"""Says whether an object is selected."""

_COMMA = re.compile(r",(?![^(]*\))")
_SET = re.compile(r"^(\S+)\s+(in|notin)\s*\(([^)]*)\)$")
_EQUALITY = re.compile(r"^([^\s!=]+)\s*(==|=|!=)\s*(\S*)$")


def _label_term(term: str) -> Selector:
    """Read one requirement on a label."""
    if match := _SET.match(term):
        key, operator, text = match.groups()
        values = {value.strip() for value in text.split(",")}
        wanted = operator == "in"
        return lambda obj: (_label(obj, key) in values) is wanted
    if match := _EQUALITY.match(term):
        key, operator, value = match.groups()
        return lambda obj: (_label(obj, key) == value) is (operator != "!=")
    key = term.lstrip("!").strip()
    if not key or " " in key:
        raise bad_request(f"unable to parse requirement: found {term!r}, expected a label requirement")
    return lambda obj: (_label(obj, key) is None) is term.startswith("!")


def _label(obj: Object, key: str) -> str | None:
    value = dig(obj, "metadata", "labels", key)
    return None if value is None else str(value)


def label_selector(text: str) -> Selector:
    """
    Read a labelSelector, equality-based (``a=b,c!=d``) or set-based (``a in (b,c),!d``).

    :param text: ``""`` selects everything.
    :raises ApiFailure: 400 when it cannot be read.
    """
    terms = [_label_term(term.strip()) for term in _COMMA.split(text)] if text.strip() else []
    return lambda obj: all(term(obj) for term in terms)


def _field_terms(text: str) -> list[tuple[str, str, str]]:
    terms = []
    for term in filter(None, text.split(",")):
        match = _EQUALITY.match(term.strip())
        if match is None:
            raise bad_request(f"invalid selector: {text!r}; can't understand {term!r}")
        terms.append((match.group(1), match.group(2), match.group(3)))
    return terms


def _field_matches(obj: Object, path: str, wanted: str) -> bool:
    value = dig(obj, *path.split("."))
    return ("" if value is None else str(value)) == wanted


def field_selector(kind: Kind, text: str) -> Selector:
    """
    Read a fieldSelector.

    :param kind: decides which fields may be named.
    :param text: ``field=value`` or ``field!=value``, joined by commas; ``""`` selects everything.
    :raises ApiFailure: 400 for a field that cannot be selected by.
    """
    terms = _field_terms(text)
    for path, _operator, _value in terms:
        if path not in kind.fields:
            if kind is PODS:
                raise bad_request(f"field label not supported: {path}")
            known = ", ".join(f'"{field}"' for field in kind.fields)
            raise bad_request(f'"{path}" is not a known field selector: only {known}')
    return lambda obj: all(
        _field_matches(obj, path, wanted) is (operator != "!=") for path, operator, wanted in terms
    )


def selected_name(text: str) -> str:
    """
    Give the one name that a fieldSelector allows, or ``""``.

    Rights that are limited to names hold for a list or watch only when it selects such a name.
    """
    for path, operator, value in _field_terms(text):
        if path == "metadata.name" and operator != "!=":
            return value
    return ""
