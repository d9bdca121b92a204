"""
Replays what was asked of a real API server against the sandbox, and compares the answers.

The recorded exchanges are one JSON object on a line of ``data/sandbox/exchanges.jsonl``: request, status,
the headers that matter, and the answer, or its lines with their times for a watch. Managed fields are left
out: the sandbox keeps none.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from bkscaler.sandbox.authorization import ADMIN
from bkscaler.sandbox.faults import Fault
from bkscaler.test.sandbox_support import MemoryAnswer, World

FILE = Path(__file__).parent / "data" / "sandbox" / "exchanges.jsonl"
EXCHANGES = {exchange["name"]: exchange for exchange in map(json.loads, FILE.read_text().splitlines())}

NOT_REPLAYED = {
    "00-apis-apps-v1": "a real server has more resources",
    "06-403-ns-terminating": "namespaces go at once in the sandbox",
    "04-watchlist-false": "a short watch may see bookmarks or none; the recorded one saw two",
    "06-429-eviction": "the sandbox knows no disruption budgets",
}
"""Exchanges that the sandbox does not answer alike, and why."""

MAPS = ("kube-root-ca.crt", "p0", "p1", "p2", "p3", "w1")
UID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
OTHER_UID = "00000000-0000-0000-0000-000000000000"
VOLATILE = (
    (UID, "UID"),
    (re.compile(r'\\*"\{.*\}\\*"'), "OBJECT"),
    (re.compile(r"buildkitd-[a-z0-9]{5}\b"), "GENERATED"),
    (re.compile(r"(?<=version: )[0-9]+|(?<=current: )[0-9]+|(?<=\()[0-9]+(?=\))"), "NUMBER"),
    (re.compile(r"\d{4}-\d\d-\d\dT[0-9:.]+Z"), "TIME"),
)
IGNORED = {"annotations", "labels", "data", "storageVersionHash", "volumes", "volumeMounts"}
IGNORED |= {"emulationMajor", "emulationMinor", "minCompatibilityMajor", "minCompatibilityMinor"}
"""Members that depend on who made the object, and members that the sandbox has no use for."""


def steady(text: str) -> str:
    """Take out of a text what differs from one run to the next."""
    for pattern, word in VOLATILE:
        text = pattern.sub(word, text)
    return text


def shape(value: Any) -> Any:
    """Give the shape of an answer: members and types, without the values."""
    if isinstance(value, dict) and value.get("kind") == "Status":
        return {key: shape(item) if key == "metadata" else words(item) for key, item in value.items()}
    if isinstance(value, dict):
        return {key: shape(item) for key, item in value.items() if key not in IGNORED}
    if isinstance(value, list):
        return [shape(item) for item in value[:1]]
    return type(value).__name__


def words(value: Any) -> Any:
    """Give a Status' member with its values, but for what differs from one run to the next."""
    if isinstance(value, dict):
        return {key: words(item) for key, item in value.items()}
    if isinstance(value, list):
        return [words(item) for item in value]
    return steady(value) if isinstance(value, str) else value


def compare(recorded: Any, answered: Any, where: str = "") -> list[str]:
    """Say where two shapes differ, a line for each place."""
    if isinstance(recorded, dict) and isinstance(answered, dict):
        lines = []
        for key in {**recorded, **answered}:
            lines += compare(recorded.get(key, "(none)"), answered.get(key, "(none)"), f"{where}.{key}")
        return lines
    if isinstance(recorded, list) and isinstance(answered, list) and len(recorded) == len(answered):
        return [
            line
            for number, (one, other) in enumerate(zip(recorded, answered, strict=True))
            for line in compare(one, other, f"{where}[{number}]")
        ]
    return [] if recorded == answered else [f"{where or 'whole'}: {recorded!r}, but here {answered!r}"]


class Replay:
    """
    One recorded request, asked of a sandbox that is in the state in which the server was.

    :param exchange: the recorded exchange.
    """

    def __init__(self, exchange: dict[str, Any]) -> None:
        self.exchange = exchange
        self.name: str = exchange["name"]
        self.answer: Any = exchange.get("answer")
        self.world = self._settled()
        self._make_what_is_there()
        self._set_the_scene()

    def _settled(self) -> World:
        status = self.answer.get("status") if isinstance(self.answer, dict) else None
        count = status.get("replicas", 0) if isinstance(status, dict) else 0
        if "/pods/" in self.exchange["target"]:
            count = 1
        world = World(replicas=count, start_delay_s=0.1)
        world.pump(0.5)
        return world

    def _make_what_is_there(self) -> None:
        world = self.world
        for name in MAPS if "configmaps" in self.exchange["target"] else ():
            world.call("POST", f"{world.core}/configmaps", {"metadata": {"name": name}, "data": {"k": "1"}})
        for group, name in (("coordination.k8s.io/v1", "cap"), ("events.k8s.io/v1", "ev1")):
            taken = self.exchange["code"] == 409 and self.exchange["method"] == "POST"
            named = f"/{name}" in self.exchange["target"].split("?")[0]
            if group in self.exchange["target"] and (taken or named) and self.exchange["code"] != 404:
                self._make_from(group, name)

    def _make_from(self, group: str, name: str) -> None:
        """Create the object that a recorded creation of this group made."""
        origin = "05-lease-create" if name == "cap" else "07-event-create"
        made = EXCHANGES[origin]
        body = json.loads(made["body"])
        if self.exchange["code"] == 409 and self.exchange["method"] == "POST":
            name = json.loads(self.exchange["body"])["metadata"].get("name", name)
        body["metadata"] = {"name": name, "namespace": "builds"}
        created = self.world.call("POST", made["target"], body)
        if not self.name.endswith("-create") and created.code != 201:
            raise AssertionError(created.data)

    def _set_the_scene(self) -> None:
        """Bring about whatever makes the server refuse."""
        cluster = self.world.cluster
        if self.name.startswith("06-403") and "anonymous" not in self.name:
            user = re.search(r'User \\?"([^"\\]+)', json.dumps(self.answer))
            cluster.tokens["user"] = user.group(1) if user else ""
            cluster.root.authorizer = _AdminOnly()
        if "429-apf" in self.name:
            cluster.root.faults = lambda _method, _uri: Fault()
        if "after-delete" in self.name:
            cluster.state.remove("statefulsets", "builds", "buildkitd")

    def target(self) -> str:
        """Give the path; versions and tokens in it are turned into the sandbox's own."""
        text: str = self.exchange["target"]
        state = self.world.cluster.state
        if "continue=" in text:
            page = self.world.call("GET", text.split("&continue", maxsplit=1)[0]).body
            text = re.sub(r"continue=\w+", f"continue={page['metadata']['continue']}", text)
        old = "410" in self.name or "resume-after-term" in self.name
        if old:
            state.put("configmaps", {"metadata": {"name": "later", "namespace": "builds"}})
            state.compact()
        version = "1" if old else str(state.version)
        return re.sub(r"resourceVersion=\d{3,5}\b", f"resourceVersion={version}", text)

    def headers(self) -> dict[str, str]:
        """Give the headers with the token that belongs to the story."""
        headers = {name.replace("-", "_"): value for name, value in self.exchange["headers"].items()}
        if self.name.startswith("06-401"):
            headers["Authorization"] = "Bearer expired"
        if self.name == "06-403-anonymous":
            headers["Authorization"] = ""
        elif self.name.startswith("06-403"):
            headers["Authorization"] = "Bearer user"
        return headers

    def body(self, target: str) -> str | None:
        """Give the body; the uid and the current version in it are turned into the sandbox's own."""
        text: str | None = self.exchange.get("body")
        if text is None or "wrong-uid" in self.name or "bad-json" in self.name:
            return text
        if self.name == "06-413":
            return text + "a" * 3 * 1024 * 1024
        if "sts-put-stale" in self.name:
            stale = self.world.cluster.stateful_set()
            stale["metadata"]["resourceVersion"] = "201"
            return json.dumps(stale)
        stored = self.world.call("GET", target.split("?", maxsplit=1)[0])
        meta = stored.body.get("metadata", {}) if stored.code == 200 else {}
        if meta.get("uid") and OTHER_UID not in text and "precondition-uid" not in self.name:
            text = UID.sub(meta["uid"], text)
        if self.exchange["code"] < 300:
            text = re.sub(
                r'"resourceVersion": "\d{2,}"', f'"resourceVersion": "{meta.get("resourceVersion")}"', text
            )
        return text

    def ask(self) -> MemoryAnswer:
        """Ask, and wait for the end of the answer."""
        target = self.target()
        answer = self.world.call(self.exchange["method"], target, self.body(target), **self.headers())
        if "lines" in self.exchange:
            self.world.pump(max(t for t, _ in self.exchange["lines"]) + 0.1)
        return answer


class _AdminOnly:
    """Allows the sandbox's own user everything and others nothing."""

    def allows(self, access):
        return access.user == ADMIN


class TranscriptTests(SynchronousTestCase):
    """One test for each group of recorded exchanges, by the number that begins their names."""

    def replay(self, prefix: str) -> None:
        """Replay a group; name every exchange that is answered differently."""
        names = [name for name in EXCHANGES if name.startswith(prefix) and name not in NOT_REPLAYED]
        self.assertGreater(len(names), 0)
        different = {name: found for name in names if (found := self.differences(EXCHANGES[name]))}
        self.assertEqual(list(different), [], json.dumps(different, indent=1))

    def differences(self, exchange: dict[str, Any]) -> list[str]:
        """Say how the sandbox's answer differs from the recorded one."""
        answer = Replay(exchange).ask()
        found = compare(exchange["code"], answer.code, "code")
        for name, value in exchange["answer_headers"].items():
            found += compare(value, answer.headers.get(name), name)
        if "lines" in exchange:
            found += compare(True, answer.ended, "ended")
            recorded = [line for _, line in exchange["lines"] if isinstance(line, dict)]
            return found + compare([shape(line) for line in recorded], [shape(line) for line in answer.lines])
        if isinstance(exchange["answer"], str):
            return found + compare(exchange["answer"].strip(), answer.body.strip())
        return found + compare(shape(exchange["answer"]), shape(answer.body))

    def test_discovery(self):
        """Discovery, health and version have the recorded form."""
        self.replay("00-")

    def test_scale(self):
        """Scale is read and written as recorded."""
        self.replay("01-")

    def test_conflicts(self):
        """Stale versions and wrong uids are refused as recorded."""
        self.replay("02-")

    def test_deletions(self):
        """Deletions are answered as recorded."""
        self.replay("03-")

    def test_lists_and_watches(self):
        """Lists and watches are answered as recorded."""
        self.replay("04-")

    def test_leases(self):
        """Leases are written and refused as recorded."""
        self.replay("05-")

    def test_errors(self):
        """Every recorded error has its code, reason, message and details."""
        self.replay("06-")

    def test_events(self):
        """Events are taken and refused as recorded."""
        self.replay("07-")
