"""
What an API server answers: one suite for the sandbox and, unchanged, for a real cluster.

The suite always runs against the sandbox, as a process of its own behind real TLS. To run it against a
real cluster as well, name a kubeconfig in the environment::

    BKSCALER_CONTRACT_KUBECONFIG=~/.kube/config python -m twisted.trial bkscaler.test.test_cluster_contract

The user in it needs all rights on namespaces, StatefulSets with their scale, pods, ConfigMaps, Leases and
Events. The suite makes a namespace of a random name, or of the name in ``BKSCALER_CONTRACT_NAMESPACE`` (for
a stand-in kubelet that looks after one namespace only), works nowhere else, and removes what it has made.
The cluster must run the StatefulSet controller, and something must make the pods Running and Ready and take
about a second to end them. When a test fails on a real cluster, the sandbox is wrong, not the cluster.

Scale, refusals and lists are here; Leases and Events in :mod:`bkscaler.test.cluster_contract_records`;
watches and the life of a set in :mod:`bkscaler.test.cluster_contract_life`.
"""

from __future__ import annotations

import itertools
import random
from typing import TYPE_CHECKING, Any

from twisted.trial.unittest import SynchronousTestCase

from bkscaler.test.cluster_client import JSON, MERGE, Answer, Api, Watch

# The suite is made of mix-ins, so that trial finds its tests only where they have a place to run.
if TYPE_CHECKING:
    Case = SynchronousTestCase
else:
    Case = object


def set_body(name: str, *, replicas: int = 0) -> dict[str, Any]:
    """Make the StatefulSet that the tests create."""
    container = {"name": "main", "image": "registry.k8s.io/pause:3.10", "ports": [{"containerPort": 8273}]}
    template = {
        "metadata": {"labels": {"app": name}},
        "spec": {"terminationGracePeriodSeconds": 5, "containers": [container]},
    }
    spec = {"replicas": replicas, "serviceName": name, "selector": {"matchLabels": {"app": name}}}
    return {"metadata": {"name": name, "labels": {"app": name}}, "spec": {**spec, "template": template}}


class Place:
    """
    A namespace of the suite's own on one cluster; made once, removed by :meth:`remove`.

    :param namespace: its name, which may exist already; ``""`` makes up a new one.
    :ivar api: the client.
    """

    def __init__(self, kubeconfig: str, namespace: str = "") -> None:
        self.api = Api(kubeconfig)
        self._prefix = f"contract{random.SystemRandom().randrange(10**8)}"
        self._numbers = itertools.count(1)
        self.namespace = namespace or f"bkscaler-{self._prefix}"
        self.core = f"/api/v1/namespaces/{self.namespace}"
        self.sets = f"/apis/apps/v1/namespaces/{self.namespace}/statefulsets"
        self.leases = f"/apis/coordination.k8s.io/v1/namespaces/{self.namespace}/leases"
        self.events = f"/apis/events.k8s.io/v1/namespaces/{self.namespace}/events"
        made = self.api.call("POST", "/api/v1/namespaces", {"metadata": {"name": self.namespace}})
        self._made = made.code == 201
        if not self._made and not (namespace and made.code == 409):
            raise RuntimeError(f"cannot make a namespace: {made.body}")

    def name(self, kind: str) -> str:
        """Make up a name that nothing else has."""
        return f"{self._prefix}-{kind}{next(self._numbers)}"

    def remove(self) -> None:
        """Remove the namespace, or what was made in one that was there before; the sets are gone by then."""
        self.api.close()  # idle for long, so that the server may have closed it; the next call connects anew
        if self._made:
            self.api.call("DELETE", f"/api/v1/namespaces/{self.namespace}")
        for path in () if self._made else (self.leases, self.events, f"{self.core}/configmaps"):
            for item in self.api.call("GET", path).body["items"]:
                if item["metadata"]["name"].startswith(self._prefix):
                    self.api.call("DELETE", f"{path}/{item['metadata']['name']}")
        self.api.close()


class ContractCase(Case):
    """What every test of the contract has; to be mixed into a test case that says where."""

    may_be_young = False
    """Whether the cluster may still remember its first version."""

    def place_of_tests(self) -> Place:
        """Give the place that the tests share."""
        raise NotImplementedError

    def setUp(self) -> None:
        self.place = self.place_of_tests()
        self.api = self.place.api

    def a_set(self, *, replicas: int = 0) -> str:
        """Make a StatefulSet of its own for this test; give its name."""
        name = self.place.name("set")
        made = self.api.call("POST", self.place.sets, set_body(name, replicas=replicas))
        self.assertEqual(made.code, 201, made.body)
        self.addCleanup(self.api.call, "DELETE", f"{self.place.sets}/{name}")
        return name

    def scale(self, name: str, replicas: int | None = None, **metadata: Any) -> Answer:
        """Read a set's scale, or merge a number of replicas and metadata into it."""
        path = f"{self.place.sets}/{name}/scale"
        if replicas is None:
            return self.api.call("GET", path)
        body: dict[str, Any] = {"spec": {"replicas": replicas}}
        body.update({"metadata": metadata} if metadata else {})
        return self.api.call("PATCH", path, body, content_type=MERGE)

    def version_of(self, answer: Answer) -> str:
        """Give the resourceVersion in an answer."""
        self.assertLess(answer.code, 300, answer.body)
        return str(answer.body["metadata"]["resourceVersion"])

    def settled(self, name: str) -> Answer:
        """Give a set's scale once the controller has observed the set and leaves it alone."""
        watch = self.watch(self.place.sets, fieldSelector=f"metadata.name={name}")
        while True:
            value = watch.next()["object"]
            if value.get("status", {}).get("observedGeneration") == value["metadata"]["generation"]:
                return self.scale(name)

    def watch(self, path: str, **query: Any) -> Watch:
        """Open a watch that ends with the test."""
        watch = self.api.watch(path, **query)
        self.addCleanup(watch.close)
        self.assertEqual(watch.code, 200)
        return watch

    def assert_refused(self, answer: Answer, code: int, reason: str, words: str) -> None:
        """Check a Status: code, reason, and words that its message contains."""
        self.assertEqual((answer.code, answer.body.get("reason")), (code, reason), answer.body)
        self.assertEqual((answer.body["kind"], answer.body["status"]), ("Status", "Failure"))
        self.assertEqual(answer.body["code"], code)
        self.assertIn(words, answer.body["message"])


class ScaleContract(ContractCase):
    """Reading and writing ``/scale``."""

    def test_zero_is_left_out(self):
        """At zero replicas the scale's spec is empty; above it the number is there."""
        name = self.a_set()
        self.assertEqual(self.scale(name).body["spec"], {})
        self.assertEqual(self.scale(name, 2).body["spec"], {"replicas": 2})
        answer = self.scale(name, 0)
        self.assertEqual((answer.code, answer.body["spec"]), (200, {}))

    def test_selector_is_text(self):
        """The scale's status names the selector as text."""
        name = self.a_set()
        status = self.scale(name).body["status"]
        self.assertEqual((status["replicas"], status["selector"]), (0, f"app={name}"))

    def test_no_change_keeps_the_version(self):
        """A patch that changes nothing leaves the version as it is."""
        name = self.a_set()
        self.settled(name)
        # With the first two patches a real server only notes who manages the number, but that is a change.
        versions = [self.version_of(self.scale(name, 0)) for _ in range(4)]
        self.assertEqual(versions[2], versions[3])

    def test_stale_version(self):
        """A patch with an old version is a conflict, even when it would change nothing."""
        name = self.a_set()
        old = self.version_of(self.settled(name))
        self.api.call(
            "PATCH", f"{self.place.sets}/{name}", {"metadata": {"labels": {"a": "b"}}}, content_type=MERGE
        )
        for replicas in (0, 1):
            answer = self.scale(name, replicas, resourceVersion=old)
            self.assert_refused(answer, 409, "Conflict", "the object has been modified")
        self.assertEqual(answer.body["details"], {"name": name, "group": "apps", "kind": "statefulsets"})

    def test_current_version(self):
        """A patch with the version it was decided on is taken."""
        name = self.a_set()
        version = self.version_of(self.settled(name))
        self.assertEqual(self.scale(name, 0, resourceVersion=version).code, 200)

    def test_empty_versions_are_unconditional(self):
        """The versions "" and "0" stand for any."""
        name = self.a_set()
        self.assertEqual([self.scale(name, 0, resourceVersion=v).code for v in ("", "0")], [200, 200])

    def test_one_of_many_wins(self):
        """Of several patches with the same version the first is taken and the others are conflicts."""
        name = self.a_set()
        version = self.version_of(self.settled(name))
        codes = [self.scale(name, n, resourceVersion=version).code for n in (1, 2, 3)]
        self.assertEqual(codes, [200, 409, 409])

    def test_put(self):
        """A scale can be read, changed and put back; put back a second time it is a conflict."""
        name = self.a_set()
        scale = self.settled(name).body
        scale["spec"]["replicas"] = 1
        path = f"{self.place.sets}/{name}/scale"
        self.assertEqual(self.api.call("PUT", path, scale).body["spec"], {"replicas": 1})
        self.assert_refused(self.api.call("PUT", path, scale), 409, "Conflict", "has been modified")

    def test_negative(self):
        """Fewer than none is invalid."""
        self.assert_refused(
            self.scale(self.a_set(), -1), 422, "Invalid", "must be greater than or equal to 0"
        )

    def test_wrong_type(self):
        """A number of replicas that is text is invalid."""
        path = f"{self.place.sets}/{self.a_set()}/scale"
        answer = self.api.call("PATCH", path, {"spec": {"replicas": "1"}}, content_type=MERGE)
        self.assert_refused(answer, 422, "Invalid", "cannot unmarshal string into Go struct field")

    def test_media_type(self):
        """A patch must say what kind of patch it is."""
        path = f"{self.place.sets}/{self.a_set()}/scale"
        answer = self.api.call("PATCH", path, {"spec": {"replicas": 1}})
        self.assert_refused(answer, 415, "UnsupportedMediaType", "")

    def test_broken_json(self):
        """A body that is no JSON is a bad request."""
        path = f"{self.place.sets}/{self.a_set()}/scale"
        answer = self.api.call("PATCH", path, '{"spec":', content_type=MERGE)
        self.assert_refused(answer, 400, "BadRequest", "unexpected end of JSON input")

    def test_missing(self):
        """The scale of a set that does not exist is not found."""
        self.assert_refused(self.scale("nope"), 404, "NotFound", 'statefulsets.apps "nope" not found')
        self.assert_refused(self.scale("nope", 1), 404, "NotFound", 'statefulsets.apps "nope" not found')

    def test_wrong_uid(self):
        """A patch for a set of another uid is a conflict."""
        answer = self.scale(self.a_set(), 1, uid="11111111-1111-4111-a111-111111111111")
        self.assert_refused(answer, 409, "Conflict", "UID in precondition")

    def test_dry_run(self):
        """A dry run answers as if it had been done, and does nothing."""
        name = self.a_set()
        path = f"{self.place.sets}/{name}/scale"
        body = {"spec": {"replicas": 3}}
        answer = self.api.call("PATCH", path, body, content_type=MERGE, query={"dryRun": "All"})
        self.assertEqual((answer.code, answer.body["spec"]), (200, {"replicas": 3}))
        self.assertEqual(self.scale(name).body["spec"], {})


class RefusalContract(ContractCase):
    """Who is let in, and paths that lead nowhere."""

    def test_bad_token(self):
        """A token that nobody knows is unauthorized."""
        headers = {"Authorization": "Bearer nobody.knows.me"}
        answer = self.api.call("GET", self.place.sets, headers=headers, anonymous=True)
        self.assert_refused(answer, 401, "Unauthorized", "Unauthorized")

    def test_no_credentials(self):
        """Without credentials everything is forbidden, also what does not exist."""
        answer = self.api.call("GET", f"{self.place.sets}/nope", headers={"Accept": JSON}, anonymous=True)
        self.assert_refused(answer, 403, "Forbidden", 'User "system:anonymous" cannot get resource')

    def test_unknown_paths(self):
        """An unknown version or resource of a known group is not found in JSON, any other path in text."""
        for path in ("/apis/apps/v9", "/apis/apps/v9/x", f"{self.place.core}/nopes", "/api/v9"):
            answer = self.api.call("GET", path)
            self.assert_refused(answer, 404, "NotFound", "could not find the requested resource")
        for path in ("/apis/nope.example", "/apis/nope.example/v1/x", "/nope"):
            answer = self.api.call("GET", path)
            self.assertEqual((answer.code, answer.body.strip()), (404, "404 page not found"))

    def test_methods(self):
        """A scale cannot be deleted."""
        answer = self.api.call("DELETE", f"{self.place.sets}/{self.a_set()}/scale")
        self.assert_refused(answer, 405, "MethodNotAllowed", "does not allow this method")

    def test_media_types(self):
        """A client that takes no JSON is told what there is."""
        headers = {**self.api.headers(None), "Accept": "application/xml"}
        answer = self.api.call("GET", self.place.sets, headers=headers)
        self.assert_refused(answer, 406, "NotAcceptable", "application/json")

    def test_access_review(self):
        """A user may ask what it may do."""
        attributes = {"verb": "patch", "group": "apps", "resource": "statefulsets", "subresource": "scale"}
        path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
        attributes["namespace"] = self.place.namespace
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": attributes},
        }
        answer = self.api.call("POST", path, review)
        self.assertEqual((answer.code, answer.body["status"]["allowed"]), (201, True))
        self.assertEqual(answer.body["spec"]["resourceAttributes"], attributes)


class ListContract(ContractCase):
    """Lists, their versions and pages."""

    def setUp(self) -> None:
        super().setUp()
        self.page = self.place.name("page")
        for name in ("a", "b", "c"):
            body = {"metadata": {"name": f"{self.page}-{name}", "labels": {"page": self.page}}}
            self.assertEqual(self.api.call("POST", f"{self.place.core}/configmaps", body).code, 201)

    def names(self, listing: Any) -> list[str]:
        """Give the last letters of the names in a list."""
        return [item["metadata"]["name"].removeprefix(f"{self.page}-") for item in listing["items"]]

    def list(self, **query: Any) -> Answer:
        """List this test's ConfigMaps."""
        query = {"labelSelector": f"page={self.page}", **query}
        return self.api.call("GET", f"{self.place.core}/configmaps", query=query)

    def test_list(self):
        """A list has a version of its own, and items without kind, by name."""
        answer = self.list()
        self.assertEqual(answer.body["kind"], "ConfigMapList")
        self.assertGreater(int(self.version_of(answer)), 0)
        self.assertEqual(self.names(answer.body), ["a", "b", "c"])
        self.assertNotIn("kind", answer.body["items"][0])

    def test_pages(self):
        """A list comes in pages of the asked size, all of one version."""
        first = self.list(limit=2).body
        self.assertEqual(self.names(first), ["a", "b"])
        second = self.list(**{"limit": 2, "continue": first["metadata"]["continue"]}).body
        self.assertEqual(self.names(second), ["c"])
        self.assertNotIn("continue", second["metadata"])
        self.assertEqual(first["metadata"]["resourceVersion"], second["metadata"]["resourceVersion"])

    def test_bad_versions(self):
        """A version that is no number is a bad request."""
        self.assert_refused(self.list(resourceVersion="abc"), 400, "BadRequest", "invalid resource version")

    def test_future_version(self):
        """A list at a version that has not come yet times out, and says when to come again."""
        answer = self.list(resourceVersion="999999999")
        self.assert_refused(answer, 504, "Timeout", "Too large resource version")
        self.assertEqual(answer.headers["Retry-After"], "1")

    def test_field_selector(self):
        """A fieldSelector chooses by name, and refuses fields that cannot be chosen by."""
        path = f"{self.place.core}/configmaps"
        answer = self.api.call("GET", path, query={"fieldSelector": f"metadata.name={self.page}-b"})
        self.assertEqual(self.names(answer.body), ["b"])
        answer = self.api.call("GET", self.place.sets, query={"fieldSelector": "spec.replicas=1"})
        self.assert_refused(answer, 400, "BadRequest", "field selector")
