"""
The pool of pipes that bytes are spliced through. Linux.

A pipe is borrowed while bytes are in flight and is empty when it comes back; one that is not is closed.
Its size decides what a byte costs (measured, CPU seconds per GiB: 1 MiB 0.3-0.4, 256 KiB 0.7, 64 KiB 1.5),
and all of an unprivileged user's pipes share a budget (``pipe-user-pages-soft``, 64 MiB by default). So the
first ones are large and later ones, wanted only when many readers stall at once, are small; and when none
can be had, the caller copies. Descriptors are a budget, too: three in four are left to connections, as one
that copies is better than one that is not accepted. Imported by ``relay.splice`` and the plugin.
"""

from __future__ import annotations

import fcntl
import os
import resource
from contextlib import suppress
from dataclasses import dataclass

LARGE_BYTES = 1 << 20
LARGE_COUNT = 24
"""How many pipes may be large: 24 MiB, well inside the budget, and more than one core can keep busy."""
LIMIT_COUNT = 256
"""How many pipes there may be: 24 MiB and 232 times 64 KiB stay below 40 MiB in all."""
DESCRIPTORS_EACH = 8
"""There is one pipe, which has two ends, for so many descriptors that this process may have open."""
KEPT_COUNT = 8
"""How many empty ones are kept for the next borrower."""
_F_SETPIPE_SZ = getattr(fcntl, "F_SETPIPE_SZ", 1031)
_F_GETPIPE_SZ = getattr(fcntl, "F_GETPIPE_SZ", 1032)


@dataclass(slots=True, eq=False)
class Pipe:
    """
    One pipe.

    :param read_end: descriptor.
    :param write_end: descriptor.
    :param size_bytes: how much it holds at most.
    """

    read_end: int
    write_end: int
    size_bytes: int


class PipePool:
    """
    Lends pipes. One for the process; :meth:`close` it when every pipe has come back.

    :param large_count: see :data:`LARGE_COUNT`.
    :param limit_count: see :data:`LIMIT_COUNT`; fewer where descriptors are few (:data:`DESCRIPTORS_EACH`).
    """

    def __init__(self, *, large_count: int = LARGE_COUNT, limit_count: int = LIMIT_COUNT) -> None:
        self._large_count = large_count
        descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        affordable = limit_count if descriptors == resource.RLIM_INFINITY else descriptors // DESCRIPTORS_EACH
        self._limit_count = min(limit_count, affordable)
        self._idle: list[Pipe] = []
        self._large = self._all = 0

    def __repr__(self) -> str:
        return f"<PipePool: {self._all} pipes, {self._large} large, {len(self._idle)} idle>"

    def __len__(self) -> int:
        """Count the pipes, lent and idle."""
        return self._all

    def borrow(self) -> Pipe | None:
        """Lend an empty pipe; None when no more can be had."""
        if self._idle:
            return self._idle.pop()
        return self._make() if self._all < self._limit_count else None

    def give_back(self, pipe: Pipe) -> None:
        """Take back a pipe that is empty."""
        if len(self._idle) < KEPT_COUNT:
            self._idle.append(pipe)
        else:
            self.discard(pipe)

    def discard(self, pipe: Pipe) -> None:
        """Close a pipe, whatever is in it."""
        self._all -= 1
        self._large -= pipe.size_bytes >= LARGE_BYTES
        os.close(pipe.read_end)
        os.close(pipe.write_end)

    def close(self) -> None:
        """Close the idle ones."""
        while self._idle:
            self.discard(self._idle.pop())

    def _make(self) -> Pipe | None:
        try:
            read_end, write_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:  # EMFILE, ENFILE: the caller copies
            return None
        if self._large < self._large_count:
            with suppress(OSError):  # EPERM: over the user's budget
                fcntl.fcntl(write_end, _F_SETPIPE_SZ, LARGE_BYTES)
        pipe = Pipe(read_end, write_end, fcntl.fcntl(write_end, _F_GETPIPE_SZ))
        self._all += 1
        self._large += pipe.size_bytes >= LARGE_BYTES
        return pipe
