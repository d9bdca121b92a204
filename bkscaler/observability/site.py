"""
What the admin port serves, all of it read-only: probes, metrics, and what there is to say for people.

==============  ====================================================================================
``/``           the status page
``/status``     the same as JSON
``/metrics``    for Prometheus, as text or, if asked for, as OpenMetrics
``/healthz``    answers as long as the reactor turns
``/readyz``     says what is missing, one line each, with status 503, or ``ready`` with 200
==============  ====================================================================================

Imported by the plugin.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from prometheus_client.exposition import choose_encoder
from twisted.logger import Logger
from twisted.web.resource import Resource
from twisted.web.server import Request, Site

from bkscaler.observability.page import CONTENT_SECURITY_POLICY, render
from bkscaler.observability.recorder import Recorder
from bkscaler.observability.status import Take

TEXT = "text/plain; charset=utf-8"
Answer = tuple[int, str, bytes]
"""Status, content type, content."""


class _Page(Resource):
    """One page. ``say`` gives the answer to each request; what it raises is logged, and answered with 500."""

    log = Logger()

    def __init__(self, say: Callable[[Request], Answer]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # twisted.web has no annotations
        self._say = say

    def render_GET(self, request: Request) -> bytes:
        """Answer; HEAD is served by it as well."""
        try:
            code, kind, content = self._say(request)
        except Exception:
            self.log.failure("a page of the admin port failed")
            code, kind, content = 500, TEXT, b"this page failed; the log says why\n"
        request.setResponseCode(code)
        for name, value in (
            ("content-type", kind),
            ("cache-control", "no-store"),
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "no-referrer"),
            ("content-security-policy", CONTENT_SECURITY_POLICY),
        ):
            request.setHeader(name, value)
        return content


class AdminSite(Site):
    """
    The factory of the admin port.

    :param missing: says what keeps us from being ready, one line each; nothing when we are.
    :param status: takes the status.
    :param recorder: keeps what is exported.
    """

    noisy = False

    def __init__(self, *, missing: Callable[[], list[str]], status: Take, recorder: Recorder) -> None:
        root = Resource()
        root.putChild(b"", _Page(lambda _: (200, "text/html; charset=utf-8", render(status()))))
        root.putChild(b"status", _Page(lambda _: (200, "application/json", _json(status()))))
        root.putChild(b"metrics", _Page(lambda request: _metrics(recorder, request)))
        root.putChild(b"healthz", _Page(lambda _: (200, TEXT, b"ok\n")))
        root.putChild(b"readyz", _Page(lambda _: _readiness(missing())))
        super().__init__(root)  # type: ignore[no-untyped-call]  # nor here
        self.displayTracebacks = False

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
