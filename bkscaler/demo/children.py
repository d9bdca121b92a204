"""
The processes of a demo: what they say is read line by line, and they end when the demo ends.

Imported by ``demo.stage``.
"""

from __future__ import annotations

import re
import signal
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from bkscaler.errors import BkscalerError

TAIL_LINES = 15
"""How much of what a child has said last is kept for the report of a failure."""
PATIENCE_S = 5.0
"""How long a child may take to end after each signal, before it gets the next one."""
_SIGNALS = (signal.SIGTERM, signal.SIGTERM, signal.SIGKILL)  # the second one makes bkscaler end at once

_LAUNCHER = """
import os, sys
os.setsid()
os.dup2(1, 2)
if sys.platform == "linux":
    import ctypes
    ctypes.CDLL(None).prctl(1, 15)
os.execv(sys.argv[1], sys.argv[1:])
"""
# A session of its own keeps the terminal's Ctrl-C from the children: the demo alone decides when they end.
# prctl(PR_SET_PDEATHSIG, SIGTERM) ends them should the demo be killed and have no time to do so.
LAUNCH = (sys.executable, "-I", "-S", "-c", _LAUNCHER)
"""What a child is started by: the program, by its full path, and its arguments follow."""


class ChildEnded(BkscalerError):
    """A process ended that should be running. Give up, and show what it said."""


class Child(ProcessProtocol):
    """
    One process. Both of its output streams are read as one.

    :param name: what it is, for people.
    :param reactor: for time.
    :ivar status: its exit status, 128 and more for a signal; None as long as it runs.
    :ivar tail: its last lines.
    """

    def __init__(self, name: str, reactor: Any) -> None:
        self.name = name
        self.status: int | None = None
        self.tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._reactor = reactor
        self._rest = b""
        self._wanted: list[tuple[re.Pattern[str], Deferred[re.Match[str]]]] = []
        self._waiting: list[Deferred[int]] = []

    @classmethod
    def spawn(cls, name: str, words: Sequence[str], environ: Mapping[str, str], reactor: Any) -> Child:
        """
        Start a process.

        :param name: what it is, for people.
        :param words: program, by its full path, and arguments.
        :param environ: its whole environment.
        :param reactor: spawns it.
        """
        child = cls(name, reactor)
        reactor.spawnProcess(
            child, LAUNCH[0], [*LAUNCH, *words], env=dict(environ), childFDs={0: "w", 1: "r"}
        )
        return child

    def __repr__(self) -> str:
        return f"<Child {self.name}: {'running' if self.status is None else self.status}>"

    def said(self, pattern: str) -> Deferred[re.Match[str]]:
        """
        Wait for a line that it will say from now on. Ask before it can have been said.

        :param pattern: a regular expression, searched for in each line.
        :returns: fires with the match; fails with :class:`ChildEnded`. Cancelling ends this wait alone.
        """
        wanted: Deferred[re.Match[str]] = Deferred(self._no_longer_wanted)
        self._wanted.append((re.compile(pattern), wanted))
        return wanted

    def ended(self) -> Deferred[int]:
        """
        Wait for its end.

        :returns: fires with its exit status, at once when it has ended; never fails. Cancelling ends this
            wait alone.
        """
        if self.status is not None:
            return succeed(self.status)
        waiting: Deferred[int] = Deferred(self._waiting.remove)
        self._waiting.append(waiting)
        return waiting

    def end(self) -> Deferred[int]:
        """
        Make it end: with SIGTERM, and with worse when that does not help.

        :returns: as :meth:`ended`.
        """
        self._signal(list(_SIGNALS))
        return self.ended()

    def connectionMade(self) -> None:
        """Leave it without input."""
        self.transport.closeStdin()  # type: ignore[union-attr]  # set by now

    def outReceived(self, data: bytes) -> None:
        """Take its output apart into lines."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._take(line.decode("utf-8", "replace"))

    def processEnded(self, reason: Failure) -> None:
        """Tell everyone who waits."""
        if self._rest:
            self._take(self._rest.decode("utf-8", "replace"))
        signalled = getattr(reason.value, "signal", None)
        self.status = 128 + signalled if signalled else getattr(reason.value, "exitCode", None) or 0
        wanted, self._wanted = self._wanted, []
        for _, each in wanted:
            each.errback(ChildEnded(f"{self.name} ended with status {self.status}"))
        waiting, self._waiting = self._waiting, []
        for ending in waiting:
            ending.callback(self.status)

    def _take(self, line: str) -> None:
        self.tail.append(line)
        for pattern, wanted in list(self._wanted):
            if (found := pattern.search(line)) is not None:
                self._no_longer_wanted(wanted)
                wanted.callback(found)

    def _no_longer_wanted(self, wanted: Deferred[re.Match[str]]) -> None:
        self._wanted = [each for each in self._wanted if each[1] is not wanted]

    def _signal(self, numbers: list[signal.Signals]) -> None:
        if self.status is not None or not numbers:
            return
        self.transport.signalProcess(numbers[0])  # type: ignore[union-attr]  # set by spawnProcess
        later = self._reactor.callLater(PATIENCE_S, self._signal, numbers[1:])
        self.ended().addCallback(lambda _: later.active() and later.cancel())
