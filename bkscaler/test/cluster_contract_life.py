"""The contract's part on watches and on the life of a set; see :mod:`bkscaler.test.cluster_contract`."""

from __future__ import annotations

import queue
from collections.abc import Callable
from typing import Any

from twisted.trial.unittest import SkipTest

from bkscaler.test.cluster_client import ANSWER_LIMIT_S, JSON, MERGE, Watch
from bkscaler.test.cluster_contract import ContractCase

Line = dict[str, Any]


class WatchContract(ContractCase):
    """What a watch of ConfigMaps says; every test has a label of its own."""

    def setUp(self) -> None:
        super().setUp()
        self.label = self.place.name("w")
        self.maps = f"{self.place.core}/configmaps"

    def put(self, name: str, **data: str) -> str:
        """Create or change a ConfigMap of this test's label; give its version."""
        body = {"metadata": {"name": f"{self.label}-{name}", "labels": {"watch": self.label}}, "data": data}
        answer = self.api.call("POST", self.maps, body)
        if answer.code == 409:
            path = f"{self.maps}/{self.label}-{name}"
            answer = self.api.call("PATCH", path, {"data": data}, content_type=MERGE)
        return self.version_of(answer)

    def watched(self, **query: Any) -> Watch:
        """Open a watch on this test's label."""
        return self.watch(self.maps, labelSelector=f"watch={self.label}", **query)

    def seen(self, line: Line) -> tuple[str, str]:
        """Give a line's type and the name of its object."""
        return line["type"], line["object"]["metadata"]["name"].removeprefix(f"{self.label}-")

    def test_synthetic(self):
        """Without a version, or with 0, a watch begins with what is there and goes on with what happens."""
        self.put("a")
        for query in ({}, {"resourceVersion": "0"}):
            watch = self.watched(**query)
            self.assertEqual(self.seen(watch.next()), ("ADDED", "a"))
            self.put("a", n=self.place.name("n"))
            self.assertEqual(self.seen(watch.next()), ("MODIFIED", "a"))

    def test_resume(self):
        """With a version a watch begins with what happened after it, a deletion with the last object."""
        version = self.put("a")
        self.put("b")
        deleted = self.api.call("DELETE", f"{self.maps}/{self.label}-a")
        self.assertEqual(deleted.code, 200)
        watch = self.watched(resourceVersion=version)
        lines = [watch.next(), watch.next()]
        self.assertEqual([self.seen(line) for line in lines], [("ADDED", "b"), ("DELETED", "a")])
        self.assertGreater(int(lines[1]["object"]["metadata"]["resourceVersion"]), int(version))

    def test_timeout(self):
        """A watch ends cleanly after the seconds it was given, having said nothing without a cause."""
        watch = self.watched(resourceVersion=self.put("a"), timeoutSeconds=1)
        self.assertEqual(watch.rest(), [])

    def test_too_old(self):
        """A version that is forgotten is 410 in a line of a 200, and the watch ends."""
        lines = self.watched(resourceVersion="1", timeoutSeconds=5).rest()
        if not lines and self.may_be_young:
            raise SkipTest("the cluster is so young that it has forgotten nothing yet")
        (line,) = lines
        self.assertEqual((line["type"], line["object"]["code"]), ("ERROR", 410))
        self.assertEqual((line["object"]["reason"], line["object"]["kind"]), ("Expired", "Status"))
        self.assertIn("too old resource version: 1 (", line["object"]["message"])

    def test_future(self):
        """A version that has not come yet leaves the watch silent."""
        watch = self.watched(resourceVersion="999999999", timeoutSeconds=1)
        self.assertEqual(watch.rest(), [])

    def test_malformed(self):
        """A version that is no number is the server's error."""
        answer = self.api.call("GET", self.maps, query={"watch": "1", "resourceVersion": "abc"})
        self.assertEqual((answer.code, answer.body["code"]), (500, 500))
        self.assertIn("invalid syntax", answer.body["message"])

    def test_leaving_the_selector(self):
        """An object that stops to match the labels is deleted for the watch, and added when it does again."""
        watch = self.watched(resourceVersion=self.put("a"))
        path = f"{self.maps}/{self.label}-a"
        for value in ("other", self.label):
            self.api.call("PATCH", path, {"metadata": {"labels": {"watch": value}}}, content_type=MERGE)
        self.assertEqual(self.seen(watch.next()), ("DELETED", "a"))
        self.assertEqual(self.seen(watch.next()), ("ADDED", "a"))

    def test_field_selector(self):
        """A watch by name hears of this object only."""
        version = self.put("a")
        watch = self.watch(self.maps, fieldSelector=f"metadata.name={self.label}-b", resourceVersion=version)
        self.put("a", n="1")
        self.put("b")
        self.assertEqual(self.seen(watch.next()), ("ADDED", "b"))

    def test_streaming_list(self):
        """A streaming list says what is there and then a bookmark that marks the end of it."""
        self.put("a")
        query = {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan"}
        watch = self.watched(allowWatchBookmarks="true", **query)
        self.assertEqual(self.seen(watch.next()), ("ADDED", "a"))
        mark = watch.next()
        self.assertEqual((mark["type"], mark["object"]["kind"]), ("BOOKMARK", "ConfigMap"))
        meta = mark["object"]["metadata"]
        self.assertEqual(meta["annotations"], {"k8s.io/initial-events-end": "true"})
        version = self.put("b")
        self.assertLess(int(meta["resourceVersion"]), int(version))
        self.assertEqual(self.seen(watch.next()), ("ADDED", "b"))

    def test_streaming_list_needs_its_match(self):
        """A streaming list without the match it needs is invalid."""
        query = {"watch": "1", "sendInitialEvents": "true", "allowWatchBookmarks": "true"}
        answer = self.api.call("GET", self.maps, query=query)
        self.assert_refused(answer, 422, "Invalid", "sendInitialEvents requires setting resourceVersionMatch")

    def test_bookmarks_may_be_asked_for(self):
        """A short watch that allows bookmarks is not disturbed by them."""
        watch = self.watched(resourceVersion=self.put("a"), allowWatchBookmarks="true", timeoutSeconds=1)
        self.assertEqual({line["type"] for line in watch.rest()} - {"BOOKMARK"}, set())

    def test_single_objects_are_not_watched(self):
        """A watch of one object by its path is an ordinary answer."""
        self.put("a")
        answer = self.api.call("GET", f"{self.maps}/{self.label}-a", query={"watch": "1"})
        self.assertEqual((answer.code, answer.body["kind"]), (200, "ConfigMap"))

    def test_table(self):
        """A client that asks for Tables gets them, with columns once."""
        self.put("a")
        accept = {"Accept": f"{JSON};as=Table;v=v1;g=meta.k8s.io,{JSON}"}
        headers = {**self.api.headers(None), **accept}
        query = {"labelSelector": f"watch={self.label}"}
        answer = self.api.call("GET", self.maps, query=query, headers=headers)
        self.assertEqual(answer.body["kind"], "Table")
        columns = [column["name"] for column in answer.body["columnDefinitions"]]
        self.assertEqual(columns, ["Name", "Data", "Age"])
        self.assertEqual(answer.body["rows"][0]["cells"][:2], [f"{self.label}-a", 0])


def is_set(**wanted: Any) -> Callable[[Line], bool]:
    """
    Match a line about the set.

    :param wanted: numbers in the status, 0 for one that is left out; ``spec`` for ``spec.replicas`` and
        ``seen`` for whether the controller has observed the spec.
    """

    def matches(line: Line) -> bool:
        value = line["object"]
        if value["kind"] != "StatefulSet":
            return False
        status = value.get("status", {})
        seen = status.get("observedGeneration") == value["metadata"]["generation"]
        found = {**status, "spec": value["spec"].get("replicas", 0), "seen": seen}
        return all(found.get(key, 0) == item for key, item in wanted.items())

    return matches


def is_pod(kind: str, *, uid: str = "", **wanted: Any) -> Callable[[Line], bool]:
    """
    Match a line about a pod.

    :param kind: type of the line.
    :param uid: the pod's; ``""`` is any.
    :param wanted: ``phase``, ``ready``, ``dying``, ``ip``.
    """

    def matches(line: Line) -> bool:
        value = line["object"]
        if value["kind"] != "Pod" or line["type"] != kind or uid not in ("", value["metadata"]["uid"]):
            return False
        conditions = {c["type"]: c["status"] for c in value["status"].get("conditions", [])}
        found = {
            "phase": value["status"].get("phase"),
            "ready": conditions.get("Ready") == "True",
            "dying": "deletionTimestamp" in value["metadata"],
            "ip": bool(value["status"].get("podIP")),
        }
        return all(found[key] == item for key, item in wanted.items())

    return matches


class Story:
    """Lines of a watch of one set and a watch of its pods, as they come."""

    def __init__(self, case: ContractCase, name: str) -> None:
        self.lines: list[Line] = []
        self._queue: queue.Queue[Any] = queue.Queue()
        place = case.place
        for path, query in (
            (place.sets, {"fieldSelector": f"metadata.name={name}"}),
            (f"{place.core}/pods", {"labelSelector": f"app={name}"}),
        ):
            version = case.version_of(case.api.call("GET", path, query=query))
            case.watch(path, lines=self._queue, resourceVersion=version, **query)

    def until(self, matches: Callable[[Line], bool]) -> Line:
        """Read on until a line matches; give it."""
        while True:
            _, line = self._queue.get(timeout=3 * ANSWER_LIMIT_S)
            if not isinstance(line, dict):
                raise RuntimeError(f"the watch ended: {line!r}")
            self.lines.append(line)
            if matches(line):
                return line

    def ever(self, matches: Callable[[Line], bool]) -> Line:
        """Give a line that matches, from those that have come or from the next ones: two watches race."""
        found = next((line for line in self.lines if matches(line)), None)
        return found or self.until(matches)

    def of(self, kind: str) -> list[Line]:
        """Give the lines about one kind."""
        return [line for line in self.lines if line["object"]["kind"] == kind]


def version(line: Line) -> int:
    """Give the version of a line's object."""
    return int(line["object"]["metadata"]["resourceVersion"])


class LifeContract(ContractCase):
    """The order in which things happen to a set and its pods."""

    def assert_order(self, lines: list[Line], *steps: Callable[[Line], bool]) -> list[Line]:
        """Check that lines match the steps one after the other, others in between; give those lines."""
        found: list[Line] = []
        rest = iter(lines)
        for number, step in enumerate(steps):
            match = next((line for line in rest if step(line)), None)
            self.assertIsNotNone(match, f"step {number} did not come")
            found.append(match or {})
        return found

    def test_up_and_down(self):
        """From none to one and back, the set and its pod say what was recorded, in the same order."""
        name = self.a_set()
        self.settled(name)
        story = Story(self, name)
        answer = self.scale(name, 1)
        self.assertEqual(answer.body["status"]["replicas"], 0)
        story.until(is_pod("MODIFIED", ready=True))
        story.ever(is_set(readyReplicas=1, availableReplicas=1, seen=True))
        set_lines = self.assert_order(
            story.of("StatefulSet"),
            is_set(spec=1, seen=False, replicas=0),
            is_set(spec=1, seen=True, replicas=1, currentReplicas=1, updatedReplicas=1, readyReplicas=0),
            is_set(spec=1, seen=True, replicas=1, readyReplicas=1, availableReplicas=1),
        )
        pod_lines = self.assert_order(
            story.of("Pod"),
            is_pod("ADDED", phase="Pending", ready=False, ip=False),
            is_pod("MODIFIED", phase="Running", ready=True, ip=True, dying=False),
        )
        self.assertLess(version(set_lines[0]), version(pod_lines[0]))
        self.assertLess(version(pod_lines[1]), version(set_lines[2]))
        self.down(name, story)

    def down(self, name: str, story: Story) -> None:
        """Scale to none and check what follows."""
        story.lines.clear()
        answer = self.scale(name, 0)
        self.assertEqual((answer.body["spec"], answer.body["status"]["replicas"]), ({}, 1))
        story.until(is_pod("DELETED"))
        story.ever(is_set(spec=0, replicas=0, seen=True))
        self.assert_order(
            story.of("StatefulSet"),
            is_set(spec=0, seen=False, replicas=1, readyReplicas=1),
            is_set(spec=0, seen=True, replicas=1, readyReplicas=1, currentReplicas=0, updatedReplicas=0),
            is_set(spec=0, seen=True, replicas=0, readyReplicas=0, availableReplicas=0),
        )
        self.assert_order(
            story.of("Pod"),
            is_pod("MODIFIED", ready=True, dying=True, phase="Running"),
            is_pod("MODIFIED", ready=False, dying=True),
            is_pod("DELETED", ready=False, dying=True),
        )

    def test_the_trap(self):
        """Woken while its pod dies, a set claims to be ready while there is no pod to use."""
        name = self.a_set()
        self.settled(name)
        story = Story(self, name)
        self.scale(name, 1)
        old = story.until(is_pod("MODIFIED", ready=True))["object"]["metadata"]["uid"]
        story.ever(is_set(readyReplicas=1))
        self.scale(name, 0)
        story.until(is_pod("MODIFIED", uid=old, dying=True))
        self.scale(name, 1)
        story.lines.clear()
        lie = story.until(is_set(spec=1, seen=True, readyReplicas=1, currentReplicas=0))
        gone = story.until(is_pod("DELETED", uid=old))
        new = story.until(is_pod("ADDED"))
        self.assertNotEqual(new["object"]["metadata"]["uid"], old)
        ready = story.until(is_pod("MODIFIED", uid=new["object"]["metadata"]["uid"], ready=True))
        versions = [version(line) for line in (lie, gone, new, ready)]
        self.assertEqual(versions, sorted(versions))
        again = is_set(spec=1, readyReplicas=1, currentReplicas=1, seen=True)
        story.ever(lambda line: again(line) and version(line) > version(ready))

    def test_deleted_by_hand(self):
        """A pod that is deleted by hand is followed by another one of the same name."""
        name = self.a_set()
        story = Story(self, name)
        self.scale(name, 1)
        pods = f"{self.place.core}/pods"
        old = story.until(is_pod("MODIFIED", ready=True))["object"]["metadata"]
        self.assertEqual(old["name"], f"{name}-0")
        answer = self.api.call("DELETE", f"{pods}/{old['name']}")
        self.assertEqual((answer.code, answer.body["kind"]), (200, "Pod"))
        self.assertIn("deletionTimestamp", answer.body["metadata"])
        story.until(is_pod("DELETED", uid=old["uid"]))
        new = story.until(is_pod("ADDED"))["object"]["metadata"]
        self.assertEqual(new["name"], old["name"])
        owner = new["ownerReferences"][0]
        self.assertEqual((owner["kind"], owner["name"], owner["controller"]), ("StatefulSet", name, True))

    def test_the_controller_reports(self):
        """The controller says in an Event on the set that it has created the pod."""
        name = self.a_set(replicas=1)
        selector = f"involvedObject.kind=StatefulSet,involvedObject.name={name}"
        line = self.watch(f"{self.place.core}/events", fieldSelector=selector).next()
        self.assertEqual(line["object"]["reason"], "SuccessfulCreate")
        message = f"Create Pod {name}-0 in StatefulSet {name} successful"
        self.assertEqual(line["object"]["message"].lower(), message.lower())
