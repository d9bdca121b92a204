"""
A server whose data are older than what it has told before, and when to follow it there.

Either it has been restarted and answers as things were, or it was restored from a backup. Only time tells the
two apart, and to take the first for the second would give clients to pods that are gone. So what is older is
not believed until it has been like that for :data:`FOLLOWED_AFTER_S`. An answer that was long under way shows
only what was so when it was asked for. Imported by ``kube.watches``.
"""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime

from bkscaler.errors import WentBack
from bkscaler.kube.versions import is_older

FOLLOWED_AFTER_S = 15.0
"""How long a server must have answered as of an older version until it is believed."""
FORGOTTEN_AFTER_S = 60.0
"""How long ago its last such answer may be: longer than our watches take between two tries."""


class Behind:
    """
    Weighs the versions of what is read of one kind.

    :param clock: tells the time.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._since_s: float | None = None
        self._last_s = 0.0

    def follow(self) -> None:
        """Believe what is older the next time: it is what is known then."""
        self._last_s = self._clock.seconds()
        self._since_s = self._last_s - FOLLOWED_AFTER_S

    def begin_anew(self) -> None:
        """Count from the next answer that is older: what came before is another story."""
        self._since_s = None

    def weigh(self, version: str, floor: str, asked_s: float) -> None:
        """
        Say by returning that an answer may be believed.

        :param version: of the answer.
        :param floor: what was known when it was asked for.
        :param asked_s: when that was, by the clock.
        :raises WentBack: when it is older, and this is not yet known to stay so.
        """
        if not is_older(version, floor):
            self._since_s = None
            return
        now_s = self._clock.seconds()
        if self._since_s is None or now_s > self._last_s + FORGOTTEN_AFTER_S:
            self._since_s = now_s
        self._last_s = now_s
        if asked_s - self._since_s < FOLLOWED_AFTER_S:
            raise WentBack(f"the API server answers as of version {version}, after {floor}")
        self._since_s = None
