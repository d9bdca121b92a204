"""Tests of what crowds, and very long transfers, do to a whole ``twistd -n bkscaler``, with each relay."""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import re
import resource
import select
import socket
import struct
import sys
import threading
import time
from collections import Counter
from pathlib import Path

from twisted.trial.unittest import SkipTest

from bkscaler.relay.pipes import KEPT_COUNT, LIMIT_COUNT
from bkscaler.relay.splice import CAN_SPLICE
from bkscaler.test.processes import LIMIT_S, Child, read_exactly, somebody_else
from bkscaler.test.test_twistd import ProcessCase

DOES_WHAT_IT_IS_TOLD = """
import random, socketserver, struct, sys
from socket import SO_LINGER, SOL_SOCKET
data = memoryview(random.Random(1).randbytes(4_000_000))
class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            word, number, count = line.decode().split()
            getattr(self, word)(int(number), int(count))
    def send(self, place, count):
        self.request.sendall(data[place:place + count])
    def repeat(self, times, count):
        for _ in range(times):
            self.request.sendall(data[:count])
    def flood(self, place, count):
        while True:
            self.request.sendall(data[place:place + count])
    def take(self, times, count):
        for _ in range(times):
            assert len(self.rfile.read(count)) == count
        self.request.sendall(b"taken")
    def reset(self, *_):
        self.request.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
        self.rfile.close()
        self.rfile = ()
class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = daemon_threads = True
    request_queue_size = 1000
    def shutdown_request(self, request):
        self.close_request(request)
    def handle_error(self, request, address):
        pass
Server((sys.argv[1], int(sys.argv[2])), Handler).serve_forever()
"""
DATA = memoryview(random.Random(1).randbytes(4_000_000))
"""What such a builder sends from."""
USES_UP_THE_BUDGET = """
import fcntl, os, sys
uid, gid = map(int, sys.argv[1:])
if uid != os.getuid():
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)
usual, kept = 16 * os.sysconf("SC_PAGESIZE"), []
while fcntl.fcntl((pipe := os.pipe())[0], fcntl.F_GETPIPE_SZ) >= usual:
    kept.append(pipe)
    try:
        fcntl.fcntl(pipe[0], fcntl.F_SETPIPE_SZ, 1 << 20)
    except OSError:
        pass
print("used up")
sys.stdout.flush()
while True:
    os.read(pipe[0], 1)
"""
STALLED_COUNT = 300
STALLED_BYTES = 1_000_000
STALL_TIMES = 10
"""How often readers that do not stall as they should may read and stall again."""
ALL_COUNT = 1000
BATCH_COUNT = 40
ENDED = " after waiting "
"""In the one line of each connection that has ended."""


def budget_pages() -> int:
    """Say how much all pipes of a user may hold, pages; 0 when that is not limited."""
    return int(Path("/proc/sys/fs/pipe-user-pages-soft").read_text())


def reset(client: socket.socket) -> None:
    """Reset a connection."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def open_things(pid: int) -> tuple[Counter[str], list[str]]:
    """Give how many descriptors a process has of each kind but pipes, and those that lead to a pipe."""
    kinds: Counter[str] = Counter()
    pipes = []
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            kind = os.readlink(path).partition("[")[0]
            kinds[kind] += kind != "pipe:"
            pipes += [str(path)] if kind == "pipe:" else []
    return kinds, pipes


def pipe_sizes(pid: int) -> list[int]:
    """Say how much each pipe of a process holds, bytes, once for each of its ends that we may open."""
    sizes = []
    for path in open_things(pid)[1]:
        with contextlib.suppress(OSError):
            descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK)
            sizes.append(fcntl.fcntl(descriptor, fcntl.F_GETPIPE_SZ))
            os.close(descriptor)
    return sizes


class Bulk:
    """A client that reads a transfer without end as fast as it comes; stopping it resets it."""

    def __init__(self, client: socket.socket) -> None:
        self.bytes = 0
        self._client = client
        self._stopped = False
        self._thread = threading.Thread(target=self._read, daemon=True)
        client.sendall(b"repeat 1000000000 4000000\n")
        self._thread.start()

    def stop(self) -> None:
        """Stop. May be called twice."""
        self._stopped = True
        self._thread.join(LIMIT_S)

    def _read(self) -> None:
        buffer = bytearray(1 << 20)
        while not self._stopped:
            self.bytes += self._client.recv_into(buffer)
        reset(self._client)


class CrowdCase(ProcessCase):
    """
    A world whose builder does what it is told. bkscaler runs as who we are, as only then everybody may see
    what it has open: to look at another user's process takes a right that root has not in every container.
    """

    relay = ""

    def open(self, user=None):
        """Make the world; bkscaler may become another user."""
        script = Path(self.directory()) / "does_what_it_is_told.py"
        script.write_text(DOES_WHAT_IT_IS_TOLD)
        command = f"{sys.executable} {script} {{ip}} {{port}}"
        self.crowd = self.world(
            sandbox=("--backend-command", command), bkscaler=("--relay", self.relay), user=user
        )
        self.pid = self.crowd.bkscaler.pid
        first = self.client()
        self.assertTrue(self.is_served(first))
        return first

    def client(self):
        """Connect a client."""
        client = self.crowd.connect()
        self.addCleanup(client.close)
        return client

    def is_served(self, client):
        """Ask for a few bytes and get them."""
        client.sendall(b"send 7 100\n")
        return read_exactly(client, 100) == DATA[7:107]

    def until_right(self, look, within_s=LIMIT_S):
        """Look again and again until a look does not fail; the last one may."""
        give_up_s = time.monotonic() + within_s
        while time.monotonic() < give_up_s:
            with contextlib.suppress(self.failureException):
                return look()
            select.select([], [], [], 0.01)
        return look()


class CrowdContract:
    """What a crowd does."""

    def test_a_thousand(self):
        """A thousand connections that end in every way beside a bulk transfer leave nothing behind."""
        self.open()
        ways = ("half-closes", "closes", "resets", "is reset")
        self.come_and_go(ways)
        self.crowd.bkscaler.until_told(ENDED, len(ways))
        kinds, pipes = open_things(self.pid)
        self.assertIn("socket:", kinds)
        bulk = Bulk(self.client())
        self.addCleanup(bulk.stop)
        for come in range(ALL_COUNT // BATCH_COUNT):
            moved = bulk.bytes
            self.come_and_go(ways * (BATCH_COUNT // len(ways)))
            self.assertEqual(self.crowd.ready()[0], 200)
            self.crowd.bkscaler.until_told(ENDED, len(ways) + (come + 1) * BATCH_COUNT)
            self.until_right(lambda moved=moved: self.assertGreater(bulk.bytes, moved))
        bulk.stop()
        self.crowd.bkscaler.until_told(ENDED, len(ways) + ALL_COUNT + 1)
        told = Counter(re.findall(rf"(\w+){ENDED}", self.crowd.bkscaler.output))
        quarter = 1 + ALL_COUNT // len(ways)
        self.assertEqual(
            told, {"completed": 2 * quarter, "client_lost": quarter + 1, "builder_lost": quarter}
        )
        self.until_right(lambda: self.assertEqual(open_things(self.pid)[0], kinds))
        self.assertLessEqual(len(open_things(self.pid)[1]), len(pipes) + 2 * KEPT_COUNT)

    def come_and_go(self, ways):
        """Have as many clients as there are ways come at once, and each go in its way."""
        clients = [self.crowd.connect(b"send 7 100\n") for _ in ways]
        for client in clients:
            self.assertEqual(read_exactly(client, 100), DATA[7:107])
        for client, way in zip(clients, ways, strict=True):
            {
                "half-closes": lambda client=client: client.shutdown(socket.SHUT_WR),
                "closes": client.close,
                "resets": lambda client=client: reset(client),
                "is reset": lambda client=client: client.sendall(b"reset 0 0\n"),
            }[way]()
        for client, way in zip(clients, ways, strict=True):
            if way == "half-closes":
                self.assertEqual(client.recv(1), b"")
            elif way == "is reset":
                self.assertRaises(ConnectionResetError, client.recv, 1)
            client.close()

    def test_stalled_readers(self):
        """Hundreds of readers that stall block nobody, and get all of their bytes when they read again."""
        first = self.open()
        self.stall(first, self.look(len(open_things(self.pid)[1])))
        self.crowd.bkscaler.until_told(f"client_lost{ENDED}", STALLED_COUNT)

    def stall(self, first, look_at_pipes):
        """Have many clients stall, until a look at the pipes succeeds; others are served; let them go on."""
        stalled = [self.ask_and_stall(number) for number in range(STALLED_COUNT)]
        received = self.stall_as_they_should(stalled, look_at_pipes)
        first.sendall(b"send 0 3000000\n")
        self.assertEqual(read_exactly(first, 3_000_000), DATA[:3_000_000])
        for _ in range(10):
            with self.crowd.connect() as other:
                self.assertTrue(self.is_served(other))
        self.assertEqual(self.crowd.ready()[0], 200)
        for number, client in enumerate(stalled):
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
            data = received[number] + read_exactly(client, STALLED_BYTES - len(received[number]))
            self.assertTrue(data == DATA[number : number + STALLED_BYTES])
            reset(client)

    def stall_as_they_should(self, stalled, look_at_pipes):
        """
        Wait until each has bytes that it does not read, and until a look succeeds; give what each has read.

        Some stall without a pipe, as little had come for them at the moment; it helps when all read what they
        have got and stall again, as there is more by then.
        """
        received = [b""] * STALLED_COUNT
        for _ in range(STALL_TIMES):
            self.has_come(stalled)
            with contextlib.suppress(self.failureException):
                self.until_right(look_at_pipes, within_s=1.0)
                return received
            received = [data + client.recv(65536) for data, client in zip(received, stalled, strict=True)]
        self.has_come(stalled)
        self.until_right(look_at_pipes)
        return received

    def has_come(self, stalled):
        """Wait until each has bytes to read."""
        for number, client in enumerate(stalled):
            try:
                client.recv(1, socket.MSG_PEEK)
            except TimeoutError:
                self.fail(f"nothing has come for reader {number} of {len(stalled)} in {LIMIT_S} s")

    def ask_and_stall(self, number):
        """Connect a client that takes only little before it reads, and ask for more than that."""
        client = socket.socket()
        self.addCleanup(client.close)
        client.settimeout(LIMIT_S)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 8000)
        client.connect(("127.0.0.1", self.crowd.port))
        client.sendall(b"flood %d %d\n" % (number, STALLED_BYTES))
        return client


class CopyCrowdTests(CrowdContract, CrowdCase):
    """With the relay that copies."""

    relay = "copy"

    def look(self, before_count):
        """Give a look at the pipes: there are none."""
        return lambda: self.assertEqual(len(open_things(self.pid)[1]), before_count)


class SpliceCrowdTests(CrowdContract, CrowdCase):
    """With the relay that splices, most of the connections without transports."""

    if not CAN_SPLICE:
        skip = "this system has no splice"
    relay = "splice"

    def look(self, before_count):
        """Give a look at the pipes: there are most that there may be."""
        half_the_ends = min(LIMIT_COUNT, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 8)
        return lambda: self.assertGreater(len(open_things(self.pid)[1]), before_count + half_the_ends)

    def test_no_budget(self):
        """Readers that stall do no more when other processes have used up what the user's pipes may hold."""
        if not budget_pages():
            raise SkipTest("this system has no budget for pipes")
        user = somebody_else()
        first = self.open(user)
        who = (user.uid, user.gid) if user else (os.getuid(), os.getgid())
        hog = Child(sys.executable, "-c", USES_UP_THE_BUDGET, *map(str, who))
        self.addCleanup(hog.kill)
        hog.until("used up")
        left = Counter(pipe_sizes(self.pid))

        def small():
            sizes = Counter(pipe_sizes(self.pid)) - left
            self.assertGreater(sum(count for size, count in sizes.items() if size < 65536), 100)

        self.stall(first, small if left else lambda: None)


class CopyFarCountTests(CrowdCase):
    """What takes as long as it takes, with the relay that copies; run with ``BKSCALER_SLOW_TESTS=1``."""

    if not os.environ.get("BKSCALER_SLOW_TESTS"):
        skip = "slow; set BKSCALER_SLOW_TESTS=1"
    relay = "copy"

    def test_more_than_4_gib(self):
        """More than 4 GiB in either direction are counted to the byte, in the log and in the metrics."""
        client, times, piece = self.open(), 1100, bytearray(4_000_000)
        client.sendall(b"take %d %d\n" % (times, len(piece)))
        for _ in range(times):
            client.sendall(DATA)
        self.assertEqual(read_exactly(client, 5), b"taken")
        client.sendall(b"repeat %d %d\n" % (times, len(piece)))
        for _ in range(times):
            place = memoryview(piece)
            while place:
                place = place[client.recv_into(place) :]
        self.assertTrue(piece == DATA)
        words = [b"send 7 100\n", b"take 1100 4000000\n", b"repeat 1100 4000000\n"]
        up, down = 4_400_000_000 + sum(map(len, words)), 4_400_000_000 + 100 + len(b"taken")
        pattern = r'bkscaler_relayed_bytes_total\{direction="(\w+)"\} (\S+)'
        told = {name: float(value) for name, value in re.findall(pattern, self.crowd.ask("/metrics")[1])}
        self.assertEqual(told, {"up": up, "down": down})
        client.close()
        self.crowd.bkscaler.until(rf"completed{ENDED}.* {up} bytes up, {down} down")


class SpliceFarCountTests(CopyFarCountTests):
    """With the relay that splices."""

    if not CAN_SPLICE:
        skip = "this system has no splice"
    relay = "splice"
