"""
Compares what the sandbox's watches say with the recorded timelines of a real cluster.

The lines about the set and the lines about its pods are compared one by one, each with its time; how the
two interleave is left open within a few hundredths of a second, as it differs from one recording to the next.
"""

from __future__ import annotations

import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from bkscaler.sandbox.pods import FailureMode
from bkscaler.test.sandbox_support import TICK_S, MemoryAnswer, World
from bkscaler.test.test_kube_support import recorded_timeline

Step = tuple[float, Any]

SLACK_S = 0.1
"""How far a line may come from its recorded moment, counted from the request before it."""

COUNTS = ("replicas", "readyReplicas", "availableReplicas", "currentReplicas", "updatedReplicas")


def set_facts(line: dict[str, Any]) -> dict[str, Any]:
    """Give what a line says about the set."""
    value = line["object"]
    status = value["status"]
    facts = {count: status[count] for count in COUNTS if count in status}
    facts["lag"] = value["metadata"]["generation"] - status["observedGeneration"]
    return {"type": line["type"], "spec": value["spec"].get("replicas", 0), **facts}


def pod_facts(line: dict[str, Any]) -> dict[str, Any]:
    """Give what a line says about a pod; texts of the kubelet are left out."""
    value = line["object"]
    status = value["status"]
    conditions = [(c["type"], c["status"], c.get("reason")) for c in status.get("conditions", [])]
    containers = [
        (name, state.get("reason"), entry["ready"], entry["started"], entry["restartCount"])
        for entry in status.get("containerStatuses", [])
        for name, state in entry["state"].items()
    ]
    return {
        "type": line["type"],
        "phase": status["phase"],
        "bound": "nodeName" in value["spec"],
        "ip": "podIP" in status,
        "grace": value["metadata"].get("deletionGracePeriodSeconds"),
        "generation": value["metadata"]["generation"],
        "conditions": conditions,
        "containers": containers,
    }


FACTS = {"sts": set_facts, "pod": pod_facts}


class Performance:
    """
    A sandbox that is asked what the recorded cluster was asked, at the same times.

    :param name: the timeline.
    :param failure: how its pods fail.
    """

    def __init__(self, name: str, failure: FailureMode | None = None) -> None:
        recorded = recorded_timeline(f"timeline-{name}.jsonl")
        self.start_s = next(line["t"] for line in recorded)
        self.recorded = [line for line in recorded if line["kind"] != "me"]
        self.requests = self._requests()
        self.world = World(failure=failure)
        self.world.pump(0.5)
        self.zero_s = self.world.clock.seconds() - self.start_s
        self.heard: dict[str, list[Step]] = {"sts": [], "pod": []}
        version = self.world.cluster.state.version
        self.watches: dict[str, MemoryAnswer] = {
            "sts": self.world.watch(f"{self.world.sets}?resourceVersion={version}"),
            "pod": self.world.watch(f"{self.world.core}/pods?resourceVersion={version}"),
        }
        self._perform(recorded[-1]["t"] + 0.3)

    def _requests(self) -> list[tuple[float, int]]:
        """Find the moments at which the recorded set was scaled: its spec changed just then."""
        found, before = [], 0
        for line in self.recorded:
            if line["kind"] == "sts":
                spec = line["event"]["object"]["spec"].get("replicas", 0)
                if spec != before:
                    found.append((line["t"], spec))
                before = spec
        return found

    def _perform(self, end_s: float) -> None:
        requests = list(self.requests)
        while self.world.clock.seconds() < self.zero_s + end_s:
            now_s = self.world.clock.seconds() - self.zero_s
            if requests and now_s >= requests[0][0] - TICK_S:
                self.world.patch_scale(requests.pop(0)[1])
            self.world.pump(TICK_S)
            for kind, watch in self.watches.items():
                new = watch.lines[len(self.heard[kind]) :]
                self.heard[kind] += [(now_s, FACTS[kind](line)) for line in new]

    def expected(self, kind: str) -> list[Step]:
        """Give the recorded lines about the set or the pods."""
        lines = [line for line in self.recorded if line["kind"] == kind]
        return [(line["t"], FACTS[kind](line["event"])) for line in lines]


class TimelineTests(SynchronousTestCase):
    """What is heard of the set and of its pods, line by line."""

    maxDiff = None

    def compare(self, name: str, failure: FailureMode | None = None) -> None:
        """Perform a timeline and compare it."""
        performance = Performance(name, failure)
        for kind, heard in performance.heard.items():
            expected = performance.expected(kind)
            told = [json.dumps(facts) for _, facts in expected]
            self.assertEqual([json.dumps(facts) for _, facts in heard], told, f"{name}, {kind}")
            late = [(e, h) for e, h in zip(expected, heard, strict=True) if abs(e[0] - h[0]) > SLACK_S]
            self.assertEqual(late, [], f"{name}, {kind}")

    def test_up_and_down(self):
        """A set goes from none to one and back as recorded."""
        self.compare("0-1-0")

    def test_woken_while_terminating(self):
        """A set that is woken while its pod dies goes through the recorded trap."""
        self.compare("1-0-1-while-terminating")

    def test_crash(self):
        """A crashing pod is shown as recorded."""
        self.compare("fail-crash", FailureMode.CRASH)

    def test_image_pull(self):
        """A pod whose image cannot be pulled is shown as recorded."""
        self.compare("fail-imagepull", FailureMode.IMAGEPULL)

    def test_never_ready(self):
        """A pod that runs and never becomes ready is shown as recorded."""
        self.compare("fail-neverready", FailureMode.NEVERREADY)

    def test_unschedulable(self):
        """A pod that fits nowhere is shown as recorded."""
        self.compare("fail-unschedulable", FailureMode.UNSCHEDULABLE)
