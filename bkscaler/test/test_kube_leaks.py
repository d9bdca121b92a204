"""Nothing foreign leaves the kube room: every failure and every odd answer becomes one of our errors."""

import random
from typing import Any

from OpenSSL import SSL
from twisted.internet import error as net
from twisted.internet.defer import Deferred, fail
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import RequestTransmissionFailed, ResponseFailed, ResponseNeverReceived
from twisted.web.iweb import IAgent
from zope.interface import implementer

from bkscaler.errors import ApiError
from bkscaler.kube import statefulset
from bkscaler.kube.auth import ClusterAccess, NoCredentials
from bkscaler.kube.client import ApiClient
from bkscaler.kube.cluster import ClusterView
from bkscaler.test.test_kube_support import Api, Outcome

ZOO = [
    net.ConnectionRefusedError(),
    net.TimeoutError(),
    net.DNSLookupError("no such host"),
    net.ConnectionLost(),
    ResponseNeverReceived([Failure(net.ConnectionLost())]),
    ResponseFailed([Failure(SSL.Error([("a", "b", "c")]))]),
    RequestTransmissionFailed([Failure(net.ConnectionDone())]),
    SSL.Error(),
    OSError(24, "too many files"),
    UnicodeError("x"),
    ValueError("x"),
    RuntimeError(),
    AssertionError(),
]
ODD = ["", "null", "[]", "7", "{", '{"items": 7}', '{"metadata": [], "spec": "x"}', '{"items": [null, 1]}']


def calls(client: ApiClient, clock) -> list[Any]:
    """Give a maker for each request that the room offers to others."""
    view = ClusterView(client=client, namespace="n", name="s", clock=clock, random=lambda: 0.0)
    return [
        lambda: view.scale(1, "7"),
        view.refresh,
        lambda: statefulset.get_scale(client, "n", "s"),
    ]


class LeakTests(SynchronousTestCase):
    """What callers can see."""

    def test_failures(self):
        """Whatever the network stack fails with, callers see an ApiError with its cause."""
        api = Api()
        for error in ZOO:

            @implementer(IAgent)
            class Failing:
                def request(self, method, uri, headers=None, bodyProducer=None, error=error):
                    return fail(error)

            access = ClusterAccess(server="https://k", ca_pem=None, credentials=NoCredentials())
            client = ApiClient(access=access, agent=Failing(), clock=api.clock)
            for call in calls(client, api.clock):
                outcome = Outcome(Deferred.fromCoroutine(call()))
                self.assertIsInstance(outcome.error, ApiError, error)
                self.assertIsNotNone(outcome.error.__cause__)
        self.assertEqual(api.pending_calls(), [])

    def test_answers(self):
        """Whatever a server answers, callers see a result or an ApiError."""
        chance = random.Random(9)
        for code in (200, 201, 204, 302, 400, 404, 409, 422, 429, 500, 599):
            for body in [*ODD, "".join(map(chr, chance.choices(range(32, 127), k=50)))]:
                api = Api()
                for call in calls(api.client, api.clock)[:2]:
                    outcome = Outcome(Deferred.fromCoroutine(call()))
                    connection = api.accept()
                    connection.request()
                    connection.answer(code, body if code != 204 else "")
                    self.assertTrue(outcome.done, (code, body))
                    if outcome.error is not None:
                        self.assertIsInstance(outcome.error, ApiError, (code, body))
