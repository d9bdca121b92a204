"""Tests of the API client: a real agent against a server played by hand, every failure translated."""

from OpenSSL import SSL
from twisted.internet import error as net
from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import (
    RequestGenerationFailed,
    RequestTransmissionFailed,
    ResponseFailed,
    ResponseNeverReceived,
)
from twisted.web.iweb import IAgent
from zope.interface import implementer

from bkscaler import __version__, errors
from bkscaler.kube import client as client_module
from bkscaler.kube.auth import ClusterAccess, ExecPlugin, NoCredentials, StaticToken
from bkscaler.kube.client import MERGE_PATCH, ApiClient, path_to
from bkscaler.test.test_kube_support import Api, ChangingToken, Connection, Outcome, status


class RequestTests(SynchronousTestCase):
    """One request, one answer."""

    def setUp(self):
        self.told = []
        self.api = Api(on_response=lambda verb, code: self.told.append((verb, code)))
        self.addCleanup(lambda: self.assertEqual(self.api.pending_calls(), []))

    def get(self, **more):
        return self.api.start(self.api.client.request("GET", "/api/v1/things", **more))

    def test_get(self):
        """A GET goes out with token, user agent and quoted parameters, and gives the JSON object."""
        outcome = self.get(params={"fieldSelector": "metadata.name=a b"})
        connection = self.api.accept()
        verb, target, headers, body = connection.request()
        self.assertEqual((verb, target), ("GET", "/prefix/api/v1/things?fieldSelector=metadata.name%3Da%20b"))
        self.assertEqual(headers["authorization"], "Bearer sesame")
        self.assertEqual(headers["user-agent"], f"bkscaler/{__version__}")
        self.assertEqual(body, "")
        connection.answer(200, {"kind": "Thing"})
        self.assertEqual(outcome.result, {"kind": "Thing"})
        self.assertEqual(self.told, [("GET", 200)])

    def test_patch(self):
        """A PATCH carries its body and content type."""
        outcome = self.api.start(
            self.api.client.request("PATCH", "/x", body={"spec": {"replicas": 1}}, content_type=MERGE_PATCH)
        )
        connection = self.api.accept()
        verb, _, headers, body = connection.request()
        self.assertEqual((verb, body), ("PATCH", '{"spec": {"replicas": 1}}'))
        self.assertEqual(headers["content-type"], "application/merge-patch+json")
        connection.answer(200, {})
        self.assertEqual(outcome.result, {})

    def test_no_credentials(self):
        """Without credentials no Authorization header is sent."""
        self.api = Api(NoCredentials())
        outcome = self.get()
        connection = self.api.accept()
        self.assertNotIn("authorization", connection.request()[2])
        connection.answer(200, {})
        self.assertTrue(outcome.done)

    def test_401_rereads_once(self):
        """A 401 makes the credentials read again and the request is tried once more, not twice."""
        for second, expected in [(200, type(None)), (401, errors.Unauthorized)]:
            token = ChangingToken()
            self.api = Api(token)
            outcome = self.get()
            connection = self.api.accept()
            self.assertEqual(connection.request()[2]["authorization"], "Bearer token-0")
            connection.answer(401, status(401, "Unauthorized"))
            connection = self.api.accept()
            self.assertEqual(connection.request()[2]["authorization"], "Bearer token-1")
            connection.answer(second, status(second, "Unauthorized"))
            self.assertTrue(outcome.done)
            self.assertIsInstance(outcome.error, expected)
            self.assertEqual((self.api.dials, token.rereads), (0, 1))

    def test_each_status_has_its_class(self):
        """Error answers become the class that callers tell apart, with code, reason and message."""
        table = [
            (400, errors.ApiStatus),
            (403, errors.Forbidden),
            (404, errors.NotFound),
            (409, errors.Conflict),
            (410, errors.Gone),
            (429, errors.Throttled),
            (500, errors.ApiStatus),
            (504, errors.ApiStatus),
        ]
        for code, expected in table:
            outcome = self.get()
            self.api.accept().answer(code, status(code, "Because", "some\nwords"))
            self.assertIs(type(outcome.error), expected)
            self.assertEqual(
                (outcome.error.code, outcome.error.reason, outcome.error.message),
                (code, "Because", "some words"),
            )

    def test_429_in_plain_text(self):
        """Throttling by priority and fairness is plain text with Retry-After, and understood."""
        outcome = self.get()
        text = "Too many requests, please try again later.\n"
        self.api.accept().answer(429, text, {"Content-Type": "text/plain; charset=utf-8", "Retry-After": "1"})
        self.assertIsInstance(outcome.error, errors.Throttled)
        self.assertEqual((outcome.error.retry_after_s, outcome.error.message), (1.0, text.strip()))

    def test_retry_after(self):
        """The wait comes from the header or the Status, is bounded, and odd values are left out."""
        detailed = {**status(504, "Timeout"), "details": {"retryAfterSeconds": 3}}
        table = [
            ({"Retry-After": "2"}, detailed, 2.0),
            ({}, detailed, 3.0),
            ({"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}, "", None),
            ({"Retry-After": "-5"}, "", None),
            ({"Retry-After": "86400"}, "", 300.0),
        ]
        for headers, body, expected in table:
            outcome = self.get()
            self.api.accept().answer(503, body, headers)
            self.assertEqual(outcome.error.retry_after_s, expected)

    def test_long_words_are_cut(self):
        """No more than 256 characters of an answer's words enter our error."""
        for body in (status(500, "X", "a" * 5000), "b" * 5000):
            outcome = self.get()
            self.api.accept().answer(500, body)
            self.assertLessEqual(len(outcome.error.message), 256)

    def test_redirect(self):
        """A redirect is not followed: the token is for this server alone."""
        outcome = self.get()
        self.api.accept().answer(302, "", {"Location": "https://elsewhere.example/"})
        self.assertIs(type(outcome.error), errors.ApiError)
        self.assertEqual(self.api.dials, 0)

    def test_unusable_success(self):
        """A success without a JSON object may have taken effect, but says nothing."""
        for body in ("", "<html>", "[1]", "null", "[" * 100000):
            outcome = self.get()
            self.api.accept().answer(200, body)
            self.assertIsInstance(outcome.error, errors.ApiUnreachable)
            self.assertTrue(outcome.error.sent)

    def test_too_long(self):
        """An answer above the limit is refused and its connection closed."""
        self.patch(client_module, "MAX_ANSWER_BYTES", 1000)
        outcome = self.get()
        connection = self.api.accept()
        connection.stream()
        connection.chunk(b"x" * 1001)
        self.assertIsInstance(outcome.error, errors.ApiUnreachable)
        self.assertFalse(connection.open)

    def test_refused(self):
        """A refused connection was certainly not asked."""
        outcome = self.get()
        self.api.refuse()
        self.assertIsInstance(outcome.error, errors.ApiUnreachable)
        self.assertFalse(outcome.error.sent)
        self.assertIn("refused", str(outcome.error))

    def test_no_connection_in_time(self):
        """A connection that does not come about in time was certainly not asked."""
        outcome = self.get(timeout_s=5)
        self.api.clock.advance(5)
        self.assertIsInstance(outcome.error, errors.ApiUnreachable)
        self.assertFalse(outcome.error.sent)

    def test_no_answer_in_time(self):
        """A request that is not answered in time may have taken effect; its connection is closed."""
        for begun in (False, True):
            outcome = self.get(timeout_s=5)
            connection = self.api.accept()
            if begun:
                connection.stream()
                connection.chunk(b"{")
            self.api.clock.advance(5)
            self.assertIsInstance(outcome.error, errors.ApiUnreachable)
            self.assertTrue(outcome.error.sent)
            self.assertFalse(connection.open)

    def test_cut(self):
        """A connection lost before or in the answer may have had its effect."""
        for begun in (False, True):
            outcome = self.get()
            connection = self.api.accept()
            if begun:
                connection.stream()
                connection.chunk(b'{"a":')
            connection.cut()
            self.assertIsInstance(outcome.error, errors.ApiUnreachable)
            self.assertTrue(outcome.error.sent)

    def test_cancel(self):
        """Cancelling closes the connection, or the attempt, and raises CancelledError, at every stage."""
        for stage in ("dialling", "sent", "answering"):
            outcome = self.get()
            connection = self.api.accept() if stage != "dialling" else None
            if stage == "answering":
                connection.stream()
            outcome.cancel()
            self.assertIsInstance(outcome.error, CancelledError, stage)
            if connection:
                self.assertFalse(connection.open)
            self.api.clock.tcpClients.clear()

    def test_hook_hears_of_no_answer(self):
        """A request, or a stream, that gets no answer is reported with status 0."""
        self.get()
        self.api.refuse()
        self.api.start(
            self.api.client.stream(
                "/x", params={}, on_open=lambda: None, on_bytes=lambda data: None, silence_s=1
            )
        )
        self.api.refuse()
        self.assertEqual(self.told, [("GET", 0), ("WATCH", 0)])

    def test_hook_fails(self):
        """A metrics hook that fails is logged and spoils nothing."""
        self.api = Api(on_response=lambda verb, code: 1 / 0)
        outcome = self.get()
        self.api.accept().answer(200, {"a": 1})
        self.assertEqual(outcome.result, {"a": 1})
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_close(self):
        """Closing ends the connections that were kept, and leaves nothing on the clock."""
        self.api = Api(persistent=True)
        outcome = self.get()
        connection = self.api.accept()
        connection.answer(200, {})
        self.assertTrue(outcome.done)
        self.assertTrue(connection.open)
        closed = self.api.client.close()
        self.api.clock.advance(0)
        self.successResultOf(closed)
        self.assertFalse(connection.open)

    def test_not_kept_for_long(self):
        """A connection that is not used is closed soon: it may die without a word, and a wake with it."""
        clock = MemoryReactorClock()
        access = ClusterAccess(server="http://192.0.2.1:8001", ca_pem=None, credentials=StaticToken("sesame"))
        client = ApiClient.over_network(access=access, reactor=clock)
        outcome = Outcome(Deferred.fromCoroutine(client.request("GET", "/version")))
        connection = Connection(clock, clock.tcpClients.pop(0)[2])
        connection.answer(200, {})
        self.assertTrue(outcome.done)
        clock.advance(4)
        self.assertTrue(connection.open)
        clock.advance(1)
        self.assertFalse(connection.open)

    def kept(self):
        """Make a client that keeps connections, and one kept connection, while another request is open."""
        self.api = Api(ChangingToken(), persistent=True)
        first, second = self.get(), self.get()
        connections = self.api.accept(), self.api.accept()
        connections[0].answer(200, {})
        self.assertTrue(first.done)
        return second, *connections

    def test_nothing_old_after_a_failure(self):
        """When a request gets no answer, kept connections are closed: they may be as dead as its own."""
        second, kept, broken = self.kept()
        broken.cut()
        self.assertIsInstance(second.error, errors.ApiUnreachable)
        self.assertFalse(kept.open)
        self.api.clock.advance(0)
        self.get().cancel()
        self.assertEqual(self.api.dials, 1)

    def test_new_connection_after_401(self):
        """After a 401 the second try uses a new connection, for which a new certificate can be shown."""
        second, kept, refused = self.kept()
        refused.answer(401, status(401, "Unauthorized"))
        self.assertEqual((kept.open, refused.open), (False, False))
        self.api.accept().answer(200, {"a": 1})
        self.assertEqual(second.result, {"a": 1})
        self.api.client.close()

    def test_kept_after_an_error_answer(self):
        """An error answer says nothing against the connection."""
        second, kept, other = self.kept()
        other.answer(404, status(404, "NotFound"))
        self.assertIsInstance(second.error, errors.NotFound)
        self.assertTrue(kept.open and other.open)
        self.api.client.close()

    def test_programs_are_not_run_by_accident(self):
        """An access that needs a program for credentials is refused where none may be run."""
        plugin = ExecPlugin(command="x", api_version="v1", where="file: users[u].user.exec")
        access = ClusterAccess(server="https://k", ca_pem=None, credentials=NoCredentials(), plugin=plugin)
        error = self.assertRaises(
            errors.ConfigurationError, ApiClient.over_network, access=access, reactor=self.api.clock
        )
        self.assertIn("file: users[u].user.exec", error.problems[0])

    def test_paths_are_quoted(self):
        """The parts of a path are quoted."""
        self.assertEqual(path_to("api", "a/b", "ü"), "/api/a%2Fb/%C3%BC")

    def test_repr(self):
        """The token is not in any repr."""
        self.assertNotIn("sesame", repr(self.api.client) + repr(self.api.client._access))


class ForeignFailureTests(SynchronousTestCase):
    """Nothing foreign leaves the client."""

    def outcome_of(self, error):
        @implementer(IAgent)
        class Failing:
            def request(self, method, uri, headers=None, bodyProducer=None):
                return fail(error)

        api = Api()
        access = ClusterAccess(server="https://k", ca_pem=None, credentials=NoCredentials())
        client = ApiClient(access=access, agent=Failing(), clock=api.clock)
        outcome = api.start(client.request("PATCH", "/x", body={}))
        self.assertEqual(api.pending_calls(), [])
        return outcome.error

    def test_zoo(self):
        """Every failure becomes ApiUnreachable, with its cause, and sent=False only when that is certain."""
        tls = SSL.Error([("SSL routines", "", "certificate verify failed")])
        not_sent = [
            net.ConnectionRefusedError(),
            net.TimeoutError(),
            net.DNSLookupError("no such host"),
            net.NoRouteError(),
            net.ConnectBindError(),
            net.UnknownHostError(),
            tls,
            ResponseNeverReceived([Failure(tls)]),
        ]
        doubtful = [
            ResponseNeverReceived([Failure(net.ConnectionLost())]),
            ResponseFailed([Failure(net.ConnectionDone())]),
            RequestTransmissionFailed([Failure(net.ConnectionLost())]),
            RequestGenerationFailed([Failure(ValueError("x"))]),
            SSL.Error([("SSL routines", "", "sslv3 alert bad record mac")]),
            SSL.Error(),
            OSError(24, "too many files"),
            ValueError("x"),
            KeyError("x"),
            RuntimeError(),
            net.ConnectionLost(),
        ]
        for error in not_sent + doubtful:
            seen = self.outcome_of(error)
            self.assertIsInstance(seen, errors.ApiUnreachable, error)
            self.assertEqual(seen.sent, error in doubtful, error)
            self.assertIsNotNone(seen.__cause__)
            self.assertLessEqual(len(str(seen)), 256)
            self.assertNotIn("\n", str(seen))

    def test_disguised_cancellation(self):
        """A cancellation wrapped by twisted.web is still a cancellation."""
        seen = self.outcome_of(ResponseNeverReceived([Failure(CancelledError())]))
        self.assertIsInstance(seen, CancelledError)
