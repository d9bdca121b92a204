"""
bkscaler as a process whose log goes into a file, as a container's does, and is read from there.

A pipe would make bkscaler wait whenever the soak has no time to read.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from bkscaler.demo.children import LAUNCH, Child

READ_EVERY_S = 0.05


class Program(Child):
    """
    One process. Its log is read from its start to its end, whole.

    :param name: what it is, for people.
    :param path: of the log.
    :param on_line: told each line of it.
    :param reactor: for time.
    """

    log = Logger()

    def __init__(self, name: str, path: str, on_line: Callable[[str], None], reactor: Any) -> None:
        super().__init__(name, reactor)
        self._file = open(path, "rb")  # noqa: SIM115  # closed when the process has ended
        self._on_line = on_line
        self._reading = LoopingCall(self._read)
        self._reading.clock = reactor

    @classmethod
    def run(
        cls,
        name: str,
        words: Sequence[str],
        environ: Mapping[str, str],
        *,
        path: str,
        on_line: Callable[[str], None],
        reactor: Any,
    ) -> Program:
        """
        Start a process; see :meth:`bkscaler.demo.children.Child.spawn`.

        :param path: of the log, which is written anew.
        """
        with open(path, "wb") as log:
            program = cls(name, path, on_line, reactor)
            reactor.spawnProcess(
                program, LAUNCH[0], [*LAUNCH, *words], env=dict(environ), childFDs={0: "w", 1: log.fileno()}
            )
        return program

    @property
    def pid(self) -> int:
        """Its process number; that of the process that becomes it, to be exact."""
        return int(self.transport.pid)  # type: ignore[union-attr]  # a process

    def signal(self, number: int) -> None:
        """Send a signal, if it runs."""
        if self.status is None:
            self.transport.signalProcess(number)  # type: ignore[union-attr]  # nor here

    def connectionMade(self) -> None:
        """Begin to read."""
        super().connectionMade()
        reading = self._reading.start(READ_EVERY_S)
        reading.addErrback(lambda failure: self.log.failure("cannot follow a log", failure))

    def processEnded(self, reason: Failure) -> None:
        """Read the rest first."""
        if self._reading.running:
            self._reading.stop()
        self._read()
        self._file.close()
        super().processEnded(reason)

    def _read(self) -> None:
        self.outReceived(os.read(self._file.fileno(), 1 << 24))

    def _take(self, line: str) -> None:
        super()._take(line)
        self._on_line(line)
