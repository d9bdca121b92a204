"""
Who needs a builder: a set of named holds. Pure; imports nothing of ours.

A set, not a counter: a hold that is released twice, or late, cannot bring the number out of step. Names
are chosen by the caller and must be unique also across proxies, because holds of other proxies will one
day be merged into the same set.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Needs:
    """
    Demand at one moment, as the decision sees it.

    :param own: holds of this process, >= 0.
    :param foreign: holds of other proxies, >= 0; None when unknown, which counts as demand.
    """

    own: int = 0
    foreign: int | None = 0

    @property
    def holds(self) -> int:
        """All holds; an unknown number counts as one."""
        return self.own + (1 if self.foreign is None else self.foreign)


class Demand:
    """
    The holds of this process. Lives as long as the scaler that owns it.

    :param on_change: called after the set became empty or ceased to be, with nothing.
    """

    def __init__(self, on_change: Callable[[], None]) -> None:
        self._on_change = on_change
        self._names: set[str] = set()

    def add(self, name: str) -> None:
        """
        Add a hold.

        :param name: unique name of the hold.
        :raises ValueError: when a hold of that name exists.
        """
        if name in self._names:
            raise ValueError(f"a hold named {name!r} exists")
        self._names.add(name)
        if len(self._names) == 1:
            self._on_change()

    def discard(self, name: str) -> None:
        """Remove a hold; nothing happens when there is none of that name."""
        if name in self._names:
            self._names.remove(name)
            if not self._names:
                self._on_change()

    def __len__(self) -> int:
        return len(self._names)
