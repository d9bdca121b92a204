"""Events on the StatefulSet: what is written, what is added to, and what is dropped."""

import json
from datetime import UTC, datetime, timedelta

from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from bkscaler.kube import statefulset
from bkscaler.kube.events import GAP_S, MAX_PENDING, SERIES_S, TIMEOUT_S, Events, stamp
from bkscaler.model import Happening
from bkscaler.test.test_kube_support import Api, set_object, status

EVENTS = "/prefix/apis/events.k8s.io/v1/namespaces/builds/events"
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


class EventsTests(SynchronousTestCase):
    """One writer, its server played by hand."""

    def setUp(self):
        self.api = Api()
        self.owner = statefulset.parse(set_object())
        self.events = Events(
            client=self.api.client,
            clock=self.api.clock,
            now=lambda: NOON + timedelta(seconds=self.api.clock.seconds()),
            namespace="builds",
            regarding=lambda: self.owner,
            instance="bkscaler-0",
        )
        self.addCleanup(self.end)

    def end(self):
        """Nothing is left after the stop."""
        stopped = self.events.stop()
        self.api.clock.advance(0)
        self.successResultOf(stopped)
        self.assertEqual(self.api.pending_calls(), [])

    def take(self, verb="POST", path=EVENTS):
        """Accept the request that is sent now; its body is in ``self.body``."""
        connection = self.api.accept()
        self.assertEqual(connection.request_line(), (verb, path))
        self.body = json.loads(connection.body)
        return connection

    def written(self, name="buildkitd-x"):
        """Accept a new Event."""
        self.take().answer(201, {"metadata": {"name": name}})
        self.api.clock.advance(0)

    def woken(self, words="scaled to 1: 1 client waits"):
        """Report a wake."""
        self.events.happened(Happening.WAKING_UP, words)

    def test_one(self):
        """An Event has everything that the API asks for, about the StatefulSet by name and uid."""
        self.woken()
        self.written()
        self.assertEqual(
            self.body,
            {
                "apiVersion": "events.k8s.io/v1",
                "kind": "Event",
                "metadata": {"generateName": "buildkitd-", "namespace": "builds"},
                "eventTime": "2026-01-01T12:00:00.000000Z",
                "type": "Normal",
                "reason": "WakingUp",
                "action": "Wake",
                "note": "scaled to 1: 1 client waits",
                "regarding": {
                    "apiVersion": "apps/v1",
                    "kind": "StatefulSet",
                    "namespace": "builds",
                    "name": "buildkitd",
                    "uid": "set-1",
                },
                "reportingController": "bkscaler",
                "reportingInstance": "bkscaler-0",
            },
        )
        self.assertEqual(self.api.dials, 0)

    def test_failure_is_a_warning(self):
        """A wake that failed is a warning; a long reason is cut to what the API takes."""
        self.events.happened(Happening.WAKE_FAILED, "x" * 5000)
        self.written()
        self.assertEqual((self.body["type"], self.body["reason"]), ("Warning", "WakeFailed"))
        self.assertEqual(len(self.body["note"]), 1024)

    def test_series(self):
        """The same again is added to the Event that is there."""
        self.woken()
        self.written()
        self.api.clock.advance(GAP_S)
        self.woken()
        self.take("PATCH", f"{EVENTS}/buildkitd-x").answer(200, {})
        self.assertEqual(
            self.body, {"series": {"count": 2, "lastObservedTime": "2026-01-01T12:00:10.000000Z"}}
        )

    def test_storm(self):
        """Whatever happens many times at once is few requests, and every occurrence is counted."""
        for _ in range(100):
            self.woken()
        self.written()
        self.api.clock.advance(GAP_S - 1)
        for _ in range(100):
            self.woken()
        self.assertEqual(self.api.dials, 0)
        self.api.clock.advance(1)
        self.take("PATCH", f"{EVENTS}/buildkitd-x").answer(200, {})
        self.assertEqual(self.body["series"]["count"], 200)
        self.api.clock.advance(2 * GAP_S)
        self.assertEqual(self.api.dials, 0)

    def test_created_as_a_series(self):
        """What happened several times before it could be written is written as a series."""
        self.events.happened(Happening.GOING_TO_SLEEP, "x")
        for _ in range(3):
            self.woken()
        self.written()
        self.written("other")
        self.assertEqual(self.body["series"]["count"], 3)

    def test_other_words(self):
        """Other words are another Event, in the order in which they happened."""
        self.woken()
        self.events.happened(Happening.READY, "ready after 3s")
        self.assertEqual(self.api.dials, 1)
        self.written()
        self.written("other")
        self.assertEqual(self.body["reason"], "Ready")

    def test_gone_or_old(self):
        """An Event that the server has dropped, or will soon, is written anew."""
        self.woken()
        self.written()
        self.api.clock.advance(GAP_S)
        self.woken()
        self.take("PATCH", f"{EVENTS}/buildkitd-x").answer(404, status(404, "NotFound"))
        self.written("second")
        self.api.clock.advance(SERIES_S + 1)
        self.woken()
        self.written("third")

    def test_not_in_the_way(self):
        """What fails, or is not answered, is dropped; that is logged once for each kind, until a success."""
        with capturedLogs() as logged:
            for code in (403, 403, 0, 0, 201, 403):
                self.woken(f"note {self.api.clock.seconds()}")
                connection = self.take()
                if code:
                    connection.answer(code, {"metadata": {"name": "x"}} if code == 201 else status(code, "X"))
                self.api.clock.advance(TIMEOUT_S)
        told = [event for event in logged if "Events cannot be written" in event["log_format"]]
        self.assertEqual(len(told), 3)

    def test_bounded(self):
        """While the server does not answer no more than a few are kept."""
        for number in range(1000):
            self.woken(f"note {number}")
        self.assertEqual(len(self.events._pending), MAX_PENDING)
        self.take().answer(201, {})
        self.assertEqual(self.api.dials, 0)

    def test_no_object(self):
        """Without a StatefulSet, or with another than when it happened, nothing is written."""
        self.owner = None
        self.woken()
        self.assertEqual(self.api.dials, 0)
        self.owner = statefulset.parse(set_object())
        self.woken("first")
        self.woken("second")
        self.owner = statefulset.parse(set_object(uid="set-2"))
        self.written()
        self.assertEqual(self.api.dials, 0)

    def test_stopped(self):
        """After the stop nothing is written; a request under way is closed."""
        self.woken()
        connection = self.take()
        self.events.stop()
        self.woken("again")
        self.assertFalse(connection.open)
        self.assertEqual(self.api.dials, 0)

    def test_stamps(self):
        """Stamps have six digits and end in Z, whatever the zone."""
        self.assertEqual(
            stamp(datetime.fromisoformat("2026-01-01T14:00:00.5+02:00")), "2026-01-01T12:00:00.500000Z"
        )
