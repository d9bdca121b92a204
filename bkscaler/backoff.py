"""How long to wait before the next try. Pure: chance comes in as a callable. Any room may import it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Backoff:
    """
    A growing delay with jitter, for tries that go on until they succeed or are cancelled.

    :param first_s: seconds before the second try, > 0.
    :param limit_s: no delay is longer than this, >= ``first_s``.
    :param factor: growth from one try to the next, >= 1.
    :param jitter: share of the delay that chance may take away, 0 (none) to 1.
    """

    first_s: float
    limit_s: float
    factor: float = 2.0
    jitter: float = 0.5

    def delay_s(self, failures: int, random: Callable[[], float]) -> float:
        """
        Say how long to wait after a failure.

        :param failures: how many tries have failed in a row, >= 1.
        :param random: gives a number in [0, 1).
        :returns: seconds, in ``[d * (1 - jitter), d]`` where ``d`` is the grown, limited delay.
        """
        grown = min(self.limit_s, self.first_s * self.factor ** min(failures - 1, 64))
        return grown * (1 - self.jitter * random())
