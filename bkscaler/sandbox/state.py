"""
The objects of the sandbox, in memory, each write with a version of its own.

Versions are one sequence of integers for the whole cluster, as in etcd. Every table (pods, statefulsets
...) keeps a bounded history of its changes, from which watches resume; what has left the history is too
old. Subscribers are called synchronously with each change, in the order of the versions; they must not
write to the state from within the call (controllers go through the clock), so that no subscriber ever
sees two changes in the wrong order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from bkscaler.errors import BkscalerError
from bkscaler.sandbox.objects import Object, clone

FIRST_VERSION = 200
"""Version before the first write; lower ones count as compacted, as on a cluster that has lived a while."""

HISTORY_LIMIT = 1000
"""How many changes each table remembers."""


class TooOld(BkscalerError):
    """
    The history no longer reaches back to this version. List again.

    :ivar floor: the oldest version from which a watch could resume.
    """

    def __init__(self, version: int, floor: int) -> None:
        super().__init__(f"too old resource version: {version} ({floor})")
        self.floor = floor


@dataclass(frozen=True, kw_only=True)
class Change:
    """
    One write.

    :param type: ``ADDED``, ``MODIFIED`` or ``DELETED``.
    :param version: version of the write; for a deletion too, and then also ``object``'s version.
    :param object: the object after the write. Read only.
    :param previous: the object before the write, None for ``ADDED``. Read only.
    """

    type: str
    version: int
    object: Object
    previous: Object | None


Subscriber = Callable[[Change], None]


@dataclass(frozen=True, kw_only=True)
class Backup:
    """
    Everything as it was at one moment.

    :param version: of the last write before it.
    :param tables: the objects of each table. Read only.
    """

    version: int
    tables: dict[str, dict[tuple[str, str], Object]]


class _Table:
    """The objects, history and subscribers of one resource."""

    def __init__(self, limit: int) -> None:
        self.objects: dict[tuple[str, str], Object] = {}
        self.history: deque[Change] = deque()
        self.floor = FIRST_VERSION
        self.subscribers: list[Subscriber] = []
        self._limit = limit

    def record(self, change: Change) -> None:
        self.history.append(change)
        if len(self.history) > self._limit:
            self.floor = self.history.popleft().version
        self.tell(change)

    def tell(self, change: Change) -> None:
        for subscriber in list(self.subscribers):
            subscriber(change)

    def forget(self, version: int) -> None:
        self.history.clear()
        self.floor = version


class State:
    """
    All objects of one sandbox. Lives as long as it; owns nothing that must be closed.

    :param history_limit: changes remembered for each table, >= 1.
    """

    def __init__(self, *, history_limit: int = HISTORY_LIMIT) -> None:
        self.version = FIRST_VERSION
        self._limit = history_limit
        self._tables: dict[str, _Table] = {}

    def __repr__(self) -> str:
        sizes = ", ".join(f"{len(table.objects)} {name}" for name, table in self._tables.items())
        return f"<State at {self.version}: {sizes}>"

    def _table(self, name: str) -> _Table:
        table = self._tables.get(name)
        if table is None:
            table = self._tables[name] = _Table(self._limit)
        return table

    def get(self, table: str, namespace: str, name: str) -> Object | None:
        """Give a copy of one object, or None. ``namespace`` is ``""`` for what lives outside of them."""
        found = self.peek(table, namespace, name)
        return None if found is None else clone(found)

    def peek(self, table: str, namespace: str, name: str) -> Object | None:
        """Give one object as it is stored, or None. Read only; it stays as it is when another one is put."""
        return self._table(table).objects.get((namespace, name))

    def objects(self, table: str, namespace: str = "") -> list[Object]:
        """Give copies of a table's objects, by namespace and name; ``""`` means every namespace."""
        return [clone(value) for value in self.peek_all(table, namespace)]

    def peek_all(self, table: str, namespace: str = "") -> list[Object]:
        """Give a table's objects as :meth:`objects` does, but as they are stored. Read only."""
        objects = self._table(table).objects
        return [objects[key] for key in sorted(objects) if namespace in ("", key[0])]

    def put(self, table: str, value: Object) -> Object:
        """
        Create or replace an object; the caller has checked versions and validity.

        A write that changes nothing is no write: the version stays and nobody is told.

        :param value: the object; from now on it may not be changed any more.
        :returns: what is stored now. Read only.
        """
        rows = self._table(table)
        meta = dict(value["metadata"])
        value = {**value, "metadata": meta}
        key = (meta.get("namespace", ""), meta["name"])
        previous = rows.objects.get(key)
        if previous is not None:
            meta["resourceVersion"] = previous["metadata"]["resourceVersion"]
            if value == previous:
                return previous
        self.version += 1
        meta["resourceVersion"] = str(self.version)
        rows.objects[key] = value
        kind = "ADDED" if previous is None else "MODIFIED"
        rows.record(Change(type=kind, version=self.version, object=value, previous=previous))
        return value

    def edit(self, table: str, namespace: str, name: str, editor: Callable[[Object], None]) -> Object | None:
        """
        Change an object in place.

        :param editor: gets a copy and changes it.
        :returns: what is stored now, read only, or None when there is no such object (``editor`` is then not
            called).
        """
        value = self.get(table, namespace, name)
        if value is None:
            return None
        editor(value)
        return self.put(table, value)

    def remove(self, table: str, namespace: str, name: str) -> Object | None:
        """Delete an object; gives its last form with the version of the deletion, read only, or None."""
        rows = self._table(table)
        previous = rows.objects.pop((namespace, name), None)
        if previous is None:
            return None
        self.version += 1
        last = {**previous, "metadata": {**previous["metadata"], "resourceVersion": str(self.version)}}
        rows.record(Change(type="DELETED", version=self.version, object=last, previous=previous))
        return last

    def changes_since(self, table: str, version: int) -> list[Change]:
        """
        Give the changes of a table after a version, oldest first.

        :raises TooOld: when some of them may be forgotten.
        """
        rows = self._table(table)
        if version < rows.floor:
            raise TooOld(version, rows.floor)
        return [change for change in rows.history if change.version > version]

    def compact(self) -> None:
        """Forget all history: every watch that resumes from an earlier version is told 410."""
        for rows in self._tables.values():
            rows.forget(self.version)

    def backup(self) -> Backup:
        """Keep everything as it is now; later writes do not change it."""
        return Backup(
            version=self.version, tables={name: dict(rows.objects) for name, rows in self._tables.items()}
        )

    def restore(self, backup: Backup) -> None:
        """
        Let everything be as it was, and count on from there; all history is forgotten.

        Subscribers are told what differs, when all of it is as it was, as whoever lists anew would find it.
        """
        self.version = backup.version
        differences = []
        for name, rows in self._tables.items():
            before, rows.objects = rows.objects, dict(backup.tables.get(name, {}))
            rows.forget(self.version)
            differences += [(rows, change) for change in _differences(before, rows.objects, self.version)]
        for rows, change in differences:
            rows.tell(change)

    def floor(self, table: str) -> int:
        """Give the oldest version that a watch or a continued list of this table may start from."""
        return self._table(table).floor

    def subscribe(self, table: str, subscriber: Subscriber) -> Callable[[], None]:
        """
        Hear of every later change of a table.

        :returns: call it to hear no more; calling it twice is harmless.
        """
        subscribers = self._table(table).subscribers
        subscribers.append(subscriber)

        def unsubscribe() -> None:
            if subscriber in subscribers:
                subscribers.remove(subscriber)

        return unsubscribe


def _differences(
    before: dict[tuple[str, str], Object], after: dict[tuple[str, str], Object], version: int
) -> list[Change]:
    """Say what has become of a table's objects; one of the same name with another uid is another object."""
    gone, new, changed = [], [], []
    for key in before.keys() | after.keys():
        old, now = before.get(key), after.get(key)
        if old is now:
            continue
        if old and now and old["metadata"].get("uid") == now["metadata"].get("uid"):
            changed.append((key, Change(type="MODIFIED", version=version, object=now, previous=old)))
            continue
        if old:
            gone.append((key, Change(type="DELETED", version=version, object=old, previous=old)))
        if now:
            new.append((key, Change(type="ADDED", version=version, object=now, previous=None)))
    by_key = [sorted(changes, key=lambda each: each[0]) for changes in (gone, changed, new)]
    return [change for changes in by_key for _, change in changes]
