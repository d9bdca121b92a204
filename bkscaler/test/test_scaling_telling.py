"""What is told of the builder, and when."""

from bkscaler.errors import ApiUnreachable, Forbidden
from bkscaler.model import Happening
from bkscaler.test.scaling_support import Client, ScalerTestCase, pod


class HappeningTests(ScalerTestCase):
    """One line for each thing that becomes of the builder."""

    def test_whole_life(self):
        """A wake is told with who waits, readiness with the seconds, sleep with how long it was idle."""
        scaler, cluster = self.build()
        self.assertEqual(self.happenings, [])
        client = Client(scaler, "a")
        cluster.scales[0].ok()
        cluster.clock.advance(3.2)
        cluster.show(ready=(pod(),))
        client.leave()
        self.fall_asleep(cluster).ok()
        self.assertEqual(
            self.happenings,
            [
                (Happening.WAKING_UP, "scaled to 1: 1 client waits"),
                (Happening.READY, "buildkitd-0 is ready after 3s"),
                (Happening.GOING_TO_SLEEP, "scaled to 0: idle for 2m0s"),
            ],
        )

    def test_time_counts_from_the_demand(self):
        """Readiness counts from when a client began to wait, however often the request had to be sent."""
        scaler, cluster = self.build()
        Client(scaler, "a")
        cluster.scales[0].fails(ApiUnreachable("refused", sent=False))
        cluster.clock.advance(20)
        cluster.scales[-1].ok()
        cluster.clock.advance(2)
        cluster.show(ready=(pod(),))
        self.assertEqual(self.happenings[-1], (Happening.READY, "buildkitd-0 is ready after 22s"))

    def test_nothing_without_demand(self):
        """What others do to the set, and a builder that is adopted, is not told."""
        _, cluster = self.build()
        cluster.show(replicas=1)
        cluster.show(ready=(pod(),))
        cluster.clock.advance(60)
        cluster.show(replicas=0, ready=())
        self.assertEqual(self.happenings, [])

    def test_ready_once(self):
        """A pod that is ready, not ready and ready again was woken once."""
        scaler, cluster = self.build()
        Client(scaler, "a")
        cluster.scales[0].ok()
        for ready in ((pod(),), (), (pod(),)):
            cluster.show(ready=ready)
        self.assertEqual([what for what, _ in self.happenings].count(Happening.READY), 1)

    def test_failed(self):
        """That clients were told that nothing comes is told with the reason, once for all of them."""
        scaler, cluster = self.build()
        clients = [Client(scaler, name) for name in "abc"]
        while any(client.waiting for client in clients):
            cluster.scales[-1].fails(Forbidden(403, "Forbidden", "no right"))
            cluster.clock.advance(6)
        self.assertTrue(all(client.error for client in clients))
        self.assertEqual(self.happenings, [(Happening.WAKE_FAILED, "no right")])

    def test_gave_up(self):
        """A client whose time was over is told with what it has waited for."""
        scaler, cluster = self.build(waiting_for="pod buildkitd-0: pulling image")
        scaler.gave_up()
        cluster.show(waiting_for="")
        scaler.gave_up()
        self.assertEqual(
            self.happenings,
            [
                (Happening.WAKE_FAILED, "pod buildkitd-0: pulling image"),
                (Happening.WAKE_FAILED, "not ready in time"),
            ],
        )

    def test_nobody_waits(self):
        """At the end of the process nothing has failed."""
        scaler, _ = self.build()
        Client(scaler, "a")
        self.successResultOf(scaler.stopService())
        self.assertEqual(self.happenings, [])

    def test_listener_fails(self):
        """A listener that raises is logged and changes nothing."""
        scaler, cluster = self.build()
        scaler._telling._report = lambda what, words: 1 / 0
        client = Client(scaler, "a")
        cluster.scales[0].ok()
        cluster.show(ready=(pod(),))
        self.assertEqual(client.replica, pod())
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)
