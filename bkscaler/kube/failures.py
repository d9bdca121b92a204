"""
Foreign failures and error answers, translated into our errors. Pure.

The one question that matters about a failed request is whether the server may have acted on it:
:attr:`~bkscaler.errors.ApiUnreachable.sent` says so. It is False only where we are certain: no
connection came about, or the server did not prove its identity, so that it was never asked.
Imported by :mod:`bkscaler.kube.client`; imports row 1.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable
from typing import TypeVar

from OpenSSL import SSL
from twisted.internet import error as net
from twisted.internet.defer import CancelledError
from twisted.internet.ssl import VerificationError
from twisted.python.failure import Failure
from twisted.web._newclient import RequestNotSent  # no public module exports it
from twisted.web.iweb import IResponse

from bkscaler import errors
from bkscaler.kube import fields

T = TypeVar("T")

MAX_RETRY_AFTER_S = 300.0
"""No ``Retry-After`` makes us wait longer, so that a mistaken one cannot stop us for a day."""

_BY_CODE: dict[int, type[errors.ApiStatus]] = {
    401: errors.Unauthorized,
    403: errors.Forbidden,
    404: errors.NotFound,
    409: errors.Conflict,
    410: errors.Gone,
    429: errors.Throttled,
}
_NEVER_CONNECTED = (net.ConnectError, net.DNSLookupError, net.ConnectingCancelledError, RequestNotSent)
_NEVER_TRUSTED = ("certificate verify failed", "wrong version number", "unsupported protocol")
_WORDS: dict[type[BaseException], str] = {
    net.ConnectionRefusedError: "connection refused",
    net.TimeoutError: "no connection in time",
    net.ConnectingCancelledError: "no connection in time",
    net.ConnectionDone: "connection closed before the answer",
    net.ConnectionLost: "connection lost",
    net.ConnectionAborted: "connection aborted",
}


def unreachable(error: BaseException) -> errors.ApiUnreachable:
    """
    Translate whatever Twisted, treq or OpenSSL raised.

    :param error: the exception; wrapped causes (``reasons`` of ``twisted.web``) are looked into.
    :returns: the error to raise ``from`` it; ``sent`` is True in case of doubt.
    """
    causes = _causes(error)
    telling = next((each for each in causes if not hasattr(each, "reasons")), error)
    return errors.ApiUnreachable(_describe(telling), sent=not any(map(_certainly_not_sent, causes)))


def is_cancellation(error: BaseException) -> bool:
    """Tell whether a failure is only what cancelling the request looks like from inside."""
    return any(isinstance(each, CancelledError | net.ConnectingCancelledError) for each in _causes(error))


async def translated(work: Awaitable[T]) -> T:
    """
    Wait for some work, and let only our errors out of it.

    :param work: what to wait for.
    :raises ApiError: as raised by the work, or :class:`~bkscaler.errors.ApiUnreachable` in the place of
        any foreign exception, which is its cause.
    :raises CancelledError: when the work was cancelled, in whatever disguise.
    """
    try:
        return await work
    except (errors.ApiError, CancelledError):
        raise
    except Exception as error:
        if is_cancellation(error):
            raise CancelledError() from error
        raise unreachable(error) from error


def error_answer(response: IResponse, body: bytes) -> errors.ApiError:
    """
    Translate an answer that is not a success.

    :param response: its code and headers.
    :param body: a Kubernetes ``Status``, or any text: throttling answers in plain text.
    :returns: the error for the code; ``retry_after_s`` from the header or, failing that, the Status.
    """
    code = int(response.code)
    if code < 400:
        return errors.ApiError(f"unexpected answer {code}")
    status = _status(body)
    message = fields.text(status, "message") or ("" if status else body[:1024].decode("utf-8", "replace"))
    return _BY_CODE.get(code, errors.ApiStatus)(
        code,
        fields.text(status, "reason"),
        fields.one_line(message, errors.MAX_DETAIL_CHARS),
        retry_after_s=_retry_after_s(response, status),
    )


def _causes(error: BaseException) -> list[BaseException]:
    """Flatten the wrappers of ``twisted.web``: the error itself, then what it wraps."""
    found = [error]
    for reason in getattr(error, "reasons", None) or []:
        inner = reason.value if isinstance(reason, Failure) else reason
        if isinstance(inner, BaseException):
            found += _causes(inner)
    return found


def _certainly_not_sent(error: BaseException) -> bool:
    """Tell whether no byte of the request can have reached the server's HTTP layer."""
    if isinstance(error, SSL.Error):
        return any(words in _tls_words(error) for words in _NEVER_TRUSTED)
    return isinstance(error, (*_NEVER_CONNECTED, VerificationError))


def _describe(error: BaseException) -> str:
    """Put an exception into one short line."""
    if isinstance(error, SSL.Error):
        return f"TLS: {_tls_words(error) or 'failed'}"
    if isinstance(error, VerificationError):
        return "TLS: the server's certificate is for another name"
    words = _WORDS.get(type(error)) or f"{type(error).__name__}: {error}"
    return fields.one_line(words, errors.MAX_DETAIL_CHARS)


def _tls_words(error: SSL.Error) -> str:
    """Pick OpenSSL's reasons out of its list of (library, function, reason)."""
    entries = error.args[0] if error.args and isinstance(error.args[0], list | tuple) else []
    return ", ".join(str(entry[-1]) for entry in entries if entry)


def _status(body: bytes) -> dict[str, object]:
    """Read a Status; ``{}`` for anything else."""
    try:
        return fields.mapping(json.loads(body))
    except (ValueError, RecursionError):
        return {}


def _retry_after_s(response: IResponse, status: dict[str, object]) -> float | None:
    """Find how long the server wants us to wait; a date, which Kubernetes never sends, is not read."""
    values = response.headers.getRawHeaders(b"retry-after") or [b""]
    header = values[0].decode("latin-1").strip()
    seconds = int(header) if header.isascii() and header.isdigit() else 0
    seconds = seconds or fields.number(status, "details", "retryAfterSeconds")
    return min(float(seconds), MAX_RETRY_AFTER_S) if seconds > 0 else None
