"""Tests of the program as a whole: real processes, real sockets, and the API of a sandbox over real TLS."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import sys

import yaml
from twisted.trial.unittest import SynchronousTestCase

from bkscaler.test.processes import World, read_exactly, twistd

SAYS_ITS_PID = """
import os, socketserver, sys
class Handler(socketserver.BaseRequestHandler):
    def handle(self):
        while self.request.recv(1000):
            self.request.sendall(b"%08d" % os.getpid())
class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = daemon_threads = True
Server((sys.argv[1], int(sys.argv[2])), Handler).serve_forever()
"""


class ProcessCase(SynchronousTestCase):
    """Directories and worlds for whole processes."""

    def directory(self):
        """Make a directory for one test."""
        path = os.path.abspath(self.mktemp())
        os.makedirs(path)
        return path

    def world(self, **how):
        """Make a sandbox and a bkscaler."""
        return World(self.addCleanup, self.directory(), **how)

    def world_with_pids(self, *sandbox):
        """Make a world whose builders answer with their process number, eight digits."""
        script = os.path.join(self.directory(), "says_its_pid.py")
        with open(script, "w") as file:
            file.write(SAYS_ITS_PID)
        command = f"{sys.executable} {script} {{ip}} {{port}}"
        return self.world(sandbox=("--backend-command", command, *sandbox))


class LifeTests(ProcessCase):
    """0 -> 1 -> 0, and what can happen on the way."""

    def test_wake_and_sleep(self):
        """The first client wakes the builder and is served; after the last one it goes to sleep."""
        world = self.world()
        with world.connect(b"hello") as client:
            self.assertEqual(read_exactly(client, 5), b"hello")
            client.sendall(b"x" * 1_000_000)
            self.assertEqual(read_exactly(client, 1_000_000), b"x" * 1_000_000)
            client.shutdown(socket.SHUT_WR)
            self.assertEqual(client.recv(1), b"")
        world.bkscaler.until("scaling to 0: idle for 1")
        world.bkscaler.until("(?s)scaling to 0.*builder is asleep")
        world.bkscaler.until(r"completed after waiting \S+, joined for \S+, 1000005 bytes up")

    def test_many_while_cold(self):
        """Ten clients that come at once while the builder sleeps are all served, by one wake."""
        world = self.world()
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(world.connect(b"client %d" % number)) for number in range(10)]
            answers = [read_exactly(client, 8) for client in clients]
        self.assertEqual(answers, [b"client %d" % number for number in range(10)])
        world.bkscaler.until("builder is idle")
        self.assertEqual(len(re.findall("scaling to 1", world.bkscaler.output)), 1)

    def test_back_while_terminating(self):
        """A client that comes back while the old pod is terminating is served by the new one only."""
        world = self.world_with_pids("--stop-delay", "1500ms")
        with world.connect(b"?") as client:
            old = read_exactly(client, 8)
        world.until_terminating()
        with world.connect(b"?") as client:
            answers = {read_exactly(client, 8)}
            for _ in range(50):
                client.sendall(b"?")
                answers.add(read_exactly(client, 8))
        self.assertNotIn(old, answers)
        self.assertEqual(len(answers), 1)

    def test_killed_builder(self):
        """When the builder's process is killed its clients hear of it, and the next one is served."""
        world = self.world_with_pids()
        with world.connect(b"?") as client:
            pid = int(read_exactly(client, 8))
            os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ConnectionResetError):
                self.assertEqual(client.recv(1), b"")
        self.assertNotIn(self.next_answer(world), (0, pid))

    def next_answer(self, world):
        """Ask who answers; again, a few times, where the dying process took the connection with it."""
        for _ in range(5):
            with world.connect(b"?") as client, contextlib.suppress(ConnectionResetError):
                answer = read_exactly(client, 8)
                if answer:
                    return int(answer)
        return 0


class SignalTests(ProcessCase):
    """SIGTERM and SIGINT."""

    def test_nobody_connected(self):
        """Without clients, either signal ends the process with status 0 and leaves the builder alone."""
        for number in (signal.SIGTERM, signal.SIGINT):
            world = self.world(sandbox=("--replicas", "1"))
            world.bkscaler.signal(number)
            self.assertEqual(world.bkscaler.ended(), 0)
            self.assertNotIn("scaling to 0", world.bkscaler.output)

    def test_drain(self):
        """Clients it has are served to their end, new ones are not accepted; then it exits with 0."""
        world = self.world(sandbox=("--start-delay", "1s"))
        self.assertEqual(world.ready(), (200, "ready"))
        with world.connect(b"held") as client:
            world.bkscaler.until("builder is waking")
            world.bkscaler.signal(signal.SIGTERM)
            world.bkscaler.until("draining: 1 connections")
            self.assertEqual(world.ready(), (503, "draining: bkscaler is shutting down"))
            world.bkscaler.until(rf"Port {world.port} Closed")
            self.assertRaises(ConnectionRefusedError, world.connect)
            self.assertEqual(read_exactly(client, 4), b"held")
            client.sendall(b"joined")
            self.assertEqual(read_exactly(client, 6), b"joined")
        self.assertEqual(world.bkscaler.ended(), 0)
        self.assertNotIn("scaling to 0", world.bkscaler.output)

    def test_drain_timeout(self):
        """When the drain timeout is over, what is left is cut, and it exits with 0."""
        world = self.world(bkscaler=("--drain-timeout", "200ms"))
        with world.connect(b"x") as client:
            self.assertEqual(read_exactly(client, 1), b"x")
            world.bkscaler.signal(signal.SIGTERM)
            self.assertEqual(world.bkscaler.ended(), 0)
            self.assertRaises(ConnectionResetError, client.recv, 1)
        self.assertIn("shutting_down after waiting", world.bkscaler.output)

    def test_second_signal(self):
        """A second signal ends it at once with status 1."""
        world = self.world()
        with world.connect(b"x") as client:
            self.assertEqual(read_exactly(client, 1), b"x")
            world.bkscaler.signal(signal.SIGTERM)
            world.bkscaler.until("draining")
            world.bkscaler.signal(signal.SIGTERM)
            self.assertEqual(world.bkscaler.ended(), 1)


class StartTests(ProcessCase):
    """What keeps it from starting."""

    def start(self, *words, **environ):
        """Run it to its end; give the exit status and what it said."""
        pidfile = os.path.join(self.directory(), "pid")
        child = twistd(*words, pidfile=pidfile, environ={"KUBERNETES_SERVICE_HOST": "", **environ})
        self.addCleanup(child.kill)
        return child.ended(), child.output.splitlines()

    def test_bad_settings(self):
        """Every bad setting has one line with its name and value, nothing else is said; status 1."""
        status, lines = self.start(
            "--idle-timeout",
            "soon",
            "--target-port=0",
            "--nonsense",
            "--kubeconfig",
            "/nowhere",
            PROBE_GRACE="-1s",
        )
        self.assertEqual(status, 1)
        for name, value in (
            ("--idle-timeout", "soon"),
            ("--target-port", "'0'"),
            ("--nonsense", "no such option"),
            ("--kubeconfig", "/nowhere"),
            ("PROBE_GRACE", "-1s"),
        ):
            self.assertEqual(len([line for line in lines if name in line and value in line]), 1, lines)
        self.assertEqual(len(lines), 5)

    def test_nowhere(self):
        """Neither in a cluster nor given a kubeconfig: one line says so; status 1."""
        status, lines = self.start()
        self.assertEqual((status, len(lines)), (1, 1))
        self.assertIn("neither in a cluster", lines[0])

    def test_check(self):
        """``--check`` prints what it finds and nothing else; its status says whether it would work."""
        world = self.world()
        for flags, expected, verdict in (
            ((), 0, "bkscaler would work"),
            (("--sts-name", "other"), 1, "bkscaler would not work: 1 to mend"),
        ):
            status, lines = self.start("--kubeconfig", world.kubeconfig, "--check", *flags)
            self.assertEqual((status, lines[-1]), (expected, verdict))
            self.assertTrue(lines[0].startswith("ok    API server"), lines)

    def test_credentials_from_a_program(self):
        """A kubeconfig whose user is a program leads to the cluster as its token would."""
        world = self.world()
        with open(world.kubeconfig) as file:
            kubeconfig = yaml.safe_load(file)
        user = kubeconfig["users"][0]["user"]
        version = "client.authentication.k8s.io/v1"
        answer = {"kind": "ExecCredential", "apiVersion": version, "status": {"token": user.pop("token")}}
        user["exec"] = {"apiVersion": version, "command": "echo", "interactiveMode": "Never"}
        user["exec"]["args"] = [json.dumps(answer)]
        path = os.path.join(self.directory(), "kubeconfig")
        with open(path, "w") as file:
            yaml.safe_dump(kubeconfig, file)
        status, lines = self.start("--kubeconfig", path, "--check")
        self.assertEqual((status, lines[-1]), (0, "bkscaler would work"))

    def test_check_out_of_reach(self):
        """A server that is not there is a finding, not a traceback."""
        world = self.world()
        world.sandbox.kill()
        status, lines = self.start("--kubeconfig", world.kubeconfig, "--check")
        self.assertEqual(status, 1)
        self.assertIn("connection refused", " ".join(" ".join(lines).split()))

    def test_taken_port(self):
        """A taken port stops start-up with a line that names the setting, and status 1."""
        world = self.world()
        status, lines = self.start(
            "--kubeconfig", world.kubeconfig, "--listen-addr", f"127.0.0.1:{world.port}"
        )
        self.assertEqual(status, 1)
        self.assertEqual(len([line for line in lines if "--listen-addr: cannot listen on" in line]), 1)
        self.assertNotIn("Traceback", "\n".join(lines))
