"""
What the admin port serves, all of it read-only: probes, metrics, and what there is to say for people.

==============  ====================================================================================
``/``           the status page
``/status``     the same as JSON
``/metrics``    for Prometheus, as text or, if asked for, as OpenMetrics
``/healthz``    answers as long as the reactor turns
``/readyz``     says what is missing, one line each, with status 503, or ``ready`` with 200
==============  ====================================================================================

It is made of ``twisted.web.http`` alone: ``twisted.web.server`` and what it imports would take 2 MiB more for
resources and sessions that five fixed pages do not need. Imported by the plugin.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from prometheus_client.exposition import choose_encoder
from twisted.logger import Logger
from twisted.web.http import HTTPFactory, Request

from bkscaler.observability.page import CONTENT_SECURITY_POLICY, render
from bkscaler.observability.recorder import Recorder
from bkscaler.observability.status import Take

TEXT = "text/plain; charset=utf-8"
Answer = tuple[int, str, bytes]
"""Status, content type, content."""
Say = Callable[[Request], Answer]
"""Gives the answer to a request for one page."""


class _Asked(Request):
    """
    One request. What a page raises is logged, and answered with 500.

    :param pages: by path.
    """

    log = Logger()

    def __init__(self, pages: dict[bytes, Say], *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._pages = pages

    def process(self) -> None:
        """Answer; HEAD has no content, which :meth:`write` sees to."""
        code, kind, content = self._answer()
        self.setResponseCode(code)
        for name, value in (
            ("content-type", kind),
            ("content-length", str(len(content))),
            ("cache-control", "no-store"),
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "no-referrer"),
            ("content-security-policy", CONTENT_SECURITY_POLICY),
        ):
            self.responseHeaders.setRawHeaders(name, [value])
        self.write(content)  # type: ignore[no-untyped-call]  # twisted.web has no annotations here
        self.finish()  # type: ignore[no-untyped-call]  # nor here

    def _answer(self) -> Answer:
        say = self._pages.get(self.path)
        if say is None:
            return 404, TEXT, b"there is no such page\n"
        if self.method not in (b"GET", b"HEAD"):
            self.responseHeaders.setRawHeaders("allow", ["GET, HEAD"])
            return 405, TEXT, b"this page can only be read\n"
        try:
            return say(self)
        except Exception:
            self.log.failure("a page of the admin port failed")
            return 500, TEXT, b"this page failed; the log says why\n"


class AdminSite(HTTPFactory):
    """
    The factory of the admin port.

    :param missing: says what keeps us from being ready, one line each; nothing when we are.
    :param status: takes the status.
    :param recorder: keeps what is exported.
    :param reactor: times connections out on which nothing is asked.
    """

    noisy = False

    def __init__(
        self, *, missing: Callable[[], list[str]], status: Take, recorder: Recorder, reactor: Any
    ) -> None:
        super().__init__(reactor=reactor)
        self._pages: dict[bytes, Say] = {
            b"/": lambda _: (200, "text/html; charset=utf-8", render(status())),
            b"/status": lambda _: (200, "application/json", _json(status())),
            b"/metrics": lambda request: _metrics(recorder, request),
            b"/healthz": lambda _: (200, TEXT, b"ok\n"),
            b"/readyz": lambda _: _readiness(missing()),
        }

    def startFactory(self) -> None:
        """Do not tell the time for a log every second, as the factory that writes one does."""

    def buildProtocol(self, addr: Any) -> Any:
        """Have each connection ask for our pages."""
        channel = super().buildProtocol(addr)
        assert channel is not None
        channel.requestFactory = lambda *args, **more: _Asked(self._pages, *args, **more)
        return channel

    def log(self, request: Any) -> None:
        """Log nothing: a kubelet asks every few seconds."""


def _readiness(missing: list[str]) -> Answer:
    text = "\n".join(missing) if missing else "ready"
    return 503 if missing else 200, TEXT, text.encode("utf-8") + b"\n"


def _json(status: dict[str, Any]) -> bytes:
    return json.dumps(status, ensure_ascii=False, indent=1).encode("utf-8") + b"\n"


def _metrics(recorder: Recorder, request: Request) -> Answer:
    recorder.settle()
    encode, kind = choose_encoder(request.getHeader("accept") or "")
    return 200, kind, encode(recorder.metrics.registry)
