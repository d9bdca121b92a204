"""The contract's part on Leases and Events; see :mod:`bkscaler.test.cluster_contract`."""

from __future__ import annotations

import json
from typing import Any

from bkscaler.test.cluster_client import MERGE, Answer
from bkscaler.test.cluster_contract import ContractCase


class LeaseContract(ContractCase):
    """Leases, as leader election uses them."""

    TIME = "2026-01-02T03:04:05.678901Z"

    def lease(self, name: str, **spec: Any) -> dict[str, Any]:
        """Make a Lease's body."""
        full = {"holderIdentity": "me", "leaseDurationSeconds": 15, "renewTime": self.TIME, **spec}
        kind = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease"}
        return {**kind, "metadata": {"name": name}, "spec": full}

    def created(self) -> dict[str, Any]:
        """Create a Lease for this test."""
        answer = self.api.call("POST", self.place.leases, self.lease(self.place.name("lease")))
        self.assertEqual(answer.code, 201, answer.body)
        return dict(answer.body)

    def path(self, lease: dict[str, Any]) -> str:
        """Give a Lease's path."""
        return f"{self.place.leases}/{lease['metadata']['name']}"

    def test_create(self):
        """A created Lease comes back with its spec as it was sent; creating it again is refused."""
        lease = self.created()
        self.assertEqual(lease["spec"]["renewTime"], self.TIME)
        answer = self.api.call("POST", self.place.leases, self.lease(lease["metadata"]["name"]))
        self.assert_refused(answer, 409, "AlreadyExists", "already exists")

    def test_missing(self):
        """A Lease that does not exist is not found."""
        answer = self.api.call("GET", f"{self.place.leases}/nope")
        self.assert_refused(answer, 404, "NotFound", 'leases.coordination.k8s.io "nope" not found')

    def test_put(self):
        """A Lease is replaced with its version; with an old version it is a conflict, without one invalid."""
        lease = self.created()
        new = json.loads(json.dumps(lease))
        new["spec"]["holderIdentity"] = "you"
        answer = self.api.call("PUT", self.path(lease), new)
        self.assertEqual((answer.code, answer.body["spec"]["holderIdentity"]), (200, "you"))
        self.assert_refused(self.api.call("PUT", self.path(lease), lease), 409, "Conflict", "modified")
        del new["metadata"]["resourceVersion"]
        answer = self.api.call("PUT", self.path(lease), new)
        self.assert_refused(answer, 422, "Invalid", "metadata.resourceVersion")

    def test_put_creates(self):
        """A Lease that does not exist is created by being put."""
        name = self.place.name("lease")
        answer = self.api.call("PUT", f"{self.place.leases}/{name}", self.lease(name))
        self.assertEqual((answer.code, answer.body["metadata"]["name"]), (201, name))

    def test_stale_patch(self):
        """A patch with an old version is a conflict."""
        lease = self.created()
        path, version = self.path(lease), lease["metadata"]["resourceVersion"]
        body = {"metadata": {"resourceVersion": version}, "spec": {"holderIdentity": "you"}}
        codes = [self.api.call("PATCH", path, body, content_type=MERGE).code for _ in range(2)]
        self.assertEqual(codes, [200, 409])

    def test_times(self):
        """Times have exactly six fractional digits and a zone; other zones are turned into UTC."""
        path = self.path(self.created())
        wrong = ("2026-01-02T03:04:05Z", "2026-01-02T03:04:05.123Z", "2026-01-02T03:04:05.123456789Z")
        for text in (*wrong, "2026-01-02T03:04:05.123456"):
            answer = self.api.call("PATCH", path, {"spec": {"renewTime": text}}, content_type=MERGE)
            self.assert_refused(answer, 422, "Invalid", "parsing time")
        body = {"spec": {"renewTime": "2026-01-02T05:04:05.123456+02:00"}}
        answer = self.api.call("PATCH", path, body, content_type=MERGE)
        self.assertEqual(answer.body["spec"]["renewTime"], "2026-01-02T03:04:05.123456Z")

    def test_duration(self):
        """A Lease must last; a holder may be empty."""
        path = self.path(self.created())
        answer = self.api.call("PATCH", path, {"spec": {"leaseDurationSeconds": 0}}, content_type=MERGE)
        self.assert_refused(answer, 422, "Invalid", "must be greater than 0")
        answer = self.api.call("PATCH", path, {"spec": {"holderIdentity": ""}}, content_type=MERGE)
        self.assertEqual(answer.code, 200)

    def test_delete(self):
        """A Lease can be deleted on condition of its uid, and is gone then."""
        lease = self.created()
        options = {"preconditions": {"uid": "11111111-1111-4111-a111-111111111111"}}
        answer = self.api.call("DELETE", self.path(lease), options)
        self.assert_refused(answer, 409, "Conflict", "UID in the precondition")
        options = {"preconditions": {"uid": lease["metadata"]["uid"]}}
        self.assertEqual(self.api.call("DELETE", self.path(lease), options).body["status"], "Success")
        self.assertEqual(self.api.call("GET", self.path(lease)).code, 404)


class EventContract(ContractCase):
    """Events of ``events.k8s.io/v1``."""

    def event(self, **changes: Any) -> dict[str, Any]:
        """Make an Event's body; None takes a field out."""
        namespace = self.place.namespace
        regarding = {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "x", "namespace": namespace}
        body: dict[str, Any] = {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"generateName": self.place.name("event-"), "namespace": namespace},
            "eventTime": "2026-01-02T03:04:05.678901Z",
            "type": "Normal",
            "reason": "Woken",
            "action": "Wake",
            "reportingController": "bkscaler.example/scaler",
            "reportingInstance": "scaler-1",
            "regarding": regarding,
            "note": "words",
        }
        body.update(changes)
        return {key: value for key, value in body.items() if value is not None}

    def post(self, **changes: Any) -> Answer:
        """Create an Event."""
        return self.api.call("POST", self.place.events, self.event(**changes))

    def test_create(self):
        """A whole Event is taken, and seen in the core form as well."""
        answer = self.post()
        self.assertEqual(answer.code, 201, answer.body)
        name = answer.body["metadata"]["name"]
        self.assertRegex(name, "-event-[0-9]+[a-z0-9]{5}$")
        core = self.api.call("GET", f"{self.place.core}/events/{name}").body
        self.assertEqual((core["message"], core["involvedObject"]["name"]), ("words", "x"))
        self.assertEqual(core["reportingComponent"], "bkscaler.example/scaler")

    def test_required(self):
        """An Event without one of its required fields is invalid."""
        for field in ("eventTime", "reason", "action", "reportingController", "reportingInstance", "type"):
            self.assert_refused(self.post(**{field: None}), 422, "Invalid", field)
        self.assertEqual(self.post(note=None).code, 201)

    def test_lengths(self):
        """Reason and reporting instance have at most 128 characters, the note 1024."""
        self.assert_refused(self.post(reason="R" * 129), 422, "Invalid", "at most 128")
        self.assert_refused(self.post(reportingInstance="i" * 129), 422, "Invalid", "at most 128")
        self.assert_refused(self.post(note="n" * 1025), 422, "Invalid", "at most 1024")
        self.assertEqual(self.post(reason="R" * 128, note="n" * 1024).code, 201)

    def test_time(self):
        """The time of an Event has six fractional digits."""
        answer = self.post(eventTime="2026-01-02T03:04:05Z")
        self.assert_refused(answer, 400, "BadRequest", "parsing time")
