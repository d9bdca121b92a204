"""An API that is away, slow, or asks to be left alone: who is served all the same, how often it is asked."""

from twisted.logger import capturedLogs

from bkscaler.errors import ApiStatus, ApiUnreachable, Throttled
from bkscaler.scaling.requests import ASKED_LIMIT_S
from bkscaler.scaling.service import POLL_S, SLOW_POLL_S
from bkscaler.test.scaling_support import IDLE_S, REFUSED, Client, ScalerTestCase, pod


class WarmTests(ScalerTestCase):
    """A builder that is known to be ready."""

    def test_served_without_the_api(self):
        """With the API gone, clients of a ready builder are served at once, however long it is gone."""
        scaler, cluster = self.build_warm()
        cluster.trouble = REFUSED
        for minute in range(10):
            client = Client(scaler, f"client {minute}")
            self.assertEqual(client.replica, pod())
            cluster.clock.advance(60)
            client.leave()
        self.assertEqual(cluster.asked, [])

    def test_idle_without_the_api(self):
        """The idle timer takes nothing down that cannot be seen; whoever comes then is served."""
        scaler, cluster = self.build_warm()
        cluster.trouble = REFUSED
        cluster.clock.pump([1] * 300)
        self.assertEqual(cluster.asked, [])
        self.assertEqual(Client(scaler, "a").replica, pod())

    def test_answer_of_no_use(self):
        """Who asks again had no luck with the last answer: the cluster is read, not more often than polls."""
        scaler, cluster = self.build_warm()
        client = Client(scaler, "a")
        self.assertEqual(cluster.looks, 0)
        cluster.change(ready=(pod("b"),))
        self.assertEqual(self.successResultOf(client.hold.when_ready()), pod("b"))
        for _ in range(10):
            client.hold.when_ready()
        self.assertEqual(cluster.looks, 1)
        cluster.clock.advance(POLL_S)
        client.hold.when_ready()
        self.assertEqual(cluster.looks, 2)

    def test_joined_to_an_unready_pod(self):
        """While only joined clients need a pod that is not ready, the cluster is read rarely."""
        scaler, cluster = self.build_warm()
        Client(scaler, "a")
        cluster.show(ready=())
        cluster.clock.pump([1] * 300)
        self.assertEqual(cluster.looks, 300 / SLOW_POLL_S)
        Client(scaler, "b")
        cluster.clock.pump([1] * 10)
        self.assertEqual(cluster.looks, 300 / SLOW_POLL_S + 10 / POLL_S)


class ColdTests(ScalerTestCase):
    """Clients that wait for the API."""

    def test_served_when_it_returns(self):
        """A client that waits while the API is away is served soon after its return."""
        scaler, cluster = self.build(shown=False)
        cluster.trouble = REFUSED
        client = Client(scaler, "a")
        cluster.clock.pump([1] * 90)
        cluster.trouble = None
        cluster.clock.pump([1] * 5)
        cluster.scales[-1].ok()
        cluster.change(ready=(pod(),))
        cluster.clock.advance(POLL_S)
        self.assertEqual(client.replica, pod())

    def test_lost_in_the_middle_of_a_wake(self):
        """When the answer to a scale-up is lost with the API, the wake is found out about on its return."""
        scaler, cluster = self.build()
        client = Client(scaler, "a")
        cluster.trouble = REFUSED
        cluster.scales[0].answer_lost(took_effect=True)
        cluster.clock.pump([1] * 90)
        self.assertTrue(client.waiting)
        cluster.change(ready=(pod(),))
        cluster.trouble = None
        cluster.clock.pump([1] * 6)
        self.assertEqual((client.replica, cluster.asked), (pod(), [1]))

    def test_long_retry_after(self):
        """A server that asks for minutes is asked again sooner while a client waits, for both requests."""
        scaler, cluster = self.build()
        Client(scaler, "a")
        busy = Throttled(429, "", "busy", retry_after_s=300.0)
        cluster.trouble = busy
        cluster.scales[0].fails(busy)
        cluster.clock.pump([1] * int(ASKED_LIMIT_S - 1))
        self.assertEqual((len(cluster.scales), cluster.looks), (1, 1))
        cluster.clock.pump([1] * 2)
        self.assertEqual((len(cluster.scales), cluster.looks), (2, 1))
        cluster.clock.pump([1] * 3)
        self.assertEqual(cluster.looks, 2)

    def test_long_retry_after_for_sleep(self):
        """When nobody waits, the server is left alone as long as it asks."""
        _, cluster = self.build_warm()
        call = self.fall_asleep(cluster)
        call.fails(ApiStatus(429, "", "busy", retry_after_s=300.0))
        cluster.clock.pump([1] * 299)
        self.assertEqual(len(cluster.scales), 1)
        cluster.clock.pump([1] * 2)
        self.assertEqual(len(cluster.scales), 2)

    def test_each_trouble_is_mentioned_once(self):
        """Failures of one kind are logged once, another kind again, and the same after a success."""
        scaler, cluster = self.build()
        with capturedLogs() as logged:
            Client(scaler, "a")
            for error in [REFUSED] * 5 + [ApiStatus(503, "", "later")] * 5 + [REFUSED]:
                cluster.scales[-1].fails(error)
                cluster.clock.pump([1] * 6)
        lines = [event["log_format"] for event in logged if "scaling" in event["log_format"]]
        self.assertEqual([line.partition(" ")[2][:6] for line in lines], ["to {re", *["failed"] * 3])

    def test_sleep_after_an_outage_is_logged(self):
        """A scale-down that had to wait for the API has its line in the log, once, when it is sent."""
        _, cluster = self.build_warm()
        cluster.trouble = REFUSED
        with capturedLogs() as logged:
            cluster.clock.advance(IDLE_S)
            cluster.clock.pump([1] * 60)
            cluster.trouble = None
            cluster.clock.pump([1] * 60)
            cluster.scales[-1].ok()
        lines = [event for event in logged if event["log_format"].startswith("scaling to")]
        self.assertEqual([event["replicas"] for event in lines], [0])

    def test_unreachable_kinds(self):
        """All ways of being out of reach are one kind of trouble; statuses differ by code and reason."""
        lost = ApiUnreachable("connection lost", sent=True)
        self.assertEqual(lost.kind, REFUSED.kind)
        self.assertNotEqual(ApiStatus(500, "", "").kind, ApiStatus(503, "", "").kind)
