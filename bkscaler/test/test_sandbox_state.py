"""Tests of the sandbox's objects in memory and of the small tools for them."""

from __future__ import annotations

from datetime import UTC, datetime
from random import Random

from twisted.trial.unittest import SynchronousTestCase

from bkscaler.sandbox.objects import (
    clone,
    dig,
    letters_of,
    make_suffix,
    make_uid,
    micro_stamp,
    parse_stamp,
    stamp,
)
from bkscaler.sandbox.state import FIRST_VERSION, State, TooOld


def thing(name, **more):
    """Make an object."""
    return {"metadata": {"name": name, "namespace": "n"}, **more}


class StateTests(SynchronousTestCase):
    """Writes, versions, histories and subscribers."""

    def setUp(self):
        self.state = State(history_limit=3)

    def test_versions_count_up(self):
        """Every write, a deletion too, has the next version of one sequence for all tables."""
        first = self.state.put("a", thing("x"))
        second = self.state.put("b", thing("x"))
        gone = self.state.remove("a", "n", "x")
        versions = [int(v["metadata"]["resourceVersion"]) for v in (first, second, gone)]
        self.assertEqual(versions, [FIRST_VERSION + 1, FIRST_VERSION + 2, FIRST_VERSION + 3])

    def test_a_write_without_change_is_none(self):
        """Writing what is there already keeps the version and tells nobody."""
        stored = self.state.put("a", thing("x", data=1))
        told = []
        self.state.subscribe("a", told.append)
        again = self.state.put("a", thing("x", data=1))
        self.assertEqual((again, told), (stored, []))

    def test_copies(self):
        """What is given out can be changed without changing what is stored."""
        self.state.put("a", thing("x", data={"k": [1]}))
        self.state.get("a", "n", "x")["data"]["k"].append(2)
        self.state.objects("a")[0]["data"]["k"].append(3)
        self.assertEqual(self.state.get("a", "n", "x")["data"], {"k": [1]})

    def test_restore(self):
        """From a backup everything is as it was, versions go on from there, and subscribers are told."""
        self.state.put("t", {"metadata": {"name": "stays", "uid": "1"}})
        self.state.put("t", {"metadata": {"name": "changes", "uid": "2"}})
        self.state.put("t", {"metadata": {"name": "goes", "uid": "3"}})
        backup, before = self.state.backup(), self.state.objects("t")
        self.state.put("t", {"metadata": {"name": "changes", "uid": "2"}, "new": True})
        self.state.remove("t", "", "goes")
        self.state.put("t", {"metadata": {"name": "goes", "uid": "4"}})
        self.state.put("other", {"metadata": {"name": "comes", "uid": "5"}})
        told = []
        for table in ("t", "other"):
            self.state.subscribe(table, lambda change: told.append((change.type, self.state.objects("t"))))
        self.state.restore(backup)
        self.assertEqual(self.state.objects("t"), before)
        kinds = ["DELETED", "MODIFIED", "ADDED", "DELETED"]
        self.assertEqual(told, [(kind, before) for kind in kinds])
        with self.assertRaises(TooOld):
            self.state.changes_since("t", backup.version - 1)
        again = self.state.put("t", {"metadata": {"name": "new"}})
        self.assertEqual(again["metadata"]["resourceVersion"], str(backup.version + 1))

    def test_objects_of_a_namespace(self):
        """Objects are given by namespace and name, of one namespace or of all."""
        for namespace, name in (("b", "1"), ("a", "2"), ("a", "1")):
            self.state.put("t", {"metadata": {"name": name, "namespace": namespace}})
        names = [(v["metadata"]["namespace"], v["metadata"]["name"]) for v in self.state.objects("t")]
        self.assertEqual(names, [("a", "1"), ("a", "2"), ("b", "1")])
        self.assertEqual(len(self.state.objects("t", "b")), 1)

    def test_edit(self):
        """An edit writes the changed copy; what is not there is not edited."""
        self.state.put("a", thing("x"))
        self.state.edit("a", "n", "x", lambda value: value.update(data=1))
        self.assertEqual(self.state.get("a", "n", "x")["data"], 1)
        self.assertIsNone(self.state.edit("a", "n", "y", self.fail))
        self.assertIsNone(self.state.remove("a", "n", "y"))

    def test_history(self):
        """Changes since a version are given in order; what has left the history is too old."""
        versions = [int(self.state.put("a", thing(str(n)))["metadata"]["resourceVersion"]) for n in range(5)]
        changes = self.state.changes_since("a", versions[2])
        self.assertEqual([c.object["metadata"]["name"] for c in changes], ["3", "4"])
        self.assertRaises(TooOld, self.state.changes_since, "a", versions[0])

    def test_compaction(self):
        """After a compaction only what comes is known; a table without writes is not affected."""
        version = self.state.version
        self.state.put("a", thing("x"))
        self.state.compact()
        self.assertEqual(self.assertRaises(TooOld, self.state.changes_since, "a", version).floor, version + 1)
        self.assertEqual(self.state.changes_since("a", self.state.version), [])

    def test_subscribers(self):
        """A subscriber hears of each change with what was before, until it unsubscribes."""
        told = []
        stop = self.state.subscribe("a", lambda change: told.append((change.type, change.previous is None)))
        self.state.put("a", thing("x"))
        self.state.put("a", thing("x", data=1))
        self.state.remove("a", "n", "x")
        stop()
        stop()
        self.state.put("a", thing("x"))
        self.assertEqual(told, [("ADDED", True), ("MODIFIED", False), ("DELETED", False)])

    def test_repr(self):
        """A state shows its version and what it holds."""
        self.state.put("pods", thing("x"))
        self.assertEqual(repr(self.state), f"<State at {FIRST_VERSION + 1}: 1 pods>")


class ObjectTests(SynchronousTestCase):
    """Stamps, names and looks inside."""

    def test_stamps(self):
        """Stamps are in UTC, to the second or with six digits, and can be read back."""
        when = datetime(2026, 1, 2, 3, 4, 5, 67, tzinfo=UTC)
        self.assertEqual(
            (stamp(when), micro_stamp(when)), ("2026-01-02T03:04:05Z", "2026-01-02T03:04:05.000067Z")
        )
        self.assertEqual(parse_stamp(micro_stamp(when)), when)

    def test_dig(self):
        """A look inside ends with None where a step is missing."""
        value = {"a": {"b": [1]}}
        found = [dig(value, "a", "b"), dig(value, "a", "c", "d"), dig(value, "a", "b", "c"), dig(None, "a")]
        self.assertEqual(found, [[1], None, None, None])

    def test_clone(self):
        """A clone equals its original and shares nothing that can be changed."""
        value = {"a": [{"b": None}, 1.5, "x", True]}
        copy = clone(value)
        self.assertEqual(copy, value)
        copy["a"][0]["b"] = 1
        self.assertIsNone(value["a"][0]["b"])

    def test_names(self):
        """Uids look like version 4; suffixes and letters use the letters of Kubernetes."""
        random = Random(1).random
        self.assertRegex(
            make_uid(random), r"^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-a[0-9a-f]{3}-[0-9a-f]{12}$"
        )
        self.assertRegex(make_suffix(random), "^[bcdfghjklmnpqrstvwxz2456789]{5}$")
        self.assertEqual(letters_of(12345), letters_of(12345))
        self.assertNotEqual(letters_of(12345), letters_of(12346))
