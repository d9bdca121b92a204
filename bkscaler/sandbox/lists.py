"""
Lists: selection, versions and pages.

The state keeps no old copies of its objects, so a list "exactly" at an earlier version is answered 410 and
the later pages of a list show the present; both are allowed to a real server after a compaction.
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass

from bkscaler.sandbox.failures import ApiFailure, bad_request, expired, version_too_large
from bkscaler.sandbox.kinds import Kind
from bkscaler.sandbox.objects import Object
from bkscaler.sandbox.selectors import Selector
from bkscaler.sandbox.state import State
from bkscaler.sandbox.views import table_of, to_view

_TOKEN_TOO_OLD = (
    "The provided continue parameter is too old to display a consistent list result. You can start a new "
    "list without the continue parameter, or use the continue token in this response to retrieve the "
    "remainder of the results. Continuing with the provided token results in an inconsistent list - objects "
    "that were created, modified, or deleted between the time the first chunk was returned and now may show "
    "up in the list."
)


@dataclass(frozen=True, kw_only=True)
class ListOptions:
    """
    What a client asks of a list.

    :param namespace: ``""`` for all.
    :param version: ``resourceVersion``; ``""`` and ``"0"`` mean any.
    :param match: ``resourceVersionMatch``.
    :param limit: objects on a page; 0 for all.
    :param token: ``continue`` of an earlier page, or ``""``.
    """

    namespace: str = ""
    version: str = ""
    match: str = ""
    limit: int = 0
    token: str = ""


def _write_token(version: int, start: str) -> str:
    text = json.dumps({"v": "meta.k8s.io/v1", "rv": version, "start": start}, separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _read_token(token: str) -> tuple[int, str]:
    try:
        value = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
        return int(value["rv"]), str(value["start"])
    except (binascii.Error, ValueError, KeyError, TypeError) as error:
        raise bad_request(f"continue key is not valid: {error}") from error


def read_version(text: str) -> int:
    """
    Read the resourceVersion of a list; ``""`` is 0.

    :raises ApiFailure: 400 when it is no number.
    """
    if text and not text.isdigit():
        raise bad_request(
            f'invalid resource version: resourceVersion: Invalid value: "{text}": '
            f'strconv.ParseUint: parsing "{text}": invalid syntax'
        )
    return int(text or "0")


def check_list_version(state: State, options: ListOptions) -> ApiFailure | None:
    """
    Check a list's version against the state.

    :returns: the 504 that the server gives when it has waited in vain for a version from the future.
    :raises ApiFailure: 400 or 410.
    """
    version = read_version(options.version)
    if version > state.version:
        return version_too_large(version, state.version)
    if options.match == "Exact" and version < state.version:
        raise expired("The resourceVersion for the provided list is too old.")
    return None


def _sort_key(value: Object) -> str:
    meta = value["metadata"]
    return f"{meta.get('namespace', '')}/{meta['name']}"


def list_objects(state: State, kind: Kind, options: ListOptions, selector: Selector) -> Object:
    """
    List objects, in the order of namespace and name.

    :returns: the list object; its items carry no kind of their own, as in a real answer.
    :raises ApiFailure: 400 for a bad token, 410 for one older than the history.
    """
    version, after = state.version, ""
    if options.token:
        version, after = _read_token(options.token)
        if 0 <= version < state.floor(table_of(kind)):
            failure = expired(_TOKEN_TOO_OLD)
            raise _with_continue(failure, _write_token(-1, after))
        version = state.version if version < 0 else version
    views = [to_view(kind, stored) for stored in state.peek_all(table_of(kind), options.namespace)]
    views = sorted((v for v in views if selector(v) and _sort_key(v) > after), key=_sort_key)
    meta: Object = {"resourceVersion": str(version)}
    if 0 < options.limit < len(views):
        rest = len(views) - options.limit
        views = views[: options.limit]
        meta.update({"continue": _write_token(version, _sort_key(views[-1])), "remainingItemCount": rest})
    for view in views:
        del view["kind"], view["apiVersion"]
    return {"kind": f"{kind.kind}List", "apiVersion": kind.api_version, "metadata": meta, "items": views}


class _ExpiredToken(ApiFailure):
    """A 410 that tells the client with which token it may go on."""

    def __init__(self, failure: ApiFailure, token: str) -> None:
        super().__init__(failure.code, failure.reason, failure.message)
        self._token = token

    def body(self) -> Object:
        """Give the Status with the token in its metadata."""
        return {**super().body(), "metadata": {"continue": self._token}}


def _with_continue(failure: ApiFailure, token: str) -> ApiFailure:
    return _ExpiredToken(failure, token)
