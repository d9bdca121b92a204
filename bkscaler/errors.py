"""
The one tree of errors; every room may import it.

A class stands for each thing that a caller handles differently, and its docstring says what the caller
should do. Foreign exceptions are translated into these where they enter (the Kubernetes client, the
configuration), with the cause kept.
"""

from __future__ import annotations

MAX_DETAIL_CHARS = 256
"""How much of a peer's own words may enter one of our messages, and so the log."""


class BkscalerError(Exception):
    """Root of all errors that bkscaler raises on purpose."""


class ConfigurationError(BkscalerError):
    """
    Settings or a kubeconfig cannot be used. Print the problems and exit; retrying cannot help.

    :ivar problems: one line each, naming the setting (or file and field) and the value; never empty.
    """

    def __init__(self, *problems: str) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


class ApiError(BkscalerError):
    """
    A request to the Kubernetes API failed. Back off and retry unless a subclass says otherwise.

    :ivar kind: tells one kind of trouble from another, for who wants to mention each once.
    """

    @property
    def kind(self) -> str:
        """See the class."""
        return type(self).__name__


class ApiUnreachable(ApiError):
    """
    No answer: connection refused, cut, timed out, or TLS failed. Retry with back-off.

    :ivar sent: True when the request may have reached the server and may have taken effect, so that the
        caller must observe before it believes anything; False when it certainly did not.
    """

    def __init__(self, message: str, *, sent: bool) -> None:
        super().__init__(message)
        self.sent = sent


class WatchSilent(ApiUnreachable):
    """
    Nothing was heard in a watch for so long that its server may be dead, or has had nothing to say. Ask for
    the watch again, on a new connection; whether that is answered tells which.
    """


class WentBack(ApiError):
    """
    The server's data are older than what it has told before: it was restored from a backup, or answers as
    things were. Believe nothing of it, and ask again.
    """


class ApiStatus(ApiError):
    """
    The server answered with an error status that has no class of its own. Back off and retry.

    :ivar code: HTTP status, 400-599.
    :ivar reason: Kubernetes' machine-readable reason (``Conflict``, ``NotFound`` ...), or ``""``.
    :ivar message: the server's words, cut to :data:`MAX_DETAIL_CHARS`.
    :ivar retry_after_s: seconds the server asks to wait, or None.
    """

    def __init__(self, code: int, reason: str, message: str, *, retry_after_s: float | None = None) -> None:
        message = message[:MAX_DETAIL_CHARS]
        what = f"{code} {reason}" if reason else str(code)
        super().__init__(f"{what}: {message}" if message else what)
        self.code = code
        self.reason = reason
        self.message = message
        self.retry_after_s = retry_after_s

    @property
    def kind(self) -> str:
        """The code and the reason."""
        return f"{self.code} {self.reason}"


class Unauthorized(ApiStatus):
    """401: the token is wrong or has expired. Re-read credentials once, then back off."""


class Forbidden(ApiStatus):
    """403: a right is missing. Report which; retry slowly, as rights can be granted later."""


class NotFound(ApiStatus):
    """404: the object (or the API) is not there."""


class Conflict(ApiStatus):
    """409: the resourceVersion is stale. Observe and decide again; never repeat the same request."""


class Gone(ApiStatus):
    """410 (as a status or as an ERROR line in a watch): the version is too old. List again."""


class Throttled(ApiStatus):
    """429: too many requests. Wait ``retry_after_s`` (a second when the server does not say)."""


class WatchProtocolError(ApiError):
    """A watch sent something that is no watch event. Close it and list again."""


class WakeImpossible(BkscalerError):
    """
    The builder cannot come, and waiting longer would not help. Tell the held client why.

    :ivar reason: one line a person can act on.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class IllegalMove(BkscalerError):
    """The scaling machine was led from one state to another that its table does not allow: a bug."""
