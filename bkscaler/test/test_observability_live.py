"""Reports of the program as a whole: a real process, its JSON log, and its admin port."""

from __future__ import annotations

import json
import os
import socket
from urllib.request import urlopen

import yaml
from prometheus_client.parser import text_string_to_metric_families
from twisted.trial.unittest import SynchronousTestCase

from bkscaler.test.processes import LIMIT_S, World, read_exactly


class LiveTests(SynchronousTestCase):
    """A wake, a client, and a sleep."""

    def get(self, world, path):
        """Ask the admin port."""
        with urlopen(f"http://127.0.0.1:{world.admin_port}{path}", timeout=LIMIT_S) as answer:
            return answer.read().decode()

    def test_reports(self):
        """Log, metrics and status tell the same about the same client, and no token."""
        directory = os.path.abspath(self.mktemp())
        os.makedirs(directory)
        world = World(self.addCleanup, directory, bkscaler=("--log-format", "json"))
        with world.connect(b"hello") as client:
            self.assertEqual(read_exactly(client, 5), b"hello")
            status = json.loads(self.get(world, "/status"))
            self.assertEqual(status["builder"]["state"], "awake")
            (shown,) = status["connections"]["list"]
            self.assertEqual((shown["phase"], shown["bytes_up"], shown["bytes_down"]), ("joined", 5, 5))
            self.assertIn("<h1>Awake</h1>", self.get(world, "/"))
            client.shutdown(socket.SHUT_WR)
            self.assertEqual(client.recv(1), b"")
        world.bkscaler.until("(?s)scaling to 0.*builder is asleep.*\n")
        samples = {
            (sample.name, *sample.labels.values()): sample.value
            for family in text_string_to_metric_families(self.get(world, "/metrics"))
            for sample in family.samples
        }
        self.assertEqual(samples["bkscaler_connections_ended_total", "completed"], 1)
        self.assertEqual(samples["bkscaler_wakes_total", "ready"], 1)
        self.assertEqual(samples["bkscaler_wake_phase_seconds_count", "first_byte"], 1)
        self.assertEqual(samples["bkscaler_relayed_bytes_total", "up"], 5)
        lines = [json.loads(line) for line in world.bkscaler.output.splitlines()]
        events = [line["event"] for line in lines if "event" in line]
        self.assertEqual(events.count("connection_ended"), 1)
        self.assertEqual(
            [(line["direction"], line["replicas"]) for line in lines if line.get("event") == "scaling"],
            [("up", 1), ("down", 0)],
        )
        with open(world.kubeconfig) as file:
            token = yaml.safe_load(file)["users"][0]["user"]["token"]
        self.assertNotIn(token, world.bkscaler.output + self.get(world, "/") + self.get(world, "/status"))
