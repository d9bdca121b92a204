"""The demo: its timeline, its clients, its children, and the whole of it as a newcomer runs it."""

import os
import signal
import sys

from twisted.internet.defer import CancelledError
from twisted.internet.error import ConnectionDone, ProcessDone, ProcessTerminated
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from bkscaler.config import SETTINGS
from bkscaler.demo.children import PATIENCE_S, TAIL_LINES, Child, ChildEnded
from bkscaler.demo.clients import EchoBroken, EchoClient
from bkscaler.demo.stage import inherited
from bkscaler.demo.timeline import Step, Timeline
from bkscaler.demo.watching import Watched, describe
from bkscaler.kube.pods import ContainerView, PodView
from bkscaler.test import processes

DEMO = (sys.executable, "-m", "bkscaler.demo")
QUICK = ("--start-delay", "50ms", "--stop-delay", "50ms", "--idle-timeout", "500ms", "--mebibytes", "1")
BEFORE_THE_POD = (Step.CLUSTER_UP, Step.PROXY_READY, Step.CONNECTED, Step.WOKEN)


class TimelineTests(SynchronousTestCase):
    """What has happened, and what has not."""

    def timeline(self):
        """Make a timeline; give it with its clock and its lines."""
        clock, lines = Clock(), []
        return Timeline(clock, lines.append), clock, lines

    def test_lines(self):
        """Steps and notes are printed with the time since the beginning; only steps have a mark."""
        timeline, clock, lines = self.timeline()
        clock.advance(1.5)
        timeline.happened(Step.CONNECTED, "client 1")
        timeline.note("something else")
        self.assertEqual(lines[0].split(), ["1.500", "s", "*", "client", "connected", "client", "1"])
        self.assertEqual(lines[1].split(), ["1.500", "s", "something", "else"])

    def test_missing(self):
        """Missing is what has not happened, in the order of the table; in the end nothing is."""
        timeline, _, _ = self.timeline()
        self.assertEqual(timeline.missing, list(Step))
        timeline.happened(Step.WOKEN)
        self.assertEqual(timeline.missing, [step for step in Step if step is not Step.WOKEN])
        for step in Step:
            timeline.happened(step)
        self.assertEqual(timeline.missing, [])

    def test_when(self):
        """Who waits for a step goes on when it happens, or at once when it has."""
        timeline, _, _ = self.timeline()
        waiting = timeline.when(Step.ASLEEP)
        self.assertNoResult(waiting)
        timeline.happened(Step.ASLEEP)
        self.successResultOf(waiting)
        self.successResultOf(timeline.when(Step.ASLEEP))

    def test_cancel_one(self):
        """Who stops waiting does not stop the others."""
        timeline, _, _ = self.timeline()
        one, other = timeline.when(Step.IDLE), timeline.when(Step.IDLE)
        one.cancel()
        self.failureResultOf(one, CancelledError)
        timeline.happened(Step.IDLE)
        self.successResultOf(other)

    def test_since(self):
        """The time since a step is counted from when it happened last; without it nothing is said."""
        timeline, clock, _ = self.timeline()
        self.assertEqual(timeline.since(Step.LAST_GONE), "")
        timeline.happened(Step.LAST_GONE)
        clock.advance(2)
        self.assertEqual(timeline.since(Step.LAST_GONE), "2.000 s")


class EchoTransport(StringTransport):
    """A transport that knows of half-closing."""

    def loseWriteConnection(self):
        """Note that we have finished."""
        self.disconnecting = True


class EchoClientTests(SynchronousTestCase):
    """A client that compares."""

    def client(self, payload):
        """Make a connected client; give it with its transport and what it has told."""
        told = []
        client = EchoClient(
            payload, on_first_byte=lambda: told.append("first"), on_equal=lambda: told.append("equal")
        )
        transport = EchoTransport()
        client.makeConnection(transport)
        return client, transport, told

    def test_equal(self):
        """A whole, equal answer in any pieces is a success, once the connection is gone."""
        client, transport, told = self.client(b"abcdef")
        self.assertEqual(transport.value(), b"abcdef")
        for piece in (b"a", b"bcd", b"ef"):
            client.dataReceived(piece)
        self.assertEqual(told, ["first", "equal"])
        self.assertTrue(transport.disconnecting)
        self.assertNoResult(client.done)
        client.connectionLost(Failure(ConnectionDone()))
        self.successResultOf(client.done)

    def test_different(self):
        """A wrong byte, or one too many, is a failure at once."""
        for answer in (b"abX", b"abcd"):
            client, transport, _ = self.client(b"abc")
            client.dataReceived(answer)
            self.failureResultOf(client.done, EchoBroken)
            self.assertTrue(transport.disconnected or transport.aborting)

    def test_short(self):
        """A connection that ends early is a failure."""
        client, _, _ = self.client(b"abc")
        client.dataReceived(b"ab")
        client.connectionLost(Failure(ConnectionDone()))
        self.assertIn("2 of 3", str(self.failureResultOf(client.done, EchoBroken).value))


class Spawned:
    """The transport of a child: notes the signals it gets."""

    def __init__(self):
        self.signals = []

    def closeStdin(self):
        """Do nothing."""

    def signalProcess(self, number):
        """Note it."""
        self.signals.append(number)


class ChildTests(SynchronousTestCase):
    """What is heard of a process, and how it is ended."""

    def child(self):
        """Make a child; give it with its transport and the clock."""
        clock, transport = Clock(), Spawned()
        child = Child("the child", clock)
        child.makeConnection(transport)
        return child, transport, clock

    def test_said(self):
        """A line that is waited for is found, however the output was cut."""
        child, _, _ = self.child()
        said = child.said(r"port=(\d+)")
        child.outReceived(b"hello\nlistening on po")
        self.assertNoResult(said)
        child.outReceived(b"rt=123\nmore")
        self.assertEqual(self.successResultOf(said)[1], "123")

    def test_ended_instead(self):
        """Who waits for a line hears of the end of the process instead."""
        child, _, _ = self.child()
        said, ended = child.said("never"), child.ended()
        child.processEnded(Failure(ProcessTerminated(exitCode=3)))
        self.assertIn("status 3", str(self.failureResultOf(said, ChildEnded).value))
        self.assertEqual(self.successResultOf(ended), 3)

    def test_tail(self):
        """The last lines are kept, an unfinished one included."""
        child, _, _ = self.child()
        child.outReceived(b"".join(b"line %d\n" % number for number in range(100)) + b"the last")
        child.processEnded(Failure(ProcessDone(0)))
        self.assertEqual(len(child.tail), TAIL_LINES)
        self.assertEqual(list(child.tail)[-2:], ["line 99", "the last"])

    def test_end(self):
        """It is told to end, told again, and killed, with patience between; then no call is left."""
        child, transport, clock = self.child()
        ended = child.end()
        clock.pump([PATIENCE_S] * 2)
        self.assertEqual(transport.signals, [signal.SIGTERM, signal.SIGTERM, signal.SIGKILL])
        child.processEnded(Failure(ProcessTerminated(signal=signal.SIGKILL)))
        self.assertEqual(self.successResultOf(ended), 128 + signal.SIGKILL)
        self.assertEqual(clock.getDelayedCalls(), [])

    def test_end_of_ended(self):
        """One that has ended gets no signal."""
        child, transport, _ = self.child()
        child.processEnded(Failure(ProcessDone(0)))
        self.assertEqual(self.successResultOf(child.end()), 0)
        self.assertEqual(transport.signals, [])


class WatchedTests(SynchronousTestCase):
    """From lists and events to changes."""

    def test_changes(self):
        """Lists and events are told as changes of single objects, also when a list has less than before."""
        changes = []
        watched = Watched(lambda before, after: changes.append((before.get("v"), after.get("v"))))
        one, other = {"metadata": {"uid": "1"}, "v": "a"}, {"metadata": {"uid": "2"}, "v": "b"}
        watched.on_list([one, other], "1")
        watched.on_event("MODIFIED", {**one, "v": "c"})
        watched.on_event("DELETED", {**other, "v": "d"})
        watched.on_list([], "2")
        self.assertEqual(changes, [(None, "a"), (None, "b"), ("a", "c"), ("b", None), ("c", None)])

    def test_describe(self):
        """A pod that is not ready is described by what it is at."""
        for pod, words in (
            (PodView(name="p", phase="Pending"), "pending"),
            (PodView(name="p", terminating=True), "terminating"),
            (PodView(name="p", unscheduled="Unschedulable", unscheduled_message="no"), "Unschedulable: no"),
            (PodView(name="p", containers=(ContainerView(running=True),)), "started, not ready yet"),
            (PodView(name="p", containers=(ContainerView(ended=True, exit_code=2),)), "ended with code 2"),
            (PodView(name="p", containers=(ContainerView(waiting_reason="ErrImagePull"),)), "ErrImagePull"),
        ):
            self.assertEqual(describe(pod), words)


class WholeTests(SynchronousTestCase):
    """``python -m bkscaler.demo``, as a process of its own with two more below it."""

    def demo(self, *words):
        """Start a demo whose temporary files are in a directory that is given with it."""
        directory = os.path.abspath(self.mktemp())
        os.makedirs(directory)
        child = processes.Child(*DEMO, *QUICK, *words, environ={"TMPDIR": directory})
        self.addCleanup(child.kill)
        return child, directory

    def test_everything_happens(self):
        """Every step happens and is printed; the exit status is 0 and nothing is left behind."""
        child, directory = self.demo()
        self.assertEqual(child.ended(), 0, child.output)
        for step in Step:
            self.assertIn(f"* {step.value}", child.output)
        self.assertIn(f"All {len(Step)} steps happened", child.output)
        self.assertEqual(os.listdir(directory), [])

    def test_step_missing(self):
        """With a builder that crashes the missing steps are named, the logs are shown; the status is 1."""
        child, directory = self.demo("--fail", "crash", "--limit", "8s")
        self.assertEqual(child.ended(), 1, child.output)
        missing = child.until("Missing: (.*)")[1].split(", ")
        self.assertEqual(missing, [step.value for step in list(Step) if step not in BEFORE_THE_POD])
        child.until("(?s)Last lines of the sandbox:.*Last lines of bkscaler:.*builder is waking")
        self.assertEqual(os.listdir(directory), [])

    def test_interrupted(self):
        """Interrupted while clients wait, it ends both processes and says so by its status."""
        child, directory = self.demo("--start-delay", "1m")
        child.until("client connected")
        child.signal(signal.SIGTERM)
        self.assertEqual(child.ended(), 130, child.output)
        self.assertEqual(os.listdir(directory), [])

    def test_stay(self):
        """With --stay the lines to type are printed, and an interrupt is the ordinary end."""
        child, directory = self.demo("--stay")
        kubeconfig = child.until(r"kubectl --kubeconfig (\S+) get sts,pods")[1]
        self.assertTrue(kubeconfig.startswith(directory))
        child.until(r"docker buildx create .*--driver remote tcp://127.0.0.1:\d+")
        child.until("Ctrl-C here ends it all")
        child.signal(signal.SIGTERM)
        self.assertEqual(child.ended(), 0, child.output)
        self.assertFalse(os.path.exists(kubeconfig))

    def test_environment(self):
        """Variables of bkscaler's settings do not reach the children, others do."""
        environ = {setting.env: "x" for setting in SETTINGS} | {"PATH": "p"}
        self.assertEqual(inherited(environ), {"PATH": "p", "PYTHONUNBUFFERED": "1"})
