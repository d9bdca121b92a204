"""
Answers: JSON with the server's headers, Statuses, plain text, and which form a client accepts.

A client whose name contains ``curl`` gets indented JSON, as from a real server.
"""

from __future__ import annotations

import json
import re

from twisted.web.server import Request

from bkscaler.sandbox.failures import ApiFailure
from bkscaler.sandbox.objects import Object

MAX_BODY_BYTES = 3 * 1024 * 1024
"""Longest request body; a longer one is answered 413."""

_AVAILABLE = "application/json, application/yaml, application/vnd.kubernetes.protobuf"
_COMPACT = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, check_circular=False)
_PRETTY = json.JSONEncoder(indent=2, ensure_ascii=False)
_JSON_TYPES = ("application/json", "application/*", "*/*")


def header(request: Request, name: str) -> str | None:
    """Give a request header as text, or None when it is missing."""
    value = request.getHeader(name)
    return value.decode("latin-1") if isinstance(value, bytes) else value


def accepted_form(accept: str | None) -> str:
    """
    Choose the form of an answer.

    :param accept: the ``Accept`` header; None accepts everything.
    :returns: ``Table``, ``PartialObjectMetadata`` or ``""`` for the object itself.
    :raises ApiFailure: 406 when JSON is not among what the client accepts.
    """
    for choice in (accept or "*/*").split(","):
        media_type, *parameters = [part.strip() for part in choice.split(";")]
        if media_type not in _JSON_TYPES:
            continue
        form = next((p.removeprefix("as=") for p in parameters if p.startswith("as=")), "")
        if form in ("", "Table"):
            return form
        if form.startswith("PartialObjectMetadata"):
            return "PartialObjectMetadata"
    message = f"406: Not Acceptable\n\nAvailable representations: {_AVAILABLE}"
    raise ApiFailure(406, "NotAcceptable", message, details={})


def wants_pretty(request: Request) -> bool:
    """Say whether a person is looking: ``?pretty=true``, or a user agent such as curl."""
    if request.args and request.args.get(b"pretty"):
        return request.args[b"pretty"][-1] in (b"1", b"true")
    return bool(re.search(r"curl|wget|mozilla", (header(request, "user-agent") or "").lower()))


def encode(value: Object, *, pretty: bool = False) -> bytes:
    """Write an object as the server does: compact, or indented; a line end at its end."""
    return (_PRETTY if pretty else _COMPACT).encode(value).encode() + b"\n"


def begin(request: Request, code: int, content_type: str, headers: dict[str, str] | None = None) -> None:
    """Set status and headers of an answer; nothing is sent yet."""
    request.setResponseCode(code)
    request.setHeader("Cache-Control", "no-cache, private")
    request.setHeader("Content-Type", content_type)
    for name, value in (headers or {}).items():
        request.setHeader(name, value)


def send_json(
    request: Request, value: Object, *, code: int = 200, headers: dict[str, str] | None = None
) -> None:
    """Answer with an object and finish."""
    begin(request, code, "application/json", headers)
    body = encode(value, pretty=wants_pretty(request))
    request.setHeader("Content-Length", str(len(body)))
    request.write(b"" if request.method == b"HEAD" else body)
    request.finish()


def send_text(request: Request, text: str, *, code: int = 200, headers: dict[str, str] | None = None) -> None:
    """Answer with plain text and finish."""
    begin(request, code, "text/plain; charset=utf-8", headers)
    request.setHeader("X-Content-Type-Options", "nosniff")
    request.setHeader("Content-Length", str(len(text.encode())))
    request.write(text.encode())
    request.finish()


def send_failure(request: Request, failure: ApiFailure) -> None:
    """Answer with the Status of a failure and finish."""
    send_json(request, failure.body(), code=failure.code, headers=failure.headers)
