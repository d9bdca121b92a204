"""
The pure decoder of a watch stream: bytes in any chunking become events, one JSON object per line.

A half line at the end is an error, although Go's decoder would forgive a missing line end: the server
always writes one, so a stream without it was cut, and listing again costs one request. An ``ERROR`` line
is raised as the error it describes; nothing after it counts. Imports row 1 only.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from bkscaler.errors import ApiStatus, Gone, WatchProtocolError
from bkscaler.kube import fields

MAX_LINE_BYTES = 4 * 1024 * 1024
"""Longer than any object the API server stores (3 MiB), so that only a broken stream reaches it."""

_TYPES = frozenset({"ADDED", "MODIFIED", "DELETED", "BOOKMARK"})


@dataclass(frozen=True, kw_only=True)
class WatchEvent:
    """
    One line of a watch.

    :param type: ``ADDED``, ``MODIFIED``, ``DELETED`` or ``BOOKMARK``.
    :param object: the Kubernetes object, of which a bookmark has only ``metadata.resourceVersion``.
    """

    type: str
    object: dict[str, Any]

    @property
    def resource_version(self) -> str:
        """Version to resume from after this event; ``""`` when the object has none."""
        return fields.text(self.object, "metadata", "resourceVersion")


class WatchDecoder:
    """
    Reads one watch stream. Make a new one for each; after it has raised it is of no further use.

    :param limit_bytes: longest line accepted, > 0.
    """

    def __init__(self, limit_bytes: int = MAX_LINE_BYTES) -> None:
        self._limit_bytes = limit_bytes
        self._rest = bytearray()

    def feed(self, data: bytes) -> Iterator[WatchEvent]:
        """
        Take bytes as they come; iterate to the end before feeding more.

        :param data: any part of the stream.
        :returns: the events completed by it, in order. Blank lines are left out.
        :raises Gone: at an ``ERROR`` line with code 410.
        :raises ApiStatus: at an ``ERROR`` line with another code.
        :raises WatchProtocolError: at a line that is too long or no watch event.
        """
        searched = len(self._rest)
        self._rest += data
        start = 0
        while (end := self._rest.find(b"\n", max(searched, start))) >= 0:
            line = bytes(self._rest[start:end]).strip()
            start = end + 1
            if line:
                yield self._event(line)
        del self._rest[:start]
        self._check_length(len(self._rest))

    def finish(self) -> None:
        """
        Say that the stream has ended.

        :raises WatchProtocolError: when it ended inside a line.
        """
        if self._rest.strip():
            raise WatchProtocolError(f"the watch ended inside a line, after {len(self._rest)} bytes of it")

    def _check_length(self, length: int) -> None:
        """Bound what one line may take of our memory."""
        if length > self._limit_bytes:
            raise WatchProtocolError(f"a watch line is longer than {self._limit_bytes} bytes")

    def _event(self, line: bytes) -> WatchEvent:
        """Decode one line."""
        self._check_length(len(line))
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise WatchProtocolError("a watch line is not JSON") from error
        kind, content = fields.text(value, "type"), fields.mapping(value, "object")
        if kind == "ERROR":
            raise _error(content)
        if kind not in _TYPES or not content:
            raise WatchProtocolError("a watch line is no watch event")
        return WatchEvent(type=kind, object=content)


def _error(status: dict[str, Any]) -> ApiStatus:
    """Turn the Status of an ``ERROR`` line into an error."""
    code = fields.number(status, "code") or 500
    kind = Gone if code == 410 else ApiStatus
    return kind(code, fields.text(status, "reason"), fields.one_line(fields.text(status, "message"), 256))
