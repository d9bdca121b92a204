"""
The HTTP/2 side of a builder in memory, through ``h2``, which accepts nothing that the protocol forbids.

Imported by :mod:`bkscaler.simulation.serving` and by the soak's builder.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import h2.config
import h2.connection
import h2.events
import h2.exceptions

HEALTH_PATH, SERVES = b"/grpc.health.v1.Health/Check", b"\0\0\0\0\2\x08\x01"
"""The call of ``--readiness grpc``, and its answer."""
PutOff = Callable[[Callable[[], None]], None]


def at_once(answer: Callable[[], None]) -> None:
    """Put nothing off."""
    answer()


class Calls:
    """
    The HTTP/2 side of a builder: each call's body is sent back when it is complete.

    :param serve: told for whom a call is.
    :param put_off: carries out the answer to a health check, now or later.
    """

    def __init__(self, serve: Callable[[str], None], transport: Any, put_off: PutOff = at_once) -> None:
        self._put_off = put_off
        self._serve = serve
        self._transport = transport
        self._broken = False
        self._acknowledged = False
        self._checks: set[int] = set()
        self._bodies: dict[int, bytearray] = {}
        self._h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        self._h2.initiate_connection()
        self._send()

    def received(self, data: bytes) -> None:
        """Take bytes; after what is no HTTP/2 nothing is said any more."""
        if self._broken:
            return
        try:
            events = self._h2.receive_data(data)
        except h2.exceptions.H2Error:
            self._broken = True
            self._transport.loseConnection()
            return
        given_up = {event.stream_id for event in events if isinstance(event, h2.events.StreamReset)}
        for event in events:
            if isinstance(event, h2.events.RequestReceived):
                headers = dict(event.headers)
                self._bodies[event.stream_id] = bytearray()
                if headers[b":path"] == HEALTH_PATH:
                    self._checks.add(event.stream_id)
                else:
                    self._serve(headers[b"client"].decode())
            elif isinstance(event, h2.events.DataReceived):
                self._bodies[event.stream_id] += event.data
                self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, h2.events.StreamEnded) and event.stream_id not in given_up:
                self._answer(event.stream_id)
            elif isinstance(event, h2.events.SettingsAcknowledged):
                assert not self._acknowledged, "our SETTINGS are acknowledged twice"
                self._acknowledged = True
            elif isinstance(event, h2.events.StreamReset):
                self._bodies.pop(event.stream_id, None)
        self._send()

    def _answer(self, stream: int) -> None:
        if stream in self._checks:
            self._put_off(lambda: self._answer_check(stream))
        else:
            self._answer_with(stream, bytes(self._bodies.pop(stream, b"")))

    def _answer_check(self, stream: int) -> None:
        if self._bodies.pop(stream, None) is not None and self._transport.connected:
            self._answer_with(stream, SERVES)
            self._send()

    def _answer_with(self, stream: int, body: bytes) -> None:
        self._h2.send_headers(stream, [(":status", "200"), ("content-type", "application/grpc")])
        self._h2.send_data(stream, body)
        self._h2.send_headers(stream, [("grpc-status", "0")], end_stream=True)

    def _send(self) -> None:
        self._transport.write(self._h2.data_to_send())
