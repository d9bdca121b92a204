"""Tests of the bench: what it reads, how it judges, what it does without a tool; all of it in a slow one."""

from __future__ import annotations

import json
import os
import sys
from subprocess import run

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from bkscaler.bench import backend, peers, tools
from bkscaler.bench.__main__ import parse
from bkscaler.bench.course import Course, in_turn
from bkscaler.bench.field import Spot
from bkscaler.bench.measures import Amounts, Load, LoadFailed, Measure, read_iperf3, read_wrk, rows
from bkscaler.bench.table import Row, cell, judge, number, table
from bkscaler.bench.tools import Toolbox
from bkscaler.bench.usage import Usage, children_s, on_cpu_s, resident_kib

COST = Row(key="cost", title="cost, µs", reference="nginx", floor=2.5, aim=1.5)
RATE = Row(key="rate", title="rate", reference="haproxy", floor=0.9, aim=1.0, more_is_better=True)
PLAIN = Row(key="memory", title="memory, MiB", floor=64)
STAT = "7 (a ) name) S 1 7 7 0 -1 4194304 1 2 3 4 50 60 70 30 20 0 1 0"


def toolbox(*missing: tools.Tool) -> Toolbox:
    """Make a machine that has everything but some tools."""
    return Toolbox(lambda file: None if file in {tool.file for tool in missing} else f"/bin/{file}")


class ReadingTests(SynchronousTestCase):
    """What the loads and the system print."""

    def test_iperf3(self):
        """Bytes and GiB/s are what the server has received; an error is told."""
        received = {"bytes": 3 << 30, "bits_per_second": 2 * 8 * (1 << 30)}
        self.assertEqual(read_iperf3(json.dumps({"end": {"sum_received": received}})), (3 << 30, 2.0))
        with self.assertRaisesRegex(LoadFailed, "busy"):
            read_iperf3('{"error": "the server is busy"}')

    def test_wrk(self):
        """The script's line is found among wrk's own; errors, silence and having done nothing are told."""
        line = '{"requests": %d, "errors": %d, "p50_us": 10.5, "p99_us": 20.0}'
        said = read_wrk(f"Running 1s test\n{line % (7, 0)}\n  done\n")
        self.assertEqual((said["requests"], said["p99_us"]), (7, 20.0))
        for bad in (line % (7, 1), line % (0, 0), "wrk: cannot connect"):
            self.assertRaises(LoadFailed, read_wrk, bad)

    def test_usage(self):
        """CPU time is that of all threads, of the processes below, and of those that have ended."""
        files = {
            "/proc/7/stat": STAT,
            "/proc/7/task/7/schedstat": "1500000000 2 3",
            "/proc/7/task/7/children": "8 ",
            "/proc/8/stat": STAT.replace("70 30", "0 0"),
            "/proc/8/task/8/schedstat": "500000000 2 3",
            "/proc/8/task/8/children": "",
            "/proc/7/smaps_rollup": "00 rw\nRss:  100 kB\nPss: 1 kB",
            "/proc/8/smaps_rollup": "00 rw\nRss:  20 kB\nPss: 1 kB",
        }
        usage = Usage(7, read=files.__getitem__, list_directory=lambda path: [path.split("/")[2]])
        ended_s = children_s(STAT, os.sysconf("SC_CLK_TCK"))
        self.assertEqual(children_s(STAT, 100), 1.0)
        self.assertAlmostEqual(usage.cpu_s(), 2.0 + ended_s)
        self.assertEqual((usage.resident_kib(), on_cpu_s("2000000000 0 0")), (120, 2.0))
        self.assertRaises(ValueError, resident_kib, "Pss: 1 kB")

    def test_of_this_process(self):
        """The same, read of a real process: this one."""
        usage = Usage(os.getpid())
        self.assertTrue(usage.cpu_s() > 0 and usage.resident_kib() > 1000)


class TableTests(SynchronousTestCase):
    """Medians against floors."""

    def test_verdicts(self):
        """The median counts; what reaches the aim, the floor or neither is told apart."""
        for row, ours, theirs, verdict in (
            (COST, [15, 99, 1], [10], "aim met"),
            (COST, [25], [10, 10, 99], "floor met"),
            (COST, [25.1], [10], "FLOOR MISSED"),
            (RATE, [1.0], [1.0], "aim met"),
            (RATE, [0.9], [1.0], "floor met"),
            (RATE, [0.89], [1.0], "FLOOR MISSED"),
        ):
            samples = {(row.key, peers.BKSCALER): ours, (row.key, row.reference): theirs}
            self.assertEqual(judge(row, samples).verdict, verdict, (row, ours))
        self.assertEqual(judge(PLAIN, {("memory", peers.BKSCALER): [64.5]}).verdict, "FLOOR MISSED")
        self.assertEqual(judge(COST, {("cost", peers.BKSCALER): [1.0]}).verdict, "not measured")

    def test_table(self):
        """A column for each proxy that was measured, a row for each thing; what is not known is left out."""
        samples = {("cost", peers.BKSCALER): [140.0, 150.0, 130.0], ("cost", "nginx"): [60.0]}
        head, line, only = table([COST, RATE], [peers.BKSCALER, "haproxy", "nginx"], samples)
        self.assertNotIn("haproxy", head)
        self.assertEqual(
            [each.strip() for each in only.strip("|").split("|")],
            ["cost, µs", "140 (130-150)", "60.0", "2.33", "≤ 2.5 x nginx", "≤ 1.5 x nginx", "floor met"],
        )
        self.assertEqual({len(head), len(line)}, {len(only)})

    def test_numbers(self):
        """Three digits that count."""
        self.assertEqual(
            [number(each) for each in (1234.6, 12.34, 1.234, 0.1234)], ["1235", "12.3", "1.23", "0.123"]
        )
        self.assertEqual((cell(None), cell([2.0])), ("", "2.00"))

    def test_every_floor_is_asked(self):
        """Each row has values that some measure gives, and every floor that was set is in the table."""
        asked = rows(Amounts(seconds=1, crowd=1000, held=(1000, 3000)))
        floors = {row.key: row.floor for row in asked if row.floor is not None}
        expected = {"bulk rate": 0.9, "bulk cpu": 1.25, "kept cpu": 1.3, "fresh cpu": 2.5, "crowd p99": 5}
        self.assertEqual(floors, {**expected, "resident 1000": 64, "idle": 6})


class ToolsTests(SynchronousTestCase):
    """A machine that lacks something."""

    def test_advice(self):
        """What is missing is named, with the packages to install; nothing is said when all is there."""
        self.assertEqual(toolbox().advice(), [])
        advice = "\n".join(toolbox(tools.WRK, tools.NGINX_STREAM).advice())
        for word in ("wrk", "ngx_stream_module.so", "apt-get install libnginx-mod-stream wrk"):
            self.assertIn(word, advice)
        self.assertRaisesRegex(LookupError, "package wrk", toolbox(tools.WRK).path, tools.WRK)

    def test_peers(self):
        """Each peer is started with its own program, towards the server, on the port it was given."""
        front = peers.Front(port=4711, target="127.0.0.2:8273", directory="/d", box=toolbox())
        for peer in peers.PEERS:
            launch = peer.launch(front)
            told = " ".join([*launch.words, *launch.files.values()])
            self.assertIn("4711", told)
            self.assertIn("127.0.0.2:8273", told)
            self.assertEqual({front.box.path(tool) in told for tool in peer.needs}, {True})

    def test_command_line(self):
        """Names and numbers are checked; ``--quick`` is short."""
        asked = parse(["--quick", "--only", "bulk,fresh", "--held", "5,3"])
        self.assertEqual(
            (asked.rounds, asked.seconds, asked.only, asked.held), (2, 1, ("bulk", "fresh"), (3, 5))
        )
        self.patch(sys, "stderr", open(os.devnull, "w"))  # noqa: SIM115  # closed with the test
        self.addCleanup(sys.stderr.close)
        for wrong in (["--only", "speed"], ["--rounds", "0"], ["--held", "x"], ["--peers", "envoy"]):
            self.assertRaises(SystemExit, parse, wrong)


class PlayedField:
    """A field without processes."""

    def __init__(self, names):
        self.spots = [Spot(name=name, host="127.0.0.1", port=1, usage=None) for name in names]
        self.closed = 0

    async def open(self):
        """Be open."""

    async def close(self):
        """Be closed."""
        self.closed += 1


class CourseTests(SynchronousTestCase):
    """The order of things."""

    def play(self, put, *missing, kinds=(backend.HTTP,), rounds=3, unused=False):
        """Run measures of some kinds; return the course."""
        measures = [
            Measure(name="m", kind=kind, put=put, peers=("nginx", "haproxy"), unused=unused) for kind in kinds
        ]
        box = toolbox(*missing)
        self.fields = []

        def make_field(kind, beside):
            self.fields.append(PlayedField([peers.BKSCALER, *(peer.name for peer in beside)]))
            return self.fields[-1]

        amounts = Amounts(seconds=1, crowd=10, held=(1,))
        course = Course(
            Load(box=box, amounts=amounts, wrk_script="", reactor=None),
            measures=measures,
            peers=peers.PEERS,
            rounds=rounds,
            make_field=make_field,
            note=lambda line: None,
        )
        self.successResultOf(Deferred.fromCoroutine(course.run()))
        return course

    def test_in_turn(self):
        """Each round begins with another proxy, so that none is always the first."""
        met = []

        async def put(load, spot):
            met.append(spot.name)
            return {"x": len(met)}

        course = self.play(put)
        self.assertEqual([met[0], met[3], met[6]], [peers.BKSCALER, "haproxy", "nginx"])
        self.assertEqual(sorted(met[:3]), sorted(met[3:6]))
        self.assertEqual(len(course.samples["x", "nginx"]), 3)
        self.assertEqual([field.closed for field in self.fields], [1])
        self.assertEqual(
            [s.name for s in in_turn(self.fields[0].spots, 4)], ["haproxy", "nginx", peers.BKSCALER]
        )

    def test_unused(self):
        """What needs proxies that have served nobody gets new ones each time."""

        async def put(load, spot):
            return {}

        self.play(put, unused=True)
        self.assertEqual(len(self.fields), 3)

    def test_failed(self):
        """A load that does not come through is told, and the others are measured."""

        async def put(load, spot):
            if spot.name == "nginx":
                raise LoadFailed("no answer")
            return {"x": 1.0}

        course = self.play(put, rounds=1)
        self.assertEqual(course.failures, ["m, nginx: no answer"])
        self.assertEqual(sorted(name for _, name in course.samples), [peers.BKSCALER, "haproxy"])

    def test_without(self):
        """A peer that is missing is left out, and so is what needs a server that is missing."""

        async def put(load, spot):
            return {"x": 1.0}

        course = self.play(put, tools.HAPROXY, tools.IPERF3, kinds=(backend.HTTP, backend.IPERF3), rounds=1)
        self.assertEqual(sorted(name for _, name in course.samples), [peers.BKSCALER, "nginx"])


class WholeTests(SynchronousTestCase):
    """The bench as users run it."""

    if not os.environ.get("BKSCALER_SLOW_TESTS"):
        skip = "slow; set BKSCALER_SLOW_TESTS=1"
    elif Toolbox().missing():
        skip = f"not here: {', '.join(tool.file for tool in Toolbox().missing())}"

    def test_everything(self):
        """Every measure gives its values, and the table has a row for each."""
        words = ["--rounds", "1", "--seconds", "1", "--crowd", "20", "--held", "10,30"]
        done = run(
            [sys.executable, "-m", "bkscaler.bench", *words], capture_output=True, text=True, check=False
        )
        self.assertEqual(done.returncode, 0, done.stderr[-2000:])
        for row in rows(Amounts(seconds=1, crowd=20, held=(10, 30))):
            self.assertIn(row.title, done.stdout)
