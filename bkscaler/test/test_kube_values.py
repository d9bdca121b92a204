"""The small pure pieces of the kube room: fields, versions, the StatefulSet and its selector, pods."""

import random
from dataclasses import replace
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from bkscaler.kube import fields, pods, statefulset
from bkscaler.kube.pods import PodView, stage
from bkscaler.kube.versions import is_newer, is_older, newest
from bkscaler.model import Stage
from bkscaler.test.test_kube_support import Api, pod_object, recorded_object, recorded_timeline, set_object


class FieldsTests(SynchronousTestCase):
    """Reading objects that leave things out."""

    def test_paths(self):
        """A path leads to the value of its type."""
        value = {"a": {"b": {"t": "x", "n": 3, "f": True, "l": [{"c": 1}, 2, {}]}}}
        self.assertEqual(fields.text(value, "a", "b", "t"), "x")
        self.assertEqual(fields.number(value, "a", "b", "n"), 3)
        self.assertTrue(fields.flag(value, "a", "b", "f"))
        self.assertEqual(fields.items(value, "a", "b", "l"), [{"c": 1}, {}])
        self.assertEqual(fields.mapping(value, "a", "b")["t"], "x")

    def test_anything_else_is_empty(self):
        """A value that is missing or of another type is the empty one, and nothing is raised."""
        for value in (
            None,
            1,
            "x",
            [],
            {},
            {"a": None},
            {"a": []},
            {"a": {"b": None}},
            {"a": {"b": {"c": ()}}},
        ):
            self.assertEqual(fields.text(value, "a", "b"), "")
            self.assertEqual(fields.number(value, "a", "b"), 0)
            self.assertFalse(fields.flag(value, "a", "b"))
            self.assertEqual(fields.items(value, "a", "b"), [])
            self.assertEqual(fields.mapping(value, "x", "y"), {})
            self.assertEqual(fields.condition(value, "Ready"), {})
        self.assertEqual(fields.number({"a": True}, "a"), 0)

    def test_one_line(self):
        """Words become one line without control characters, cut at the limit."""
        self.assertEqual(fields.one_line(" a\n\tb\x1b[31m c\x00 ", 80), "a b[31m c")
        self.assertEqual(fields.one_line("abcdef", 4), "abc…")
        self.assertEqual(fields.one_line("abcd", 4), "abcd")


class VersionsTests(SynchronousTestCase):
    """Comparing resourceVersions."""

    def test_numbers(self):
        """Numbers compare as numbers, not as text."""
        self.assertTrue(is_older("9", than="10"))
        self.assertTrue(is_newer("10", than="9"))
        self.assertFalse(is_newer("9", than="9") or is_older("9", than="9"))
        self.assertEqual((newest("9", "10"), newest("10", "9")), ("10", "10"))

    def test_incomparable(self):
        """What is no number is never older, and newer when it differs."""
        for odd in ("", "abc", "-1", "٣", "1" * 50):
            self.assertFalse(is_older(odd, than="5") or is_older("5", than=odd))
            self.assertTrue(is_newer(odd, than="5"))
            self.assertFalse(is_newer(odd, than=odd))
            self.assertEqual(newest("5", odd), "5")


class StatefulSetTests(SynchronousTestCase):
    """The set and its selector."""

    def test_recorded(self):
        """A recorded set is read; what it leaves out is zero."""
        lines = [line for line in recorded_timeline("timeline-0-1-0.jsonl") if line["kind"] == "sts"]
        views = [statefulset.parse(line["event"]["object"]) for line in lines]
        self.assertEqual([views[0].replicas, views[-1].replicas], [1, 0])
        self.assertEqual((views[0].name, views[0].selector), ("buildkitd", "app=buildkitd"))
        self.assertEqual(views[0].service_name, "buildkitd-headless")
        self.assertFalse(views[0].caught_up)
        self.assertTrue(views[-1].caught_up)

    def test_wants(self):
        """The ordinals asked for begin at the set's first, and a set that is being deleted asks for none."""
        value = set_object(replicas=2)
        value["spec"]["ordinals"] = {"start": 5}
        self.assertEqual([n for n in range(10) if statefulset.parse(value).wants(n)], [5, 6])
        value["metadata"]["deletionTimestamp"] = "2026-11-23T21:33:04Z"
        self.assertFalse(statefulset.parse(value).wants(5))

    def test_selector(self):
        """Labels and expressions become one query parameter."""
        selector = {
            "matchLabels": {"b": "2", "a": "1"},
            "matchExpressions": [
                {"key": "tier", "operator": "In", "values": ["x", "y"]},
                {"key": "zone", "operator": "NotIn", "values": ["z"]},
                {"key": "old", "operator": "DoesNotExist"},
                {"key": "new", "operator": "Exists"},
            ],
        }
        self.assertEqual(statefulset.selector_text(selector), "a=1,b=2,tier in (x,y),zone notin (z),!old,new")
        self.assertEqual(statefulset.selector_text({}), "")

    def test_get_scale(self):
        """At zero the answer leaves the replicas out."""
        api = Api()
        outcome = api.start(statefulset.get_scale(api.client, "n", "s"))
        connection = api.accept()
        self.assertEqual(connection.request()[1], "/prefix/apis/apps/v1/namespaces/n/statefulsets/s/scale")
        connection.answer(200, {"metadata": {"resourceVersion": "7"}, "spec": {}})
        self.assertEqual(outcome.result, (0, "7"))


class PodsTests(SynchronousTestCase):
    """What of a pod matters."""

    def test_recorded(self):
        """Recorded pods are read: name, ordinal, owner, address, readiness, and that they are dying."""
        lines = [line for line in recorded_timeline("timeline-0-1-0.jsonl") if line["kind"] == "pod"]
        views = [pods.parse(line["event"]["object"]) for line in lines]
        self.assertEqual({(view.name, view.ordinal) for view in views}, {("buildkitd-0", 0)})
        self.assertEqual(len({view.owner_uid for view in views} - {""}), 1)
        ready = [view for view in views if view.ready]
        self.assertEqual({view.ip for view in ready}, {"127.1.0.1"})
        self.assertEqual([view.terminating for view in ready], [False] + [True] * (len(ready) - 1))

    def test_ordinal(self):
        """The ordinal is the number that the name ends in, or -1."""
        for name, ordinal in [("buildkitd-12", 12), ("a-b-0", 0), ("x", -1), ("x-", -1), ("x-1a", -1)]:
            self.assertEqual(pods.parse({"metadata": {"name": name}}).ordinal, ordinal)

    def test_sorted(self):
        """Usable replicas come by ordinal, whatever the order of the pods, and without suspects."""
        owner = statefulset.parse(set_object(replicas=3))
        views = [pods.parse(pod_object(uid=f"p{n}", ordinal=n)) for n in (2, 0, 1)]
        usable = pods.usable_replicas(owner, views, suspects={"p1"})
        self.assertEqual([replica.uid for replica in usable], ["p0", "p2"])

    def test_stage(self):
        """The first wanted pod of the set that is not going away says how far the wake has come."""
        owner = statefulset.parse(set_object())
        pod = PodView(name="buildkitd-0", uid="a", ordinal=0, owner_uid=owner.uid)
        for pods_there, expected in (
            ([], Stage.ABSENT),
            ([pod], Stage.CREATED),
            ([replace(pod, scheduled=True, phase="Pending")], Stage.SCHEDULED),
            ([replace(pod, scheduled=True, phase="Running")], Stage.STARTED),
            ([replace(pod, phase="Running", terminating=True)], Stage.ABSENT),
            ([replace(pod, phase="Running", owner_uid="other")], Stage.ABSENT),
            ([replace(pod, phase="Running", ordinal=7)], Stage.ABSENT),
        ):
            self.assertIs(stage(owner, pods_there), expected, pods_there)

    def test_stages_recorded(self):
        """A recorded wake goes through the stages in their order."""
        seen = []
        owner = statefulset.parse(set_object())
        for line in recorded_timeline("timeline-0-1-0.jsonl"):
            if line["kind"] == "pod":
                view = replace(pods.parse(line["event"]["object"]), owner_uid=owner.uid)
                seen.append(stage(owner, [view]))
        up = seen[: seen.index(Stage.STARTED) + 1]
        self.assertEqual(sorted(set(up)), [Stage.CREATED, Stage.SCHEDULED, Stage.STARTED])
        self.assertEqual(up, sorted(up))

    def test_sidecar(self):
        """An init container that restarts always is a container like others."""
        value = pod_object(ready=False)
        value["spec"] = {"initContainers": [{"name": "proxy", "restartPolicy": "Always"}, {"name": "setup"}]}
        value["status"]["initContainerStatuses"] = [{"name": "proxy"}, {"name": "setup"}]
        self.assertEqual([each.init for each in pods.parse(value).containers], [False, True])

    def test_mutilated(self):
        """A pod with any part replaced by nonsense is read without an exception."""
        chance = random.Random(5)
        for _ in range(300):
            value = recorded_object("pod-crash.json")
            self.mutilate(chance, value)
            pods.parse(value)

    def mutilate(self, chance: random.Random, value: dict[str, Any]) -> None:
        """Replace some value, at some depth, by one of another type."""
        key = chance.choice(list(value))
        inner = value[key]
        if isinstance(inner, list) and inner and isinstance(inner[0], dict):
            inner = inner[0]
        if isinstance(inner, dict) and inner and chance.random() < 0.8:
            self.mutilate(chance, inner)
        else:
            value[key] = chance.choice([None, 3, "x", [], {}, [None], [1, "x"], True])
