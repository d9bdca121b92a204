"""Why a pod is not ready: recorded failures and those that need a hand-made pod, each in one line."""

from dataclasses import replace

from twisted.trial.unittest import SynchronousTestCase

from bkscaler.kube import pods, statefulset
from bkscaler.kube.diagnosis import diagnose
from bkscaler.kube.pods import ContainerView, PodView
from bkscaler.test.test_kube_support import recorded_object, set_object

OWNER = statefulset.parse(set_object())


def container(**more) -> ContainerView:
    """Make a container that is not ready."""
    return ContainerView(**{"name": "buildkitd", "image": "moby/buildkit:v1", **more})


def pod(*containers, **more) -> PodView:
    """Make the pod of ordinal 0, pending unless told otherwise."""
    fields = {"name": "buildkitd-0", "uid": "p", "ordinal": 0, "owner_uid": OWNER.uid, "phase": "Pending"}
    return PodView(**{**fields, "containers": containers, **more})


class RecordedTests(SynchronousTestCase):
    """Pods as a real API server showed them."""

    def test_recorded(self):
        """Each recorded failure is named, and it is said whether time alone will mend it."""
        table = [
            ("pod-unschedulable", "0/1 nodes are available: 1 Insufficient cpu", True),
            ("pod-unschedulable-real-scheduler", "nodes are available", True),
            ("pod-imagepull", "cannot pull image moby/buildkit:v0.13.0: failed to pull", True),
            ("pod-crash", "container buildkitd keeps ending: exit code 1, restarted", False),
            ("pod-neverready", "running, but its readiness probe has not passed", False),
        ]
        for name, words, hopeless in table:
            seen = replace(pods.parse(recorded_object(f"{name}.json")), owner_uid=OWNER.uid, ordinal=0)
            found = diagnose(OWNER, [seen])
            self.assertIn(words, found.waiting_for)
            self.assertTrue(found.waiting_for.startswith(f"pod {seen.name}: "))
            self.assertEqual(found.hopeless, hopeless, name)


class DiagnoseTests(SynchronousTestCase):
    """Every branch of the explanation."""

    def why(self, *all_pods: PodView, owner=OWNER, suspects=()) -> str:
        """Give the line."""
        return diagnose(owner, all_pods, suspects=suspects).waiting_for

    def test_nothing_to_wait_for(self):
        """With no replica wanted, or all of them ready, there is nothing to say."""
        good = pod(phase="Running", ip="10.0.0.1", ready=True)
        self.assertEqual(self.why(owner=replace(OWNER, replicas=0)), "")
        self.assertEqual(self.why(good), "")

    def test_set(self):
        """A set that is being deleted, or whose controller has made no pod yet, is told."""
        self.assertIn("is being deleted", self.why(owner=replace(OWNER, terminating=True)))
        self.assertIn("quota or admission", self.why())
        self.assertIn("not seen the new scale", self.why(owner=replace(OWNER, generation=9)))

    def test_foreign_pods(self):
        """Pods of another owner explain nothing."""
        self.assertIn("not created yet", self.why(pod(owner_uid="other", terminating=True)))

    def test_pods(self):
        """Each state of a pod has its words."""
        table = [
            (
                pod(terminating=True, ready=True, phase="Running", ip="1.1.1.1"),
                "old pod is still terminating",
            ),
            (pod(unscheduled="SchedulingGated"), "held back by a scheduling gate"),
            (pod(unscheduled="Unschedulable"), "Unschedulable"),
            (pod(unscheduled="Unschedulable", unscheduled_message="0/3 nodes. preemption: no."), "0/3 nodes"),
            (
                pod(phase="Failed", reason="Evicted", message="low on memory"),
                "failed: Evicted: low on memory",
            ),
            (pod(phase="Unknown"), "its node cannot be reached"),
            (pod(container(ended=True, exit_code=0), phase="Succeeded"), "succeeded: exit code 0"),
            (pod(), "waiting for a node"),
            (pod(unready_message="x"), "not started by its node yet"),
            (pod(phase="Running", ready=True), "it has no IP address"),
            (pod(container(running=True, started=False), phase="Running"), "startup probe"),
        ]
        for view, words in table:
            self.assertIn(words, self.why(view))
            self.assertNotIn("preemption", self.why(view))

    def test_containers(self):
        """Each state of a container has its words."""
        table = [
            (container(waiting_reason="ImagePullBackOff"), "cannot pull image moby/buildkit:v1"),
            (
                container(
                    waiting_reason="CrashLoopBackOff", ended=True, exit_code=137, ended_reason="OOMKilled"
                ),
                "keeps ending: OOMKilled, exit code 137",
            ),
            (container(ended=True, exit_code=2, restarts=3), "exit code 2, restarted 3 times"),
            (
                container(
                    waiting_reason="CreateContainerConfigError", waiting_message='secret "x" not found'
                ),
                'CreateContainerConfigError: secret "x" not found',
            ),
            (container(init=True, running=True), "init container buildkitd is running"),
            (container(init=True), "init container buildkitd is starting"),
            (container(waiting_reason="ContainerCreating"), "pulling image moby/buildkit:v1"),
        ]
        for each, words in table:
            self.assertIn(words, self.why(pod(each)))
        self.assertTrue(
            diagnose(OWNER, [pod(container(waiting_reason="CreateContainerConfigError"))]).hopeless
        )

    def test_volumes(self):
        """Before the sandbox is there, volumes are waited for, by the names of their claims."""
        creating = container(waiting_reason="ContainerCreating")
        self.assertIn("volumes and network", self.why(pod(creating, set_up=False)))
        self.assertIn("claims cache-0", self.why(pod(creating, set_up=False, claims=("cache-0",))))

    def test_first_by_ordinal(self):
        """Of several replicas the first that is not ready is explained; init containers come first."""
        good = pod(phase="Running", ip="10.0.0.1", ready=True)
        bad = pod(name="buildkitd-1", ordinal=1, uid="q", terminating=True)
        self.assertIn("pod buildkitd-1: ", self.why(bad, good, owner=replace(OWNER, replicas=3)))

    def test_suspect(self):
        """A pod that is only suspected is said to be asked about."""
        good = pod(phase="Running", ip="10.0.0.1", ready=True)
        self.assertIn("asking again", self.why(good, suspects={"p"}))

    def test_one_short_line(self):
        """However long and wild the words of others are, the line is one and has at most 256 characters."""
        line = self.why(pod(unscheduled="Unschedulable", unscheduled_message="a\nb\x00" * 500))
        self.assertLessEqual(len(line), 256)
        self.assertTrue(line.isprintable())
