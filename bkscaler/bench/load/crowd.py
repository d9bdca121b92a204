"""
Small requests on many kept connections, at a steady pace, and how long each one waits.

Each is due at its own time, whatever became of those before it, and its wait is counted from there: a proxy
that stands still is charged for everybody who would have been served. Imported by the program of this room.
"""

from __future__ import annotations

import select
import socket
from collections import deque
from collections.abc import Callable, Sequence

from bkscaler.bench.load.hold import ANSWER_BYTES, REQUEST


class Crowd:
    """
    The connections and the requests that are under way on them.

    :param clients: connected and joined.
    :param clock: tells the time, in seconds.
    :ivar waits_s: of the requests that were answered.
    """

    def __init__(self, clients: Sequence[socket.socket], clock: Callable[[], float]) -> None:
        self.waits_s: list[float] = []
        self._clock = clock
        self._free = deque(clients)
        self._due_s: dict[int, float] = {}
        self._clients = {client.fileno(): client for client in clients}
        self._epoll = select.epoll()
        for descriptor in self._clients:
            self._epoll.register(descriptor, select.EPOLLIN)

    def run(self, duration_s: float, every_s: float) -> None:
        """
        Ask at the given pace, then wait for the last answers.

        :raises OSError: when a connection is lost.
        """
        due_s = self._clock()
        over_s = due_s + duration_s
        while due_s < over_s or self._due_s:
            while due_s <= min(self._clock(), over_s) and self._free:
                self._ask(due_s)
                due_s += every_s
            left_s = due_s - self._clock() if due_s < over_s else 1.0
            for descriptor, _ in self._epoll.poll(max(0.0, left_s)):
                self._take(descriptor)
        self._epoll.close()

    def _ask(self, due_s: float) -> None:
        client = self._free.popleft()
        self._due_s[client.fileno()] = due_s
        client.sendall(REQUEST)

    def _take(self, descriptor: int) -> None:
        client = self._clients[descriptor]
        if not client.recv(ANSWER_BYTES):
            raise ConnectionError("a connection of the crowd was closed")
        if descriptor in self._due_s:
            self.waits_s.append(self._clock() - self._due_s.pop(descriptor))
            self._free.append(client)


def percentile(values: Sequence[float], percent: float) -> float:
    """
    Give the value that so many percent of the values do not exceed.

    :param values: at least one, in any order.
    """
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]
