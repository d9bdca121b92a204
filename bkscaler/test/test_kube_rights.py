"""Rights: the table, the words for what is missing, and how long they are asked for."""

import json
import re

from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from bkscaler import errors
from bkscaler.kube.permissions import Permissions
from bkscaler.kube.rights import Missing, Right, grouped, missing_rights, needed_rights, who_am_i
from bkscaler.test.test_kube_support import Api, status

ACCOUNT = "system:serviceaccount:tools:bkscaler"
READ_SETS = Right(verb="list", group="apps", resource="statefulsets", name="buildkitd")
SCALE = Right(verb="patch", group="apps", resource="statefulsets", subresource="scale", name="buildkitd")
PODS = Right(verb="watch", resource="pods")
EVENTS = Right(verb="create", group="events.k8s.io", resource="events", essential=False)


class Reviewer:
    """Answers reviews: what is in ``granted`` is allowed."""

    def __init__(self, api, granted=()):
        self.api = api
        self.granted = set(granted)
        self.asked = []
        self.failure = None

    def answer_all(self):
        """Answer everything that is asked now."""
        while self.api.dials:
            connection = self.api.accept()
            _, target, _, body = connection.request()
            if self.failure is not None:
                connection.answer(self.failure, status(self.failure, "X"))
            elif "selfsubjectreviews" in target:
                connection.answer(201, {"status": {"userInfo": {"username": ACCOUNT}}})
            else:
                connection.answer(201, {"status": {"allowed": self.judge(json.loads(body))}})

    def judge(self, review):
        """Say whether what is asked for is granted."""
        attributes = dict(review["spec"]["resourceAttributes"])
        assert attributes.pop("namespace") == "builds"
        right = Right(**attributes, essential=attributes["resource"] != "events")
        self.asked.append(right)
        return right in self.granted


class WordsTests(SynchronousTestCase):
    """How a missing right is told."""

    def test_named(self):
        """Verb, resource, object and namespace are named, with the line that grants it and the manifest's."""
        role = "bkscaler-patch-statefulsets-scale-buildkitd-tools-bkscaler"
        self.assertEqual(
            Missing(rights=(SCALE,), namespace="builds", user=ACCOUNT).words,
            'no right to patch statefulsets.apps/scale "buildkitd" in namespace builds; grant it with: '
            f"kubectl -n builds create role {role} --verb=patch "
            "--resource=statefulsets.apps/scale --resource-name=buildkitd && "
            f"kubectl -n builds create rolebinding {role} --role={role} --serviceaccount=tools:bkscaler "
            "(or in deploy/kubernetes/02-role.yaml the line resourceNames: [buildkitd])",
        )

    def test_users(self):
        """A user who is no ServiceAccount is quoted; one who is not known must be filled in."""
        self.assertIn("--user='a b'", Missing(rights=(PODS,), namespace="n", user="a b").command)
        self.assertIn("--serviceaccount=NAMESPACE:NAME", Missing(rights=(PODS,), namespace="n").command)

    def test_several_builders(self):
        """The lines of two builders in one namespace, and of two accounts, make different Roles."""
        made = [
            re.findall(r"create \S+ (\S+)", group.command)
            for name, user in (("one", ACCOUNT), ("two", ACCOUNT), ("one", f"{ACCOUNT}-two"))
            for group in grouped(needed_rights(name), namespace="n", user=user)
            if group.rights[0].name or name == "one"
        ]
        self.assertEqual(len({role for role, _ in made}), len(made))
        self.assertEqual([role for role, _ in made], [binding for _, binding in made])

    def test_grouped(self):
        """Rights about the same target become one line."""
        groups = grouped(needed_rights("buildkitd"), namespace="n", user="")
        self.assertEqual(
            [(g.essential, g.what) for g in groups],
            [
                (True, 'no right to get,list,watch statefulsets.apps "buildkitd" in namespace n'),
                (True, 'no right to get,patch statefulsets.apps/scale "buildkitd" in namespace n'),
                (True, "no right to get,list,watch pods in namespace n"),
                (False, "no right to create,patch events.events.k8s.io in namespace n"),
            ],
        )


class AskingTests(SynchronousTestCase):
    """What is asked of the server."""

    def test_all_granted(self):
        """Each right is asked for once, and nothing else when all are granted."""
        api = Api()
        reviewer = Reviewer(api, needed_rights("buildkitd"))
        outcome = api.start(missing_rights(api.client, "builds", needed_rights("buildkitd")))
        reviewer.answer_all()
        self.assertEqual((outcome.result, reviewer.asked), ((), list(needed_rights("buildkitd"))))

    def test_who(self):
        """The server says what it calls us, or does not; trouble of another kind is raised."""
        for code, name, error in ((201, ACCOUNT, None), (404, "", None), (401, None, errors.Unauthorized)):
            api = Api()
            outcome = api.start(who_am_i(api.client))
            reviewer = Reviewer(api)
            reviewer.failure = code if code >= 400 else None
            reviewer.answer_all()
            self.assertEqual(outcome.result, name)
            self.assertIsInstance(outcome.error, error or type(None))


class PermissionsTests(SynchronousTestCase):
    """From the start until everything is granted."""

    def setUp(self):
        self.api = Api()
        self.reviewer = Reviewer(self.api, (READ_SETS, SCALE, PODS, EVENTS))
        self.permissions = Permissions(
            client=self.api.client,
            clock=self.api.clock,
            random=lambda: 0.0,
            namespace="builds",
            rights=(READ_SETS, SCALE, PODS, EVENTS),
        )
        self.addCleanup(self.end)

    def end(self):
        """Nothing is left after the stop."""
        self.successResultOf(self.permissions.stop())
        self.assertEqual(self.api.pending_calls(), [])

    def go_on(self, seconds):
        """Let time pass, with a server that answers."""
        for _ in range(seconds):
            self.api.clock.advance(1)
            self.reviewer.answer_all()

    def begin(self):
        """Start, with a server that answers."""
        self.permissions.start()
        self.reviewer.answer_all()

    def test_all_granted(self):
        """With everything granted we are ready after one round of questions, and nothing is asked at rest."""
        self.permissions.start()
        self.assertEqual(len(self.permissions.lines()), 1)
        self.reviewer.answer_all()
        self.assertEqual(self.permissions.lines(), [])
        self.go_on(600)
        self.assertEqual(len(self.reviewer.asked), 4)

    def test_missing_and_granted(self):
        """A missing right keeps us from being ready, by name, until it is granted; both are logged once."""
        self.reviewer.granted.remove(SCALE)
        with capturedLogs() as logged:
            self.begin()
            for _ in range(100):
                (line,) = self.permissions.lines()
                self.go_on(1)
            self.assertIn("no right to patch statefulsets.apps/scale", line)
            self.reviewer.granted.add(SCALE)
            self.go_on(31)
        self.assertEqual(self.permissions.lines(), [])
        told = [formatEvent(e) for e in logged if e.get("log_namespace", "").endswith("Permissions")]
        self.assertEqual(told, [line, "all needed rights are granted"])

    def test_not_essential(self):
        """A right that is only helpful is told in the log, and does not keep us from being ready."""
        self.reviewer.granted.remove(EVENTS)
        self.begin()
        self.assertEqual((self.permissions.lines(), len(self.permissions.missing)), ([], 1))
        self.go_on(600)
        self.assertEqual(len(self.reviewer.asked), 4)

    def test_lost_later(self):
        """A right that is lost after the start is named when a request is refused; we stay ready."""
        self.begin()
        self.reviewer.granted.remove(PODS)
        with capturedLogs() as logged:
            for _ in range(60):
                self.permissions.doubt()
                self.go_on(1)
        self.assertEqual((self.permissions.lines(), len(self.permissions.missing)), ([], 1))
        self.assertEqual(len([e for e in logged if "words" in e]), 1)
        self.reviewer.granted.add(PODS)
        self.go_on(31)
        self.assertEqual(self.permissions.missing, ())

    def test_refused_for_another_reason(self):
        """When nothing is missing, requests that are refused all the same do not make us ask without end."""
        self.begin()
        for _ in range(300):
            self.permissions.doubt()
            self.go_on(1)
        self.assertLessEqual(len(self.reviewer.asked), 4 * 11)

    def test_api_away(self):
        """While the API is away it is asked again; not being able to ask is not taken for a right."""
        self.permissions.start()
        for _ in range(5):
            self.api.refuse()
            self.api.clock.advance(30)
        self.assertEqual(len(self.permissions.lines()), 1)
        self.go_on(30)
        self.assertEqual(self.permissions.lines(), [])

    def test_no_reviews(self):
        """A server that does not answer reviews does not keep us from being ready; one that is busy does."""
        self.reviewer.failure = 429
        self.begin()
        self.assertEqual(len(self.permissions.lines()), 1)
        self.reviewer.failure = 403
        self.go_on(31)
        self.assertEqual(self.permissions.lines(), [])

    def test_stop(self):
        """Stopping closes what is open; doubts come too late then."""
        self.permissions.start()
        self.successResultOf(self.permissions.stop())
        self.permissions.doubt()
        self.assertEqual(self.api.pending_calls(), [])
        unused = Permissions(
            client=self.api.client, clock=Clock(), random=lambda: 0.0, namespace="n", rights=()
        )
        self.successResultOf(unused.stop())
