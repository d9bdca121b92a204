"""Tests of the admin site, through a real HTTP exchange in memory."""

from __future__ import annotations

import json

from twisted.internet.error import ConnectionDone
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http_headers import Headers

from bkscaler.observability.site import AdminSite
from bkscaler.test.observed import Played


class SiteTests(SynchronousTestCase):
    """One site."""

    def setUp(self):
        self.played = Played()
        self.played.asleep()
        self.take = self.played.status.take

    def site(self):
        """Make the site."""
        sources = self.played.sources
        return AdminSite(
            missing=sources.missing,
            status=self.take,
            recorder=self.played.recorder,
            reactor=self.played.clock,
        )

    def ask(self, path, method="GET", **headers):
        """Ask for a page; give its status, headers and text."""
        transport = self.send(f"{method} {path} HTTP/1.0\r\n", headers)
        head, _, text = transport.value().decode().partition("\r\n\r\n")
        first, *lines = head.split("\r\n")
        given = Headers()
        for line in lines:
            given.addRawHeader(*line.split(": ", 1))
        self.assertTrue(transport.disconnecting)
        return int(first.split()[1]), given, text

    def send(self, line, headers):
        """Send a request on a connection of its own; give the transport, which has the answer."""
        channel, transport = self.site().buildProtocol(None), StringTransport()
        channel.makeConnection(transport)
        self.addCleanup(channel.connectionLost, Failure(ConnectionDone()))
        words = "".join(f"{key}: {value}\r\n" for key, value in headers.items())
        channel.dataReceived(f"{line}{words}\r\n".encode())
        return transport

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
            code, headers, _ = self.ask(path, "POST")
            self.assertEqual((code, headers.getRawHeaders("allow")), (405, ["GET, HEAD"]))
        for path in ("/elsewhere", "/status/more", "/page.css"):
            self.assertEqual(self.ask(path)[0], 404)

    def test_kept_connection(self):
        """A scraper may ask again on the same connection; one on which nothing is asked is closed."""
        channel, transport = self.site().buildProtocol(None), StringTransport()
        channel.makeConnection(transport)
        channel.dataReceived(2 * b"GET /healthz?a=b HTTP/1.1\r\nHost: x\r\n\r\n")
        self.assertEqual(transport.value().count(b"HTTP/1.1 200 OK"), 2)
        self.assertFalse(transport.disconnecting)
        self.played.clock.advance(61)
        self.assertTrue(transport.disconnecting)
        channel.connectionLost(Failure(ConnectionDone()))

    def test_still(self):
        """A site that nobody asks does nothing at all, not even once a second."""
        site = self.site()
        site.doStart()
        self.assertEqual(self.played.clock.getDelayedCalls(), [])
        site.doStop()

    def test_page_fails(self):
        """A page that fails is answered with 500 and logged; the others go on."""
        self.take = lambda: 1 / 0
        code, _, text = self.ask("/")
        self.assertEqual((code, text), (500, "this page failed; the log says why\n"))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(self.ask("/healthz")[0], 200)
