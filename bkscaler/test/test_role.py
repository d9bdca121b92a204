"""
Everything that talks to the API server, against a sandbox that grants exactly the Role: what is used is what
is granted, no right is missing and none is for nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from treq.testing import RequestTraversalAgent
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from bkscaler.config import read_settings
from bkscaler.doctor import check
from bkscaler.kube.auth import ClusterAccess, StaticToken
from bkscaler.kube.client import ApiClient
from bkscaler.kube.cluster import ClusterView
from bkscaler.kube.events import Events
from bkscaler.kube.permissions import Permissions
from bkscaler.kube.rights import needed_rights
from bkscaler.sandbox.authorization import Access, Roles, Rule, rules_of
from bkscaler.sandbox.cluster import ClusterSettings, clock_now, make_cluster
from bkscaler.scaling.policy import Limits
from bkscaler.scaling.service import Scaler
from bkscaler.test.scaling_support import Client
from bkscaler.test.test_kube_support import Outcome

USER = "system:serviceaccount:buildkitd-scaler-system:buildkitd-autoscaler"
ROLE_FILE = Path(__file__).parents[2] / "deploy" / "kubernetes" / "02-role.yaml"
ROLE: dict[str, Any] = {
    "rules": [
        {
            "apiGroups": ["apps"],
            "resources": ["statefulsets"],
            "resourceNames": ["buildkitd"],
            "verbs": ["get", "list", "watch"],
        },
        {
            "apiGroups": ["apps"],
            "resources": ["statefulsets/scale"],
            "resourceNames": ["buildkitd"],
            "verbs": ["get", "patch"],
        },
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]},
        {"apiGroups": ["events.k8s.io"], "resources": ["events"], "verbs": ["create", "patch"]},
    ]
}
"""What the manifest must grant; the manifest itself is used where it is installed beside the tests."""


def role() -> dict[str, Any]:
    """Give the Role that is shipped, or the one that must be."""
    return yaml.safe_load(ROLE_FILE.read_text()) if ROLE_FILE.exists() else ROLE


def each_right(rules: tuple[Rule, ...]) -> set[tuple[str, str, str, str]]:
    """Take rules apart: verb, group, resource with subresource, name or nothing."""
    return {
        (verb, group, resource, name)
        for rule in rules
        for verb in rule.verbs
        for group in rule.groups
        for resource in rule.resources
        for name in rule.names or ("",)
    }


class Product:
    """Everything of bkscaler that talks to the API server, and a sandbox in which it is a restricted user."""

    def __init__(self, rules: tuple[Rule, ...], **settings: Any) -> None:
        self.clock = Clock()
        self.cluster = make_cluster(
            ClusterSettings(start_delay_s=0.1, stop_delay_s=0.1, **settings), self.clock
        )
        self.cluster.tokens["restricted"] = USER
        self.roles = Roles()
        self.roles.granted[USER] = {"default": rules}
        self.cluster.root.authorizer = self.roles
        self.used: set[Access] = set()
        self.refused: set[Access] = set()
        self.cluster.root.on_access = lambda a, allowed: (self.used if allowed else self.refused).add(a)
        self.agent = RequestTraversalAgent(self.cluster.root)
        self.access = ClusterAccess(
            server="https://sandbox", ca_pem=None, credentials=StaticToken("restricted"), source="a test"
        )
        self.client = ApiClient(access=self.access, agent=self.agent, clock=self.clock)
        self._build()
        self.cluster.start()

    def _build(self) -> None:
        common: Any = {"client": self.client, "clock": self.clock, "namespace": "default"}
        self.view = ClusterView(name="buildkitd", random=lambda: 0.0, **common)
        self.events = Events(
            now=clock_now(self.clock), regarding=lambda: self.view.stateful_set, instance="test", **common
        )
        self.permissions = Permissions(random=lambda: 0.0, rights=needed_rights("buildkitd"), **common)
        self.client.on_forbidden = self.permissions.doubt
        self.scaler = Scaler(
            clock=self.clock,
            cluster=self.view,
            limits=Limits(idle_timeout_s=20.0),
            random=lambda: 0.0,
            report=self.events.happened,
        )
        self.view.on_change = self.scaler.observed

    def start(self) -> None:
        """Begin, and let the first questions be answered."""
        self.view.start()
        self.permissions.start()
        self.scaler.startService()
        self.go_on(0.5)

    def go_on(self, seconds: float) -> None:
        """Let time pass."""
        for _ in range(round(seconds / 0.05)):
            self.clock.advance(0.05)
            self.agent.flush()

    def stop(self) -> None:
        """End everything."""
        for part in (
            self.scaler.stopService(),
            self.view.stop(),
            self.permissions.stop(),
            self.events.stop(),
        ):
            part.addErrback(lambda failure: None)
        self.go_on(0.1)
        self.cluster.stop()

    def written(self) -> list[tuple[str, int]]:
        """List the Events that we have written: reason, and how often it happened."""
        ours = [
            e
            for e in self.cluster.state.objects("events", "default")
            if e.get("reportingComponent") == "bkscaler"
        ]
        return [(e["reason"], (e.get("series") or {}).get("count", 1)) for e in ours]


class RoleTests(SynchronousTestCase):
    """The Role, and what happens without parts of it."""

    def product(self, rules: tuple[Rule, ...] | None = None, **settings: Any) -> Product:
        """Make a product with rights."""
        product = Product(rules_of(role()) if rules is None else rules, **settings)
        self.addCleanup(product.stop)
        return product

    def examine(self, product: Product, **flags: str) -> tuple[bool, str]:
        """Run the check; give its verdict and its table."""
        text: list[str] = []
        settings = read_settings({key.replace("_", "-"): value for key, value in flags.items()}, {})
        work = check(product.client, product.access, settings, text.append)
        outcome = Outcome(Deferred.fromCoroutine(work))
        product.agent.flush()
        product.go_on(0.5)
        if outcome.error:
            raise outcome.error
        return outcome.result, "".join(text)

    def wake(self, product: Product, name: str = "a") -> Client:
        """Let a client come, and the builder wake."""
        client = Client(product.scaler, name)
        product.go_on(2)
        return client

    def test_exactly_what_is_needed(self):
        """A whole life uses every right that the Role grants, and no other."""
        product = self.product()
        product.start()
        self.assertEqual(product.permissions.lines(), [])
        for name in ("a", "b"):
            client = self.wake(product, name)
            self.assertIsNotNone(client.replica)
            client.leave()
            product.go_on(23)
        self.assertEqual(product.cluster.stateful_set()["spec"].get("replicas", 0), 0)
        self.assertTrue(self.examine(product)[0])
        used = {
            (a.verb, a.group, f"{a.resource}/{a.subresource}" if a.subresource else a.resource)
            for a in product.used
            if a.resource and not a.resource.startswith("self")
        }
        self.assertEqual(
            used, {(verb, group, target) for verb, group, target, _ in each_right(rules_of(role()))}
        )
        self.assertEqual(product.refused, set())
        self.assertEqual(
            {access.namespace for access in product.used if access.resource in ("pods", "events")},
            {"default"},
        )

    def test_role_is_the_table(self):
        """The Role and the table of rights in the code are the same."""
        table = {
            (r.verb, r.group, f"{r.resource}/{r.subresource}" if r.subresource else r.resource, r.name)
            for r in needed_rights("buildkitd")
        }
        self.assertEqual(each_right(rules_of(role())), table)

    def test_events(self):
        """What has become of the builder is in Events on the StatefulSet; the same again is counted there."""
        product = self.product()
        product.start()
        for name in ("a", "b"):
            self.wake(product, name).leave()
            product.go_on(23)
        product.go_on(15)
        counts = dict(product.written())
        self.assertEqual((counts["WakingUp"], counts["GoingToSleep"]), (2, 2))
        self.assertIn("Ready", counts)

    def without(self, verb: str, resource: str) -> tuple[Rule, ...]:
        """Give the Role without one right."""
        rules = []
        for rule in rules_of(role()):
            verbs = tuple(v for v in rule.verbs if not (v == verb and resource in rule.resources))
            rules.append(Rule(verbs=verbs, groups=rule.groups, resources=rule.resources, names=rule.names))
        return tuple(rules)

    def test_each_missing_right(self):
        """Each missing right is named, with the line that grants it, in readiness and in the check."""
        for verb, _, resource, _ in sorted(each_right(rules_of(role()))):
            product = self.product(self.without(verb, resource))
            product.start()
            words = f"no right to {verb} {resource.split('/')[0]}"
            essential = resource != "events"
            lines = product.permissions.lines()
            self.assertEqual(len(lines), essential, (verb, resource))
            would_work, table = self.examine(product)
            self.assertEqual(would_work, not essential)
            for text in [*lines, table]:
                self.assertIn(words, " ".join(text.split()))
                self.assertIn(f"--verb={verb} --resource={resource.split('/')[0]}", text)
            product.stop()

    def test_granted_at_last(self):
        """Without any right nothing is ready; when the Role is bound, everything works by itself."""
        product = self.product(())
        product.start()
        self.assertEqual((len(product.permissions.lines()), product.view.observation), (3, None))
        product.roles.granted[USER]["default"] = rules_of(role())
        product.go_on(40)
        self.assertEqual(product.permissions.lines(), [])
        self.assertIsNotNone(self.wake(product).replica)

    def test_events_are_not_needed(self):
        """Without the right to write Events everything else works, and readiness does not wait for it."""
        product = self.product(tuple(rule for rule in rules_of(role()) if "events" not in rule.resources))
        product.start()
        self.assertEqual(product.permissions.lines(), [])
        self.assertIsNotNone(self.wake(product).replica)
        self.assertEqual(product.written(), [])

    def test_at_rest(self):
        """At rest there is not one request but the renewals of two watches."""
        product = self.product()
        product.start()
        requests: list[str] = []
        product.cluster.root.faults = lambda method, uri: requests.append(uri)
        for _ in range(1000):
            product.clock.advance(1)
            product.agent.flush()
        self.assertEqual([uri for uri in requests if "watch=1" not in uri], [])
        self.assertLessEqual(len(requests), 2 * 5)
