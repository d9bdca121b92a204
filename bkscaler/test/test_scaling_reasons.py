"""Tests of what waiting clients are told: why they wait, and when waiting on is of no use."""

from __future__ import annotations

from bkscaler.errors import ApiStatus, Conflict, Forbidden, WakeImpossible
from bkscaler.test.scaling_support import IDLE_S, REFUSED, Client, ScalerTestCase, pod

UNSCHEDULABLE = "pod buildkitd-0: 0/3 nodes are available: 3 Insufficient cpu"


class GiveUpTests(ScalerTestCase):
    """``--give-up-after``."""

    def waking(self, **how):
        """Let one client wake a builder."""
        scaler, cluster = self.build(give_up_after_s=60.0, **how)
        client = Client(scaler, "a")
        cluster.scales[0].ok()
        return scaler, cluster, client

    def hopeless(self, cluster, hopeless=True):
        """Show that the builder cannot come, or that it can again."""
        cluster.show(
            waiting_for=UNSCHEDULABLE if hopeless else "pod buildkitd-0: starting", hopeless=hopeless
        )

    def test_told(self):
        """A client whose wait has looked hopeless for long enough is told why."""
        _, cluster, client = self.waking()
        self.hopeless(cluster)
        cluster.clock.advance(59)
        self.assertTrue(client.waiting)
        cluster.clock.advance(1)
        self.assertIsInstance(client.error, WakeImpossible)
        self.assertEqual(str(client.error), UNSCHEDULABLE)
        client.leave()

    def test_off(self):
        """Without the setting a client waits to its own deadline, whatever it looks like."""
        scaler, cluster = self.build()
        client = Client(scaler, "a")
        cluster.scales[0].ok()
        self.hopeless(cluster)
        cluster.clock.advance(100_000)
        self.assertTrue(client.waiting)
        client.leave()

    def test_hope_returns(self):
        """When it does not look hopeless any more, the time starts anew."""
        _, cluster, client = self.waking()
        self.hopeless(cluster)
        cluster.clock.advance(50)
        self.hopeless(cluster, hopeless=False)
        self.hopeless(cluster)
        cluster.clock.advance(50)
        self.assertTrue(client.waiting)
        cluster.show(ready=(pod(),))
        self.assertIsNotNone(client.replica)
        client.leave()

    def test_each_from_its_own_arrival(self):
        """A client that comes while it looks hopeless waits as long as the first did: nodes may be coming."""
        scaler, cluster, first = self.waking()
        self.hopeless(cluster)
        cluster.clock.advance(40)
        second = Client(scaler, "b")
        cluster.clock.advance(20)
        self.assertEqual((first.waiting, second.waiting), (False, True))
        cluster.clock.advance(40)
        self.assertFalse(second.waiting)
        first.leave()
        second.leave()


class ReasonTests(ScalerTestCase):
    """What is said of a wait that goes on."""

    def test_not_seen(self):
        """Before anything is known, that is what is said."""
        scaler, _ = self.build(shown=False)
        self.assertEqual(scaler.hold("a").waiting_for, "the StatefulSet has not been seen yet")
        scaler.demand.discard("a")

    def test_observed(self):
        """What the cluster says of its pods is passed on."""
        scaler, cluster = self.build()
        client = Client(scaler, "a")
        cluster.scales[0].ok()
        cluster.show(waiting_for=UNSCHEDULABLE)
        self.assertEqual(client.hold.waiting_for, UNSCHEDULABLE)
        client.leave()

    def test_api_away(self):
        """When the API does not answer, that is what is said, until it answers again."""
        scaler, cluster = self.build()
        client = Client(scaler, "a")
        cluster.scales[0].fails(REFUSED)
        self.assertEqual(client.hold.waiting_for, "the Kubernetes API: connection refused")
        cluster.clock.advance(1)
        cluster.scales[1].ok()
        self.assertNotIn("API", client.hold.waiting_for)
        client.leave()

    def test_scaling_refused(self):
        """That scaling fails is said although reads succeed."""
        scaler, cluster = self.build()
        client = Client(scaler, "a")
        cluster.scales[0].fails(ApiStatus(500, "InternalError", "admission webhook denied it"))
        self.assertIn("admission webhook denied it", client.hold.waiting_for)
        client.leave()

    def test_conflicts(self):
        """One conflict is nothing to speak of, as somebody may have changed the set; two in a row are."""
        scaler, cluster = self.build()
        client = Client(scaler, "a")
        cluster.scales[0].fails(Conflict(409, "Conflict", "the object has been modified"))
        self.assertNotIn("modified", client.hold.waiting_for)
        cluster.scales[1].fails(Conflict(409, "Conflict", "the object has been modified"))
        self.assertIn("the Kubernetes API: 409 Conflict", client.hold.waiting_for)
        client.leave()

    def test_undone(self):
        """That somebody else scales to 0 again and again is what is waited for."""
        scaler, cluster = self.build()
        client = Client(scaler, "a")
        for _ in range(2):
            cluster.scales[-1].ok()
            cluster.show(replicas=0)
            cluster.clock.advance(1)
        self.assertEqual(client.hold.waiting_for, "something else scales the StatefulSet back to 0 each time")
        cluster.show(replicas=1)
        self.assertNotIn("scales", client.hold.waiting_for)
        client.leave()

    def test_undone_unanswered(self):
        """The same when no request has an answer, although each is carried out; and they come ever slower."""
        scaler, cluster = self.build()
        client = Client(scaler, "a")
        asked = 0
        for _ in range(100):
            if len(cluster.scales) > asked:
                asked = len(cluster.scales)
                cluster.scales[-1].answer_lost(took_effect=True)
                cluster.show(replicas=0)
            self.assertEqual(
                client.hold.waiting_for, "something else scales the StatefulSet back to 0 each time"
            )
            cluster.clock.advance(0.1)
        self.assertLess(asked, 10)
        client.leave()

    def test_no_answer(self):
        """While a scale request has no answer, and nothing else is known, that is what is waited for."""
        scaler, cluster = self.build()
        client = Client(scaler, "a")
        self.assertEqual(client.hold.waiting_for, "the Kubernetes API has not answered yet")
        self.assertEqual(scaler.snapshot().waiting_for, "")
        cluster.scales[0].ok()
        self.assertNotIn("API", client.hold.waiting_for)
        client.leave()

    def test_answer_lost(self):
        """A request whose answer was lost is no reason any more when it turns out to have taken effect."""
        scaler, cluster = self.build()
        client = Client(scaler, "a")
        cluster.scales[0].answer_lost(took_effect=True)
        cluster.show(waiting_for=UNSCHEDULABLE)
        self.assertEqual(client.hold.waiting_for, UNSCHEDULABLE)
        client.leave()

    def test_failed_for_somebody_before(self):
        """Who comes after a request has failed for somebody else waits for the next try, and is told so."""
        scaler, cluster = self.build()
        first = Client(scaler, "a")
        cluster.trouble = ApiStatus(503, "ServiceUnavailable", "oh no")
        cluster.scales[0].fails(cluster.trouble)
        first.leave()
        second = Client(scaler, "b")
        cluster.trouble = None
        cluster.clock.advance(0.2)
        self.assertEqual(len(cluster.scales), 1)
        self.assertEqual(second.hold.waiting_for, "the Kubernetes API: 503 ServiceUnavailable: oh no")
        cluster.clock.advance(0.2)
        cluster.scales[1].ok()
        self.assertNotIn("API", second.hold.waiting_for)
        second.leave()

    def test_failed_and_left(self):
        """The same when the client before has left after its request had failed."""
        scaler, cluster = self.build()
        first = Client(scaler, "a")
        cluster.scales[0].fails(ApiStatus(429, "TooManyRequests", "later", retry_after_s=20.0))
        first.leave()
        second = Client(scaler, "b")
        self.assertEqual(second.hold.waiting_for, "the Kubernetes API: 429 TooManyRequests: later")
        cluster.clock.advance(20)
        cluster.scales[1].ok()
        self.assertNotIn("API", second.hold.waiting_for)
        second.leave()

    def test_sleep_refused(self):
        """That the builder could not be put to sleep is no reason to wait for it."""
        scaler, cluster = self.build(replicas=1)
        cluster.clock.advance(IDLE_S)
        cluster.scales[0].fails(ApiStatus(403, "Forbidden", "not now"))
        client = Client(scaler, "a")
        cluster.show(waiting_for=UNSCHEDULABLE)
        self.assertEqual(client.hold.waiting_for, UNSCHEDULABLE)
        client.leave()

    def test_no_right_to_read(self):
        """A right to read the set that stays missing is told to those who wait: nothing will ever be seen."""
        scaler, cluster = self.build(shown=False)
        cluster.trouble = Forbidden(403, "Forbidden", "cannot list resource statefulsets")
        client = Client(scaler, "a")
        cluster.clock.pump([2.0] * 2)
        self.assertTrue(client.waiting)
        cluster.clock.pump([2.0] * 2)
        self.assertEqual(str(client.error), "cannot list resource statefulsets")
        client.leave()

    def test_no_right_to_read_for_a_moment(self):
        """An API server that has just started refuses everybody for a moment; those who wait are served."""
        scaler, cluster = self.build(shown=False)
        cluster.trouble = Forbidden(403, "Forbidden", "cannot list resource statefulsets")
        client = Client(scaler, "a")
        cluster.clock.pump([2.0] * 2)
        cluster.trouble = None
        cluster.show(replicas=1, ready=(pod(),))
        self.assertEqual(client.replica, pod())

    def test_right_lost_while_waking(self):
        """A right to read that is lost while the builder wakes does not end the wait: it may come back."""
        scaler, cluster = self.build()
        client = Client(scaler, "a")
        cluster.scales[0].ok()
        cluster.trouble = Forbidden(403, "Forbidden", "cannot list resource pods")
        cluster.clock.advance(10)
        self.assertTrue(client.waiting)
        self.assertIn("cannot list resource pods", client.hold.waiting_for)
        client.leave()
