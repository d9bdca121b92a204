"""Tests of selectors, and of reading a request's path."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from bkscaler.sandbox.calls import check_served, read_call
from bkscaler.sandbox.failures import ApiFailure
from bkscaler.sandbox.kinds import PODS, STATEFULSETS
from bkscaler.sandbox.selectors import field_selector, label_selector, selected_name

POD = {"metadata": {"name": "p", "labels": {"a": "1", "b": "x"}}, "status": {"phase": "Running"}}


class SelectorTests(SynchronousTestCase):
    """Labels and fields."""

    def test_labels(self):
        """Label selectors know equality, sets and presence, and all terms must hold."""
        table = {
            "": True,
            "a=1": True,
            "a==1,b=x": True,
            "a=1,b=y": False,
            "a!=1": False,
            "c!=1": True,
            "a in (1, 2)": True,
            "a in (2),b": False,
            "a notin (2,3),b": True,
            "c notin (1)": True,
            "a": True,
            "c": False,
            "!c": True,
            "!a": False,
        }
        self.assertEqual({text: label_selector(text)(POD) for text in table}, table)

    def test_broken_labels(self):
        """A label selector that cannot be read is a bad request."""
        self.assertEqual(self.assertRaises(ApiFailure, label_selector, "a b").code, 400)

    def test_fields(self):
        """Field selectors compare fields, a missing one is empty."""
        table = {
            "": True,
            "metadata.name=p": True,
            "metadata.name!=p": False,
            "status.phase==Running,metadata.name=p": True,
            "spec.nodeName=": True,
            "spec.nodeName!=n": True,
        }
        self.assertEqual({text: field_selector(PODS, text)(POD) for text in table}, table)

    def test_unknown_fields(self):
        """Fields that cannot be selected by, and terms without sense, are bad requests."""
        for kind, text in ((PODS, "spec.x=1"), (STATEFULSETS, "spec.replicas=1"), (PODS, "x")):
            self.assertEqual(self.assertRaises(ApiFailure, field_selector, kind, text).code, 400)

    def test_selected_name(self):
        """The one name that a selector allows is found."""
        texts = ("metadata.name=p", "status.phase=x,metadata.name==p", "metadata.name!=p", "")
        self.assertEqual([selected_name(text) for text in texts], ["p", "p", "", ""])


class CallTests(SynchronousTestCase):
    """Reading requests."""

    def read(self, method, path, **query):
        """Read a request into what is asked, or the code of the refusal."""
        try:
            call = read_call(method, path, query)
            if call is None:
                return None
            check_served(call)
        except ApiFailure as failure:
            return failure.code
        return " ".join(
            filter(None, (call.verb, call.kind.plural, call.namespace, call.name, call.subresource))
        )

    def test_paths(self):
        """A path names a resource, in a namespace or not, an object and a subresource."""
        sets = "/apis/apps/v1/namespaces/n/statefulsets"
        table = {
            ("GET", "/apis/apps/v1/statefulsets"): "list statefulsets",
            ("GET", sets): "list statefulsets n",
            ("POST", sets): "create statefulsets n",
            ("GET", f"{sets}/s"): "get statefulsets n s",
            ("HEAD", f"{sets}/s"): "get statefulsets n s",
            ("PUT", f"{sets}/s/scale"): "update statefulsets n s scale",
            ("PATCH", f"{sets}/s/scale"): "patch statefulsets n s scale",
            ("GET", "/api/v1/namespaces"): "list namespaces",
            ("DELETE", "/api/v1/namespaces/n"): "delete namespaces n",
            ("GET", "/api/v1/namespaces/n/pods/p%2Dq"): "get pods n p-q",
            ("GET", "/apis/apps/v1/watch/namespaces/n/statefulsets"): "watch statefulsets n",
            ("GET", "/apis/apps/v1/watch/namespaces/n/statefulsets/s"): "watch statefulsets n",
        }
        self.assertEqual({asked: self.read(*asked) for asked in table}, table)
        self.assertEqual(self.read("GET", sets, watch="true"), "watch statefulsets n")
        self.assertEqual(self.read("GET", f"{sets}/s", watch="true"), "get statefulsets n s")

    def test_refusals(self):
        """Unknown resources are not found; methods that a resource does not have are not allowed."""
        sets = "/apis/apps/v1/namespaces/n/statefulsets"
        table = {
            ("GET", "/apis/apps/v9/x"): 404,
            ("GET", "/api/v1/namespaces/n/nopes"): 404,
            ("GET", "/api/v1/namespaces/n/nodes"): 404,
            ("GET", f"{sets}/s/status/x"): 404,
            ("GET", f"{sets}/s/nope"): 404,
            ("DELETE", f"{sets}/s/scale"): 405,
            ("POST", f"{sets}/s"): 405,
            ("POST", "/api/v1/namespaces/n/pods"): 405,
            ("POST", "/apis/apps/v1/statefulsets"): 405,
            ("DELETE", sets): 405,
            ("BREW", sets): 405,
        }
        self.assertEqual({asked: self.read(*asked) for asked in table}, table)

    def test_other_paths(self):
        """Discovery, health and version are no calls."""
        for path in (
            "/",
            "/api",
            "/apis",
            "/apis/apps",
            "/apis/apps/v1",
            "/version",
            "/healthz",
            "/openapi/v3",
        ):
            self.assertIsNone(self.read("GET", path), path)

    def test_query(self):
        """Query parameters are read as text, flag and number."""
        call = read_call("GET", "/api/v1/pods", {"a": "x", "b": "true", "c": "7", "dryRun": "All"})
        found = (
            call.text("a"),
            call.text("z"),
            call.flag("b"),
            call.flag("a"),
            call.number("c"),
            call.number("z"),
        )
        self.assertEqual(found, ("x", "", True, False, 7, 0))
        self.assertTrue(call.dry_run)
        self.assertEqual(self.assertRaises(ApiFailure, call.number, "a").code, 400)

    def test_access(self):
        """A list by one name asks for the right to that name."""
        call = read_call(
            "GET", "/apis/apps/v1/namespaces/n/statefulsets", {"fieldSelector": "metadata.name=s"}
        )
        access = call.access("u")
        self.assertEqual(
            (access.verb, access.group, access.resource, access.name), ("list", "apps", "statefulsets", "s")
        )
