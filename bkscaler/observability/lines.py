"""
Writing the lines of the log, several at a time when several come at a time.

A system call for each line, and waking whoever reads the log, was a twelfth of what a short connection
costs. So a line waits for the end of the reactor's turn, which is milliseconds at most and nothing when
there is nothing else to do. Imported by ``observability.logs``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import suppress
from typing import Any, TextIO

from twisted.logger import ILogObserver, LogEvent, LogLevel
from twisted.python.threadable import isInIOThread
from zope.interface import implementer

_PATIENT = frozenset({LogLevel.debug, LogLevel.info})
"""What may wait; the rest is written at once, behind what waits."""


@implementer(ILogObserver)
class Lines:
    """
    Writes events of some levels. What cannot be written is lost: there is nobody to tell.

    :param out: where to.
    :param to_line: makes a line of an event, its end included; None or ``""`` is left out.
    :param levels: which are written; an event without one is not.
    :param reactor: whose turns they are. Nothing waits while it does not run, nor without one.
    """

    def __init__(
        self,
        out: TextIO,
        to_line: Callable[[LogEvent], str | None],
        levels: Collection[Any],
        reactor: Any = None,
    ) -> None:
        self._out = out
        self._to_line = to_line
        self._levels = frozenset(levels)
        self._reactor = reactor
        self._waiting: list[str] = []
        self._is_due = False

    def __call__(self, event: LogEvent) -> None:
        """Take an event; from any thread."""
        level = event.get("log_level")
        if level not in self._levels:
            return
        line = self._to_line(event)
        if not line:
            return
        self._waiting.append(line)
        if level not in _PATIENT:
            self.write()
        elif not self._is_due:
            self._write_soon()

    def write(self) -> None:
        """Write what waits."""
        self._is_due = False
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        with suppress(OSError, ValueError):  # no space left, nobody reads any more, closed
            self._out.write("".join(waiting))
            self._out.flush()

    def _write_soon(self) -> None:
        if self._reactor is not None and self._reactor.running and isInIOThread():
            self._is_due = True
            self._reactor.callLater(0, self.write)
        else:
            self.write()
