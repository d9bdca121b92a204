"""The gRPC clients of a world: several calls over one connection, PINGs, and calls that are taken back."""

from __future__ import annotations

from typing import Any

import h2.config
import h2.connection
import h2.events
import h2.exceptions

from bkscaler.simulation.clients import SPOKEN_S, Client, counted
from bkscaler.simulation.clock import VirtualTime

FAILED_PRECONDITION = b"9"
"""The gRPC status of a call that gets no builder: others make clients try again, or take it for success."""


class Builds(Client):
    """
    A gRPC client: several builds, one after another, over one connection.

    :ivar spoke_s: when it began to speak; None before.
    :ivar pinged_s: when it sent the PING that is not answered yet; None when there is none.
    :ivar acknowledged: whether its SETTINGS were.
    :ivar heard: whether anything has come back.
    :ivar has_cancelled: whether it has reset all its calls at some time.
    :ivar cancelled_s: when it last did.
    :ivar answered: how many calls were answered by a builder.
    :ivar refusals: the words of answers that said that there is no builder.
    """

    kind = "gRPC"

    def __init__(self, name: str, clock: VirtualTime) -> None:
        super().__init__(name, clock)
        self.answered = 0
        self.has_cancelled = self.heard = self.acknowledged = False
        self.cancelled_s = 0.0
        self.spoke_s: float | None = None
        self.pinged_s: float | None = None
        self.refusals: list[str] = []
        self.calls: dict[int, tuple[bytes, bytearray]] = {}
        self._h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
        self._greeted = False
        self._pings = 0

    def say(self, size: int) -> None:
        """Make a call with a body of so many bytes, at most what the first window holds."""
        if not self.open or self.ending:
            return
        if not self._greeted:
            self._greeted = True
            self.spoke_s = self._clock.rightNow
            self._h2.initiate_connection()
        if self.has_spoken and not self.calls:
            self.asked_s = self._clock.rightNow
            if self.asked_s > self.cancelled_s + self.latency_s + SPOKEN_S:
                self.asked_from_s = self.asked_s
        self.has_spoken = True
        stream = self._h2.get_next_available_stream_id()
        body = counted(0, min(size, 16_000))
        headers = [(":method", "POST"), (":scheme", "http"), (":authority", "buildkitd")]
        headers += [(":path", "/moby.buildkit.v1.Control/Solve"), ("client", self.name)]
        self.calls[stream] = (body, bytearray())
        try:
            self._h2.send_headers(stream, headers)
            self._h2.send_data(stream, body, end_stream=True)
        except h2.exceptions.H2Error:
            self.calls.pop(stream)
        self._send()

    @property
    def wants(self) -> bool:
        """Whether a call of its waits for an answer."""
        return super().wants and bool(self.calls)

    @property
    def wants_nothing(self) -> bool:
        """Whether it has reset its calls, and has none."""
        return self.has_cancelled and not self.calls

    def ping(self) -> None:
        """Ask whether anybody is there."""
        if self.open and not self.ending and self._greeted:
            self.pinged_s = self.pinged_s or self._clock.rightNow
            self._pings += 1
            self._h2.ping(b"\0" * 8)
            self._send()

    def cancel(self) -> None:
        """Reset all calls, if there are any, as Ctrl-C does."""
        if self.calls and self.open and not self.ending:
            for stream in list(self.calls):
                self._h2.reset_stream(stream, error_code=8)
            self.calls.clear()
            self.has_cancelled = True
            self.cancelled_s = self._clock.rightNow
            self._send()

    def finish(self) -> None:
        """An HTTP/2 client closes when it is done."""
        self.hang_up()

    def dataReceived(self, data: bytes) -> None:
        """Take answers."""
        self.heard = True
        try:
            events = self._h2.receive_data(data)
        except h2.exceptions.H2Error as error:
            self.wrong = self.wrong or f"{self}: {error!r}"
            self.transport.abortConnection()
            return
        for event in events:
            self._heard(event)
        if self.open and not self.ending:
            self._send()

    def _heard(self, event: Any) -> None:
        if isinstance(event, h2.events.ResponseReceived | h2.events.TrailersReceived):
            headers = dict(event.headers)
            status = headers.get(b"grpc-status", b"0")
            self._expect(status in {b"0", FAILED_PRECONDITION}, f"it was told status {status.decode()}")
            if status != b"0" and event.stream_id in self.calls:
                self.refusals.append(headers.get(b"grpc-message", b"").decode())
                self.calls.pop(event.stream_id)
        elif isinstance(event, h2.events.PingAckReceived):
            self.pinged_s = None
            self._pings -= 1
            self._expect(self._pings >= 0, "its PING was answered twice")
        elif isinstance(event, h2.events.SettingsAcknowledged):
            self._expect(not self.acknowledged, "its SETTINGS were acknowledged twice")
            self.acknowledged = True
        elif isinstance(event, h2.events.DataReceived):
            self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            if event.stream_id in self.calls:
                self.calls[event.stream_id][1].extend(event.data)
        elif isinstance(event, h2.events.StreamEnded):
            sent, got = self.calls.pop(event.stream_id, (b"", bytearray()))
            self.answered += 1
            self._expect(sent == got, f"call {event.stream_id} came back changed")

    def _expect(self, so: bool, otherwise: str) -> None:
        """Take note of the first thing that is not as it must be."""
        if not so:
            self.wrong = self.wrong or f"{self}: {otherwise}"

    def _send(self) -> None:
        self.transport.write(self._h2.data_to_send())

    @property
    def complete(self) -> bool:
        """Whether every call has been answered."""
        return not self.calls
