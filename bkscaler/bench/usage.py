"""
What the processes of a proxy have used, read from ``/proc``. Linux.

A proxy may be several processes. Those that live are found from its first one downwards; the time of those
that have ended and were waited for is in their parents' ``cutime``. Imported by ``bench.measures``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress

Read = Callable[[str], str]
"""Gives the text of a file; raises OSError when it is not there."""

CHILDREN_USER, CHILDREN_SYSTEM = 13, 14
"""Places of ``cutime`` and ``cstime`` in ``/proc/PID/stat``, counted from behind the program's name."""


def _read(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()


def on_cpu_s(schedstat: str) -> float:
    """Read how long a thread has run, from ``/proc/PID/task/TID/schedstat``, to seconds."""
    return int(schedstat.split(maxsplit=1)[0]) / 1e9


def children_s(stat: str, ticks_per_s: int) -> float:
    """
    Read what a process's ended children have used, from ``/proc/PID/stat``, to seconds.

    The program's name stands in brackets and may hold brackets and blanks itself.
    """
    fields = stat.rpartition(")")[2].split()
    return (int(fields[CHILDREN_USER]) + int(fields[CHILDREN_SYSTEM])) / ticks_per_s


def resident_kib(smaps_rollup: str) -> int:
    """
    Read how much is resident, from ``/proc/PID/smaps_rollup``, which is exact where ``status`` is not.

    :raises ValueError: when it does not say.
    """
    for line in smaps_rollup.splitlines():
        if line.startswith("Rss:"):
            return int(line.split()[1])
    raise ValueError(f"no Rss in {smaps_rollup!r}")


class Usage:
    """
    One proxy's processes.

    :param pid: of its first process.
    :param read: reads files.
    :param list_directory: lists a directory.
    """

    def __init__(
        self, pid: int, *, read: Read = _read, list_directory: Callable[[str], list[str]] = os.listdir
    ) -> None:
        self._pid = pid
        self._read = read
        self._list = list_directory
        self._ticks_per_s = os.sysconf("SC_CLK_TCK")

    def cpu_s(self) -> float:
        """Give the CPU time that all of them have used so far, seconds."""
        used_s = 0.0
        for pid in self._processes(self._pid):
            with suppress(OSError):  # it has ended just now; its parent will have its time
                used_s += children_s(self._read(f"/proc/{pid}/stat"), self._ticks_per_s)
                for task in self._list(f"/proc/{pid}/task"):
                    used_s += on_cpu_s(self._read(f"/proc/{pid}/task/{task}/schedstat"))
        return used_s

    def resident_kib(self) -> int:
        """Give the sum of their resident memory; pages that several share count for each."""
        return sum(
            resident_kib(self._read(f"/proc/{pid}/smaps_rollup")) for pid in self._processes(self._pid)
        )

    def _processes(self, pid: int) -> Iterator[int]:
        yield pid
        try:
            tasks = self._list(f"/proc/{pid}/task")
            children = [self._read(f"/proc/{pid}/task/{task}/children") for task in tasks]
        except OSError:
            return
        for child in " ".join(children).split():
            yield from self._processes(int(child))
