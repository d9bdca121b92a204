"""The scaler among others: pods that die, people who scale, sets that come and go, an API that is away."""

from bkscaler.errors import ApiStatus, Conflict, Forbidden
from bkscaler.scaling.machine import State
from bkscaler.test.scaling_support import IDLE_S, REFUSED, Client, ScalerTestCase, pod

BROKEN = ApiStatus(500, "InternalError", "broken")


class OthersScaleTests(ScalerTestCase):
    """Somebody else changes the set."""

    def test_up_is_left_alone_until_idle(self):
        """Replicas added by somebody are left alone under demand, and go to zero after the idle timeout."""
        scaler, cluster = self.build_warm()
        client = Client(scaler, "a")
        cluster.show(replicas=3, ready=(pod(), pod("b", 1), pod("c", 2)))
        cluster.clock.advance(IDLE_S * 5)
        self.assertEqual(cluster.asked, [])
        client.hold.release()
        self.fall_asleep(cluster).ok()

    def test_up_while_idle_starts_the_timeout_anew(self):
        """Somebody who scales up an idle set gets a whole idle timeout for it."""
        _scaler, cluster = self.build_warm()
        cluster.clock.advance(IDLE_S - 1)
        cluster.show(replicas=2)
        cluster.clock.advance(IDLE_S - 1)
        self.assertEqual(cluster.asked, [])
        cluster.clock.advance(1)
        self.assertEqual(cluster.asked, [0])

    def test_up_from_zero(self):
        """A builder that somebody wakes by hand sleeps after the idle timeout."""
        _scaler, cluster = self.build()
        cluster.show(replicas=1, ready=(pod(),))
        self.fall_asleep(cluster).ok()

    def test_seen_only_by_the_read_before(self):
        """A scale-up that only the read before our scale-down shows stops it."""
        _scaler, cluster = self.build_warm()
        cluster.change(replicas=3)
        cluster.clock.advance(IDLE_S)
        self.assertEqual(cluster.asked, [])
        cluster.clock.advance(IDLE_S)
        self.assertEqual([(c.replicas, c.version) for c in cluster.scales], [(0, "2")])

    def test_conflict_of_a_scale_down(self):
        """A scale-down that meets somebody's change is decided again: more replicas start a new timeout."""
        _scaler, cluster = self.build_warm()
        down = self.fall_asleep(cluster)
        cluster.change(replicas=3)
        down.fails(Conflict(409, "Conflict", "modified"))
        self.assertEqual(cluster.asked, [0])
        self.fall_asleep(cluster).ok()
        self.assertEqual(cluster.asked, [0, 0])

    def test_down_under_demand_is_put_back(self):
        """A set that somebody scales to zero under demand is put back at once."""
        scaler, cluster = self.build_warm()
        Client(scaler, "a")
        cluster.show(replicas=0, ready=())
        self.assertEqual([(c.replicas, c.version) for c in cluster.scales], [(1, "2")])

    def test_put_back_again_and_again(self):
        """Somebody who keeps scaling to zero is answered every time, but not without pause."""
        scaler, cluster = self.build_warm()
        Client(scaler, "a")
        for _ in range(200):
            if cluster.scales and not cluster.scales[-1].deferred.called:
                cluster.scales[-1].ok()
            cluster.show(replicas=0, ready=())
            cluster.clock.advance(0.1)
        self.assertLess(3, len(cluster.scales))
        self.assertLess(len(cluster.scales), 15)

    def test_down_while_idle(self):
        """A set that somebody puts to sleep before we do is left asleep."""
        scaler, cluster = self.build_warm()
        cluster.show(replicas=0, ready=())
        cluster.clock.advance(IDLE_S * 2)
        self.assertEqual((cluster.asked, scaler.snapshot().state), ([], State.ASLEEP))


class PodTests(ScalerTestCase):
    """Pods come and go under demand."""

    def test_lost_while_joined(self):
        """When the pod is lost, new clients wait for its successor; the set is not scaled, but read."""
        scaler, cluster = self.build_warm()
        Client(scaler, "a")
        cluster.show(ready=())
        late = Client(scaler, "b")
        self.assertTrue(late.waiting)
        cluster.clock.advance(2)
        self.assertEqual((cluster.looks, cluster.asked), (1, []))
        cluster.show(ready=(pod("b"),))
        self.assertEqual(late.replica, pod("b"))

    def test_flapping_readiness_does_not_touch_the_idle_time(self):
        """An idle pod that is ready and unready in turns sleeps after one idle timeout all the same."""
        _scaler, cluster = self.build_warm()
        for n in range(119):
            cluster.clock.advance(1)
            cluster.show(ready=() if n % 2 else (pod(),))
        self.assertEqual(cluster.asked, [])
        cluster.clock.advance(1)
        self.assertEqual(cluster.asked, [0])


class MissingSetTests(ScalerTestCase):
    """The set is deleted, and made again."""

    def test_deleted_while_idle(self):
        """A set that is deleted while idle stops the timeout; the next one of that name begins anew."""
        scaler, cluster = self.build_warm()
        cluster.clock.advance(IDLE_S / 2)
        cluster.show(exists=False, replicas=0, ready=())
        self.assertIs(scaler.snapshot().state, State.MISSING)
        self.assertEqual(cluster.clock.getDelayedCalls(), [])
        cluster.show(exists=True, replicas=1)
        cluster.clock.advance(IDLE_S - 1)
        self.assertEqual(cluster.asked, [])
        cluster.clock.advance(1)
        self.assertEqual(cluster.asked, [0])

    def test_deleted_while_waking(self):
        """Whoever waits when the set is deleted is told after a while; a new set is woken for the next."""
        scaler, cluster = self.build()
        client = Client(scaler, "a")
        cluster.scales[0].ok()
        cluster.show(exists=False, replicas=0)
        cluster.clock.advance(5)
        self.assertIsNotNone(client.error)
        client.leave()
        cluster.show(exists=True)
        late = Client(scaler, "b")
        cluster.scales[1].ok()
        cluster.show(ready=(pod("b"),))
        self.assertEqual(late.replica, pod("b"))

    def test_deleted_during_a_scale_down(self):
        """A scale-down that finds no set ends in MISSING and leaves nothing on the clock for good."""
        scaler, cluster = self.build_warm()
        down = self.fall_asleep(cluster)
        cluster.show(exists=False, replicas=0, ready=())
        self.assertIs(scaler.snapshot().state, State.GOING_TO_SLEEP)
        down.fails(ApiStatus(404, "NotFound", "gone"))
        self.assertIs(scaler.snapshot().state, State.MISSING)
        cluster.clock.advance(60)
        self.assertEqual(cluster.clock.getDelayedCalls(), [])


class AwayTests(ScalerTestCase):
    """The API is away, or says no, while the builder is warm."""

    def test_warm_clients_are_served(self):
        """With the API away, clients of a warm builder are served at once, also after the idle timeout."""
        scaler, cluster = self.build_warm()
        cluster.trouble = REFUSED
        for n in range(50):
            client = Client(scaler, f"client {n}")
            self.assertEqual(client.replica, pod())
            client.leave()
            cluster.clock.pump([IDLE_S / 10] * 15)
            self.assertIs(scaler.snapshot().state, State.IDLE)
        self.assertEqual(cluster.asked, [])

    def test_sleep_is_tried_ever_more_slowly(self):
        """With the API away, reads before a scale-down become rare; once it is back, the builder sleeps."""
        _scaler, cluster = self.build_warm()
        cluster.trouble = REFUSED
        cluster.clock.pump([0.25] * 4 * (int(IDLE_S) + 3600))
        self.assertLess(cluster.looks, 80)
        cluster.trouble = None
        cluster.clock.advance(60)
        self.assertEqual(cluster.asked, [0])

    def test_hanging_read_keeps_nobody(self):
        """A read that gets no answer before a scale-down keeps nobody from the builder."""
        scaler, cluster = self.build_warm()
        cluster.slow = True
        cluster.clock.advance(IDLE_S + 10)
        self.assertEqual((Client(scaler, "a").replica, cluster.asked), (pod(), []))

    def test_failing_scale_down_does_not_delay_a_wake(self):
        """The wait after a scale-down that failed holds back no wake."""
        scaler, cluster = self.build_warm()
        for _ in range(8):
            self.fall_asleep(cluster).fails(BROKEN)
        cluster.show(replicas=0, ready=())
        Client(scaler, "a")
        self.assertEqual(cluster.asked[-1], 1)

    def test_forbidden_scale_down(self):
        """A scale-down that is forbidden refuses nobody: whoever came meanwhile is served, and later ones."""
        scaler, cluster = self.build_warm()
        down = self.fall_asleep(cluster)
        client = Client(scaler, "a")
        down.fails(Forbidden(403, "Forbidden", "no"))
        self.assertEqual(client.replica, pod())
        self.assertEqual(Client(scaler, "b").replica, pod())

    def test_forbidden_while_the_pod_is_lost(self):
        """A client that waits for a lost pod is not refused because a scale-down was forbidden."""
        scaler, cluster = self.build_warm()
        down = self.fall_asleep(cluster)
        client = Client(scaler, "a")
        cluster.show(ready=())
        down.fails(Forbidden(403, "Forbidden", "no"))
        self.assertTrue(client.waiting)
        cluster.show(ready=(pod("b"),))
        self.assertEqual(client.replica, pod("b"))
