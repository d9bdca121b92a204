"""The merged picture of the cluster: recorded timelines, races between its sources, and suspicion."""

import random
from itertools import pairwise

from twisted.trial.unittest import SynchronousTestCase

from bkscaler.kube.store import ClusterStore
from bkscaler.test.test_kube_support import pod_object, recorded_timeline, set_object


def filled(replicas: int = 1, *pods, **more) -> ClusterStore:
    """Make a store that has listed a set, at version 10, and pods, at version 20."""
    store = ClusterStore("buildkitd", **more)
    store.set_read([set_object(replicas=replicas)], "10", store.mark())
    store.pods_read(list(pods), "20", store.mark())
    return store


def ready_uids(store: ClusterStore) -> list[str]:
    """Say which pods may be given clients."""
    observation = store.observation()
    return [] if observation is None else [replica.uid for replica in observation.ready]


def refresh(store: ClusterStore, set_now, version: int, *pods) -> None:
    """Read the set and then its pods, as a refresh does."""
    caught_up = store.set_read([set_now], str(version), store.mark())
    store.pods_read(list(pods), str(version), store.mark(), caught_up)


class PictureTests(SynchronousTestCase):
    """What is drawn from what is known."""

    def test_nothing_known(self):
        """Before the set was listed there is no observation, and none before the pods of one that exists."""
        store = ClusterStore("buildkitd")
        self.assertIsNone(store.observation())
        store.set_read([set_object()], "10", store.mark())
        self.assertIsNone(store.observation())
        store.pods_read([], "11", store.mark())
        self.assertEqual(store.observation().replicas, 1)

    def test_missing(self):
        """A list without the set says that it does not exist, by name; other sets do not count."""
        store = ClusterStore("buildkitd")
        store.set_read([set_object(name="other")], "10", store.mark())
        observation = store.observation()
        self.assertFalse(observation.exists)
        self.assertIn("buildkitd", observation.waiting_for)

    def test_ready(self):
        """A ready pod of the set is offered, on the version of the set."""
        observation = filled(1, pod_object()).observation()
        self.assertEqual((observation.replicas, observation.resource_version), (1, "10"))
        self.assertEqual(
            [(r.ordinal, r.name, r.uid, r.ip) for r in observation.ready],
            [(0, "buildkitd-0", "pod-a", "10.0.0.1")],
        )
        self.assertEqual(observation.waiting_for, "")

    def test_not_usable(self):
        """A pod that is unready, dying, foreign, over, without an address or not asked for is not offered."""
        for bad in (
            pod_object(ready=False),
            pod_object(terminating=True),
            pod_object(owner="another set"),
            pod_object(phase="Succeeded"),
            pod_object(ip=""),
            pod_object(ordinal=1),
        ):
            observation = filled(1, bad).observation()
            self.assertEqual(observation.ready, ())
            self.assertNotEqual(observation.waiting_for, "")

    def test_unready_accepted(self):
        """A caller that asks the builder itself is offered running pods that are not Ready."""
        self.assertEqual(ready_uids(filled(1, pod_object(ready=False), require_ready=False)), ["pod-a"])

    def test_at_zero(self):
        """A set that leaves its replicas out has none, and nothing is waited for."""
        observation = filled(0).observation()
        self.assertEqual((observation.replicas, observation.ready, observation.waiting_for), (0, (), ""))


class OrderTests(SynchronousTestCase):
    """Sources that overtake each other."""

    def test_old_events_are_ignored(self):
        """An event older than the list, or than another event, changes nothing."""
        store = filled(1, pod_object())
        store.pod_event("MODIFIED", pod_object(version=19, ready=False))
        store.pod_event("DELETED", pod_object(version=20))
        store.set_event("MODIFIED", set_object(replicas=5, version=9))
        self.assertEqual((ready_uids(store), store.observation().replicas), (["pod-a"], 1))

    def test_overtaken_list(self):
        """A list that was asked for before an event came, and is older than it, changes nothing."""
        store = filled(1, pod_object())
        mark = store.mark()
        store.pod_event("MODIFIED", pod_object(version=30, terminating=True))
        store.set_event("MODIFIED", set_object(replicas=0, version=31, generation=2))
        store.pods_read([pod_object()], "25", mark)
        store.set_read([set_object()], "25", mark)
        self.assertEqual((ready_uids(store), store.observation().replicas), ([], 0))

    def test_server_gone_back(self):
        """An answer older than what was known when it was asked for means a restored server, and counts."""
        store = filled(1, pod_object())
        store.set_read([set_object(replicas=0, version=3)], "4", store.mark())
        store.pods_read([], "5", store.mark())
        store.set_event("MODIFIED", set_object(replicas=2, version=6, generation=2))
        self.assertEqual((store.observation().replicas, store.observation().resource_version), (2, "6"))

    def test_gone_and_restored(self):
        """A pod whose deletion was seen is alive when a server that was restored shows it, older or newer."""
        for gone in (
            lambda store: store.pod_event("DELETED", pod_object(version=21)),
            lambda store: store.pods_read([], "21", store.mark()),
        ):
            for version in ("19", "22"):
                store = filled(1, pod_object())
                gone(store)
                store.pod_event("MODIFIED", pod_object(version=20))
                self.assertEqual(ready_uids(store), [])
                store.pods_read([pod_object()], version, store.mark())
                self.assertEqual(ready_uids(store), ["pod-a"])
                store.pods_read([], "23", store.mark())
                self.assertEqual(ready_uids(store), [])

    def test_not_yet_there(self):
        """A pod that an older list does not have is not gone: the watch that goes on from there brings it."""
        store = filled(1, pod_object())
        store.pods_read([], "9", store.mark())
        self.assertEqual(ready_uids(store), [])
        store.pod_event("ADDED", pod_object(version=11))
        self.assertEqual(ready_uids(store), ["pod-a"])

    def test_deleted(self):
        """A deleted set is missing, and its pods are not offered to the next one of that name."""
        store = filled(1, pod_object())
        store.set_event("DELETED", set_object(version=12))
        self.assertFalse(store.observation().exists)
        store.set_event("ADDED", set_object(version=30, uid="set-2"))
        self.assertEqual(ready_uids(store), [])
        store.pod_event("ADDED", pod_object(uid="pod-b", version=31, owner="set-2"))
        self.assertEqual(ready_uids(store), ["pod-b"])

    def test_own_answer(self):
        """The answer to our own request is known before the watch tells it, and condemns the pod at once."""
        store = filled(1, pod_object())
        store.scaled(0, "22")
        self.assertEqual((store.observation().replicas, store.observation().resource_version), (0, "22"))
        self.assertEqual(ready_uids(store), [])
        store.set_event("MODIFIED", set_object(replicas=0, version=22, generation=2, observed=1))
        self.assertEqual(store.stateful_set.generation, 2)

    def test_own_answer_overtaken(self):
        """An answer that the watch has overtaken, or that has no version, changes nothing."""
        store = filled(1, pod_object())
        store.set_event("MODIFIED", set_object(replicas=3, version=30, generation=2))
        for version in ("22", "30", ""):
            store.scaled(0, version)
        self.assertEqual((store.observation().replicas, store.observation().resource_version), (3, "30"))

    def test_answer_without_a_set(self):
        """An answer for a set that is gone meanwhile brings nothing back."""
        store = filled(1)
        store.set_event("DELETED", set_object(version=12))
        store.scaled(1, "13")
        self.assertFalse(store.observation().exists)

    def test_garbage(self):
        """Objects with nothing in them, or with everything of the wrong type, raise nothing."""
        store = filled(1, pod_object())
        for odd in ({}, {"metadata": 1, "spec": [], "status": "x"}, {"metadata": {"name": ["buildkitd"]}}):
            store.pod_event("ADDED", odd)
            store.set_event("ADDED", odd)
            store.pods_read([odd], "20", store.mark())
        self.assertEqual(ready_uids(store), [])


class SuspicionTests(SynchronousTestCase):
    """Pods that may be dying without our knowledge."""

    def down_and_up(self) -> ClusterStore:
        """Scale 1 -> 0 -> 1 so fast that nothing is heard of the pod."""
        store = filled(1, pod_object())
        store.scaled(0, "22")
        store.scaled(1, "23")
        return store

    def test_condemned(self):
        """After 1 -> 0 -> 1 the pod that looks healthy is not offered."""
        store = self.down_and_up()
        self.assertEqual(ready_uids(store), [])
        self.assertIn("asking again", store.observation().waiting_for)

    def test_still_suspect_by_watch(self):
        """Events alone, and lists that no proof goes before, do not clear the pod."""
        store = self.down_and_up()
        store.pod_event("MODIFIED", pod_object(version=24))
        store.set_event("MODIFIED", set_object(version=25, generation=3))
        store.pods_read([pod_object(version=24)], "26", store.mark())
        self.assertEqual(ready_uids(store), [])
        self.assertTrue(store.refresh_would_help)

    def test_spared(self):
        """A refresh that shows the controller caught up, and then the pod alive, clears it."""
        store = self.down_and_up()
        refresh(store, set_object(version=25, generation=3), 26, pod_object(version=24))
        self.assertEqual(ready_uids(store), ["pod-a"])
        self.assertFalse(store.refresh_would_help)

    def test_not_caught_up(self):
        """A refresh in which the controller has not caught up proves nothing."""
        store = self.down_and_up()
        refresh(store, set_object(version=25, generation=3, observed=2), 26, pod_object())
        self.assertEqual(ready_uids(store), [])
        self.assertFalse(store.refresh_would_help)

    def test_proof_for_another_spec(self):
        """A proof about a spec that has changed meanwhile clears nothing."""
        store = self.down_and_up()
        caught_up = store.set_read([set_object(version=25, generation=3)], "26", store.mark())
        mark = store.mark()
        store.scaled(0, "27")
        store.scaled(1, "28")
        store.pods_read([pod_object()], "29", mark, caught_up)
        self.assertEqual(ready_uids(store), [])

    def test_successor(self):
        """The successor of a condemned pod has another uid and is offered at once, if all keep up."""
        store = self.down_and_up()
        store.set_event("MODIFIED", set_object(version=25, generation=3))
        store.pod_event("DELETED", pod_object(version=30))
        store.pod_event("ADDED", pod_object(uid="pod-b", version=31))
        self.assertEqual(ready_uids(store), ["pod-b"])

    def test_born_of_an_old_spec(self):
        """A pod is doubted that a controller has made which had not heard yet that there were to be none."""
        store = self.down_and_up()
        store.pod_event("DELETED", pod_object(version=30))
        store.pod_event("ADDED", pod_object(uid="pod-b", version=31))
        self.assertEqual(ready_uids(store), [])
        store.set_event("MODIFIED", set_object(version=32, generation=3, observed=2))
        self.assertEqual(ready_uids(store), [])
        refresh(store, set_object(version=33, generation=3), 34, pod_object(uid="pod-b", version=31))
        self.assertEqual(ready_uids(store), ["pod-b"])

    def test_born_of_an_old_spec_and_late(self):
        """So is one whose birth is heard of after the controller has heard."""
        store = self.down_and_up()
        store.set_event("MODIFIED", set_object(version=32, generation=3))
        store.pod_event("ADDED", pod_object(uid="pod-b", version=31))
        self.assertEqual(ready_uids(store), [])
        self.assertTrue(store.refresh_would_help)
        store.pod_event("ADDED", pod_object(uid="pod-c", version=33))
        self.assertEqual(ready_uids(store), ["pod-c"])

    def test_leap(self):
        """A generation that leaps hides what was in between, so every pod is doubted."""
        store = filled(1, pod_object())
        store.set_event("MODIFIED", set_object(version=30, generation=3))
        self.assertEqual(ready_uids(store), [])
        refresh(store, set_object(version=30, generation=3), 31, pod_object())
        self.assertEqual(ready_uids(store), ["pod-a"])

    def test_first_seen_in_the_middle(self):
        """Of a set first seen while its controller lags, pods are doubted until a refresh clears them."""
        store = ClusterStore("buildkitd")
        store.set_read([set_object(generation=3, observed=2)], "10", store.mark())
        store.pods_read([pod_object()], "20", store.mark())
        self.assertEqual(ready_uids(store), [])
        refresh(store, set_object(version=25, generation=3), 26, pod_object())
        self.assertEqual(ready_uids(store), ["pod-a"])

    def test_someone_shrinks_and_grows(self):
        """When 3 becomes 1 and 3 again only the pods that were condemned in between are doubted."""
        pods = [pod_object(uid=f"pod-{n}", ordinal=n) for n in range(3)]
        store = filled(3, *pods)
        store.set_event("MODIFIED", set_object(replicas=1, version=30, generation=2))
        store.set_event("MODIFIED", set_object(replicas=3, version=31, generation=3))
        self.assertEqual(ready_uids(store), ["pod-0"])


class RecordedTests(SynchronousTestCase):
    """Whole lives as a real API server told them."""

    def asleep_before(self, woken):
        """Give a set as it was before somebody scaled it up."""
        spec = {**woken["spec"], "replicas": 0}
        generation = woken["status"]["observedGeneration"]
        return {**woken, "spec": spec, "metadata": {**woken["metadata"], "generation": generation}}

    def replay(self, name: str):
        """Replay a timeline; give the uids offered after each event, none of which may be dying."""
        lines = [line for line in recorded_timeline(name) if line["kind"] != "me"]
        store = ClusterStore("buildkitd")
        first = next(line["event"]["object"] for line in lines if line["kind"] == "sts")
        start = str(int(first["metadata"]["resourceVersion"]) - 1)
        store.set_read([self.asleep_before(first)], start, store.mark())
        store.pods_read([], start, store.mark())
        offered, dying = [], set()
        for line in lines:
            event = line["event"]
            metadata = event["object"]["metadata"]
            if line["kind"] == "pod" and metadata.get("deletionTimestamp"):
                dying.add(metadata["uid"])
            (store.set_event if line["kind"] == "sts" else store.pod_event)(event["type"], event["object"])
            offered.append(ready_uids(store))
            self.assertEqual(set(offered[-1]) & dying, set())
        return offered, store

    def test_up_and_down(self):
        """0 -> 1 -> 0: the pod is offered from the event that says Ready to the one that condemns it."""
        offered, store = self.replay("timeline-0-1-0.jsonl")
        self.assertEqual(len({tuple(each) for each in offered}), 2)
        self.assertEqual((offered[0], offered[-1]), ([], []))
        self.assertEqual(sum(before != after for before, after in pairwise(offered)), 2)
        self.assertEqual(store.observation().replicas, 0)

    def test_the_trap(self):
        """1 -> 0 -> 1 while terminating: the dying pod is never offered again, its successor is."""
        offered, _store = self.replay("timeline-1-0-1-while-terminating.jsonl")
        served = [each[0] for each in offered if each]
        self.assertEqual(len(set(served)), 2)
        self.assertEqual(served, sorted(served, key=[*dict.fromkeys(served)].index))

    def test_the_trap_with_late_pod_events(self):
        """However late the pods' events come, the dying pod is not offered after the set went to zero."""
        chance = random.Random(11)
        for _ in range(50):

            def late(lines):
                sets = [line for line in lines if line["kind"] == "sts"]
                pods = [line for line in lines if line["kind"] == "pod"]
                while sets or pods:
                    prefer = sets if chance.random() < 0.7 else pods
                    yield (prefer or sets or pods).pop(0)

            store = ClusterStore("buildkitd")
            store.set_read([], "1", store.mark())
            store.pods_read([], "1", store.mark())
            lines = recorded_timeline("timeline-1-0-1-while-terminating.jsonl")
            old = next(line["event"]["object"]["metadata"]["uid"] for line in lines if line["kind"] == "pod")
            seen_zero = False
            for line in late(lines):
                event = line["event"]
                (store.set_event if line["kind"] == "sts" else store.pod_event)(
                    event["type"], event["object"]
                )
                seen_zero = seen_zero or store.observation().replicas == 0
                self.assertFalse(seen_zero and old in ready_uids(store))

    def test_failures_offer_nothing(self):
        """Pods that never become ready are never offered, and what they wait for is said."""
        for name, words in [
            ("unschedulable", "Insufficient cpu"),
            ("imagepull", "cannot pull image"),
            ("neverready", "readiness probe"),
        ]:
            lines = recorded_timeline(f"timeline-fail-{name}.jsonl")
            store = ClusterStore("buildkitd")
            store.set_read([], "1", store.mark())
            store.pods_read([], "1", store.mark())
            said = set()
            for line in lines:
                if line["kind"] == "me":
                    continue
                event = line["event"]
                (store.set_event if line["kind"] == "sts" else store.pod_event)(
                    event["type"], event["object"]
                )
                self.assertEqual(ready_uids(store), [])
                said.add(store.observation().waiting_for)
            self.assertTrue(any(words in each for each in said), said)
