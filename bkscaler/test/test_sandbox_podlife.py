"""Tests of a pod's life: the scheduler and the kubelet, with containers in the test's hands."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from bkscaler.sandbox.cluster import EPOCH
from bkscaler.sandbox.eventlog import EVENT_LIMIT, EventLog
from bkscaler.sandbox.objects import dig
from bkscaler.sandbox.pods import Addresses, FailureMode, FakePodRunner, PodProcess
from bkscaler.sandbox.state import State
from bkscaler.sandbox.tables import pod_status_text
from bkscaler.test.sandbox_support import World


class LifeTests(SynchronousTestCase):
    """What becomes of one pod."""

    def setUp(self):
        self.world = World(replicas=1, start_delay_s=0.1, stop_delay_s=0.2)
        self.addCleanup(lambda: self.assertEqual(self.world.stop(), []))
        self.runner = self.world.cluster.runner
        self.behaviour = self.world.cluster.behaviour

    def pod(self):
        """Give the pod, or None."""
        pods = self.world.cluster.pods()
        return pods[0] if pods else None

    def text(self):
        """Give what kubectl shows as the pod's status, with readiness and restarts."""
        pod = self.pod()
        if pod is None:
            return "none"
        (status,) = dig(pod, "status", "containerStatuses") or [{"ready": False, "restartCount": 0}]
        return f"{pod_status_text(pod)} {int(status['ready'])}/1 {status['restartCount']}"

    def run_container(self):
        """Let the pod become ready; give its container."""
        self.world.pump(0.5)
        self.assertEqual(self.text(), "Running 1/1 0")
        return self.runner.containers["buildkitd-0"]

    def reasons(self, kind="Pod"):
        """Give the reasons of the Events about one kind, in their order."""
        events = self.world.cluster.state.objects("events")
        events.sort(key=lambda event: int(event["metadata"]["resourceVersion"]))
        return [event["reason"] for event in events if event["involvedObject"]["kind"] == kind]

    def test_address_and_port(self):
        """A container is told an address of its own in 127/8 and the set's port."""
        process = self.run_container().process
        self.assertEqual((process.ip, process.port), (self.pod()["status"]["podIP"], 1234))
        self.assertRegex(process.ip, r"^127\.")
        self.assertEqual(self.reasons(), ["Scheduled", "Pulled", "Created", "Started"])

    def test_restored_without_it(self):
        """A pod that a backup does not know is killed with it."""
        backup = self.world.cluster.state.backup()
        container = self.run_container()
        self.world.cluster.set_replicas(0)
        self.world.cluster.restore(backup)
        self.world.pump(0.01)
        self.assertFalse(container.alive)
        first = container.process.uid
        self.assertNotEqual(self.run_container().process.uid, first)

    def test_restored_with_it(self):
        """A pod that has gone since the backup is started again, under its uid."""
        first = self.run_container().process
        backup = self.world.cluster.state.backup()
        self.world.cluster.set_replicas(0)
        self.world.pump(1.0)
        self.assertEqual(self.text(), "none")
        self.world.cluster.restore(backup)
        again = self.run_container().process
        self.assertEqual(again.uid, first.uid)
        self.assertNotEqual(again.ip, first.ip)

    def test_restored_younger(self):
        """A pod that was younger at the time of the backup is shown as it is."""
        self.world.pump(0.05)
        backup = self.world.cluster.state.backup()
        container = self.run_container()
        self.world.cluster.restore(backup)
        self.assertEqual((self.text(), container.alive), ("Running 1/1 0", True))

    def test_restored_while_it_goes(self):
        """A pod that was on its way out at the time of the backup goes."""
        self.run_container()
        self.world.cluster.delete_pod("buildkitd-0", 30)
        backup, going = self.world.cluster.state.backup(), self.pod()["metadata"]["uid"]
        self.world.pump(1.0)
        self.world.cluster.restore(backup)
        self.assertEqual(self.pod()["metadata"]["uid"], going)
        self.world.pump(1.0)
        self.assertNotEqual(self.pod()["metadata"]["uid"], going)

    def test_crash_and_restart(self):
        """A container that ends by itself is shown as an error, backs off, and is started again."""
        container = self.run_container()
        address = container.process.ip
        container.exit(137)
        self.world.pump(0.1)
        self.assertEqual(self.text(), "Error 0/1 0")
        self.world.pump(1.1)
        self.assertEqual(self.text(), "CrashLoopBackOff 0/1 0")
        self.world.pump(3.5)
        self.assertEqual(self.text(), "Running 1/1 1")
        last = self.pod()["status"]["containerStatuses"][0]["lastState"]["terminated"]
        self.assertEqual((last["exitCode"], last["reason"]), (137, "Error"))
        self.assertEqual(self.runner.containers["buildkitd-0"].process.ip, address)
        self.assertIn("BackOff", self.reasons())

    def test_back_off_grows(self):
        """Each crash is followed by a longer wait."""
        self.run_container()
        for waited in (4.2, 7.2):
            self.runner.containers["buildkitd-0"].exit(1)
            self.world.pump(waited - 0.4)
            self.assertIn("CrashLoopBackOff", self.text())
            self.world.pump(0.6)
            self.assertIn("Running 1/1", self.text())

    def test_unready_for_a_while(self):
        """A container may lose its readiness and find it again."""
        container = self.run_container()
        container.set_ready(False)
        self.assertEqual(self.text(), "Running 0/1 0")
        container.set_ready()
        self.assertEqual(self.text(), "Running 1/1 0")

    def test_ends_in_time(self):
        """A pod that is deleted stays ready until its process ends, then completes and goes."""
        self.run_container()
        self.world.patch_scale(0)
        self.world.pump(0.1)
        self.assertEqual(self.text(), "Terminating 1/1 0")
        self.world.pump(0.12)
        self.assertEqual(self.text(), "Completed 0/1 0")
        self.world.pump(0.1)
        self.assertEqual(self.text(), "none")
        self.assertIn("Killing", self.reasons())

    def test_killed_when_it_does_not_end(self):
        """A process that ignores SIGTERM is killed when the grace is over, and has failed."""
        self.runner.exit_after_s = None
        container = self.run_container()
        self.world.patch_scale(0)
        self.world.pump(9.5)
        self.assertTrue(container.terminated and container.alive)
        phases = []
        self.world.cluster.state.subscribe("pods", lambda c: phases.append(c.object["status"]["phase"]))
        self.world.pump(1)
        self.assertEqual((self.text(), container.alive, phases[0]), ("none", False, "Failed"))

    def test_a_shorter_grace(self):
        """A pod that is deleted again with a shorter grace is killed that much earlier."""
        self.runner.exit_after_s = None
        container = self.run_container()
        self.world.patch_scale(0)
        self.world.pump(1)
        self.world.call("DELETE", f"{self.world.core}/pods/buildkitd-0", {"gracePeriodSeconds": 2})
        self.world.pump(1.9)
        self.assertTrue(container.alive)
        self.world.pump(0.2)
        self.assertFalse(container.alive)

    def test_deleted_by_force(self):
        """A pod that is deleted without grace is gone at once, and its process killed."""
        container = self.run_container()
        self.world.call("DELETE", f"{self.world.core}/pods/buildkitd-0", {"gracePeriodSeconds": 0})
        self.world.pump(0.005)
        self.assertFalse(container.alive)

    def test_deleted_while_being_created(self):
        """A pod that is deleted before its container runs goes without ever running."""
        self.behaviour.start_delay_s = 5
        self.world.pump(0.1)
        self.assertEqual(self.text(), "ContainerCreating 0/1 0")
        self.world.patch_scale(0)
        self.world.pump(0.5)
        self.assertEqual((self.text(), self.runner.containers), ("none", {}))

    def test_ends_by_itself_while_terminating(self):
        """A process that ends before its SIGTERM ends the pod then."""
        container = self.run_container()
        self.world.patch_scale(0)
        self.world.pump(0.05)
        container.exit(0)
        self.world.pump(0.1)
        self.assertEqual(self.text(), "none")

    def test_image_pull(self):
        """An image that cannot be pulled is tried again and again; once it can, the pod runs."""
        self.behaviour.failure = FailureMode.IMAGEPULL
        self.world.pump(0.5)
        self.assertEqual(self.text(), "ErrImagePull 0/1 0")
        self.world.pump(2)
        self.assertEqual(self.text(), "ImagePullBackOff 0/1 0")
        self.behaviour.failure = None
        self.world.pump(4)
        self.assertEqual(self.text(), "Running 1/1 0")

    def test_unschedulable(self):
        """A pod that fits nowhere waits, goes at once when it is deleted, and is bound when there is room."""
        self.behaviour.failure = FailureMode.UNSCHEDULABLE
        self.world.pump(0.5)
        self.assertEqual(self.text(), "Pending 0/1 0")
        self.assertEqual(self.reasons(), ["FailedScheduling"])
        self.world.patch_scale(0)
        self.world.pump(0.1)
        self.assertEqual(self.text(), "none")
        self.world.patch_scale(1)
        self.world.pump(0.5)
        self.behaviour.failure = None
        self.world.pump(6)
        self.assertEqual(self.text(), "Running 1/1 0")

    def test_never_ready(self):
        """A pod that never becomes ready runs on."""
        self.behaviour.failure = FailureMode.NEVERREADY
        self.world.pump(30)
        self.assertEqual(self.text(), "Running 0/1 0")


class RunnerTests(SynchronousTestCase):
    """The runner without processes, and addresses."""

    def test_addresses(self):
        """No address is given twice, and each is one that can be listened on."""
        addresses = Addresses(lambda: 0.99)
        given = [addresses.next() for _ in range(1000)]
        self.assertEqual(len(set(given)), 1000)
        for address in given:
            first, second, third, fourth = map(int, address.split("."))
            self.assertTrue(first == 127 and 16 <= second < 240 and third < 256 and 1 <= fourth <= 254)

    def test_stop(self):
        """A runner that is stopped leaves nothing on the clock and reports nothing more."""
        clock = Clock()
        runner = FakePodRunner(clock=clock, random=lambda: 0)
        process = PodProcess(name="p", uid="u", ip="127.1.1.1", port=1)
        runner.start(process, self)
        self.successResultOf(runner.stop())
        self.assertEqual(clock.getDelayedCalls(), [])
        runner.containers["p"].kill()

    def readiness_changed(self, ready):
        """Fail: nothing is to be heard."""
        self.fail("readiness")

    def exited(self, code):
        """Fail: nothing is to be heard."""
        self.fail("exit")


class EventLogTests(SynchronousTestCase):
    """Events of the sandbox's own."""

    def test_the_oldest_leave(self):
        """Only so many Events are kept."""
        world = World()
        self.addCleanup(world.stop)
        state = State()
        log = EventLog(state, now=lambda: EPOCH, random=lambda: 0.5)
        owner = world.cluster.stateful_set()
        for number in range(EVENT_LIMIT + 5):
            log.controller(owner, "Reason", str(number))
        messages = [int(event["message"]) for event in state.objects("events")]
        self.assertEqual((len(messages), min(messages)), (EVENT_LIMIT, 5))
