"""
What a controller knows: not the state, but a copy that follows it, at once or some time later.

A real controller acts on such a cache, which an informer fills from a watch. It may be behind; what it shows
is always something that was so once, and it never goes backwards.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from bkscaler.sandbox.objects import Object
from bkscaler.sandbox.state import Change, State

OnChange = Callable[[Change], None]


class Informer:
    """
    Follows some tables of the state, from :meth:`start` to :meth:`stop`.

    :param on_change: by table, who is told of each change when it is seen; must not write to the state.
    :ivar lag_s: by how many seconds it is behind, >= 0. When that becomes less, what was made meanwhile is
        still seen in order: nothing before what was made earlier.
    """

    def __init__(self, state: State, clock: IReactorTime, on_change: dict[str, OnChange]) -> None:
        self.lag_s = 0.0
        self._state = state
        self._clock = clock
        self._on_change = on_change
        self._objects: dict[str, dict[tuple[str, str], Object]] = {table: {} for table in on_change}
        self._unseen: deque[tuple[float, str, Change]] = deque()
        self._next: IDelayedCall | None = None
        self._unsubscribe: list[Callable[[], None]] = []

    @property
    def is_behind(self) -> bool:
        """Whether there is a change that has not been seen yet."""
        return bool(self._unseen)

    def start(self) -> None:
        """Begin, with what is there."""
        for table, objects in self._objects.items():
            objects.update((_key(value), value) for value in self._state.peek_all(table))
            self._unsubscribe.append(self._state.subscribe(table, self._follower(table)))

    def stop(self) -> None:
        """Follow no more; what has not been seen never is."""
        for unsubscribe in self._unsubscribe:
            unsubscribe()
        self._cancel()
        self._unseen.clear()

    def restart(self) -> None:
        """Know what is there now; what has not been seen never is."""
        self._cancel()
        self._unseen.clear()
        for table, objects in self._objects.items():
            objects.clear()
            objects.update((_key(value), value) for value in self._state.peek_all(table))

    def catch_up(self) -> None:
        """Be behind no more, and see at once what has not been seen yet."""
        self.lag_s = 0.0
        self._cancel()
        while self._unseen:
            self._see(*self._unseen.popleft()[1:])

    def peek(self, table: str, namespace: str, name: str) -> Object | None:
        """Give one object as it was seen last, or None. Read only."""
        return self._objects[table].get((namespace, name))

    def peek_all(self, table: str, namespace: str = "") -> list[Object]:
        """Give a table's objects as they were seen last, by namespace and name. Read only."""
        objects = self._objects[table]
        return [objects[key] for key in sorted(objects) if namespace in ("", key[0])]

    def _cancel(self) -> None:
        if self._next is not None:
            self._next.cancel()
            self._next = None

    def _follower(self, table: str) -> OnChange:
        return lambda change: self._changed(table, change)

    def _changed(self, table: str, change: Change) -> None:
        if not self._unseen and not self.lag_s:
            self._see(table, change)
            return
        due_s = self._clock.seconds() + self.lag_s
        if self._unseen:
            due_s = max(due_s, self._unseen[-1][0])
        self._unseen.append((due_s, table, change))
        self._wait()

    def _wait(self) -> None:
        if self._unseen and self._next is None:
            delay_s = max(0.0, self._unseen[0][0] - self._clock.seconds())
            self._next = self._clock.callLater(delay_s, self._see_next)

    def _see_next(self) -> None:
        self._next = None
        self._see(*self._unseen.popleft()[1:])
        self._wait()

    def _see(self, table: str, change: Change) -> None:
        if change.type == "DELETED":
            self._objects[table].pop(_key(change.object), None)
        else:
            self._objects[table][_key(change.object)] = change.object
        self._on_change[table](change)


def _key(value: Object) -> tuple[str, str]:
    return value["metadata"].get("namespace", ""), value["metadata"]["name"]
