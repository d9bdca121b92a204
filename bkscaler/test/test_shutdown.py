"""Tests of draining."""

from __future__ import annotations

import signal
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from bkscaler.shutdown import CUT_LIMIT_S, DROP_LIMIT_S, Drain


class PlayedReactor(Clock):
    """A clock that records what else it is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.when_running: list[Any] = []
        self.stopped = 0

    def callWhenRunning(self, function):
        """Remember it."""
        self.when_running.append(function)

    def callFromThread(self, function):
        """Call it a moment later."""
        self.callLater(0, function)

    def stop(self):
        """Count."""
        self.stopped += 1


class PlayedConnections:
    """Connections that end when the test says so."""

    def __init__(self, count: int, obey: bool = True) -> None:
        self.count = count
        self.obey = obey
        self.cuts = 0
        self.waiting: list[Any] = []

    def __len__(self) -> int:
        return self.count

    def when_empty(self):
        """Wait."""
        waiting = Deferred(self.waiting.remove)
        self.waiting.append(waiting)
        return waiting

    def cut_all(self):
        """End, if they obey."""
        self.cuts += 1
        if self.obey:
            self.end()

    def end(self):
        """End."""
        self.count = 0
        waiting, self.waiting = self.waiting, []
        for each in waiting:
            each.callback(None)


class DrainTests(SynchronousTestCase):
    """What signals do."""

    def drain(self, count=1, limit_s=60.0, **connections):
        """Make one whose service has been started, and run what it asked to have run."""
        self.reactor, self.connections = PlayedReactor(), PlayedConnections(count, **connections)
        self.handlers, self.exits, self.stops = {}, [], []
        drain = Drain(
            reactor=self.reactor,
            connections=self.connections,
            stop_accepting=lambda: succeed(self.stops.append(len(self.connections))),
            limit_s=limit_s,
            exit_now=self.exits.append,
            set_handler=self.handlers.__setitem__,
        )
        drain.startService()
        self.assertEqual(self.handlers, {})
        for function in self.reactor.when_running:
            function()
        return drain

    def signal(self, number=signal.SIGTERM):
        """Send a signal."""
        self.handlers[number](number, None)

    def nothing_left(self):
        """See that the reactor was stopped once, and that no delayed call is left."""
        self.assertEqual((self.reactor.stopped, self.reactor.getDelayedCalls()), (1, []))

    def test_both_signals(self):
        """SIGTERM and SIGINT are taken over when the reactor runs, which has set its own handlers by then."""
        self.drain()
        self.assertEqual(set(self.handlers), {signal.SIGTERM, signal.SIGINT})

    def test_waits_for_connections(self):
        """The first signal stops accepting; the reactor goes on until the last connection has ended."""
        drain = self.drain()
        self.signal()
        self.assertTrue(drain.draining)
        self.reactor.advance(0)
        self.assertEqual((self.stops, self.reactor.stopped), ([1], 0))
        self.reactor.advance(59)
        self.connections.end()
        self.nothing_left()
        self.assertEqual((self.connections.cuts, self.exits), (0, []))

    def test_nobody_connected(self):
        """Without connections the reactor is stopped at once."""
        self.drain(count=0)
        self.signal(signal.SIGINT)
        self.reactor.advance(0)
        self.nothing_left()

    def test_limit(self):
        """When the drain timeout is over, connections are cut, and the reactor is stopped."""
        self.drain(limit_s=10.0)
        self.signal()
        self.reactor.advance(0)
        self.reactor.advance(9.9)
        self.assertEqual(self.connections.cuts, 0)
        self.reactor.advance(0.2)
        self.assertEqual(self.connections.cuts, 1)
        self.nothing_left()

    def test_connections_that_do_not_close(self):
        """A connection that does not even end when cut is cut again, and does not keep the process."""
        self.drain(limit_s=10.0, obey=False)
        self.signal()
        self.reactor.advance(0)
        self.reactor.advance(10)
        self.assertEqual(self.reactor.stopped, 0)
        self.reactor.advance(CUT_LIMIT_S - DROP_LIMIT_S)
        self.assertEqual((self.connections.cuts, self.reactor.stopped), (2, 0))
        self.reactor.advance(DROP_LIMIT_S)
        self.nothing_left()

    def test_second_signal(self):
        """The second signal, of either kind, ends the process at once with status 1."""
        self.drain()
        self.signal(signal.SIGTERM)
        self.assertEqual(self.exits, [])
        self.signal(signal.SIGINT)
        self.assertEqual(self.exits, [1])
        self.reactor.advance(0)
        self.connections.end()
