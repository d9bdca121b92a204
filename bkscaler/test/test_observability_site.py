"""Tests of the admin port."""

from __future__ import annotations

from treq.testing import RequestTraversalAgent, StubTreq
from twisted.trial.unittest import SynchronousTestCase

from bkscaler.observability.site import AdminSite


class AdminSiteTests(SynchronousTestCase):
    """What each address answers."""

    def ask(self, path, missing=(), method="GET"):
        """Ask a site; give the status and the text."""
        site = AdminSite(lambda: list(missing))
        self.addCleanup(site.stopFactory)
        client = StubTreq(site.resource)
        response = self.successResultOf(client.request(method, f"http://localhost{path}"))
        return response.code, self.successResultOf(response.text())

    def test_healthz(self):
        """``/healthz`` says that the reactor turns, whatever else is missing."""
        self.assertEqual(self.ask("/healthz", ["something"]), (200, "ok\n"))

    def test_ready(self):
        """``/readyz`` answers 200 when nothing is missing."""
        self.assertEqual(self.ask("/readyz"), (200, "ready\n"))

    def test_not_ready(self):
        """``/readyz`` answers 503 and says, one line each, what is missing."""
        self.assertEqual(self.ask("/readyz", ["this", "that"]), (503, "this\nthat\n"))

    def test_head(self):
        """HEAD has the status and no text."""
        self.assertEqual(self.ask("/readyz", ["this"], "HEAD"), (503, ""))

    def test_read_only(self):
        """Nothing can be changed: other methods are refused, other addresses not found."""
        self.assertEqual(self.ask("/healthz", method="POST")[0], 405)
        self.assertEqual(self.ask("/elsewhere")[0], 404)

    def test_agent(self):
        """The site answers through a real HTTP exchange as well, and says not to cache it."""
        site = AdminSite(list)
        agent = RequestTraversalAgent(site.resource)
        response = self.successResultOf(agent.request(b"GET", b"http://localhost/readyz"))
        self.assertEqual(response.headers.getRawHeaders(b"cache-control"), [b"no-store"])
