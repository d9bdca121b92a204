"""Tests of patches and of the types of single fields."""

from __future__ import annotations

import json

from twisted.trial.unittest import SynchronousTestCase

from bkscaler.sandbox.failures import ApiFailure, Undecodable
from bkscaler.sandbox.fields import decode, int32, micro_time
from bkscaler.sandbox.kinds import LEASES, STATEFULSETS
from bkscaler.sandbox.patches import merge_patch, read_patch

MERGE = "application/merge-patch+json; charset=utf-8"


class PatchTests(SynchronousTestCase):
    """Reading and applying patches."""

    def test_merge(self):
        """A merge patch replaces, adds, and takes out with null; lists are replaced whole."""
        target = {"a": {"b": 1, "c": 2}, "d": [1, 2], "e": 1}
        patch = {"a": {"b": None, "x": {"y": 1, "z": None}}, "d": [3], "e": {"f": 1}}
        expected = {"a": {"c": 2, "x": {"y": 1}}, "d": [3], "e": {"f": 1}}
        self.assertEqual(merge_patch(target, patch), expected)
        self.assertEqual(target, {"a": {"b": 1, "c": 2}, "d": [1, 2], "e": 1})

    def test_media_types(self):
        """Merge, strategic merge and apply are merged; other types are refused."""
        for media_type in (MERGE, "application/strategic-merge-patch+json", "application/apply-patch+yaml"):
            self.assertEqual(read_patch(media_type, b'{"a": 1}')({"b": 2}), {"a": 1, "b": 2})
        for media_type in ("application/json", ""):
            self.assertEqual(self.assertRaises(ApiFailure, read_patch, media_type, b"{}").code, 415)

    def test_json_patch(self):
        """A JSON patch tests, adds, replaces and removes, also inside of lists."""
        operations = [
            {"op": "test", "path": "/a", "value": 1},
            {"op": "replace", "path": "/a", "value": 2},
            {"op": "add", "path": "/l/-", "value": 3},
            {"op": "add", "path": "/l/0", "value": 0},
            {"op": "remove", "path": "/l/1"},
            {"op": "add", "path": "/m~1n~0", "value": "x"},
        ]
        patch = read_patch("application/json-patch+json", json.dumps(operations).encode())
        self.assertEqual(patch({"a": 1, "l": [1, 2]}), {"a": 2, "l": [0, 2, 3], "m/n~": "x"})

    def test_json_patch_that_does_not_fit(self):
        """A JSON patch whose test fails or that leads nowhere is invalid."""
        for operation in (
            {"op": "test", "path": "/a", "value": 2},
            {"op": "remove", "path": "/x/y"},
            {"op": "fly", "path": "/a"},
            {"path": "/a"},
        ):
            patch = read_patch("application/json-patch+json", json.dumps([operation]).encode())
            self.assertEqual(self.assertRaises(ApiFailure, patch, {"a": 1}).code, 422)

    def test_bodies_that_cannot_be_read(self):
        """Broken JSON, another value than an object, and broken YAML are bad requests."""
        for media_type, body in (
            (MERGE, b"{"),
            (MERGE, b"{x}"),
            (MERGE, b"[]"),
            (MERGE, b'"x"'),
            (MERGE, b'"\xff"'),
            ("application/apply-patch+yaml", b"{"),
        ):
            self.assertEqual(self.assertRaises(ApiFailure, read_patch, media_type, body).code, 400)


class FieldTests(SynchronousTestCase):
    """Types and forms of fields."""

    def test_times(self):
        """A time has six digits and a zone, and comes out in UTC."""
        self.assertEqual(micro_time("2026-01-02T03:04:05.000001+01:00"), "2026-01-02T02:04:05.000001Z")
        for text in (
            "",
            "x",
            "2026-01-02T03:04:05Z",
            "2026-01-02T03:04:05.123Z",
            "2026-01-02T03:04:05.123456",
            5,
        ):
            self.assertRaises(Undecodable, micro_time, text)
        self.assertRaises(Undecodable, micro_time, "2026-13-02T03:04:05.123456Z")

    def test_numbers(self):
        """A number is whole and fits 32 bits; none is zero."""
        self.assertEqual([int32(value, "f") for value in (None, 0, -1, 2**31 - 1)], [0, 0, -1, 2**31 - 1])
        words = {2**31: "number", 1.5: "number 1.5", "1": "string", True: "bool", (): "number"}
        for value, word in words.items():
            error = self.assertRaises(Undecodable, int32, value, "f")
            self.assertIn(f"cannot unmarshal {word}", str(error))

    def test_sets(self):
        """What the sandbox reads in a StatefulSet must have the right types."""
        good = {"name": "c", "image": "i"}
        decode(STATEFULSETS, {"spec": {"replicas": 1, "template": {"spec": {"containers": [good]}}}})
        for spec in (
            5,
            {"replicas": "1"},
            {"template": []},
            {"template": {"spec": "x"}},
            {"template": {"spec": {"containers": {}}}},
            {"template": {"spec": {"containers": ["c"]}}},
            {"template": {"spec": {"containers": [{"name": "c", "image": True}]}}},
        ):
            self.assertRaises(Undecodable, decode, STATEFULSETS, {"spec": spec})

    def test_leases(self):
        """The numbers of a Lease must be numbers."""
        self.assertRaises(Undecodable, decode, LEASES, {"spec": {"leaseTransitions": "1"}})
