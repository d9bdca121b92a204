"""Scale requests by themselves: what may be started when, and what is known of a failure."""

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from bkscaler.errors import ApiError, ApiStatus, ApiUnreachable, Conflict, Forbidden
from bkscaler.scaling.policy import ScaleTo
from bkscaler.scaling.requests import ScaleRequests, may_have_happened
from bkscaler.test.scaling_support import REFUSED, StandInCluster

WAKE = ScaleTo(replicas=1, resource_version="1", reason="test")
SLEEP = ScaleTo(replicas=0, resource_version="1", reason="test", down=True)


class MayHaveHappenedTests(SynchronousTestCase):
    """What a failure says about the request."""

    def test_table(self):
        """Only refusals by the server and requests that never left are certain."""
        table = [
            (REFUSED, False),
            (ApiUnreachable("lost", sent=True), True),
            (Conflict(409, "Conflict", ""), False),
            (ApiStatus(422, "Invalid", ""), False),
            (ApiStatus(500, "", ""), True),
            (ApiStatus(504, "", ""), True),
            (ApiError("redirect"), True),
            (KeyError("bug"), True),
        ]
        for error, expected in table:
            self.assertEqual(may_have_happened(error), expected, error)


class RequestsTests(SynchronousTestCase):
    """One at a time, with waits of their own."""

    def setUp(self):
        self.clock = Clock()
        self.cluster = StandInCluster()
        self.cluster.observer = lambda observation: None
        self.told = []
        self.requests = ScaleRequests(
            clock=self.clock,
            cluster=self.cluster,
            random=lambda: 0.0,
            on_free=lambda: self.told.append("free"),
            on_checked=lambda began_s: self.told.append("checked"),
            on_forbidden=self.told.append,
            on_answer=lambda what, error: None,
            on_scaled=lambda decision: None,
        )
        self.addCleanup(lambda: self.assertEqual(self.clock.getDelayedCalls(), []))
        self.addCleanup(lambda: self.successResultOf(self.requests.stop()))

    def free_for(self):
        return self.requests.free_for(WAKE), self.requests.free_for(SLEEP)

    def test_one_at_a_time(self):
        """While a request is under way none may be started; afterwards any."""
        self.assertEqual(self.free_for(), (True, True))
        self.requests.start(WAKE)
        self.assertTrue(self.requests.sending)
        self.assertEqual(self.free_for(), (False, False))
        self.cluster.scales[0].ok()
        self.assertEqual((self.told, self.free_for()), (["free"], (True, True)))

    def test_a_wait_is_for_its_like(self):
        """After a failure only the same request waits, and the end of the wait is told."""
        self.requests.start(SLEEP)
        self.cluster.scales[0].fails(REFUSED)
        self.assertEqual((self.told, self.free_for()), (["free"], (True, False)))
        self.clock.advance(0.5)
        self.assertEqual((self.told, self.free_for()), (["free", "free"], (True, True)))

    def test_another_request_ends_the_wait(self):
        """A different request ends the wait for the first, and its count of failures."""
        self.requests.start(SLEEP)
        self.cluster.scales[0].fails(REFUSED)
        self.requests.start(WAKE)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.cluster.scales[1].fails(REFUSED)
        self.clock.advance(0.2)
        self.assertEqual(self.free_for(), (True, True))

    def refuse(self, error=None):
        """Let one request to wake fail, as forbidden if nothing else is said; give what was told of it."""
        self.requests.start(WAKE)
        before = len(self.told)
        self.cluster.scales[-1].fails(error or Forbidden(403, "Forbidden", "no"))
        return [word for word in self.told[before:] if word != "free"]

    def test_a_refusal_that_lasts(self):
        """A missing right is told when it has been missing for five seconds, and at each try from then on."""
        self.assertEqual(self.refuse(), [])
        self.clock.advance(4.9)
        self.assertEqual(self.refuse(), [])
        self.clock.advance(0.1)
        self.assertEqual(self.refuse(), ["no"])
        self.clock.advance(1.0)
        self.assertEqual(self.refuse(), ["no"])

    def test_a_refusal_interrupted(self):
        """An API server that is out of reach, or that grants a request, may refuse anew for a moment."""
        self.assertEqual(self.refuse(), [])
        self.clock.advance(4.9)
        self.assertEqual(self.refuse(REFUSED), [])
        self.clock.advance(0.1)
        self.assertEqual(self.refuse(), [])

    def test_a_refusal_of_long_ago(self):
        """What was refused half a minute ago and more, with nothing asked since, says nothing of today."""
        self.assertEqual(self.refuse(), [])
        self.clock.advance(30.1)
        self.assertEqual(self.refuse(), [])

    def test_a_conflict_after_failures(self):
        """A first conflict needs no wait, whatever failed before it; the second one in a row waits."""
        self.refuse(REFUSED)
        self.refuse(Conflict(409, "Conflict", ""))
        self.assertEqual(self.free_for(), (True, True))
        self.refuse(Conflict(409, "Conflict", ""))
        self.assertEqual(self.free_for(), (False, True))
        self.clock.advance(5.0)

    def test_lapsed(self):
        """What has failed is forgotten when nothing is left to ask for: a first conflict needs no wait."""
        self.refuse(Conflict(409, "Conflict", ""))
        self.refuse(Conflict(409, "Conflict", ""))
        self.clock.advance(5.0)
        self.requests.lapsed(0)
        self.refuse(Conflict(409, "Conflict", ""))
        self.assertEqual(self.free_for(), (True, True))

    def test_lapsed_as_it_was_carried_out(self):
        """What has failed, and is so all the same, was done; done again and again, it waits ever longer."""
        for wait_s in (0.2, 0.4, 0.8):
            self.refuse(ApiStatus(504, "Timeout", "no"))
            self.requests.lapsed(1)
            self.assertTrue(self.requests.undone)
            self.clock.advance(wait_s / 2 - 0.01)
            self.assertEqual(self.free_for(), (False, True))
            self.clock.advance(wait_s / 2 + 0.01)
            self.assertEqual(self.free_for(), (True, True))

    def test_lapsed_while_the_server_is_to_be_left_alone(self):
        """That it was done after all does not shorten the time that the server has asked for."""
        self.refuse(ApiStatus(503, "ServiceUnavailable", "no", retry_after_s=7.0))
        self.requests.lapsed(1)
        self.clock.advance(6.9)
        self.assertEqual(self.free_for(), (False, True))
        self.clock.advance(0.1)
        self.assertEqual(self.free_for(), (True, True))

    def test_check(self):
        """A check that succeeds is told; one that fails makes the next one wait."""
        self.requests.check(SLEEP)
        self.assertEqual((self.told, self.cluster.looks), (["checked"], 1))
        self.cluster.trouble = REFUSED
        self.requests.check(SLEEP)
        self.assertEqual(self.free_for(), (True, False))
        self.clock.advance(0.5)
        self.assertEqual(self.told, ["checked", "free"])

    def test_check_is_superseded(self):
        """A check whose answer comes after something else was started is forgotten."""
        self.cluster.slow = True
        self.requests.check(SLEEP)
        self.assertEqual(self.free_for(), (True, False))
        self.requests.start(WAKE)
        self.cluster.answer_look()
        self.assertEqual(self.told, [])
        self.cluster.scales[0].ok()
        self.assertEqual(self.told, ["free"])

    def test_stop(self):
        """After stop everything is cancelled, nothing is told, and nothing may be started."""
        self.cluster.slow = True
        self.requests.check(SLEEP)
        self.requests.start(WAKE)
        self.requests.refresh()
        self.successResultOf(self.requests.stop())
        self.assertTrue(self.cluster.scales[0].cancelled)
        self.assertEqual((self.told, self.free_for()), ([], (False, False)))
        self.requests.refresh()
        self.assertEqual(self.cluster.looks, 2)
