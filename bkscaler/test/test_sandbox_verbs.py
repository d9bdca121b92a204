"""Tests of writing objects: what the contract leaves out."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from bkscaler.test.sandbox_support import World

MERGE = "application/merge-patch+json"


class VerbTests(SynchronousTestCase):
    """Create, replace, patch and delete through the API."""

    def setUp(self):
        self.world = World()
        self.addCleanup(self.world.stop)
        self.maps = f"{self.world.core}/configmaps"

    def set_body(self, name="other", **spec):
        """Make a StatefulSet's body."""
        template = {
            "metadata": {"labels": {"app": name}},
            "spec": {"containers": [{"name": "c", "image": "i"}]},
        }
        full = {"serviceName": name, "selector": {"matchLabels": {"app": name}}, "template": template, **spec}
        return {"metadata": {"name": name}, "spec": full}

    def test_generated_names(self):
        """A name is generated from its beginning; without either the object is invalid."""
        made = self.world.call("POST", self.maps, {"metadata": {"generateName": "x-"}}).body
        self.assertRegex(made["metadata"]["name"], "^x-[a-z0-9]{5}$")
        self.assertEqual(self.world.call("POST", self.maps, {"metadata": {}}).code, 422)

    def test_names_and_namespaces_must_agree(self):
        """An object of another name, namespace or kind than its path says is a bad request."""
        self.world.call("POST", self.maps, {"metadata": {"name": "a"}})
        wrong = [
            ("PUT", f"{self.maps}/a", {"metadata": {"name": "b"}}),
            ("POST", self.maps, {"metadata": {"name": "b", "namespace": "default"}}),
            ("POST", self.maps, {"kind": "Pod", "metadata": {"name": "b"}}),
            ("POST", self.maps, "[]"),
            ("POST", self.maps, '{"metadata": 5}'),
        ]
        self.assertEqual([self.world.call(*request).code for request in wrong], [400] * 5)
        missing = self.world.call("POST", "/api/v1/namespaces/nope/configmaps", {"metadata": {"name": "a"}})
        self.assertEqual((missing.code, missing.body["details"]["kind"]), (404, "namespaces"))

    def test_dry_runs(self):
        """Dry runs are answered and store nothing."""
        before = self.world.cluster.state.version
        self.world.call("POST", f"{self.maps}?dryRun=All", {"metadata": {"name": "a"}})
        self.world.call("DELETE", f"{self.world.sets}/buildkitd?dryRun=All")
        path = f"{self.world.sets}/buildkitd?dryRun=All"
        answer = self.world.call("PATCH", path, {"spec": {"replicas": 4}}, Content_Type=MERGE)
        self.assertEqual((answer.code, answer.body["spec"]["replicas"]), (200, 4))
        self.assertEqual(self.world.cluster.state.version, before)

    def test_generation(self):
        """The generation grows with the spec, and not with the metadata."""
        path = f"{self.world.sets}/buildkitd"
        generations = [
            self.world.call("PATCH", path, body, Content_Type=MERGE).body["metadata"]["generation"]
            for body in (
                {"metadata": {"labels": {"x": "y"}}},
                {"spec": {"replicas": 1}},
                {"spec": {"replicas": 1}},
            )
        ]
        self.assertEqual(generations, [1, 2, 2])

    def test_status_is_not_the_clients(self):
        """A client cannot change a set's status, uid or birth with the set."""
        path = f"{self.world.sets}/buildkitd"
        before = self.world.call("GET", path).body
        body = {"status": {"replicas": 9}, "metadata": {"creationTimestamp": "2000-01-01T00:00:00Z"}}
        after = self.world.call("PATCH", path, body, Content_Type=MERGE).body
        self.assertEqual(after, before)

    def test_a_set_without_replicas(self):
        """A set that names no number of replicas has one."""
        made = self.world.call("POST", self.world.sets, self.set_body()).body
        self.assertEqual((made["spec"]["replicas"], made["status"]["replicas"]), (1, 0))

    def test_sets_that_are_refused(self):
        """A set without containers, names, images or fitting labels is invalid."""
        for spec in (
            {"selector": {"matchLabels": {"app": "x"}}},
            {"template": {"metadata": {"labels": {"app": "other"}}}},
            {"template": {"metadata": {"labels": {"app": "other"}}, "spec": {"containers": [{"name": "c"}]}}},
            {"replicas": -1},
        ):
            self.assertEqual(self.world.call("POST", self.world.sets, self.set_body(**spec)).code, 422)

    def test_namespace(self):
        """A namespace goes with all that is in it."""
        self.world.call("POST", "/api/v1/namespaces", {"metadata": {"name": "tmp"}})
        self.world.call("POST", "/api/v1/namespaces/tmp/configmaps", {"metadata": {"name": "a"}})
        answer = self.world.call("DELETE", "/api/v1/namespaces/tmp")
        self.assertEqual((answer.code, answer.body["status"]), (200, "Success"))
        self.assertEqual(self.world.cluster.state.objects("configmaps", "tmp"), [])

    def test_delete_options(self):
        """Options of a deletion may come in the query; what is missing cannot be deleted."""
        self.world.patch_scale(1)
        self.world.pump(3)
        pod = f"{self.world.core}/pods/buildkitd-0"
        answer = self.world.call("DELETE", f"{pod}?gracePeriodSeconds=3")
        self.assertEqual(answer.body["metadata"]["deletionGracePeriodSeconds"], 3)
        again = self.world.call("DELETE", f"{pod}?gracePeriodSeconds=9")
        self.assertEqual(again.body["metadata"]["deletionGracePeriodSeconds"], 3)
        self.assertEqual(self.world.call("DELETE", f"{self.maps}/nope").code, 404)

    def test_events_in_both_forms(self):
        """An Event written in the core form is read in the newer one with other names."""
        about = {"kind": "Pod", "name": "p", "namespace": "builds"}
        body = {"metadata": {"name": "e"}, "involvedObject": about, "message": "m", "type": "Normal"}
        self.world.call("POST", f"{self.world.core}/events", body)
        event = self.world.call("GET", "/apis/events.k8s.io/v1/namespaces/builds/events/e").body
        self.assertEqual((event["regarding"], event["note"]), (about, "m"))
        self.assertEqual(event["apiVersion"], "events.k8s.io/v1")

    def test_scale_keeps_the_rest(self):
        """Scaling changes nothing of the set but the number."""
        path = f"{self.world.sets}/buildkitd"
        before = self.world.call("GET", path).body["spec"]
        self.world.patch_scale(2)
        self.assertEqual(self.world.call("GET", path).body["spec"], {**before, "replicas": 2})
