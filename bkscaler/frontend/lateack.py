"""
Dropping an acknowledgement that is late: that of our own SETTINGS, from a client that is joined already.

Imported by ``frontend.session``. It needs a relay that hears of each read: one that lends the socket to the
kernel would pass the acknowledgement on.
"""

from __future__ import annotations

from bkscaler.frontend.conversation import HeldConversation
from bkscaler.relay.leg import Leg, LegOwner


class LateAck:
    """
    The owner of a joined client's leg until the acknowledgement has been dropped.

    :param conversation: what was said while the client was held.
    :param relay: takes what is left, and the leg afterwards.
    """

    def __init__(self, conversation: HeldConversation, relay: LegOwner) -> None:
        self._conversation = conversation
        self._relay = relay

    def connected(self, leg: Leg) -> None:
        """Never called: the leg is connected."""

    def received(self, leg: Leg, data: bytes) -> None:
        """Pass on what is left; the relay takes over when the acknowledgement has come."""
        passed = self._conversation.pass_on(data)
        if not self._conversation.ack_pending:
            leg.owner = self._relay
        if passed:
            self._relay.received(leg, passed)

    def finished(self, leg: Leg) -> None:
        """Pass it on."""
        self._relay.finished(leg)

    def lost(self, leg: Leg, orderly: bool) -> None:
        """Pass it on."""
        self._relay.lost(leg, orderly)
