"""
What a client of a soak knows of itself: what it has done, and what has been done to it.

Written by ``soak.clients``, read by those who judge. All times are seconds since 1970, as in bkscaler's log.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

NOTICED_S = 1.0
"""How much later than it happens a client may notice what is done to it: the soak has much to do."""


@dataclass(eq=False, kw_only=True)
class View:
    """
    One client with one connection, from its dial on.

    :param name: eight digits that no other client has.
    :param kind: what it does, in a word.
    :param ip: where it dials from; no other client of the soak dials from there.
    :param dialled_s: when it dialled.
    :param honest: whether it sends what has a meaning, so that it must be served.
    :ivar came_s: when it was connected; infinite until then.
    :ivar failed: why it could not connect; ``""`` as long as it has not failed.
    :ivar spoke_s: when it sent its first byte; infinite until then.
    :ivar waits_s: since when it has waited for bytes without getting any; infinite while it waits for none.
    :ivar served_s: when it got its first byte from a builder; infinite until then.
    :ivar left_s: when it ended the connection, or half of it; infinite until then.
    :ivar cut_s: when the connection was ended by somebody else, before it had left; infinite if it was not.
    :ivar lost_s: when nothing was left of the connection; infinite until then.
    :ivar finished: whether it has half-closed, so that everything must come back.
    :ivar reset: whether it has reset the connection, so that what it said last may not have arrived.
    :ivar cancelled: whether it has taken back all its calls at some time.
    :ivar sent: bytes, of those that must come back.
    :ivar received: bytes that have come back.
    :ivar wrong: what was against its expectations.
    """

    name: str
    kind: str
    ip: str
    dialled_s: float
    honest: bool = True
    came_s: float = math.inf
    failed: str = ""
    spoke_s: float = math.inf
    waits_s: float = math.inf
    served_s: float = math.inf
    left_s: float = math.inf
    cut_s: float = math.inf
    lost_s: float = math.inf
    finished: bool = False
    reset: bool = False
    cancelled: bool = False
    sent: int = 0
    received: int = 0
    wrong: str = ""

    def __str__(self) -> str:
        return f"{self.kind} client {self.ip}"

    @property
    def over(self) -> bool:
        """Whether nothing is left of it."""
        return bool(self.failed) or math.isfinite(self.lost_s)

    @property
    def gone_s(self) -> float:
        """When it first ceased to want anything: by itself, or because it was cut."""
        return min(self.left_s, self.cut_s, self.lost_s)

    @property
    def needed_until_s(self) -> float:
        """
        Until when it has used its builder at least: one that has half-closed does so until all has come.

        That it was cut, and that all has come, it may notice only some time after it was so.
        """
        if math.isfinite(self.left_s) and not self.finished:
            return self.left_s
        return min(self.cut_s, self.lost_s) - NOTICED_S
