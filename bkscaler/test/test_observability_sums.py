"""Reports of a whole process after a hundred connections of all kinds: every number adds up."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import struct
import sys
from urllib.request import urlopen

from prometheus_client.parser import text_string_to_metric_families
from twisted.trial.unittest import SynchronousTestCase

from bkscaler.test.processes import LIMIT_S, World, delete_set, read_exactly

BUILDER = """
import os, socket, socketserver, struct, sys, time
class Handler(socketserver.BaseRequestHandler):
    def handle(self):
        while data := self.request.recv(65536):
            if data == b"mortal":
                self.request.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                data = b"%06d" % os.getpid()
            self.request.sendall(data)
class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = daemon_threads = True
    request_queue_size = 100
while not os.path.exists(sys.argv[3]):
    time.sleep(0.01)
Server((sys.argv[1], int(sys.argv[2])), Handler).serve_forever()
"""
"""
Listens when a file is there, and echoes. Connections on which it has heard ``mortal`` are reset when it is
killed, as those of a lost node.
"""
GARBAGE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 100
LIMIT = 61
ENDS = {
    "probe": 10,
    "protocol_error": 5,
    "over_limit": 10,
    "left_while_held": 10,
    "completed": 41,
    "client_lost": 9,
    "builder_lost": 10,
    "cannot_wake": 5,
}


class SumTests(SynchronousTestCase):
    """A hundred clients, a builder that is killed, and a set that is deleted."""

    def setUp(self):
        directory = os.path.abspath(self.mktemp())
        os.makedirs(directory)
        script, self.go = os.path.join(directory, "builder.py"), os.path.join(directory, "go")
        with open(script, "w") as file:
            file.write(BUILDER)
        self.world = World(
            self.addCleanup,
            directory,
            sandbox=("--backend-command", f"{sys.executable} {script} {{ip}} {{port}} {self.go}"),
            bkscaler=("--max-connections", str(LIMIT), "--log-format", "json"),
        )
        self.open = contextlib.ExitStack()
        self.addCleanup(self.open.close)
        self.moved = 0

    def clients(self, count, first=b""):
        """Connect clients that send something."""
        return [self.open.enter_context(self.world.connect(first)) for _ in range(count)]

    def until_ended(self, count):
        """Wait until so many connections have been told of."""
        self.world.bkscaler.until_told('"connection_ended"', count)

    def echo(self, client, data):
        """Have the builder answer something with as many bytes."""
        client.sendall(data)
        answer = read_exactly(client, len(data))
        self.moved += len(data)
        return answer

    def answered(self, clients, data):
        """Read what the builder echoes of the clients' first bytes."""
        for client in clients:
            self.assertEqual(read_exactly(client, len(data)), data)
            self.moved += len(data)

    def scrape(self):
        """Give each sample's value by its name and labels, and what ``/status`` says of connections."""
        admin = f"http://127.0.0.1:{self.world.admin_port}"
        with urlopen(f"{admin}/metrics", timeout=LIMIT_S) as answer:
            text = answer.read().decode()
        samples = {
            (sample.name, *sample.labels.values()): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }
        with urlopen(f"{admin}/status", timeout=LIMIT_S) as answer:
            return samples, json.load(answer)

    def while_asleep(self):
        """Come while it sleeps: probes, garbage, clients up to the limit and beyond it; some leave."""
        for client in self.clients(10):
            client.close()
        self.until_ended(10)
        self.clients(5, GARBAGE)
        self.until_ended(15)
        staying = self.clients(51, b"held first")
        leaving = self.clients(10, b"held first")
        self.clients(10)
        self.until_ended(25)
        for client in leaving:
            reset(client)
        self.until_ended(35)
        return staying

    def while_awake(self, clients):
        """Be served and finish, or be cut, by oneself or with the builder; give the one that is left."""
        anchor, finishing, cut, mortal = clients[0], clients[1:32], clients[32:41], clients[41:]
        for client in finishing:
            self.assertEqual(self.echo(client, b"y" * 100_000), b"y" * 100_000)
            client.shutdown(socket.SHUT_WR)
            self.assertEqual(client.recv(1), b"")
        for client in cut:
            reset(client)
        self.until_ended(75)
        (pid,) = {int(self.echo(client, b"mortal")) for client in mortal}
        os.kill(pid, signal.SIGKILL)
        for client in mortal:
            self.assertRaises(ConnectionResetError, client.recv, 1)
        self.assertEqual(anchor.recv(1), b"")
        # The dying process may take clients with it that are joined to it meanwhile.
        self.world.bkscaler.until_told("builder is waking", 2)
        return anchor

    def test_adds_up(self):
        """Outcomes, gauges, bytes, holds, wakes, phases and scale requests are what happened, and what the
        log and the status say."""
        before, _ = self.scrape()
        staying = self.while_asleep()
        with open(self.go, "w"):
            self.answered(staying, b"held first")
        anchor = self.while_awake(staying)
        self.until_ended(85)
        later = self.clients(9, b"second wake")
        self.answered(later, b"second wake")
        for client in (*later, anchor):
            client.shutdown(socket.SHUT_WR)
        self.until_ended(95)
        self.world.bkscaler.until("(?s)scaling to 0.*builder is asleep")
        delete_set(self.world.kubeconfig)
        self.world.bkscaler.until("builder is missing")
        self.clients(5, b"nobody is there")
        self.until_ended(100)
        now, status = self.scrape()
        self.check_connections(before, now, status)
        self.check_builder(now)

    def check_connections(self, before, now, status):
        """Compare what is counted of clients with what they did."""
        ended = {key[1]: n for key, n in now.items() if key[0] == "bkscaler_connections_ended_total" and n}
        self.assertEqual(ended, ENDS)
        self.assertEqual({word: n for word, n in status["connections"]["ended"].items() if n}, ENDS)
        accepted = ("bkscaler_connections_accepted_total",)
        self.assertEqual(now[accepted] - before[accepted], 100)
        self.assertEqual(now["bkscaler_connections", "held"] + now["bkscaler_connections", "joined"], 0)
        lines = [json.loads(line) for line in self.world.bkscaler.output.splitlines()]
        told = [line for line in lines if line.get("event") == "connection_ended"]
        self.assertEqual(len(told), 100)
        self.assertEqual([line for line in lines if "traceback" in line or line["level"] == "error"], [])
        for direction in ("up", "down"):
            self.assertEqual(now["bkscaler_relayed_bytes_total", direction], self.moved)
            self.assertEqual(sum(line[f"bytes_{direction}"] for line in told), self.moved)
            self.assertEqual(status["connections"][f"bytes_{direction}"], self.moved)
        self.assertEqual(now["bkscaler_dial_failures_total",], sum(line["failed_dials"] for line in told))
        holds = {end: now["bkscaler_connection_hold_seconds_count", end] for end in ("joined", "not_joined")}
        self.assertEqual(holds, {"joined": 60, "not_joined": 20})
        waited_s = sum(line["waited_s"] for line in told if line["joined_s"] is not None)
        self.assertAlmostEqual(now["bkscaler_connection_hold_seconds_sum", "joined"], waited_s, places=1)

    def check_builder(self, now):
        """Compare what is counted of wakes and scale requests with each other."""
        output = self.world.bkscaler.output
        for direction, replicas in (("up", 1), ("down", 0)):
            asked = output.count(f"scaling to {replicas}:")
            self.assertEqual(now["bkscaler_scale_requests_total", direction, "ok"], asked)
        self.assertEqual(now["bkscaler_wakes_total", "ready"], now["bkscaler_wake_seconds_count",])
        self.assertEqual(now["bkscaler_wakes_total", "ready"], 2)
        self.assertIn(now["bkscaler_wakes_total", "failed"], range(1, 6))
        phases = [
            now["bkscaler_wake_phase_seconds_sum", phase]
            for phase in ("patch", "scheduled", "started", "ready")
        ]
        self.assertAlmostEqual(sum(phases), now["bkscaler_wake_seconds_sum",], places=6)
        self.assertEqual(now["bkscaler_builder_state", "missing"], 1)


def reset(client):
    """Break a connection off, so that it cannot be taken for one that only has nothing more to say."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
