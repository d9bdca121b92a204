"""
What a process holds when it has nothing to do: its memory and its descriptors, from ``/proc``. Linux.

Descriptors are sorted by what they are for, so that a leak is told from what is kept on purpose: empty pipes
for the next transfer, and connections to the API server.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from statistics import median

from bkscaler.bench.usage import resident_kib
from bkscaler.relay.pipes import KEPT_COUNT

GROWTH_LIMIT_KIB = 3 * 1024
"""
How much larger the last third of the rests may be than the second, in the median. Memory is at its largest
when a large crowd meets much that the garbage collector has not cleared away yet, and so large it stays: by
that it grew by up to 1.8 MiB, in steps. By 800 bytes that were kept of each connection it grew by 6.4 MiB, in
a soak of five minutes.
"""
WARM_UP_ROUNDS = 3
"""How many rounds a process has before its memory is compared."""
ENOUGH_RESTS = 9
"""With fewer nothing is said about growth."""
MOST_KEPT = {"pipe": 2 * KEPT_COUNT, "to the API": 3}
"""How many of these may be kept for the next use, more than at first."""
_LISTENS = "0A"


@dataclass(frozen=True, kw_only=True)
class Rest:
    """
    One moment of rest.

    :param resident_kib: resident memory, KiB.
    :param descriptors: open ones, by what they are for.
    :param children: how many processes it has started that are still there.
    """

    resident_kib: int
    descriptors: Counter[str]
    children: int = 0


def sockets_of(table: str) -> dict[str, tuple[int, int, str]]:
    """
    Read ``/proc/net/tcp``.

    :returns: local port, remote port and state of each socket, by its inode.
    """
    rows = (line.split() for line in table.splitlines()[1:])
    return {row[9]: (_port(row[1]), _port(row[2]), row[3]) for row in rows}


def _port(address: str) -> int:
    return int(address.rpartition(":")[2], 16)


def sort(
    targets: Iterable[str], sockets: Mapping[str, tuple[int, int, str]], ports: Mapping[int, str]
) -> Counter[str]:
    """
    Count descriptors by what they are for.

    :param targets: what they lead to, as ``/proc/PID/fd`` says.
    :param sockets: see :func:`sockets_of`.
    :param ports: what is at the other end, or at ours, by port.
    """
    found: Counter[str] = Counter()
    for target in targets:
        kind, _, inode = target.partition(":")
        if kind != "socket":
            found["file" if kind.startswith("/") else target if kind == "anon_inode" else kind] += 1
            continue
        local, remote, state = sockets.get(inode.strip("[]"), (0, 0, ""))
        if state == _LISTENS:
            found["listening"] += 1
        else:
            found[ports.get(remote) or ports.get(local) or "another socket"] += 1
    return found


def take_rest(pid: int, ports: Mapping[int, str]) -> Rest:
    """
    Look at a process.

    :raises OSError: when it is not there any more.
    """
    table = ""
    for name in ("tcp", "tcp6"):
        with suppress(OSError), open(f"/proc/{pid}/net/{name}", encoding="ascii") as file:
            table += file.read() if not table else "".join(file.readlines()[1:])
    targets = []
    for descriptor in os.listdir(f"/proc/{pid}/fd"):
        with suppress(OSError):  # closed just now
            targets.append(os.readlink(f"/proc/{pid}/fd/{descriptor}"))
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
        memory = file.read()
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
        children = len(file.read().split())
    descriptors = sort(targets, sockets_of(table), ports)
    return Rest(resident_kib=resident_kib(memory), descriptors=descriptors, children=children)


def leaks(first: Rest, now: Rest) -> list[str]:
    """
    Compare two rests.

    :param first: before the first client.
    :returns: what there is more, or less, in words, memory apart.
    """
    wrong = [f"{now.children} child processes"] if now.children else []
    for kind in sorted(first.descriptors.keys() | now.descriptors.keys()):
        before, after = first.descriptors[kind], now.descriptors[kind]
        kept = MOST_KEPT.get(kind)
        if not (before == after if kept is None else after <= before + kept):
            wrong.append(f"{after} descriptors {kind}, and {before} at first")
    return wrong


def warmed_up(rests: Sequence[Rest]) -> Sequence[Rest]:
    """Give the rests of a process that are compared."""
    return rests[WARM_UP_ROUNDS + 1 :]


def growth_kib(rests: Sequence[Rest]) -> float | None:
    """
    Say how much memory has grown: from the second third of the rests to the last, in the median, KiB.

    :param rests: of one process, after it has warmed up.
    :returns: None when there are too few.
    """
    if len(rests) < ENOUGH_RESTS:
        return None
    third = len(rests) // 3
    sizes = [rest.resident_kib for rest in rests]
    return median(sizes[-third:]) - median(sizes[-2 * third : -third])
