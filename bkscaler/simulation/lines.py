"""
What the API server tells bkscaler, read off the bytes that one connection delivers.

Imported by :mod:`bkscaler.simulation.judge`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

Line = dict[str, Any]
HEADS = (b'{"type":"', b'{"kind":"Scale"', b'{"kind":"StatefulSet', b'{"kind":"Pod')
"""How what tells of the set and its pods begins: an event of a watch, or an answer."""
ANSWER = b"HTTP/1.1 "


class Lines:
    """One connection to the API server."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._good = False

    def feed(self, data: bytes) -> Iterator[Line]:
        """
        Take bytes.

        :param data: what one read has brought.
        :returns: what the lines say that end in it, of answers that are no failures.
        """
        self._rest += data
        *whole, rest = self._rest.split(b"\n")
        self._rest = rest
        for line in whole:
            at = line.find(ANSWER)  # behind the last answer, if that had no end of line
            if at >= 0:
                self._good = line.startswith(b"2", at + len(ANSWER))
            elif self._good and line.startswith(HEADS):
                yield json.loads(line)
