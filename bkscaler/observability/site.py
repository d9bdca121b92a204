"""
What the admin port serves: ``/healthz`` and ``/readyz``. Read-only.

``/healthz`` answers as long as the reactor turns. ``/readyz`` says what is missing, one line each, with
status 503, or ``ready`` with 200. Imported by the plugin; imports nothing of ours.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.web.resource import Resource
from twisted.web.server import Request, Site

Missing = Callable[[], list[str]]
"""Says what keeps us from being ready, one line each; nothing when we are."""


class _Text(Resource):
    """One page of plain text. ``say`` gives the status and the text for each request."""

    isLeaf = True

    def __init__(self, say: Callable[[], tuple[int, str]]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # twisted.web has no annotations
        self._say = say

    def render_GET(self, request: Request) -> bytes:
        """Answer; HEAD is served by it as well."""
        code, text = self._say()
        request.setResponseCode(code)
        request.setHeader(b"content-type", b"text/plain; charset=utf-8")
        request.setHeader(b"cache-control", b"no-store")
        return text.encode("utf-8") + b"\n"


class AdminSite(Site):
    """
    The factory of the admin port.

    :param missing: says what keeps us from being ready.
    """

    noisy = False

    def __init__(self, missing: Missing) -> None:
        root = Resource()
        root.putChild(b"healthz", _Text(lambda: (200, "ok")))
        root.putChild(b"readyz", _Text(lambda: _readiness(missing())))
        super().__init__(root)  # type: ignore[no-untyped-call]  # nor here
        self.displayTracebacks = False

    def log(self, request: Any) -> None:
        """Log nothing: a kubelet asks every few seconds."""


def _readiness(missing: list[str]) -> tuple[int, str]:
    return (503, "\n".join(missing)) if missing else (200, "ready")
