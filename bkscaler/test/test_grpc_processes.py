"""Tests of real gRPC clients and servers with whole processes, as users run them."""

from __future__ import annotations

import os
import signal
import sys
import time

import grpc
from twisted.trial.unittest import SynchronousTestCase

from bkscaler.test.grpc_peers import Client, outcome_of
from bkscaler.test.processes import Child, World

SERVER = f"{sys.executable} -m bkscaler.test.grpc_peers serve {{ip}} {{port}}"
ENDED = "(completed|client_lost) after waiting"
"""How a served client ends: by a reset when it closes before it has read everything."""


class GrpcProcessCase(SynchronousTestCase):
    """Worlds whose builders speak gRPC, and clients."""

    def world(self, *sandbox, bkscaler=()):
        """Start a sandbox and a bkscaler."""
        path = os.path.abspath(self.mktemp())
        os.makedirs(path)
        sandbox = ("--backend-command", SERVER, *sandbox)
        return World(self.addCleanup, path, sandbox=sandbox, bkscaler=bkscaler)

    def client(self, world):
        """Make a client."""
        client = Client(world.port)
        self.addCleanup(client.close)
        return client


class ProcessTests(GrpcProcessCase):
    """What a minute's wait is not needed for."""

    def test_cold_start(self):
        """A call that wakes the builder, and is told meanwhile that a server is there, is answered."""
        world = self.world("--start-delay", "1s", bkscaler=("--hold-after", "200ms"))
        client = self.client(world)
        self.assertEqual([outcome_of(client.call(message)) for message in (b"a", b"b")], [b"a", b"b"])
        client.close()
        world.bkscaler.until(ENDED)
        world.bkscaler.until("(?s)scaling to 0.*builder is asleep")

    def test_leaving(self):
        """A call that ends while held, and a client that is killed, need no builder within a second."""
        world = self.world("--start-delay", "1m", bkscaler=("--hold-after", "100ms"))
        client = self.client(world)
        status, _ = outcome_of(client.call(timeout_s=1.0))
        ended_s = time.monotonic()
        self.assertEqual(status, grpc.StatusCode.DEADLINE_EXCEEDED)
        world.bkscaler.until("(?s)builder is waking.*builder is idle")
        self.assertLess(time.monotonic() - ended_s, 1.0)
        client.close()
        world.bkscaler.until("cancelled_while_held")
        killed = Child(sys.executable, "-m", "bkscaler.test.grpc_peers", "call", str(world.port))
        self.addCleanup(killed.kill)
        world.bkscaler.until("(?s)cancelled_while_held.*builder is waking")
        killed.signal(signal.SIGKILL)
        killed_s = time.monotonic()
        world.bkscaler.until("(?s)cancelled_while_held.*builder is waking.*builder is idle")
        self.assertLess(time.monotonic() - killed_s, 1.0)
        world.bkscaler.until("left_while_held")


class SlowTests(GrpcProcessCase):
    """What takes as long as it takes; run with ``BKSCALER_SLOW_TESTS=1``."""

    if not os.environ.get("BKSCALER_SLOW_TESTS"):
        skip = "slow; set BKSCALER_SLOW_TESTS=1"

    def test_beyond_the_limit_of_grpc(self):
        """With every default, a cold start of 30 s is 10 s more than gRPC waits for a silent server: it
        builds, on one connection."""
        world = self.world("--start-delay", "30s")
        client = self.client(world)
        self.assertEqual(outcome_of(client.call()), b"hello")
        client.close()
        world.bkscaler.until(ENDED)
        self.assertEqual(world.bkscaler.output.count("after waiting"), 1)
