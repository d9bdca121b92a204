"""Tests of the StatefulSet controller: its pure plan, and what it does on a clock."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from bkscaler.sandbox.controller import ordinal_of, owner_of
from bkscaler.sandbox.manifests import default_set, set_manifest
from bkscaler.sandbox.plan import plan_set
from bkscaler.sandbox.pods import FailureMode
from bkscaler.test.sandbox_support import World


def a_set(replicas, *, policy="OrderedReady", start=0):
    """Make a StatefulSet as it is stored."""
    value = set_manifest("s", replicas=replicas, port=1, policy=policy)
    default_set(value)
    value["metadata"].update(generation=7, namespace="n", uid="u")
    if start:
        value["spec"]["ordinals"] = {"start": start}
    return value


def a_pod(ordinal, *, ready=True, dying=False, phase="Running"):
    """Make a pod of it."""
    meta = {"name": f"s-{ordinal}", "namespace": "n"}
    if dying:
        meta["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    conditions = [{"type": "Ready", "status": "True" if ready else "False"}]
    return {"metadata": meta, "spec": {}, "status": {"phase": phase, "conditions": conditions}}


class PlanTests(SynchronousTestCase):
    """What to create and to delete."""

    def plan(self, owner, *pods):
        """Give the ordinals to create and the names to delete."""
        plan = plan_set(owner, {ordinal_of(pod): pod for pod in pods})
        return list(plan.create), [pod["metadata"]["name"] for pod in plan.delete]

    def test_one_after_the_other(self):
        """In order, the next pod is created only when those before it are ready."""
        self.assertEqual(self.plan(a_set(3)), ([0], []))
        self.assertEqual(self.plan(a_set(3), a_pod(0, ready=False)), ([], []))
        self.assertEqual(self.plan(a_set(3), a_pod(0)), ([1], []))
        self.assertEqual(self.plan(a_set(3), a_pod(0, dying=True)), ([], []))

    def test_all_at_once(self):
        """In parallel, all are created and deleted at once."""
        self.assertEqual(self.plan(a_set(3, policy="Parallel"), a_pod(1, ready=False)), ([0, 2], []))
        pods = [a_pod(0), a_pod(1, ready=False), a_pod(2, ready=False)]
        self.assertEqual(self.plan(a_set(0, policy="Parallel"), *pods), ([], ["s-2", "s-1", "s-0"]))

    def test_down_in_order(self):
        """In order, the highest is deleted first, and nothing else while one is dying."""
        pods = [a_pod(0), a_pod(1), a_pod(2)]
        self.assertEqual(self.plan(a_set(0), *pods), ([], ["s-2"]))
        self.assertEqual(self.plan(a_set(0), a_pod(0), a_pod(1), a_pod(2, dying=True)), ([], []))

    def test_down_is_blocked_by_a_sick_pod(self):
        """In order, several unready pods block the way down; a single one does not."""
        self.assertEqual(self.plan(a_set(0), a_pod(0, ready=False), a_pod(1, ready=False)), ([], []))
        self.assertEqual(self.plan(a_set(0), a_pod(0, ready=False)), ([], ["s-0"]))

    def test_ended_pods_are_replaced(self):
        """A wanted pod that has ended is deleted, so that it can be created anew."""
        self.assertEqual(self.plan(a_set(1), a_pod(0, phase="Failed")), ([], ["s-0"]))
        self.assertEqual(self.plan(a_set(1), a_pod(0, phase="Failed", dying=True)), ([], []))

    def test_first_ordinal(self):
        """A set may begin to count elsewhere; pods below are surplus."""
        self.assertEqual(self.plan(a_set(2, start=5)), ([5], []))
        self.assertEqual(self.plan(a_set(1, start=5), a_pod(0), a_pod(5)), ([], ["s-0"]))

    def test_status_counts_the_dying(self):
        """The status counts dying pods among all and among the ready, but not among the current."""
        status = plan_set(a_set(2), {0: a_pod(0), 1: a_pod(1, dying=True)}).status
        counts = [status[key] for key in ("replicas", "readyReplicas", "availableReplicas")]
        self.assertEqual(counts, [2, 2, 2])
        self.assertEqual((status["currentReplicas"], status["observedGeneration"]), (1, 7))

    def test_status_leaves_zero_out(self):
        """Of the counts that are zero only replicas and availableReplicas are written."""
        status = plan_set(a_set(0), {}).status
        self.assertEqual((status["replicas"], status["availableReplicas"]), (0, 0))
        self.assertEqual({"readyReplicas", "currentReplicas", "updatedReplicas"} & set(status), set())


class ControllerTests(SynchronousTestCase):
    """What happens to a set and its pods, on a clock."""

    def world(self, **settings):
        """Make a world that is checked for what it leaves on the clock."""
        world = World(start_delay_s=0.1, stop_delay_s=0.1, **settings)
        self.addCleanup(lambda: self.assertEqual(world.stop(), []))
        return world

    def names(self, world):
        """Give the names of the pods."""
        return [pod["metadata"]["name"] for pod in world.cluster.pods()]

    def test_three_in_order(self):
        """Three pods come one after the other and go in the reverse order."""
        world = self.world(replicas=3)
        seen = []
        world.cluster.state.subscribe("pods", lambda c: seen.append((c.type, c.object["metadata"]["name"])))
        world.pump(3)
        world.patch_scale(0)
        world.pump(3)
        moves = [move for move in seen if move[0] != "MODIFIED"]
        up = [("ADDED", f"buildkitd-{n}") for n in (0, 1, 2)]
        self.assertEqual(moves, up + [("DELETED", f"buildkitd-{n}") for n in (2, 1, 0)])

    def test_three_at_once(self):
        """With the parallel policy three pods are there at once."""
        world = self.world(replicas=3, policy="Parallel")
        world.pump(0.05)
        self.assertEqual(self.names(world), ["buildkitd-0", "buildkitd-1", "buildkitd-2"])

    def test_sick_pods_block_the_way_down(self):
        """Several crashing pods in order are not scaled down, as in the real world."""
        world = self.world(replicas=2)
        world.pump(1)
        world.cluster.behaviour.failure = FailureMode.NEVERREADY
        for name in self.names(world):
            world.cluster.runner.containers[name].set_ready(False)
        world.pump(0.1)
        world.patch_scale(0)
        world.pump(5)
        self.assertEqual(self.names(world), ["buildkitd-0", "buildkitd-1"])

    def test_a_cache_that_is_behind(self):
        """What is seen late is acted on late, although it is over, and the status says what was seen."""
        world = self.world(replicas=1)
        world.pump(1)
        (old,) = world.cluster.pods()
        world.cluster.controller.cache.lag_s = 2.0
        world.patch_scale(0)
        world.pump(0.5)
        world.patch_scale(1)
        world.pump(1.4)
        self.assertEqual(world.cluster.pods(), [old])
        self.assertEqual(world.cluster.stateful_set()["status"]["observedGeneration"], 1)
        self.assertTrue(world.cluster.controller.is_behind)
        world.pump(0.2)
        self.assertIn("deletionTimestamp", world.cluster.pods()[0]["metadata"])
        self.assertEqual(world.cluster.stateful_set()["status"]["observedGeneration"], 2)
        world.pump(5)
        self.assertEqual(world.cluster.stateful_set()["status"]["observedGeneration"], 3)
        self.assertNotEqual(world.cluster.pods()[0]["metadata"]["uid"], old["metadata"]["uid"])
        world.pump(5)
        self.assertFalse(world.cluster.controller.is_behind)

    def test_a_cache_that_catches_up(self):
        """Who catches up sees at once how things are, and spares what is asked for again."""
        world = self.world(replicas=1)
        world.pump(1)
        (old,) = world.cluster.pods()
        world.cluster.controller.cache.lag_s = 2.0
        world.patch_scale(0)
        world.patch_scale(1)
        world.cluster.controller.cache.catch_up()
        world.pump(5)
        self.assertEqual(world.cluster.pods(), [old])
        self.assertEqual(world.cluster.stateful_set()["status"]["observedGeneration"], 3)

    def test_less_behind(self):
        """When a cache is less behind, nothing overtakes what was made before; what is left is dropped."""
        world = self.world(replicas=1)
        world.pump(1)
        seen = []
        cache, (old,) = world.cluster.controller.cache, world.cluster.pods()
        world.cluster.controller.on_step = lambda owner: seen.append(owner["metadata"]["generation"])
        cache.lag_s = 2.0
        world.patch_scale(0)
        cache.lag_s = 0.1
        world.patch_scale(1)
        world.pump(1.9)
        self.assertEqual((seen, world.cluster.pods()), ([], [old]))
        world.pump(0.2)
        self.assertEqual(set(seen), {3})
        world.patch_scale(0)

    def test_slow(self):
        """A slow controller acts late, on what is so then: it spares a pod that is asked for again."""
        world = self.world(replicas=1)
        world.pump(1)
        (old,) = world.cluster.pods()
        world.cluster.controller.slow_s = 2.0
        world.patch_scale(0)
        world.pump(1)
        self.assertEqual((world.cluster.pods(), world.cluster.controller.is_behind), ([old], True))
        world.patch_scale(1)
        world.pump(1.5)
        self.assertEqual(world.cluster.pods(), [old])
        self.assertEqual(world.cluster.stateful_set()["status"]["observedGeneration"], 3)

    def test_a_set_made_anew_while_behind(self):
        """What a controller that is behind makes for a set that is gone goes with it."""
        world = self.world(replicas=0)
        world.pump(1)
        world.cluster.controller.cache.lag_s = 1.0
        world.patch_scale(1)
        world.cluster.delete_set()
        world.cluster.create_set(1)
        world.pump(6)
        uid = world.cluster.stateful_set()["metadata"]["uid"]
        self.assertEqual([owner_of(pod)["uid"] for pod in world.cluster.pods()], [uid])
        self.assertEqual(world.cluster.stateful_set()["status"]["observedGeneration"], 1)

    def test_deleting_the_set(self):
        """When the set goes, its pods are deleted after it."""
        world = self.world(replicas=1)
        world.pump(1)
        world.call("DELETE", f"{world.sets}/buildkitd")
        world.pump(1)
        self.assertEqual(self.names(world), [])

    def test_orphans(self):
        """Pods that are to outlive their set lose their owner and stay."""
        world = self.world(replicas=1)
        world.pump(1)
        world.call("DELETE", f"{world.sets}/buildkitd?propagationPolicy=Orphan")
        world.pump(1)
        self.assertEqual([owner_of(pod) for pod in world.cluster.pods()], [{}])

    def test_pods_of_others(self):
        """A pod of another name or owner is no business of the controller's."""
        self.assertIsNone(ordinal_of({"metadata": {"name": "s-x"}}))
        other = {"controller": True, "kind": "ReplicaSet"}
        self.assertEqual(owner_of({"metadata": {"name": "x", "ownerReferences": [other]}}), {})

    def test_events(self):
        """The controller says on the set what it has created and deleted."""
        world = self.world(replicas=1)
        world.pump(1)
        world.patch_scale(0)
        world.pump(1)
        events = [
            e for e in world.cluster.state.objects("events") if e["involvedObject"]["kind"] == "StatefulSet"
        ]
        self.assertEqual(sorted(e["reason"] for e in events), ["SuccessfulCreate", "SuccessfulDelete"])

    def test_two_worlds_are_alike(self):
        """The same seed and the same moves give the same objects, uids and times included."""
        worlds = [self.world(replicas=1) for _ in range(2)]
        for world in worlds:
            world.pump(1)
        self.assertEqual(worlds[0].cluster.pods(), worlds[1].cluster.pods())
