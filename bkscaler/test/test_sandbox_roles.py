"""Users with restricted rights in the sandbox: what their Role covers, and what everybody may."""

from twisted.trial.unittest import SynchronousTestCase

from bkscaler.sandbox.authorization import ADMIN, Access, Roles, rules_of
from bkscaler.test.sandbox_support import World

USER = "system:serviceaccount:builds:scaler"
ROLE = {
    "rules": [
        {
            "apiGroups": ["apps"],
            "resources": ["statefulsets"],
            "resourceNames": ["buildkitd"],
            "verbs": ["list"],
        },
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["*"]},
    ]
}


class RolesTests(SynchronousTestCase):
    """Decisions."""

    def setUp(self):
        self.roles = Roles()
        self.roles.granted[USER] = {"builds": rules_of(ROLE)}

    def may(self, verb, resource, *, group="apps", namespace="builds", **more):
        """Ask for the restricted user."""
        access = Access(user=USER, verb=verb, resource=resource, group=group, namespace=namespace, **more)
        return self.roles.allows(access)

    def test_rules(self):
        """Verb, group, resource with subresource, name and namespace must all be covered."""
        self.assertTrue(self.may("list", "statefulsets", name="buildkitd"))
        self.assertFalse(self.may("list", "statefulsets"))
        self.assertFalse(self.may("list", "statefulsets", name="other"))
        self.assertFalse(self.may("get", "statefulsets", name="buildkitd"))
        self.assertFalse(self.may("list", "statefulsets", name="buildkitd", subresource="scale"))
        self.assertFalse(self.may("list", "statefulsets", name="buildkitd", namespace="default"))
        self.assertTrue(self.may("delete", "pods", group="", name="any"))
        self.assertFalse(self.may("list", "pods", group="apps"))

    def test_others(self):
        """The administrator is not restricted; everybody may ask about themselves."""
        self.assertTrue(self.roles.allows(Access(user=ADMIN, verb="delete", resource="pods")))
        self.assertTrue(self.may("create", "selfsubjectaccessreviews", namespace=""))
        self.assertTrue(self.roles.allows(Access(user=USER, verb="get", path="/version")))
        self.assertFalse(self.roles.allows(Access(user=USER, verb="get", path="/apis")))

    def test_over_http(self):
        """A restricted token gets the recorded 403, its list by name, and its own name."""
        world = World()
        self.addCleanup(world.stop)
        world.cluster.tokens["restricted"] = USER
        world.cluster.root.authorizer = self.roles
        token = {"Authorization": "Bearer restricted"}
        self.assertEqual(world.call("GET", world.sets, **token).code, 403)
        named = world.call("GET", f"{world.sets}?fieldSelector=metadata.name%3Dbuildkitd", **token)
        self.assertEqual((named.code, len(named.body["items"])), (200, 1))
        me = world.call("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", {}, **token)
        self.assertEqual((me.code, me.body["status"]["userInfo"]["username"]), (201, USER))
