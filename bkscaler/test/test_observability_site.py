"""Tests of the admin site, through a real HTTP exchange in memory."""

from __future__ import annotations

import json

from treq.testing import RequestTraversalAgent
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import readBody
from twisted.web.http_headers import Headers

from bkscaler.observability.site import AdminSite
from bkscaler.test.observed import Played


class SiteTests(SynchronousTestCase):
    """One site."""

    def setUp(self):
        self.played = Played()
        self.played.asleep()
        self.take = self.played.status.take

    def ask(self, path, method="GET", **headers):
        """Ask for a page; give its status, headers and text."""
        site = AdminSite(missing=self.played.sources.missing, status=self.take, recorder=self.played.recorder)
        agent = RequestTraversalAgent(site.resource)
        sent = Headers({key: [value] for key, value in headers.items()})
        response = self.successResultOf(
            agent.request(method.encode(), f"http://localhost{path}".encode(), sent)
        )
        body = readBody(response)
        agent.flush()
        return response.code, response.headers, self.successResultOf(body).decode()

    def test_healthz(self):
        """The process is healthy as long as it answers, whatever is missing."""
        self.played.missing = ["everything"]
        self.assertEqual(self.ask("/healthz")[::2], (200, "ok\n"))

    def test_ready(self):
        """With nothing missing it is ready."""
        self.assertEqual(self.ask("/readyz")[::2], (200, "ready\n"))

    def test_not_ready(self):
        """What is missing is said, one line each, with status 503."""
        self.played.missing = ["this", "that"]
        self.assertEqual(self.ask("/readyz")[::2], (503, "this\nthat\n"))

    def test_page(self):
        """The root is the status page; it is not kept, and may load nothing."""
        code, headers, text = self.ask("/")
        self.assertEqual(code, 200)
        self.assertIn("<h1>Asleep</h1>", text)
        self.assertEqual(headers.getRawHeaders("content-type"), ["text/html; charset=utf-8"])
        self.assertEqual(headers.getRawHeaders("cache-control"), ["no-store"])
        (policy,) = headers.getRawHeaders("content-security-policy")
        self.assertTrue(policy.startswith("default-src 'none'; style-src 'sha256-"))

    def test_status(self):
        """``/status`` is JSON."""
        _, headers, text = self.ask("/status")
        self.assertEqual(json.loads(text)["builder"]["state"], "asleep")
        self.assertEqual(headers.getRawHeaders("content-type"), ["application/json"])

    def test_metrics(self):
        """``/metrics`` is Prometheus' text, or OpenMetrics for who asks for it."""
        _, headers, text = self.ask("/metrics")
        self.assertIn('bkscaler_builder_state{state="asleep"} 1.0', text)
        self.assertTrue(headers.getRawHeaders("content-type")[0].startswith("text/plain; version="))
        _, headers, text = self.ask("/metrics", accept="application/openmetrics-text; version=1.0.0")
        self.assertTrue(text.endswith("# EOF\n"))
        self.assertIn("openmetrics-text", headers.getRawHeaders("content-type")[0])

    def test_head(self):
        """HEAD has the status and no text."""
        self.played.missing = ["this"]
        self.assertEqual(self.ask("/readyz", "HEAD")[::2], (503, ""))

    def test_read_only(self):
        """Nothing can be changed: other methods are refused, other addresses not found."""
        for path in ("/", "/status", "/metrics", "/healthz"):
            self.assertEqual(self.ask(path, "POST")[0], 405)
        for path in ("/elsewhere", "/status/more", "/page.css"):
            self.assertEqual(self.ask(path)[0], 404)

    def test_page_fails(self):
        """A page that fails is answered with 500 and logged; the others go on."""
        self.take = lambda: 1 / 0
        code, _, text = self.ask("/")
        self.assertEqual((code, text), (500, "this page failed; the log says why\n"))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(self.ask("/healthz")[0], 200)
