"""Tests of the API's edges: who is let in, discovery, forms of bodies, and injected trouble."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from bkscaler.sandbox.authorization import ADMIN
from bkscaler.sandbox.discovery import resource_list
from bkscaler.sandbox.faults import Fault, FaultKind
from bkscaler.test.sandbox_support import World

REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
PROTOBUF = "application/vnd.kubernetes.protobuf"


def field(number, payload):
    """Write a length-delimited field of a protobuf message."""
    data = payload.encode() if isinstance(payload, str) else payload
    return bytes([number << 3 | 2, len(data)]) + data


def envelope(raw):
    """Write a message as Kubernetes does."""
    return b"k8s\x00" + field(1, field(1, "v1")) + field(2, raw) + field(3, "") + field(4, "")


class ReadOnly:
    """Lets other users than the administrator read only."""

    def allows(self, access):
        reviews = access.resource == "selfsubjectaccessreviews"
        return reviews or access.user == ADMIN or access.verb in ("get", "list", "watch")


class ApiTests(SynchronousTestCase):
    """Requests through the web resource."""

    def setUp(self):
        self.world = World()
        self.addCleanup(self.world.stop)
        self.root = self.world.cluster.root

    def test_public_paths(self):
        """Without credentials health and version are answered, and nothing else."""
        codes = [
            self.world.call("GET", path, Authorization="").code
            for path in ("/healthz", "/livez/ping", "/readyz?verbose", "/version", "/api", "/openapi/v3")
        ]
        self.assertEqual(codes, [200, 200, 200, 200, 403, 403])

    def test_tokens(self):
        """Another token is another user; a token of another scheme is none."""
        self.world.cluster.tokens["guest"] = "guest"
        self.assertEqual(self.world.call("GET", self.world.sets, Authorization="bearer guest").code, 200)
        self.assertEqual(self.world.call("GET", self.world.sets, Authorization="Basic guest").code, 401)
        self.root.tokens = None
        self.assertEqual(self.world.call("GET", self.world.sets, Authorization="").code, 200)

    def test_another_authorizer(self):
        """Rights can be limited; the refusal names user, verb, resource and namespace."""
        self.root.authorizer = ReadOnly()
        self.world.cluster.tokens["guest"] = "guest"
        answer = self.world.call("DELETE", f"{self.world.sets}/buildkitd", Authorization="Bearer guest")
        self.assertEqual(answer.code, 403)
        words = (
            'User "guest" cannot delete resource "statefulsets" in API group "apps" in the namespace "builds"'
        )
        self.assertIn(words, answer.body["message"])

    def test_reviews(self):
        """An access review asks the authorizer, for resources and for paths."""
        self.root.authorizer = ReadOnly()
        self.world.cluster.tokens["guest"] = "guest"
        answers = []
        for spec in (
            {"resourceAttributes": {"verb": "get", "resource": "pods"}},
            {"resourceAttributes": {"verb": "delete", "resource": "pods"}},
            {"nonResourceAttributes": {"verb": "get", "path": "/healthz"}},
        ):
            answer = self.world.call("POST", REVIEWS, {"spec": spec}, Authorization="Bearer guest")
            answers.append(answer.body["status"]["allowed"])
        self.assertEqual(answers, [True, False, True])
        self.assertEqual(self.world.call("POST", REVIEWS, {"spec": {}}).code, 400)

    def test_review_in_protobuf(self):
        """The review that kubectl sends in protobuf is read."""
        attributes = field(1, "builds") + field(2, "patch") + field(3, "apps") + field(5, "statefulsets")
        body = envelope(field(2, field(1, attributes + field(6, "scale"))))
        answer = self.world.call("POST", REVIEWS, body, Content_Type=PROTOBUF).body
        wanted = {"verb": "patch", "group": "apps", "resource": "statefulsets"}
        wanted.update(namespace="builds", subresource="scale")
        self.assertEqual(answer["spec"]["resourceAttributes"], wanted)
        self.assertTrue(answer["status"]["allowed"])

    def test_objects_in_protobuf(self):
        """A namespace and a ConfigMap are read in protobuf; others are refused, and so are broken bodies."""
        meta = field(1, field(1, "m") + field(11, field(1, "l") + field(2, "v")))
        maps = f"{self.world.core}/configmaps"
        body = envelope(meta + field(2, field(1, "k") + field(2, "")))
        made = self.world.call("POST", maps, body, Content_Type=PROTOBUF)
        self.assertEqual((made.code, made.body["data"]), (201, {"k": ""}))
        self.assertEqual(made.body["metadata"]["labels"], {"l": "v"})
        made = self.world.call("POST", "/api/v1/namespaces", envelope(meta), Content_Type=PROTOBUF)
        self.assertEqual((made.code, made.body["metadata"]["name"]), (201, "m"))
        self.assertEqual(self.world.call("POST", self.world.sets, body, Content_Type=PROTOBUF).code, 415)
        for broken in (b"x", body[:-1], envelope(b"\xff"), b"k8s\x00"):
            self.assertEqual(self.world.call("POST", maps, broken, Content_Type=PROTOBUF).code, 400)

    def test_discovery(self):
        """Groups, versions and resources can be found; what is not there is not found."""
        groups = self.world.call("GET", "/apis").body["groups"]
        names = [group["name"] for group in groups]
        own = ["authentication.k8s.io", "authorization.k8s.io"]
        self.assertEqual(names, ["apps", *own, "coordination.k8s.io", "events.k8s.io"])
        self.assertEqual(self.world.call("GET", "/apis/apps").body["preferredVersion"]["version"], "v1")
        core = self.world.call("GET", "/api/v1").body["resources"]
        self.assertLess({"pods", "events", "namespaces", "configmaps"}, {entry["name"] for entry in core})
        codes = [self.world.call("GET", path).code for path in ("/", "/apis/nope", "/apis/apps/v9", "/nope")]
        self.assertEqual(codes, [404] * 4)

    def test_scale_is_discovered(self):
        """The scale is listed as the HPA and kubectl look for it."""
        entry = next(r for r in resource_list("apps", "v1")["resources"] if r["name"] == "statefulsets/scale")
        self.assertEqual((entry["group"], entry["version"], entry["kind"]), ("autoscaling", "v1", "Scale"))

    def test_newer_discovery(self):
        """A client that would like aggregated discovery or schemas in protobuf gets plain JSON."""
        wish = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
        aggregated = f"{wish},application/json"
        answer = self.world.call("GET", "/apis", Accept=aggregated)
        self.assertEqual((answer.code, answer.body["kind"]), (200, "APIGroupList"))
        schema = "application/com.github.proto-openapi.spec.v3.v1.0+protobuf"
        answer = self.world.call("GET", "/openapi/v3/apis/apps/v1", Accept=schema)
        self.assertEqual((answer.code, answer.headers["Content-Type"]), (200, "application/json"))

    def test_schema(self):
        """The schema says that every resource checks its fields, which kubectl looks for."""
        index = self.world.call("GET", "/openapi/v3").body["paths"]
        for entry in index.values():
            document = self.world.call("GET", entry["serverRelativeURL"]).body
            for path in document["paths"].values():
                self.assertEqual(path["patch"]["parameters"][0]["name"], "fieldValidation")
        self.assertEqual(self.world.call("GET", "/openapi/v3/apis/nope/v1").code, 404)

    def test_pretty(self):
        """A person with curl, or who asks for it, gets indented JSON."""
        for target, agent in (("/version", "curl/8"), ("/version?pretty=true", "x"), ("/version", "x")):
            answer = self.world.call("GET", target, User_Agent=agent)
            self.assertEqual(answer.data.startswith(b"{\n  "), agent == "curl/8" or "pretty" in target)

    def test_head(self):
        """HEAD answers without a body."""
        answer = self.world.call("HEAD", f"{self.world.sets}/buildkitd")
        self.assertEqual((answer.code, answer.data), (200, b""))

    def test_warnings(self):
        """An unknown field in a scale is warned of, unless it is to be ignored."""
        path = f"{self.world.sets}/buildkitd/scale"
        body = {"spec": {"replicas": 0, "nope": 1}}
        media_type = "application/merge-patch+json"
        answer = self.world.call("PATCH", path, body, Content_Type=media_type)
        self.assertIn("unknown field", answer.headers["Warning"])
        answer = self.world.call("PATCH", f"{path}?fieldValidation=Ignore", body, Content_Type=media_type)
        self.assertNotIn("Warning", answer.headers)

    def test_faults(self):
        """Injected trouble answers, hangs or cuts a request, and is asked for each request."""
        seen = []
        troubles = [Fault(), Fault(code=503, text="x", retry_after_s=None), Fault(kind=FaultKind.HANG), None]

        def hook(method, uri):
            seen.append((method, uri))
            return troubles[len(seen) - 1]

        self.root.faults = hook
        first, second = (self.world.call("GET", "/version") for _ in range(2))
        self.assertEqual((first.code, first.headers["Retry-After"]), (429, "1"))
        self.assertEqual((second.code, "Retry-After" in second.headers), (503, False))
        self.assertIsNone(self.world.begin("GET", "/version?hang=1"))
        self.assertEqual(self.world.call("GET", "/version").code, 200)
        self.assertEqual(seen[2], ("GET", "/version?hang=1"))

    def test_a_bug_is_an_internal_error(self):
        """What goes wrong inside is logged and answered with 500."""
        self.root.authorizer = None
        self.assertEqual(self.world.call("GET", "/version").code, 500)
        self.assertEqual(len(self.flushLoggedErrors(AttributeError)), 1)

    def test_late_list(self):
        """A client that waits for a future version and leaves is forgotten."""
        self.assertIsNone(self.world.begin("GET", f"{self.world.sets}?resourceVersion=99999"))
        self.world.pump(3.1)
        self.assertEqual(self.world._pending[1][0].code, 504)

    def test_repr(self):
        """A cluster shows its set and its state in one line."""
        self.assertIn("<Cluster builds/buildkitd <State at ", repr(self.world.cluster))
