"""Tests of what ``kubectl get`` prints."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from bkscaler.sandbox.tables import age_text, pod_status_text
from bkscaler.test.sandbox_support import World

TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"


class TableTests(SynchronousTestCase):
    """Tables of the resources."""

    def setUp(self):
        self.world = World(replicas=1, start_delay_s=0.1)
        self.addCleanup(self.world.stop)
        self.world.pump(1)

    def table(self, path, **headers):
        """Ask for a Table; give its columns, those of ``-o wide`` in brackets, and its rows."""
        answer = self.world.call("GET", path, Accept=TABLE, **headers).body
        self.assertEqual(answer["kind"], "Table")
        columns = [f"[{c['name']}]" if c["priority"] else c["name"] for c in answer["columnDefinitions"]]
        return columns, [row["cells"] for row in answer["rows"]]

    def test_sets(self):
        """A set shows how many of its pods are ready."""
        columns, rows = self.table(self.world.sets)
        self.assertEqual(columns, ["Name", "Ready", "Age", "[Containers]", "[Images]"])
        self.assertEqual(rows, [["buildkitd", "1/1", "1s", "buildkitd", "moby/buildkit:v0.13.0"]])

    def test_pods(self):
        """A pod shows its readiness, status, restarts, address and node."""
        columns, (row,) = self.table(f"{self.world.core}/pods")
        expected = ["Name", "Ready", "Status", "Restarts", "Age", "[IP]", "[Node]"]
        self.assertEqual(columns, [*expected, "[Nominated Node]", "[Readiness Gates]"])
        self.assertEqual((row[:5], row[6]), (["buildkitd-0", "1/1", "Running", "0", "1s"], "sandbox-node"))
        self.world.cluster.runner.containers["buildkitd-0"].exit(1)
        self.world.pump(5)
        _, (row,) = self.table(f"{self.world.core}/pods")
        self.assertEqual((row[2], row[3]), ("Running", "1 (5s ago)"))

    def test_one_object(self):
        """One object by its name is a Table of one row; the row's object is its metadata, itself or none."""
        path = f"{self.world.sets}/buildkitd"
        _, rows = self.table(path)
        self.assertEqual(len(rows), 1)
        kinds = {}
        for include in ("Metadata", "Object", "None"):
            answer = self.world.call("GET", f"{path}?includeObject={include}", Accept=TABLE).body
            kinds[include] = (answer["rows"][0]["object"] or {}).get("kind")
        self.assertEqual(kinds, {"Metadata": "PartialObjectMetadata", "Object": "StatefulSet", "None": None})

    def test_other_kinds(self):
        """Every other resource that can be listed has its usual columns."""
        lease = {"metadata": {"name": "l"}, "spec": {"holderIdentity": "me"}}
        self.world.call("POST", "/apis/coordination.k8s.io/v1/namespaces/builds/leases", lease)
        self.world.call(
            "POST", f"{self.world.core}/configmaps", {"metadata": {"name": "m"}, "data": {"a": "b"}}
        )
        first = {
            "/apis/coordination.k8s.io/v1/leases": ["l", "me"],
            f"{self.world.core}/configmaps": ["m", 1],
            "/api/v1/namespaces": ["builds", "Active"],
            "/api/v1/nodes": ["sandbox-node", "Ready"],
            f"{self.world.core}/services": ["buildkitd-headless", "ClusterIP"],
        }
        for path, cells in first.items():
            _, rows = self.table(path)
            self.assertEqual(rows[0][:2], cells, path)

    def test_events(self):
        """Events show the same in both groups."""
        rows = {}
        for path in (f"{self.world.core}/events", "/apis/events.k8s.io/v1/namespaces/builds/events"):
            columns, rows[path] = self.table(path)
            self.assertEqual(columns[:4], ["Last Seen", "Type", "Reason", "Object"])
        core, new = rows.values()
        self.assertEqual(core, new)
        created = [row for row in core if row[2] == "SuccessfulCreate"]
        self.assertEqual(created[0][3], "statefulset/buildkitd")
        self.assertEqual(created[0][6], "Create Pod buildkitd-0 in StatefulSet buildkitd successful")

    def test_foreign_events(self):
        """An Event of another program shows its note and its reporter."""
        body = {
            "metadata": {"name": "e", "namespace": "builds"},
            "eventTime": "2026-01-01T00:00:00.000000Z",
            "type": "Normal",
            "reason": "Woken",
            "action": "Wake",
            "reportingController": "scaler",
            "reportingInstance": "one",
            "regarding": {"kind": "StatefulSet", "name": "s", "namespace": "builds"},
            "note": "words\n",
        }
        path = "/apis/events.k8s.io/v1/namespaces/builds/events"
        self.assertEqual(self.world.call("POST", path, body).code, 201)
        _, rows = self.table(f"{path}?fieldSelector=metadata.name=e")
        self.assertEqual(rows[0][1:7], ["Normal", "Woken", "statefulset/s", "", "scaler, one", "words"])


class TextTests(SynchronousTestCase):
    """Single cells."""

    def test_ages(self):
        """Ages are written as kubectl writes them."""
        hour, day = 3600, 86400
        table = {
            -1: "0s",
            119: "119s",
            120: "2m",
            150: "2m30s",
            700: "11m",
            3 * hour: "3h",
            3 * hour + 300: "3h5m",
            9 * hour + 300: "9h",
            3 * day: "3d",
        }
        self.assertEqual({seconds: age_text(seconds) for seconds in table}, table)

    def test_pod_status(self):
        """A pod's status is the reason that says most."""

        def pod(phase, *states, dying=False):
            meta = {"deletionTimestamp": "x"} if dying else {}
            return {
                "metadata": meta,
                "status": {"phase": phase, "containerStatuses": [{"state": s} for s in states]},
            }

        waiting = {"waiting": {"reason": "ImagePullBackOff"}}
        done = {"terminated": {"reason": "Completed"}}
        texts = [
            pod_status_text(pod("Pending")),
            pod_status_text(pod("Pending", waiting)),
            pod_status_text(pod("Running", {"running": {}})),
            pod_status_text(pod("Running", {"running": {}}, dying=True)),
            pod_status_text(pod("Succeeded", done, dying=True)),
        ]
        self.assertEqual(texts, ["Pending", "ImagePullBackOff", "Running", "Terminating", "Completed"])
