"""The view of one StatefulSet: two watches, scale requests and refreshes, against a server played by hand."""

import json
from typing import Any
from urllib.parse import parse_qs, urlsplit

from twisted.internet.defer import CancelledError
from twisted.trial.unittest import SynchronousTestCase

from bkscaler import errors
from bkscaler.kube.behind import FOLLOWED_AFTER_S
from bkscaler.kube.cluster import ClusterView
from bkscaler.kube.watch import SHORT_WATCH_S
from bkscaler.test.test_kube_support import Api, listing, pod_object, set_object, status

SETS = "/prefix/apis/apps/v1/namespaces/builds/statefulsets"
PODS = "/prefix/api/v1/namespaces/builds/pods"
SCALE = f"{SETS}/buildkitd/scale"


def scale_object(replicas: int, version: int) -> dict[str, Any]:
    """Make a Scale, which leaves out a zero."""
    spec = {"replicas": replicas} if replicas else {}
    return {"kind": "Scale", "metadata": {"resourceVersion": str(version)}, "spec": spec}


class ViewTestCase(SynchronousTestCase):
    """Builds a view whose server is this test."""

    def setUp(self):
        self.api = Api()
        self.seen = []
        self.view = ClusterView(
            client=self.api.client,
            namespace="builds",
            name="buildkitd",
            clock=self.api.clock,
            random=lambda: 0.0,
            on_change=self.seen.append,
        )
        self.addCleanup(self.end)

    def end(self):
        """Nothing is left after the stop: no delayed call, no watch."""
        stopped = self.view.stop()
        self.api.clock.advance(0)
        self.successResultOf(stopped)
        self.assertEqual(self.api.pending_calls(), [])

    def take(self, path: str, **params: str):
        """Accept a request, which must be for a path and have these parameters; give its connection."""
        connection = self.api.accept()
        verb, target, _, self.body = connection.request()
        self.verb = verb
        parts = urlsplit(target)
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        self.assertEqual(parts.path, path)
        self.assertEqual({key: query.get(key) for key in params}, params)
        return connection

    def start(self, *pods, replicas: int = 1):
        """Start the view, answer its lists, and accept its watches of the set and of the pods."""
        self.view.start()
        self.take(SETS).answer(200, listing(10, set_object(replicas=replicas)))
        pods_list = self.take(PODS, labelSelector="app=buildkitd")
        set_watch = self.take(SETS, watch="1", fieldSelector="metadata.name=buildkitd")
        set_watch.stream()
        pods_list.answer(200, listing(20, *pods))
        pods_watch = self.take(PODS, watch="1", labelSelector="app=buildkitd", resourceVersion="20")
        pods_watch.stream()
        return set_watch, pods_watch


class WatchingTests(ViewTestCase):
    """What is observed, and when."""

    def test_start(self):
        """The set is listed by name, its pods by its selector, and then there is one observation."""
        self.start(pod_object())
        self.assertEqual(len(self.seen), 1)
        self.assertEqual([replica.uid for replica in self.seen[0].ready], ["pod-a"])
        self.assertEqual((self.view.in_touch, self.view.trouble), (True, None))
        self.assertEqual(self.view.observation, self.seen[0])

    def test_at_rest(self):
        """At rest there are two watches and not one request more; what says nothing new is not told."""
        set_watch, pods_watch = self.start(pod_object())
        for minute in range(30):
            self.api.clock.advance(60)
            for watch in (set_watch, pods_watch):
                watch.event("BOOKMARK", {"metadata": {"resourceVersion": str(100 + minute)}})
        self.assertEqual((self.api.dials, len(self.seen)), (0, 1))

    def test_together(self):
        """What comes in one read is acted on as one: a pod that became ready and is going is nobody's."""
        _, pods_watch = self.start(pod_object(ready=False))
        lines = [
            json.dumps({"type": "MODIFIED", "object": each}).encode() + b"\n"
            for each in (pod_object(version=21), pod_object(version=22, terminating=True))
        ]
        pods_watch.chunk(*lines)
        self.assertEqual([each.ready for each in self.seen], [(), ()])
        pods_watch.chunk(lines[0].replace(b"21", b"23").replace(b"pod-a", b"pod-b") + b"nonsense\n")
        self.assertEqual([replica.uid for replica in self.seen[-1].ready], ["pod-b"])

    def test_missing_then_created(self):
        """A set that does not exist is told; when it is made, its pods are watched."""
        self.view.start()
        self.take(SETS).answer(200, listing(10))
        watch = self.take(SETS, watch="1")
        watch.stream()
        self.assertEqual([o.exists for o in self.seen], [False])
        self.assertTrue(self.view.in_touch)
        watch.event("ADDED", set_object(version=11))
        self.take(PODS).answer(200, listing(20, pod_object()))
        self.take(PODS, watch="1").stream()
        self.assertEqual([o.exists for o in self.seen], [False, True])

    def test_wake_on_the_event_itself(self):
        """The event that says Ready is told when the read that brought it is over, without a wait."""
        _, pods_watch = self.start()
        pods_watch.event("ADDED", pod_object(version=21, ready=False))
        pods_watch.event("MODIFIED", pod_object(version=22))
        self.assertEqual([len(o.ready) for o in self.seen], [0, 0, 1])

    def test_selector_changes(self):
        """A set with another selector has its pods watched anew, and the old watch is closed."""
        set_watch, pods_watch = self.start(pod_object())
        set_watch.event("DELETED", set_object(version=30))
        set_watch.event("ADDED", set_object(version=31, uid="set-2", selector="other"))
        self.assertFalse(pods_watch.open)
        self.take(PODS, labelSelector="app=other").answer(
            200, listing(40, pod_object(uid="b", owner="set-2"))
        )
        self.take(PODS, watch="1", labelSelector="app=other").stream()
        self.assertEqual([replica.uid for replica in self.view.observation.ready], ["b"])

    def test_trouble(self):
        """A failed watch is the trouble until it is live again; what was observed stays."""
        set_watch, _ = self.start(pod_object())
        set_watch.cut()
        self.assertFalse(self.view.in_touch)
        self.assertIsInstance(self.view.trouble, errors.ApiUnreachable)
        self.assertEqual(len(self.view.observation.ready), 1)
        self.api.clock.advance(1)
        self.take(SETS).answer(403, status(403, "Forbidden"))
        self.assertIsInstance(self.view.trouble, errors.Forbidden)
        self.api.clock.advance(30)
        self.take(SETS).answer(200, listing(50, set_object()))
        self.take(SETS, watch="1").stream()
        self.assertEqual((self.view.in_touch, self.view.trouble), (True, None))

    def test_listener_fails(self):
        """A listener that raises is logged and told the next change all the same."""
        _, pods_watch = self.start()
        self.view.on_change = lambda now: self.seen.append(now) or 1 / 0
        pods_watch.event("ADDED", pod_object(version=21, ready=False))
        pods_watch.event("MODIFIED", pod_object(version=22))
        self.assertEqual(len(self.seen), 3)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)

    def test_no_listener(self):
        """Without a listener the observation is kept all the same."""
        self.view.on_change = None
        self.start(pod_object())
        self.assertEqual(len(self.view.observation.ready), 1)

    def test_repr(self):
        """The repr names the set."""
        self.assertIn("builds/buildkitd", repr(self.view))


class ScaleTests(ViewTestCase):
    """Scale requests."""

    def test_patch(self):
        """Scaling is a merge patch on /scale with the version decided on; on return it has been observed."""
        self.start(replicas=0)
        outcome = self.api.start(self.view.scale(1, "10"))
        connection = self.take(SCALE)
        self.assertEqual(self.verb, "PATCH")
        self.assertEqual(self.body, '{"metadata": {"resourceVersion": "10"}, "spec": {"replicas": 1}}')
        connection.answer(200, scale_object(1, 21))
        self.assertTrue(outcome.done)
        self.assertEqual((self.seen[-1].replicas, self.seen[-1].resource_version), (1, "21"))

    def test_to_zero(self):
        """An answer that leaves its replicas out means zero, and the pod is offered no longer."""
        self.start(pod_object())
        self.api.start(self.view.scale(0, "10"))
        self.take(SCALE).answer(200, scale_object(0, 21))
        self.assertEqual((self.seen[-1].replicas, self.seen[-1].ready), (0, ()))

    def test_errors(self):
        """Each refusal is raised as what it is, and changes nothing that was observed."""
        self.start(replicas=0)
        for code, kind in [(409, errors.Conflict), (403, errors.Forbidden), (404, errors.NotFound)]:
            outcome = self.api.start(self.view.scale(1, "10"))
            self.take(SCALE).answer(code, status(code, "Because"))
            self.assertIs(type(outcome.error), kind)
        outcome = self.api.start(self.view.scale(1, "10"))
        self.take(SCALE).cut()
        self.assertTrue(outcome.error.sent)
        self.assertEqual(len(self.seen), 1)

    def test_watch_overtakes_the_answer(self):
        """When the watch tells of the change before the answer comes, it is told once."""
        set_watch, _ = self.start(replicas=0)
        self.api.start(self.view.scale(1, "10"))
        connection = self.take(SCALE)
        set_watch.event("MODIFIED", set_object(version=21, generation=2, observed=1))
        told = len(self.seen)
        connection.answer(200, scale_object(1, 21))
        self.assertEqual(len(self.seen), told)


class RefreshTests(ViewTestCase):
    """Reads beside the watches."""

    def test_refresh(self):
        """A refresh reads the set and then its pods, and shows what a dead watch has missed."""
        self.start()
        outcome = self.api.start(self.view.refresh())
        self.take(SETS, fieldSelector="metadata.name=buildkitd").answer(200, listing(30, set_object()))
        self.assertFalse(outcome.done)
        self.take(PODS).answer(200, listing(31, pod_object(version=25)))
        self.assertTrue(outcome.done)
        self.assertEqual(len(self.seen[-1].ready), 1)

    def test_missing_set(self):
        """A refresh of a set that is not there ends after one request."""
        self.start()
        outcome = self.api.start(self.view.refresh())
        self.take(SETS).answer(200, listing(30))
        self.assertEqual((outcome.done, outcome.error, self.seen[-1].exists), (True, None, False))

    def test_failure(self):
        """A refresh that fails raises our error."""
        self.start()
        outcome = self.api.start(self.view.refresh())
        self.api.refuse()
        self.assertIsInstance(outcome.error, errors.ApiUnreachable)

    def test_cancel(self):
        """A refresh can be cancelled, which closes its connection."""
        self.start()
        outcome = self.api.start(self.view.refresh())
        connection = self.take(SETS)
        outcome.cancel()
        self.assertIsInstance(outcome.error, CancelledError)
        self.assertFalse(connection.open)

    def test_patience(self):
        """A refresh on a dead connection soon fails; a server that is slow is given more time each time."""
        self.start()
        waited = []
        for _ in range(4):
            outcome = self.api.start(self.view.refresh())
            self.take(SETS)
            began_s = self.api.clock.seconds()
            while not outcome.done:
                self.api.clock.advance(0.5)
            waited.append(self.api.clock.seconds() - began_s)
        self.assertEqual(waited, [4, 8, 15, 15])
        self.api.start(self.view.refresh())
        self.take(SETS).answer(200, listing(30))
        outcome = self.api.start(self.view.refresh())
        self.take(SETS)
        self.api.clock.advance(4)
        self.assertTrue(outcome.done)

    def gone_back(self, *pods, version=15):
        """Refresh, find the pods as they were, and be told so."""
        outcome = self.api.start(self.view.refresh())
        self.take(SETS).answer(200, listing(10, set_object()))
        self.take(PODS).answer(200, listing(version, *pods))
        self.assertIsInstance(outcome.error, errors.WentBack)

    def test_server_gone_back(self):
        """A refresh that stays older than what is known is followed in the end: the watches begin anew."""
        old_watches = self.start(pod_object(), replicas=1)
        for wait_s in (0, FOLLOWED_AFTER_S - 0.1, 0.1):
            self.assertEqual([watch.open for watch in old_watches], [True, True])
            self.api.clock.advance(wait_s)
            outcome = self.api.start(self.view.refresh())
            self.take(SETS).answer(200, listing(5, set_object(replicas=0, version=4)))
            self.assertIsInstance(outcome.error, errors.WentBack)
            self.assertEqual(self.view.observation.replicas, 1)
        self.assertEqual([watch.open for watch in old_watches], [False, False])
        set_list, pods_list = self.take(SETS), self.take(PODS)
        pods_list.answer(200, listing(5))
        self.take(PODS, watch="1", resourceVersion="5").stream()
        set_list.answer(200, listing(5, set_object(replicas=0, version=4)))
        self.assertEqual(self.view.observation.replicas, 0)
        watch = self.take(SETS, watch="1", resourceVersion="5")
        watch.stream()
        watch.event("MODIFIED", set_object(replicas=1, version=6))
        self.assertEqual(self.view.observation.replicas, 1)

    def test_old_answers_of_one_gone_back(self):
        """Late answers show what was so when they were asked for, and that was not for long."""
        watches = self.start(pod_object(), replicas=1)
        self.gone_back(pod_object())
        self.api.clock.advance(FOLLOWED_AFTER_S - 2)
        outcome = self.api.start(self.view.refresh())
        self.take(SETS).answer(200, listing(10, set_object()))
        pods_list = self.take(PODS)
        self.api.clock.advance(3)
        pods_list.answer(200, listing(15))
        self.assertIsInstance(outcome.error, errors.WentBack)
        outcome = self.api.start(self.view.refresh())
        set_list = self.take(SETS)
        self.api.clock.advance(3)
        set_list.answer(200, listing(5, set_object(replicas=0, version=4)))
        self.assertIsInstance(outcome.error, errors.WentBack)
        self.assertEqual([watch.open for watch in watches], [True, True])
        self.assertEqual(self.view.observation.replicas, 1)

    def test_late_list_of_a_watch(self):
        """The same for the list of a watch."""
        set_watch, _ = self.start(pod_object(), replicas=1)
        set_watch.cut()
        began_s = self.api.clock.seconds()
        while self.api.clock.seconds() < began_s + FOLLOWED_AFTER_S:
            while not self.api.dials:
                self.api.clock.advance(0.5)
            late = self.take(SETS)
            self.api.clock.advance(6)
            late.answer(200, listing(5, set_object(replicas=0, version=4)))
        self.assertEqual(self.view.observation.replicas, 1)

    def test_followed_while_a_watch_waits(self):
        """A watch that waits after failures begins anew at once when the server is followed."""
        set_watch, _ = self.start(pod_object(), replicas=1)
        set_watch.cut()
        for _ in range(5):
            while not self.api.dials:
                next_s = min(call.getTime() for call in self.api.clock.getDelayedCalls())
                self.api.clock.advance(next_s - self.api.clock.seconds())
            self.take(SETS).answer(503, "oh no")
        for wait_s in (0, FOLLOWED_AFTER_S):
            self.assertEqual(self.api.dials, 0)
            self.api.clock.advance(wait_s)
            self.api.start(self.view.refresh())
            self.take(SETS).answer(200, listing(5, set_object(replicas=0, version=4)))
        self.take(SETS).answer(200, listing(5, set_object(replicas=0, version=4)))
        self.assertEqual(self.view.observation.replicas, 0)

    def test_to_and_fro(self):
        """A server that is behind now and then is not followed, and what it says then is not believed."""
        self.start(pod_object())
        for _ in range(5):
            self.gone_back()
            self.assertEqual(len(self.view.observation.ready), 1)
            self.api.clock.advance(FOLLOWED_AFTER_S)
            outcome = self.api.start(self.view.refresh())
            self.take(SETS).answer(200, listing(10, set_object()))
            self.take(PODS).answer(200, listing(20, pod_object()))
            self.assertTrue(outcome.done)
        self.assertEqual(self.api.dials, 0)

    def test_news_in_between(self):
        """A watch that tells news shows that the server is not behind: what is older begins anew then."""
        _, pods_watch = self.start(pod_object())
        for version in range(30, 33):
            self.gone_back()
            self.api.clock.advance(FOLLOWED_AFTER_S)
            pods_watch.event("MODIFIED", pod_object(version=version))
        self.assertEqual(len(self.view.observation.ready), 1)
        self.assertTrue(pods_watch.open)

    def test_old_news_in_between(self):
        """A watch that tells what is older than what is known does not show that the server is not behind."""
        _, pods_watch = self.start(pod_object())
        self.gone_back(version=15)
        self.api.clock.advance(FOLLOWED_AFTER_S)
        pods_watch.event("MODIFIED", pod_object(version=16))
        self.gone_back(version=17)
        self.assertFalse(pods_watch.open)
        self.assertEqual(self.api.dials, 2)

    def test_no_watch_from_before(self):
        """A watch that ends where an answer has told more is not resumed, but begins with a list."""
        set_watch, pods_watch = self.start(pod_object())
        outcome = self.api.start(self.view.refresh())
        self.take(SETS).answer(200, listing(30, set_object()))
        self.take(PODS).answer(200, listing(20, pod_object()))
        self.assertTrue(outcome.done)
        self.api.clock.advance(SHORT_WATCH_S)
        for watch in (set_watch, pods_watch):
            watch.end()
        self.take(SETS, watch=None).answer(200, listing(12, set_object(replicas=0, version=12)))
        self.take(PODS, watch="1", resourceVersion="20").stream()
        self.assertEqual((self.view.observation.replicas, self.view.in_touch), (1, False))

    def test_lost_in_between(self):
        """When a watch is lost, that the server was behind before is another story."""
        set_watch, _ = self.start(pod_object())
        outcome = self.api.start(self.view.refresh())
        self.take(SETS).answer(200, listing(5))
        self.assertIsInstance(outcome.error, errors.WentBack)
        self.api.clock.advance(FOLLOWED_AFTER_S)
        set_watch.cut()
        self.api.clock.advance(1)
        self.take(SETS).answer(200, listing(5))
        self.assertEqual(len(self.view.observation.ready), 1)

    def test_pods_alone(self):
        """Of a server that has gone back a little the set may be as it was; its pods are followed as well."""
        self.start(pod_object())
        self.gone_back()
        self.api.clock.advance(FOLLOWED_AFTER_S)
        self.gone_back()
        self.assertEqual(len(self.view.observation.ready), 1)
        set_list, pods_list = self.take(SETS), self.take(PODS)
        pods_list.answer(200, listing(15))
        self.assertEqual(self.view.observation.ready, ())
        self.take(PODS, watch="1", resourceVersion="15").stream()
        set_list.answer(200, listing(10, set_object()))
        self.take(SETS, watch="1", resourceVersion="10").stream()

    def test_restarted_server(self):
        """A watch that begins anew after a restart does not believe that things are as they were."""
        set_watch, _ = self.start(pod_object(), replicas=1)
        self.api.start(self.view.scale(0, "10"))
        self.take(SCALE).answer(200, scale_object(0, 21))
        self.assertEqual(self.view.observation.replicas, 0)
        set_watch.cut()
        tries = 0
        began_s = self.api.clock.seconds()
        while self.view.observation.replicas == 0:
            while not self.api.dials:
                self.api.clock.advance(0.5)
            self.take(SETS).answer(200, listing(10, set_object(replicas=1, version=10)))
            tries += 1
        self.assertGreaterEqual(self.api.clock.seconds() - began_s, FOLLOWED_AFTER_S)
        self.assertLessEqual(self.api.clock.seconds() - began_s, 3 * FOLLOWED_AFTER_S)
        self.assertGreater(tries, 3)
        self.take(SETS, watch="1", resourceVersion="10").stream()

    def test_before_start(self):
        """A refresh before the start shows everything there is."""
        outcome = self.api.start(self.view.refresh())
        self.take(SETS).answer(200, listing(30, set_object()))
        own, watch = self.api.accept(), self.api.accept()
        for connection in (own, watch):
            connection.request()
            connection.answer(200, listing(31, pod_object()))
        self.take(PODS, watch="1").stream()
        self.assertTrue(outcome.done)
        self.assertEqual(len(self.seen[-1].ready), 1)

    def condemned(self):
        """Go 1 -> 0 -> 1 by our own requests, so that the pod is suspect, and let the controller catch up."""
        set_watch, pods_watch = self.start(pod_object())
        for replicas, version in ((0, 21), (1, 22)):
            self.api.start(self.view.scale(replicas, "10"))
            self.take(SCALE).answer(200, scale_object(replicas, version))
        self.assertEqual(self.seen[-1].ready, ())
        set_watch.event("MODIFIED", set_object(version=23, generation=3))
        self.api.clock.advance(0)
        return set_watch, pods_watch

    def test_suspect_is_asked_about_once(self):
        """When only suspicion stands in the way, one refresh is made by itself, and clears the pod."""
        self.condemned()
        self.take(SETS).answer(200, listing(30, set_object(version=23, generation=3)))
        self.take(PODS).answer(200, listing(31, pod_object()))
        self.assertEqual([replica.uid for replica in self.seen[-1].ready], ["pod-a"])
        self.api.clock.advance(10)
        self.assertEqual(self.api.dials, 0)

    def test_suspect_is_dying(self):
        """When that refresh shows the pod dying, it is never offered."""
        self.condemned()
        self.take(SETS).answer(200, listing(30, set_object(version=23, generation=3)))
        self.take(PODS).answer(200, listing(31, pod_object(version=24, terminating=True)))
        self.assertEqual(self.seen[-1].ready, ())
        self.assertIn("terminating", self.seen[-1].waiting_for)

    def test_asking_fails(self):
        """When that refresh fails, the next change asks again."""
        set_watch, _ = self.condemned()
        self.api.refuse()
        self.assertEqual(self.api.dials, 0)
        set_watch.event("MODIFIED", set_object(version=24, generation=3))
        self.api.clock.advance(0)
        self.assertEqual(self.api.dials, 1)
        self.take(SETS)


class StopTests(ViewTestCase):
    """The end."""

    def test_stop(self):
        """Stopping closes the watches, and nothing is told afterwards; it may be called again."""
        watches = self.start(pod_object())
        self.successResultOf(self.view.stop())
        self.assertEqual([watch.open for watch in watches], [False, False])
        self.successResultOf(self.view.stop())
        outcome = self.api.start(self.view.scale(0, "10"))
        self.take(SCALE).answer(200, scale_object(0, 21))
        self.assertEqual((outcome.done, len(self.seen)), (True, 1))

    def test_stop_before_start(self):
        """Stopping what was not started is done at once."""
        self.successResultOf(self.view.stop())

    def test_stop_while_a_server_goes_back(self):
        """A refresh that goes on after the stop follows no server back: no watch begins."""
        self.start(pod_object())
        for wait_s in (0, FOLLOWED_AFTER_S):
            self.api.clock.advance(wait_s)
            outcome = self.api.start(self.view.refresh())
            if wait_s:
                self.successResultOf(self.view.stop())
            self.take(SETS).answer(200, listing(5))
            self.assertIsInstance(outcome.error, errors.WentBack)
        self.assertEqual(self.api.dials, 0)

    def test_stop_from_the_listener(self):
        """The listener may stop the view, wherever the change comes from."""
        self.view.on_change = lambda _: self.view.stop()
        self.view.start()
        self.take(SETS).answer(200, listing(10))
        self.api.clock.advance(0)
        self.assertEqual((self.api.dials, self.api.pending_calls()), (0, []))

    def test_stop_from_the_listener_of_its_own_refresh(self):
        """The listener may stop the view from the change that the view's own refresh brings."""
        case = RefreshTests("condemned")
        case.setUp()
        case.condemned()
        case.view.on_change = lambda _: case.view.stop()
        case.take(SETS).answer(200, listing(30, set_object(version=23, generation=3, replicas=2)))
        case.api.clock.advance(0)
        case.end()
        self.assertEqual(case.api.dials, 0)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_stop_from_the_listener_during_its_own_refresh(self):
        """The listener may stop the view from an event that comes during that refresh, which then ends."""
        case = RefreshTests("condemned")
        case.setUp()
        set_watch, _ = case.condemned()
        refresh = case.take(SETS)
        case.view.on_change = lambda _: case.view.stop()
        set_watch.event("MODIFIED", set_object(version=24, generation=4, replicas=2))
        case.end()
        self.assertFalse(refresh.open)
