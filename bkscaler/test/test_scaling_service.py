"""The scaler as its callers see it: waking, waiting, sleeping, starting and stopping."""

from twisted.internet.defer import CancelledError

from bkscaler.errors import ApiStatus, Forbidden, IllegalMove, WakeImpossible
from bkscaler.scaling.machine import Event, State
from bkscaler.test.scaling_support import IDLE_S, REFUSED, Client, ScalerTestCase, pod


class HookTests(ScalerTestCase):
    """What reporters are told."""

    def test_every_event(self):
        """Each change of a fact is reported with everything that holds then."""
        scaler, cluster = self.build()
        client = Client(scaler, "a")
        cluster.scales[0].ok()
        cluster.show(ready=(pod(),))
        client.leave()
        states = [(s.state.value, s.holds, s.wanted) for s in cluster.snapshots]
        self.assertEqual(states[0], ("asleep", 0, 0))
        self.assertEqual(states[1], ("waking", 1, 1))
        self.assertEqual(states[-2:], [("awake", 1, 1), ("idle", 0, 0)])

    def test_scale_requests(self):
        """Each scale request is reported with its reason and what became of it."""
        scaler, cluster = self.build()
        Client(scaler, "a")
        cluster.scales[0].fails(REFUSED)
        cluster.clock.advance(1)
        cluster.scales[1].ok()
        told = [(decision.replicas, decision.reason, error) for decision, error in cluster.scaled]
        self.assertEqual(told, [(1, "1 client waits", REFUSED), (1, "1 client waits", None)])


class WakeTests(ScalerTestCase):
    """From nothing to a replica."""

    def test_first_client_wakes(self):
        """The first client has the set scaled to one, on the version that was observed, and is held."""
        scaler, cluster = self.build()
        client = Client(scaler, "a")
        self.assertEqual([(c.replicas, c.version) for c in cluster.scales], [(1, "1")])
        self.assertTrue(client.waiting)
        cluster.scales[0].ok()
        self.assertTrue(client.waiting)
        cluster.show(ready=(pod(),))
        self.assertEqual(client.replica, pod())

    def test_several_clients_one_wake(self):
        """Clients that arrive while the set is cold cause one request and are all served."""
        scaler, cluster = self.build()
        clients = [Client(scaler, str(n)) for n in range(10)]
        cluster.scales[0].ok()
        clients += [Client(scaler, str(n)) for n in range(10, 20)]
        cluster.show(ready=(pod(),))
        self.assertEqual(cluster.asked, [1])
        self.assertEqual([client.replica for client in clients], [pod()] * 20)

    def test_ready_at_once(self):
        """A client of an awake builder is served before when_ready returns, and nothing is asked."""
        scaler, cluster = self.build_warm()
        self.assertEqual(Client(scaler, "a").replica, pod())
        self.assertEqual((cluster.asked, cluster.looks), ([], 0))

    def test_before_anything_is_known(self):
        """A client that comes before the first observation waits, and wakes as soon as it is known how."""
        scaler, cluster = self.build(shown=False)
        client = Client(scaler, "a")
        self.assertEqual(cluster.asked, [])
        cluster.show()
        self.assertEqual(cluster.asked, [1])
        self.assertTrue(client.waiting)

    def test_blind_client_looks(self):
        """As long as nothing is known and somebody waits, the cluster is read every two seconds."""
        scaler, cluster = self.build(shown=False)
        cluster.trouble = REFUSED
        client = Client(scaler, "a")
        cluster.clock.pump([1.0] * 4)
        self.assertEqual((cluster.looks, cluster.asked), (2, []))
        cluster.trouble = None
        cluster.clock.advance(2)
        self.assertEqual(cluster.asked, [1])
        self.assertTrue(client.waiting)

    def test_wake_is_backed_up_by_reads(self):
        """While a wake is pending the cluster is read every two seconds, in case the watch is dead."""
        scaler, cluster = self.build()
        client = Client(scaler, "a")
        cluster.scales[0].ok()
        cluster.clock.pump([0.5] * 7)
        self.assertEqual(cluster.looks, 1)
        cluster.change(ready=(pod(),))
        cluster.clock.advance(0.5)
        self.assertEqual((cluster.looks, client.replica), (2, pod()))
        cluster.clock.advance(60)
        self.assertEqual(cluster.looks, 2)

    def test_reads_are_counted_right(self):
        """However the times add up in floating point, a minute of waking has its thirty reads."""
        for n in range(1, 60):
            scaler, cluster = self.build()
            cluster.clock.pump([0.1] * n)
            Client(scaler, "a")
            cluster.clock.pump([0.1] * 610)
            self.assertEqual(cluster.looks, 30)

    def test_one_read_at_a_time(self):
        """A read that hangs is not joined by a second one."""
        scaler, cluster = self.build()
        Client(scaler, "a")
        cluster.slow = True
        cluster.clock.pump([1.0] * 10)
        self.assertEqual(cluster.looks, 1)
        cluster.answer_look(REFUSED)
        cluster.clock.advance(2)
        self.assertEqual(cluster.looks, 2)

    def test_again_after_failed_dial(self):
        """A client may wait again on the same hold."""
        scaler, _cluster = self.build_warm()
        client = Client(scaler, "a")
        self.assertEqual(self.successResultOf(client.hold.when_ready()), pod())

    def test_names_are_unique(self):
        """A second hold of a name that exists is refused, and changes nothing."""
        scaler, _cluster = self.build()
        scaler.hold("a")
        self.assertRaises(ValueError, scaler.hold, "a")
        self.assertEqual(scaler.snapshot().holds, 1)


class SleepTests(ScalerTestCase):
    """From a replica to nothing."""

    def test_idle_then_asleep(self):
        """When the last hold is gone the idle timeout runs; then a read, and one scale-down."""
        scaler, cluster = self.build_warm()
        client = Client(scaler, "a")
        cluster.clock.advance(1000)
        client.hold.release()
        cluster.clock.advance(IDLE_S - 0.1)
        self.assertEqual((cluster.asked, cluster.looks), ([], 0))
        cluster.clock.advance(0.1)
        self.assertEqual((cluster.asked, cluster.looks), ([0], 1))
        self.assertIs(scaler.snapshot().state, State.GOING_TO_SLEEP)
        cluster.scales[0].ok()
        self.assertIs(scaler.snapshot().state, State.ASLEEP)
        self.assertEqual(cluster.clock.getDelayedCalls(), [])

    def test_release_is_idempotent(self):
        """A hold that is released twice ends one demand."""
        scaler, cluster = self.build_warm()
        one, two = Client(scaler, "a"), Client(scaler, "b")
        one.hold.release()
        one.hold.release()
        cluster.clock.advance(IDLE_S * 2)
        self.assertEqual(cluster.asked, [])
        two.hold.release()
        self.fall_asleep(cluster).ok()

    def test_adopted_at_start(self):
        """A builder that runs when we start is adopted: the idle timeout starts, nothing is sent at once."""
        _scaler, cluster = self.build_warm()
        self.assertEqual(cluster.asked, [])
        cluster.clock.advance(IDLE_S - 1)
        self.assertEqual(cluster.asked, [])
        cluster.clock.advance(1)
        self.assertEqual(cluster.asked, [0])

    def test_drain(self):
        """After drain the builder is never put to sleep, and can still be woken."""
        scaler, cluster = self.build_warm()
        scaler.drain()
        cluster.clock.advance(IDLE_S * 10)
        self.assertEqual(cluster.asked, [])
        self.assertIsNone(scaler.snapshot().sleeps_at_s)
        cluster.show(replicas=0, ready=())
        Client(scaler, "a")
        self.assertEqual(cluster.asked, [1])

    def test_at_rest(self):
        """At rest nothing is on the clock and nothing is asked."""
        _scaler, cluster = self.build()
        cluster.clock.advance(100000)
        self.assertEqual((cluster.looks, cluster.asked, cluster.clock.getDelayedCalls()), (0, [], []))


class EndOfWaitTests(ScalerTestCase):
    """Waits that end without a replica."""

    def test_cancelled_alone(self):
        """Cancelling one wait cancels neither the wake nor the wait of another."""
        scaler, cluster = self.build()
        one, two = Client(scaler, "a"), Client(scaler, "b")
        one.leave()
        self.assertIsInstance(one.error, CancelledError)
        self.assertFalse(cluster.scales[0].cancelled)
        cluster.scales[0].ok()
        cluster.show(ready=(pod(),))
        self.assertEqual(two.replica, pod())

    def refuse_for(self, cluster, seconds):
        """Refuse every request to scale as forbidden, for so long."""
        end_s = cluster.clock.seconds() + seconds
        while cluster.clock.seconds() < end_s:
            if not cluster.scales[-1].deferred.called:
                cluster.scales[-1].fails(Forbidden(403, "Forbidden", "cannot patch statefulsets/scale"))
            cluster.clock.advance(0.1)

    def test_forbidden(self):
        """A missing right to scale is told to those who wait; once it is granted, all is well."""
        scaler, cluster = self.build()
        client = Client(scaler, "a")
        self.refuse_for(cluster, 7)
        self.assertIsInstance(client.error, WakeImpossible)
        self.assertEqual(client.error.reason, "cannot patch statefulsets/scale")
        client.leave()
        later = Client(scaler, "b")
        cluster.clock.advance(5)
        cluster.scales[-1].ok()
        cluster.show(ready=(pod(),))
        self.assertEqual(later.replica, pod())

    def test_forbidden_for_a_moment(self):
        """An API server that has just started refuses everybody for a moment; those who wait are served."""
        scaler, cluster = self.build()
        client = Client(scaler, "a")
        self.refuse_for(cluster, 1)
        cluster.clock.advance(1)
        cluster.scales[-1].ok()
        cluster.show(ready=(pod(),))
        self.assertEqual(client.replica, pod())

    def test_missing(self):
        """A set that stays missing for five seconds is told to those who wait, by name."""
        scaler, cluster = self.build(exists=False, resource_version="", waiting_for="there is no set")
        client = Client(scaler, "a")
        cluster.clock.advance(4.9)
        self.assertTrue(client.waiting)
        cluster.clock.advance(0.1)
        self.assertEqual(client.error.reason, "there is no set")
        client.leave()
        late = Client(scaler, "b")
        cluster.clock.advance(0)
        self.assertIsInstance(late.error, WakeImpossible)

    def test_missing_when_last_seen(self):
        """A set that was missing when the API was lost may be there again: clients wait for a read."""
        scaler, cluster = self.build(exists=False, resource_version="", waiting_for="there is no set")
        cluster.clock.advance(60)
        cluster.trouble = REFUSED
        first, second = Client(scaler, "a"), Client(scaler, "b")
        cluster.clock.advance(60)
        self.assertTrue(first.waiting and second.waiting)
        cluster.trouble = None
        cluster.change(exists=True)
        cluster.clock.advance(2)
        self.assertEqual(cluster.asked, [1])
        self.assertTrue(first.waiting and second.waiting)

    def test_missing_for_a_moment(self):
        """A set that is replaced while somebody waits is woken as soon as it is there again."""
        scaler, cluster = self.build(exists=False, resource_version="")
        client = Client(scaler, "a")
        cluster.clock.advance(4)
        cluster.show(exists=True)
        self.assertEqual(cluster.asked, [1])
        cluster.clock.advance(10)
        self.assertTrue(client.waiting)
        cluster.scales[0].ok()
        cluster.show(ready=(pod(),))
        self.assertEqual(client.replica, pod())

    def test_missing_set_found_by_reading(self):
        """A set that was made while the watch was dead is found by the reads of those who wait."""
        scaler, cluster = self.build(exists=False, resource_version="")
        Client(scaler, "a")
        cluster.change(exists=True)
        cluster.clock.advance(2)
        self.assertEqual(cluster.asked, [1])

    def test_stop(self):
        """Stopping fails the waits, cancels what is under way, and leaves nothing behind."""
        scaler, cluster = self.build()
        client = Client(scaler, "a")
        cluster.slow = True
        cluster.clock.advance(2)
        self.successResultOf(scaler.stopService())
        self.assertIsInstance(client.error, WakeImpossible)
        self.assertTrue(cluster.scales[0].cancelled)
        self.assertEqual(cluster.clock.getDelayedCalls(), [])
        client.hold.release()
        cluster.show(replicas=1, ready=(pod(),))
        self.assertEqual(cluster.clock.getDelayedCalls(), [])

    def test_stop_during_back_off(self):
        """Stopping while a failed request waits for its next try leaves nothing on the clock."""
        scaler, cluster = self.build()
        Client(scaler, "a")
        cluster.scales[0].fails(ApiStatus(500, "", "broken"))
        self.successResultOf(scaler.stopService())
        self.assertEqual(cluster.clock.getDelayedCalls(), [])

    def test_wait_after_stop(self):
        """A wait that begins after the stop fails at once."""
        scaler, _cluster = self.build_warm()
        scaler.stopService()
        self.assertIsInstance(Client(scaler, "a").error, WakeImpossible)

    def test_not_started(self):
        """Before the service starts nothing is sent; then what has been missed is made good."""
        scaler, cluster = self.build(started=False)
        Client(scaler, "a")
        self.assertEqual(cluster.asked, [])
        scaler.startService()
        self.assertEqual(cluster.asked, [1])


class ReentrancyTests(ScalerTestCase):
    """Calls from inside callbacks."""

    def test_release_and_wait_from_callbacks(self):
        """Whoever is served may release, hold and wait at once, and the others are still served."""
        scaler, cluster = self.build()
        first, second, third = (Client(scaler, name) for name in "abc")
        more = []
        first.wait.addCallback(lambda _: second.leave())
        first.wait.addCallback(lambda _: first.hold.release())
        third.wait.addCallback(lambda _: more.append(Client(scaler, "d")))
        cluster.scales[0].ok()
        cluster.show(ready=(pod(),))
        self.assertIsInstance(second.error, CancelledError)
        self.assertEqual((third.replica, more[0].replica), (pod(), pod()))
        self.assertEqual(scaler.snapshot().holds, 2)

    def test_all_release_when_served(self):
        """When everyone leaves from the callback that serves them, the idle timeout runs."""
        scaler, cluster = self.build()
        clients = [Client(scaler, name) for name in "abc"]
        for client in clients:
            client.wait.addCallback(lambda _, client=client: client.hold.release())
        cluster.scales[0].ok()
        cluster.show(ready=(pod(),))
        self.assertIs(scaler.snapshot().state, State.IDLE)
        self.fall_asleep(cluster).ok()

    def test_wait_again_from_a_failure(self):
        """A client that waits again when it is told that waking is impossible is held, not spun."""
        scaler, cluster = self.build()
        client = Client(scaler, "a")
        again = []
        client.wait.addBoth(lambda _: again.append(client.hold.when_ready()))
        cluster.scales[0].fails(Forbidden(403, "Forbidden", "no"))
        cluster.clock.advance(5)
        cluster.scales[1].fails(Forbidden(403, "Forbidden", "no"))
        self.assertNoResult(again[0])
        again[0].addErrback(lambda failure: failure.trap(WakeImpossible))
        self.assertEqual(cluster.asked, [1, 1])

    def test_request_answered_at_once(self):
        """A cluster that answers before the request returns is as good as any other."""
        scaler, cluster = self.build()
        ask = cluster.scale

        def at_once(replicas, version):
            answer = ask(replicas, version)
            cluster.scales[-1].ok()
            return answer

        cluster.scale = at_once
        client = Client(scaler, "a")
        self.assertEqual(cluster.asked, [1])
        cluster.show(ready=(pod(),))
        client.hold.release()
        cluster.clock.advance(IDLE_S)
        self.assertEqual((cluster.asked, scaler.snapshot().state), ([1, 0], State.ASLEEP))


class ReportTests(ScalerTestCase):
    """What the scaler says of itself, and what it does about its own mistakes."""

    def test_snapshot(self):
        """The snapshot tells state, since when, demand, waits and the time of sleep."""
        scaler, cluster = self.build_warm()
        cluster.clock.advance(7)
        idle = scaler.snapshot()
        self.assertEqual((idle.state, idle.since_s, idle.sleeps_at_s), (State.IDLE, 0.0, IDLE_S))
        scaler.hold("a")
        awake = scaler.snapshot()
        self.assertEqual((awake.state, awake.since_s, awake.holds), (State.AWAKE, 7.0, 1))
        self.assertIsNone(awake.sleeps_at_s)

    def test_repr(self):
        """The repr is one line with state, holds and waits."""
        scaler, _cluster = self.build()
        Client(scaler, "a")
        self.assertEqual(repr(scaler), "<Scaler waking, 1 holds, 1 waiting>")

    def test_an_illegal_move_does_not_wedge(self):
        """A move that the table forbids is logged as the bug it is, and work goes on from the facts."""
        scaler, cluster = self.build()
        scaler._send(Event.ANSWERED)  # an event that cannot happen in this state
        self.assertEqual(len(self.flushLoggedErrors(IllegalMove)), 1)
        client = Client(scaler, "a")
        cluster.scales[0].ok()
        cluster.show(ready=(pod(),))
        self.assertEqual(client.replica, pod())
