"""The races around scale requests: each with its own order of events, on a virtual clock."""

from itertools import pairwise

from bkscaler.errors import ApiError, ApiStatus, Conflict, Forbidden, NotFound, Throttled
from bkscaler.scaling.machine import State
from bkscaler.test.scaling_support import IDLE_S, REFUSED, Client, ScalerTestCase, pod

BROKEN = ApiStatus(500, "InternalError", "broken")
STALE = Conflict(409, "Conflict", "the object has been modified")
THROTTLED = Throttled(429, "", "too many requests", retry_after_s=3.0)


class ArrivalWhileGoingToSleepTests(ScalerTestCase):
    """Somebody comes at the wrong moment."""

    def test_during_the_idle_timer(self):
        """An arrival during the idle timeout is served at once and stops it; the next one begins anew."""
        scaler, cluster = self.build_warm()
        cluster.clock.advance(IDLE_S - 1)
        client = Client(scaler, "a")
        self.assertEqual(client.replica, pod())
        cluster.clock.advance(IDLE_S)
        client.hold.release()
        cluster.clock.advance(IDLE_S - 1)
        self.assertEqual(cluster.asked, [])
        cluster.clock.advance(1)
        self.assertEqual(cluster.asked, [0])

    def test_during_the_read_before(self):
        """An arrival during the read that precedes a scale-down is served at once; nothing is sent."""
        scaler, cluster = self.build_warm()
        cluster.slow = True
        cluster.clock.advance(IDLE_S)
        client = Client(scaler, "a")
        self.assertEqual(client.replica, pod())
        cluster.answer_look()
        self.assertEqual((cluster.asked, scaler.snapshot().state), ([], State.AWAKE))

    def test_gone_again_during_the_read_before(self):
        """Somebody who comes and goes during that read begins a new idle timeout."""
        scaler, cluster = self.build_warm()
        cluster.slow = True
        cluster.clock.advance(IDLE_S)
        Client(scaler, "a").hold.release()
        cluster.answer_look()
        self.assertEqual(cluster.asked, [])
        cluster.slow = False
        cluster.clock.advance(IDLE_S)
        self.assertEqual(cluster.asked, [0])

    def test_look_of_another_idle_time(self):
        """A look that began before somebody came and left tells nothing of now: there is another one."""
        scaler, cluster = self.build_warm()
        cluster.slow = True
        cluster.clock.advance(IDLE_S)
        cluster.clock.advance(1)
        Client(scaler, "a").hold.release()
        cluster.clock.advance(IDLE_S)
        cluster.answer_look()
        self.assertEqual(cluster.asked, [])
        cluster.answer_look()
        self.assertEqual(cluster.asked, [0])

    def test_wake_during_the_read_before(self):
        """A wake does not wait for a read that hangs, and its late answer sends nothing."""
        scaler, cluster = self.build_warm()
        cluster.slow = True
        cluster.clock.advance(IDLE_S)
        cluster.show(replicas=0, ready=())
        Client(scaler, "a")
        self.assertEqual(cluster.asked, [1])
        cluster.answer_look()
        self.assertEqual(cluster.asked, [1])

    def test_scale_down_answered(self):
        """An arrival while the scale-down is in flight waits for its answer and then wakes again."""
        scaler, cluster = self.build_warm()
        down = self.fall_asleep(cluster)
        client = Client(scaler, "a")
        self.assertTrue(client.waiting)
        down.ok()
        self.assertEqual(cluster.asked, [0, 1])
        self.assertTrue(client.waiting)
        cluster.scales[1].ok()
        cluster.show(ready=(pod("b"),))
        self.assertEqual(client.replica, pod("b"))

    def test_watch_overtakes_the_answer(self):
        """The watch event may come before the answer; nobody is served and nothing is sent until it comes."""
        scaler, cluster = self.build_warm()
        down = self.fall_asleep(cluster)
        client = Client(scaler, "a")
        down.take_effect()
        cluster.show()
        self.assertEqual((client.waiting, cluster.asked), (True, [0]))
        down.deferred.callback(None)
        self.assertEqual(cluster.asked, [0, 1])

    def test_scale_down_failed_for_certain(self):
        """When the scale-down certainly failed, whoever came meanwhile is served at once by the old pod."""
        for error in (REFUSED, THROTTLED, Forbidden(403, "Forbidden", "no"), NotFound(404, "", "gone")):
            scaler, cluster = self.build_warm()
            down = self.fall_asleep(cluster)
            client = Client(scaler, "a")
            down.fails(error)
            self.assertEqual((client.replica, cluster.asked), (pod(), [0]), error)

    def test_answer_lost_and_done(self):
        """When the answer is lost, nobody is served until a read has shown that the builder went to sleep."""
        for took_effect in (True, False):
            scaler, cluster = self.build_warm()
            down = self.fall_asleep(cluster)
            client = Client(scaler, "a")
            cluster.slow = True
            down.answer_lost(took_effect=took_effect)
            self.assertTrue(client.waiting)
            cluster.answer_look()
            self.assertEqual(client.replica, None if took_effect else pod())
            self.assertEqual(cluster.asked, [0, 1] if took_effect else [0])

    def test_server_error_is_looked_into(self):
        """A 5xx or an answer that nobody understands may hide a success, and is looked into as well."""
        for error in (BROKEN, ApiError("redirected"), ValueError("bug")):
            scaler, cluster = self.build_warm()
            down = self.fall_asleep(cluster)
            down.take_effect()
            down.fails(error)
            self.assertIs(scaler.snapshot().state, State.ASLEEP)
            self.assertEqual(len(self.flushLoggedErrors(ValueError)), isinstance(error, ValueError))

    def test_api_away_after_lost_answer(self):
        """While the fate is unknown and the API is away, reads go on, ever more slowly, until it is back."""
        scaler, cluster = self.build_warm()
        down = self.fall_asleep(cluster)
        client = Client(scaler, "a")
        cluster.trouble = REFUSED
        looks = cluster.looks
        down.answer_lost(took_effect=False)
        cluster.clock.pump([0.1] * 3000)
        self.assertTrue(client.waiting)
        self.assertLess(cluster.looks - looks, 70)
        cluster.trouble = None
        cluster.clock.advance(5)
        self.assertEqual(client.replica, pod())

    def test_unexpected_failure_of_a_read(self):
        """A read that fails in a way nobody foresaw proves nothing: nobody is served, reads go on."""
        scaler, cluster = self.build_warm()
        down = self.fall_asleep(cluster)
        client = Client(scaler, "a")
        cluster.trouble = ValueError("bug")
        down.answer_lost(took_effect=True)
        self.assertTrue(client.waiting)
        self.assertIs(scaler.snapshot().state, State.GOING_TO_SLEEP)
        cluster.trouble = None
        cluster.clock.advance(1)
        self.assertEqual(cluster.asked, [0, 1])
        self.flushLoggedErrors(ValueError)

    def test_old_pod_terminating(self):
        """An arrival while the old pod terminates wakes at once and is given the successor."""
        scaler, cluster = self.build_warm()
        self.fall_asleep(cluster).ok()
        client = Client(scaler, "a")
        self.assertEqual(cluster.asked, [0, 1])
        cluster.scales[1].ok()
        cluster.show(waiting_for="pod buildkitd-0: the old pod is still terminating")
        self.assertTrue(client.waiting)
        cluster.show(ready=(pod("b"),))
        self.assertEqual(client.replica, pod("b"))

    def test_came_and_went_during_the_request(self):
        """Somebody who came and went while a scale-down failed begins a new idle timeout."""
        scaler, cluster = self.build_warm()
        down = self.fall_asleep(cluster)
        Client(scaler, "a").leave()
        down.fails(REFUSED)
        self.assertIs(scaler.snapshot().state, State.IDLE)
        self.assertEqual(scaler.snapshot().sleeps_at_s, 2 * IDLE_S)


class DepartureWhileWakingTests(ScalerTestCase):
    """Clients that give up."""

    def test_others_go_on(self):
        """One client leaves while the builder wakes; the other is served."""
        scaler, cluster = self.build()
        one, two = Client(scaler, "a"), Client(scaler, "b")
        one.leave()
        cluster.scales[0].ok()
        cluster.show(ready=(pod(),))
        self.assertEqual((two.replica, cluster.asked), (pod(), [1]))

    def test_last_one_gone(self):
        """When the last one leaves while the builder wakes, it is left to come up, idles, and sleeps."""
        scaler, cluster = self.build()
        Client(scaler, "a").leave()
        cluster.scales[0].ok()
        cluster.show(ready=(pod(),))
        self.assertIs(scaler.snapshot().state, State.IDLE)
        self.fall_asleep(cluster).ok()
        self.assertEqual(cluster.asked, [1, 0])

    def test_last_one_gone_before_ready(self):
        """A builder that never becomes ready sleeps after the idle timeout, too."""
        scaler, cluster = self.build()
        client = Client(scaler, "a")
        cluster.scales[0].ok()
        client.leave()
        self.fall_asleep(cluster).ok()
        self.assertIs(scaler.snapshot().state, State.ASLEEP)

    def test_back_before_ready(self):
        """A client that leaves and returns while the builder wakes causes no second request."""
        scaler, cluster = self.build()
        Client(scaler, "a").leave()
        again = Client(scaler, "b")
        cluster.scales[0].ok()
        cluster.show(ready=(pod(),))
        self.assertEqual((again.replica, cluster.asked), (pod(), [1]))


class FailedWakeTests(ScalerTestCase):
    """Scale-ups that fail."""

    def test_conflict(self):
        """After a conflict the cluster is read, and the new decision is sent at once on the new version."""
        scaler, cluster = self.build()
        Client(scaler, "a")
        cluster.change(waiting_for="something else changed")
        cluster.scales[0].fails(STALE)
        self.assertEqual([c.version for c in cluster.scales], ["1", "2"])

    def test_conflict_with_somebodys_three(self):
        """Somebody's three replicas are never shrunk to one while there is demand."""
        scaler, cluster = self.build()
        client = Client(scaler, "a")
        cluster.change(replicas=3)
        cluster.scales[0].fails(STALE)
        cluster.show(ready=(pod(), pod("b", 1)))
        cluster.clock.advance(IDLE_S * 3)
        self.assertEqual((cluster.asked, client.replica), ([1], pod()))

    def test_second_conflict_waits(self):
        """The second conflict in a row waits before the next try."""
        scaler, cluster = self.build()
        Client(scaler, "a")
        cluster.scales[0].fails(STALE)
        cluster.scales[1].fails(STALE)
        self.assertEqual(len(cluster.scales), 2)
        cluster.clock.advance(0.5)
        self.assertEqual(len(cluster.scales), 3)

    def test_conflict_then_api_away(self):
        """A conflict whose read fails is decided again on what is known."""
        scaler, cluster = self.build()
        Client(scaler, "a")
        cluster.trouble = REFUSED
        cluster.scales[0].fails(STALE)
        self.assertEqual(len(cluster.scales), 2)

    def test_failures_back_off(self):
        """A wake that fails is tried again, ever more slowly, at most five seconds apart."""
        for error in (BROKEN, REFUSED, NotFound(404, "NotFound", "no")):
            scaler, cluster = self.build()
            Client(scaler, "a")
            times = []
            for _ in range(900):
                if not cluster.scales[-1].deferred.called:
                    times.append(cluster.clock.seconds())
                    cluster.scales[-1].fails(error)
                cluster.clock.advance(0.1)
            gaps = [b - a for a, b in pairwise(times)]
            self.assertLess(gaps[0], 0.35)
            self.assertLess(4.9, max(gaps))
            self.assertLess(max(gaps), 5.2)

    def test_throttled(self):
        """A server that asks to be left alone for some seconds is left alone."""
        scaler, cluster = self.build()
        Client(scaler, "a")
        cluster.scales[0].fails(THROTTLED)
        cluster.clock.advance(2.9)
        self.assertEqual(len(cluster.scales), 1)
        cluster.clock.advance(0.1)
        self.assertEqual(len(cluster.scales), 2)

    def test_lost_answer_of_a_wake(self):
        """A wake whose answer was lost is not sent again when a read shows that it took effect."""
        scaler, cluster = self.build()
        client = Client(scaler, "a")
        cluster.scales[0].answer_lost(took_effect=True)
        cluster.clock.advance(10)
        cluster.show(ready=(pod(),))
        self.assertEqual((cluster.asked, client.replica), ([1], pod()))

    def test_unexpected_failure(self):
        """A failure that nobody foresaw is logged and backs off like any other."""
        scaler, cluster = self.build()
        Client(scaler, "a")
        cluster.scales[0].fails(ValueError("bug"))
        self.assertEqual(len(cluster.scales), 1)
        cluster.clock.advance(1)
        self.assertEqual(len(cluster.scales), 2)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_success_without_effect(self):
        """A server that says yes and changes nothing is not asked again and again without a pause."""
        scaler, cluster = self.build()
        Client(scaler, "a")
        for _ in range(100):
            if not cluster.scales[-1].deferred.called:
                cluster.scales[-1].deferred.callback(None)
            cluster.clock.advance(0.1)
        self.assertLess(len(cluster.scales), 12)

    def test_api_away_while_cold(self):
        """With the API away a cold client waits; the wake is sent when the API is back."""
        scaler, cluster = self.build()
        cluster.trouble = REFUSED
        client = Client(scaler, "a")
        for _ in range(600):
            if not cluster.scales[-1].deferred.called:
                cluster.scales[-1].fails(REFUSED)
            cluster.clock.advance(0.1)
        self.assertTrue(client.waiting)
        cluster.trouble = None
        cluster.clock.advance(5)
        cluster.scales[-1].ok()
        cluster.show(ready=(pod(),))
        self.assertEqual(client.replica, pod())
