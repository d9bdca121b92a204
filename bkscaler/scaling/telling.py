"""
What is worth telling about the builder, and when: waking up, ready, going to sleep, failing to wake.

Imported by :mod:`bkscaler.scaling.service`. Whoever wants to hear is a :class:`Report`; it may be slow or
broken without any effect on the scaler.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.logger import Logger

from bkscaler.durations import format_duration
from bkscaler.model import Happening, Observation
from bkscaler.scaling.policy import ScaleTo

Report = Callable[[Happening, str], None]
"""Told what has happened, with one line of detail. It returns at once; what it raises is logged."""


def tell_nobody(what: Happening, words: str) -> None:
    """Hear, and do nothing."""


class Telling:
    """
    Turns what the scaler does into happenings. Lives as long as its scaler.

    :param report: who is told.
    """

    log = Logger()

    def __init__(self, report: Report) -> None:
        self._report = report
        self._waking_since_s: float | None = None

    def scaled(self, decision: ScaleTo, since_s: float) -> None:
        """
        A decision has been carried out.

        :param decision: which.
        :param since_s: time on the clock since which the builder has been needed.
        """
        words = f"scaled to {decision.replicas}: {decision.reason}"
        if decision.down:
            self._waking_since_s = None
            self._tell(Happening.GOING_TO_SLEEP, words)
            return
        if self._waking_since_s is None:
            self._waking_since_s = since_s
        self._tell(Happening.WAKING_UP, words)

    def observed(self, observation: Observation, now_s: float) -> None:
        """Something was observed; a builder that we have woken and that is ready now is worth telling."""
        if self._waking_since_s is not None and observation.ready:
            waited = format_duration(round(now_s - self._waking_since_s))
            self._waking_since_s = None
            self._tell(Happening.READY, f"{observation.ready[0].name} is ready after {waited}")

    def failed(self, reason: str) -> None:
        """Clients were told that the builder does not come."""
        self._tell(Happening.WAKE_FAILED, reason)

    def _tell(self, what: Happening, words: str) -> None:
        try:
            self._report(what, words)
        except Exception:
            self.log.failure("whoever is told of the builder failed")
