"""
The course of a bench: each load in rounds, and in each round on one proxy after the other, so that whatever
else this machine does meanwhile meets them all alike.

Imported by ``bench.__main__``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

from twisted.internet.defer import CancelledError

from bkscaler.bench import backend
from bkscaler.bench.field import Field, Spot
from bkscaler.bench.measures import Amounts, Load, LoadFailed, Measure
from bkscaler.bench.peers import BKSCALER, Peer

MakeField = Callable[[str, Sequence[Peer]], Field]
"""Makes a field, not yet open, for a kind of server and the peers beside bkscaler."""


class Course:
    """
    One run of a bench.

    :param load: where loads run.
    :param measures: which.
    :param peers: who may be measured beside bkscaler.
    :param rounds: how many for each measure, 1 or more.
    :param make_field: see :data:`MakeField`.
    :param note: told what is going on, line by line.
    :ivar samples: what was measured; see :data:`bkscaler.bench.table.Samples`.
    :ivar failures: what went wrong, in words.
    """

    def __init__(
        self,
        load: Load,
        *,
        measures: Sequence[Measure],
        peers: Sequence[Peer],
        rounds: int,
        make_field: MakeField,
        note: Callable[[str], None],
    ) -> None:
        self.samples: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
        self.failures: list[str] = []
        self._load = load
        self._measures = measures
        self._peers = [peer for peer in peers if not load.box.missing(peer.needs)]
        self._rounds = rounds
        self._make_field = make_field
        self._note = note
        self._field: Field | None = None

    @property
    def amounts(self) -> Amounts:
        """How much load there is."""
        return self._load.amounts

    def __repr__(self) -> str:
        return f"<Course of {self._rounds} rounds, {len(self.failures)} failures>"

    async def run(self) -> None:
        """Measure everything that this machine can."""
        for kind in backend.NEEDS:
            asked = [measure for measure in self._measures if measure.kind == kind and self._can(measure)]
            lasting = [measure for measure in asked if not measure.unused]
            if lasting:
                await self._in_field(kind, lasting, range(self._rounds))
            for turn in range(self._rounds):
                for measure in asked:
                    if measure.unused:
                        await self._in_field(kind, [measure], [turn])

    async def close(self) -> None:
        """End what runs. May be called again."""
        field, self._field = self._field, None
        if field is not None:
            await field.close()

    def _can(self, measure: Measure) -> bool:
        return not self._load.box.missing((*measure.needs, *backend.NEEDS[measure.kind]))

    async def _in_field(self, kind: str, measures: Sequence[Measure], turns: Sequence[int]) -> None:
        wanted = {name for measure in measures for name in measure.peers}
        self._field = field = self._make_field(kind, [peer for peer in self._peers if peer.name in wanted])
        try:
            await field.open()
            for measure in measures:
                for turn in turns:
                    for spot in in_turn(field.spots, turn):
                        if spot.name in (BKSCALER, *measure.peers):
                            await self._put(measure, spot, turn)
        finally:
            await self.close()

    async def _put(self, measure: Measure, spot: Spot, turn: int) -> None:
        self._note(f"{measure.name}, round {turn + 1} of {self._rounds}: {spot.name}")
        try:
            values = await measure.put(self._load, spot)
        except CancelledError:
            raise
        except LoadFailed as failure:
            self.failures.append(f"{measure.name}, {spot.name}: {failure}")
            return
        for key, value in values.items():
            self.samples[key, spot.name].append(value)


def in_turn(spots: Sequence[Spot], turn: int) -> list[Spot]:
    """Give the spots, beginning with another one in each turn."""
    start = turn % len(spots)
    return [*spots[start:], *spots[:start]]
