"""
What the sandbox's API says when it refuses: one exception, and a maker for each recorded refusal.

Every message is the real server's, word for word, so that clients that read them can be tested.
"""

from __future__ import annotations

from dataclasses import dataclass

from bkscaler.errors import BkscalerError
from bkscaler.sandbox.kinds import Kind
from bkscaler.sandbox.objects import Object

MODIFIED = "the object has been modified; please apply your changes to the latest version and try again"


class ApiFailure(BkscalerError):
    """
    A request is refused. The API turns it into a ``Status`` answer; nobody else catches it.

    :ivar code: HTTP status.
    :ivar reason: machine-readable reason, or ``""`` to leave it out.
    :ivar message: words for people.
    :ivar details: the ``details`` member, or None to leave it out.
    :ivar headers: further response headers.
    """

    def __init__(
        self,
        code: int,
        reason: str,
        message: str,
        *,
        details: Object | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.details = details
        self.headers = headers or {}

    def body(self) -> Object:
        """Give the ``Status`` object that the client reads."""
        status: Object = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
        status["message"] = self.message
        if self.reason:
            status["reason"] = self.reason
        if self.details is not None:
            status["details"] = self.details
        status["code"] = self.code
        return status


class Undecodable(BkscalerError):
    """A value has the wrong type or form; :class:`ApiFailure` differs for a body (400) and a patch (422)."""


@dataclass(frozen=True, kw_only=True)
class Cause:
    """
    One thing that is wrong with a field.

    :param reason: ``FieldValueInvalid``, ``FieldValueRequired`` or ``FieldValueForbidden``.
    :param message: words, without the field.
    :param field: path of the field.
    """

    reason: str = "FieldValueInvalid"
    message: str
    field: str


def details_of(name: str, group: str, kind: str) -> Object:
    """Give ``details`` with empty members left out, as Go's ``omitempty`` does."""
    return {key: value for key, value in (("name", name), ("group", group), ("kind", kind)) if value}


def _qualified(kind: str, group: str) -> str:
    return f"{kind}.{group}" if group else kind


def no_such_path() -> ApiFailure:
    """404 for a path that names no resource."""
    return ApiFailure(404, "NotFound", "the server could not find the requested resource", details={})


def not_found(kind: Kind, name: str) -> ApiFailure:
    """404 for an object that does not exist."""
    details = details_of(name, kind.group, kind.plural)
    return ApiFailure(404, "NotFound", f'{kind.qualified} "{name}" not found', details=details)


def not_allowed() -> ApiFailure:
    """405 for a verb that the resource does not have."""
    message = "the server does not allow this method on the requested resource"
    return ApiFailure(405, "MethodNotAllowed", message, details={})


def unsupported_media_type() -> ApiFailure:
    """415 for a body in a form the server does not read."""
    return ApiFailure(415, "UnsupportedMediaType", "415: Unsupported Media Type", details={})


def bad_request(message: str) -> ApiFailure:
    """400 with the given words."""
    return ApiFailure(400, "BadRequest", message)


def already_exists(kind: Kind, name: str) -> ApiFailure:
    """409 for creating what is already there."""
    details = details_of(name, kind.group, kind.plural)
    return ApiFailure(409, "AlreadyExists", f'{kind.qualified} "{name}" already exists', details=details)


def conflict(kind: str, group: str, name: str, why: str = MODIFIED) -> ApiFailure:
    """409 for a stale version or a failed precondition; ``kind`` is the plural or the kind, as recorded."""
    message = f'Operation cannot be fulfilled on {_qualified(kind, group)} "{name}": {why}'
    return ApiFailure(409, "Conflict", message, details=details_of(name, group, kind))


def invalid(kind: str, group: str, name: str, *causes: Cause) -> ApiFailure:
    """422 with the given causes, at least one; equal causes are said once in the message."""
    lines = list(dict.fromkeys(f"{cause.field}: {cause.message}" for cause in causes))
    text = lines[0] if len(lines) == 1 else "[" + ", ".join(lines) + "]"
    details = details_of(name, group, kind)
    details["causes"] = [{"reason": c.reason, "message": c.message, "field": c.field} for c in causes]
    message = f'{_qualified(kind, group)} "{name}" is invalid: {text}'
    return ApiFailure(422, "Invalid", message, details=details)


def expired(message: str, details: Object | None = None) -> ApiFailure:
    """410: the version or token is too old."""
    return ApiFailure(410, "Expired", message, details=details)


def version_too_large(version: int, current: int) -> ApiFailure:
    """504 for a list at a version that has not come yet."""
    cause = {"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}
    details: Object = {"causes": [cause], "retryAfterSeconds": 1}
    message = f"Timeout: Too large resource version: {version}, current: {current}"
    return ApiFailure(504, "Timeout", message, details=details, headers={"Retry-After": "1"})


def malformed_version(text: str, prefix: str = "") -> ApiFailure:
    """500 for a resourceVersion that is no number."""
    return ApiFailure(500, "", f'{prefix}strconv.ParseUint: parsing "{text}": invalid syntax')
