"""List and watch against a server played by hand: every way in which a watch can end, and how it goes on."""

from itertools import pairwise

from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from bkscaler import errors
from bkscaler.kube.client import REQUEST_TIMEOUT_S
from bkscaler.kube.watch import SILENCE_S, SILENT_WATCHES, Reflector
from bkscaler.test.test_kube_support import Api, listing, pod_object, status

GONE_LINE = (
    b'{"type":"ERROR","object":{"kind":"Status","message":"too old resource version: 1 (614)",'
    b'"reason":"Expired","code":410}}\n'
)
BOOKMARK = b'{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"77"}}}\n'


class Heard:
    """A listener that remembers, and does what the test wants."""

    def __init__(self):
        self.lists, self.events, self.states = [], [], []
        self.then = lambda what: None

    def on_listing(self):
        self.then("listing")

    def on_list(self, items, resource_version):
        self.lists.append((len(items), resource_version))
        self.then("list")

    def on_event(self, kind, content):
        self.events.append((kind, content["metadata"]["resourceVersion"]))
        self.then("event")

    def on_settled(self):
        self.then("settled")

    def on_state(self, ok, error):
        self.states.append((ok, type(error).__name__ if error else ""))
        self.then("state")


class ReflectorTests(SynchronousTestCase):
    """One reflector, its server, its listener."""

    def setUp(self):
        self.api = Api()
        self.heard = Heard()
        self.restarts = []
        self.reflector = Reflector(
            client=self.api.client,
            clock=self.api.clock,
            random=lambda: 0.0,
            path="/api/v1/namespaces/n/pods",
            selector={"labelSelector": "app=buildkitd"},
            what="pods",
            listener=self.heard,
            on_restart=self.restarts.append,
        )
        self.addCleanup(self.end)

    def end(self):
        """Nothing is left after the stop: no connection, no delayed call, no attempt."""
        stopped = self.reflector.stop()
        self.api.clock.advance(0)
        self.successResultOf(stopped)
        self.assertEqual(self.api.pending_calls(), [])

    def listed(self, version: int = 5):
        """Start, answer the list, and give the connection of the watch."""
        self.reflector.start()
        self.relist(version)
        return self.watched()

    def relist(self, version: int = 5):
        """Answer the list that is asked for now."""
        connection = self.api.accept()
        verb, target, _, _ = connection.request()
        self.assertEqual(
            (verb, target), ("GET", "/prefix/api/v1/namespaces/n/pods?labelSelector=app%3Dbuildkitd")
        )
        connection.answer(200, listing(version, pod_object()))

    def watched(self):
        """Accept the watch."""
        connection = self.api.accept()
        self.target = connection.request()[1]
        connection.stream()
        return connection

    def test_list_then_watch(self):
        """A list is followed by a watch from its version, with bookmarks and a time limit of minutes."""
        watch = self.listed()
        self.assertEqual((self.heard.lists, self.heard.states), ([(1, "5")], [(True, "")]))
        for part in ("watch=1", "resourceVersion=5", "allowWatchBookmarks=true", "timeoutSeconds=240"):
            self.assertIn(part, self.target)
        self.assertIn("labelSelector=app%3Dbuildkitd", self.target)
        watch.event("ADDED", pod_object(version=6))
        watch.event("DELETED", pod_object(version=7))
        self.assertEqual(self.heard.events, [("ADDED", "6"), ("DELETED", "7")])
        self.assertTrue(self.reflector.in_touch)

    def test_at_rest(self):
        """At rest there is the watch, and nothing else."""
        watch = self.listed()
        for _ in range(20):
            self.api.clock.advance(60)
            watch.chunk(BOOKMARK)
        self.assertEqual((self.api.dials, watch.open), (0, True))
        self.assertEqual(self.heard.states, [(True, "")])

    def test_clean_end(self):
        """A watch that ends in the orderly way is taken up from the last version, bookmarks included."""
        watch = self.listed()
        watch.event("ADDED", pod_object(version=6))
        watch.chunk(BOOKMARK)
        self.api.clock.advance(60)
        watch.end()
        self.watched()
        self.assertIn("resourceVersion=77", self.target)
        self.assertEqual((self.heard.states, len(self.heard.lists)), ([(True, "")], 1))

    def test_gone_in_the_stream(self):
        """An ERROR line with code 410 leads to a list at once, without losing touch."""
        watch = self.listed()
        watch.chunk(GONE_LINE)
        self.relist(600)
        self.watched()
        self.assertIn("resourceVersion=600", self.target)
        self.assertEqual(self.heard.states, [(True, "")])

    def test_gone_as_status(self):
        """HTTP 410 for a watch leads to a list at once."""
        self.reflector.start()
        self.relist()
        self.api.accept().answer(410, status(410, "Expired"))
        self.relist(600)
        self.watched()
        self.assertEqual(self.heard.states, [(True, "")])

    def test_gone_again_and_again(self):
        """A second 410 in a row is a failure, and waits."""
        self.reflector.start()
        self.relist()
        self.api.accept().answer(410, status(410, "Expired"))
        self.relist()
        self.api.accept().answer(410, status(410, "Expired"))
        self.assertEqual((self.api.dials, self.heard.states), (0, [(False, "Gone")]))
        self.api.clock.advance(1)
        self.assertEqual(self.api.dials, 1)
        self.relist()
        self.watched()

    def test_errors_of_the_list(self):
        """Whatever the list fails with is reported, and the list is asked for again after a while."""
        cases = [
            (429, "Too many requests, please try again later.\n", {"Retry-After": "3"}, "Throttled"),
            (500, status(500, "InternalError"), {}, "ApiStatus"),
            (503, "", {"Retry-After": "7"}, "ApiStatus"),
            (504, status(504, "Timeout"), {}, "ApiStatus"),
            (403, status(403, "Forbidden"), {}, "Forbidden"),
        ]
        self.reflector.start()
        for code, body, headers, name in cases:
            self.api.accept().answer(code, body, headers)
            self.assertEqual(self.heard.states[-1], (False, name))
            self.assertEqual(self.api.dials, 0)
            self.api.clock.advance(30)
            self.assertEqual(self.api.dials, 1)
        self.relist()
        self.watched()
        self.assertEqual(self.heard.states[-1], (True, ""))

    def test_retry_after(self):
        """The time the server asks for is waited."""
        self.reflector.start()
        self.api.accept().answer(429, "slow down", {"Retry-After": "20"})
        self.api.clock.advance(19.9)
        self.assertEqual(self.api.dials, 0)
        self.api.clock.advance(0.1)
        self.assertEqual(self.api.dials, 1)
        self.relist()
        self.watched()

    def test_refused(self):
        """With the server away the tries become rare, at most half a minute apart, and then it goes on."""
        self.reflector.start()
        times = []
        for _ in range(3000):
            if self.api.dials:
                times.append(self.api.clock.seconds())
                self.api.refuse()
            self.api.clock.advance(0.1)
        gaps = [b - a for a, b in pairwise(times)]
        self.assertLess(gaps[0], 0.7)
        self.assertTrue(29 < max(gaps) < 30.5, gaps)
        self.assertEqual(set(self.heard.states), {(False, "ApiUnreachable")})
        self.api.clock.advance(30)
        self.relist()
        self.watched()
        self.assertTrue(self.reflector.in_touch)

    def test_mentioned_once(self):
        """The log tells of each change: lost, out of reach for another reason, in touch again."""
        with capturedLogs() as logged:
            self.reflector.start()
            for answer in ("refuse", "refuse", 403, 403, 503, "refuse", "refuse"):
                if answer == "refuse":
                    self.api.refuse()
                else:
                    self.api.accept().answer(answer, status(answer, "X"))
                self.api.clock.advance(30)
            self.relist()
            self.watched()
        told = [
            formatEvent(event) for event in logged if event.get("log_namespace", "").endswith("Reflector")
        ]
        self.assertEqual(
            told,
            [
                "lost touch with pods: connection refused",
                "still not in touch with pods: 403 X: words",
                "still not in touch with pods: 503 X: words",
                "still not in touch with pods: connection refused",
                "in touch with pods again after 3m30s",
            ],
        )

    def test_rights_taken_away_and_given_back(self):
        """A right that is lost is noticed when the watch is renewed; when it is back the watch goes on."""
        watch = self.listed()
        self.api.clock.advance(60)
        watch.end()
        self.api.accept().answer(403, status(403, "Forbidden"))
        self.assertEqual(self.heard.states[-1], (False, "Forbidden"))
        for _ in range(3):
            self.api.clock.advance(30)
            self.api.accept().answer(403, status(403, "Forbidden"))
        self.api.clock.advance(30)
        self.relist()
        self.watched()
        self.assertEqual(self.heard.states[-1], (True, ""))

    def test_future_version(self):
        """A server that has gone back in time is silent for ever; in the end its list is believed."""
        self.listed(version=5000)
        for _ in range(SILENT_WATCHES - 1):
            self.api.clock.advance(SILENCE_S)
            self.watched()
            self.assertIn("resourceVersion=5000&", self.target)
        self.api.clock.advance(SILENCE_S)
        self.relist(version=7)
        self.watched()
        self.assertIn("resourceVersion=7&", self.target)
        self.assertEqual(self.heard.states, [(True, "")])

    def test_half_a_line(self):
        """A stream that ends, or is cut, inside a line is listed again."""
        for cut in (True, False):
            watch = self.listed() if cut else self.watched()
            watch.chunk(b'{"type":"ADDED","object":{"meta')
            watch.cut() if cut else watch.end()
            self.assertFalse(self.reflector.in_touch)
            self.api.clock.advance(1)
            self.relist()
        self.watched()
        self.assertEqual(self.heard.events, [])
        self.assertIn((False, "WatchProtocolError"), self.heard.states)

    def test_silence(self):
        """A watch that is silent for too long is closed and begun anew; when that fails, touch is lost."""
        watch = self.listed()
        self.api.clock.advance(SILENCE_S - 1)
        watch.chunk(BOOKMARK)
        self.api.clock.advance(SILENCE_S - 1)
        self.assertTrue(watch.open)
        self.api.clock.advance(1)
        self.assertFalse(watch.open)
        self.api.refuse()
        self.assertEqual(self.heard.states[-1], (False, "ApiUnreachable"))
        self.api.clock.advance(1)
        self.relist()
        self.watched()

    def test_silence_of_a_dead_server(self):
        """A server that does not even answer the new watch is out of touch within its time limit."""
        self.listed()
        self.api.clock.advance(SILENCE_S)
        self.api.accept().request()
        self.api.clock.advance(REQUEST_TIMEOUT_S)
        self.assertEqual(self.heard.states[-1], (False, "ApiUnreachable"))
        self.api.clock.advance(1)
        self.relist()
        self.watched()

    def test_nothing_to_say(self):
        """A server that is silent because nothing changes is in touch all the time: no list, no line."""
        with capturedLogs() as logged:
            self.listed()
            for _ in range(SILENT_WATCHES - 1):
                self.api.clock.advance(SILENCE_S)
                watch = self.watched()
            watch.chunk(BOOKMARK)
            for _ in range(SILENT_WATCHES - 1):
                self.api.clock.advance(SILENCE_S)
                self.watched()
            self.assertIn("resourceVersion=77&", self.target)
        self.assertEqual((len(self.heard.lists), self.heard.states), (1, [(True, "")]))
        self.assertEqual([e for e in logged if e.get("log_namespace", "").endswith("Reflector")], [])
        self.assertEqual(set(self.restarts), {"silent"})

    def test_ends_at_once(self):
        """A server that ends every watch at once is not asked without pause."""
        self.reflector.start()
        requests = 0
        for _ in range(600):
            while self.api.dials:
                requests += 1
                connection = self.api.accept()
                if "watch=1" in connection.request()[1]:
                    connection.stream()
                    connection.end()
                else:
                    connection.answer(200, listing(5))
            self.api.clock.advance(0.1)
        self.assertLess(requests, 30)

    def test_list_without_version(self):
        """A list that has no version cannot be watched from, and counts as failed."""
        self.reflector.start()
        self.api.accept().answer(200, {"items": []})
        self.assertEqual((self.heard.lists, self.heard.states), ([], [(False, "ApiError")]))
        self.api.clock.advance(1)
        self.relist()
        self.watched()

    def test_restarts_have_reasons(self):
        """Each restart is reported with one word of why."""
        watch = self.listed()
        watch.chunk(BOOKMARK)
        watch.end()
        self.watched().chunk(GONE_LINE)
        self.relist(600)
        self.watched().cut()
        self.api.clock.advance(1)
        self.api.accept().answer(403, status(403, "Forbidden"))
        self.api.clock.advance(2)
        self.api.accept().answer(200, {"items": []})
        self.api.clock.advance(4)
        self.relist()
        self.watched()
        self.assertEqual(self.restarts, ["ended", "expired", "unreachable", "refused", "failed"])

    def test_listener_fails(self):
        """A listener that raises is logged, and hears the next event all the same."""
        watch = self.listed()
        self.heard.then = lambda what: 1 / 0
        watch.event("ADDED", pod_object(version=6))
        watch.event("ADDED", pod_object(version=7))
        self.assertEqual(len(self.heard.events), 2)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2 * 2)

    def test_stop_from_the_listener(self):
        """Stopping from inside any call of the listener ends everything, and nothing more is heard."""
        for when in ("listing", "list", "event", "settled", "state"):
            self.setUp()
            self.heard.then = lambda what, when=when: self.reflector.stop() if what == when else None
            self.reflector.start()
            if self.api.dials:
                self.relist()
            if self.api.dials:
                watch = self.watched()
                if watch.open:
                    watch.event("ADDED", pod_object(version=6))
                    watch.event("ADDED", pod_object(version=7))
                self.assertFalse(watch.open)
            self.assertLessEqual(len(self.heard.events), 1)
            self.end()

    def test_stop_while_waiting(self):
        """Stopping during the wait after a failure leaves nothing on the clock; stopping twice is fine."""
        self.reflector.start()
        self.api.refuse()
        self.successResultOf(self.reflector.stop())
        self.successResultOf(self.reflector.stop())
        self.assertEqual((self.api.pending_calls(), self.api.dials), ([], 0))

    def test_stop_before_start(self):
        """Stopping what was never started is done at once."""
        self.successResultOf(self.reflector.stop())

    def test_repr(self):
        """The repr says what is watched and whether it is in touch."""
        self.assertEqual(repr(self.reflector), "<Reflector of pods, not in touch>")

    def test_errors_are_ours(self):
        """What the listener is told is always one of our errors."""
        self.reflector.start()
        self.api.refuse()
        self.assertTrue(issubclass(getattr(errors, self.heard.states[0][1]), errors.ApiError))
