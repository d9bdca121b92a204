"""
One request to the Kubernetes API, or one stream from it, with our errors and no others.

treq on one persistent agent. A 401 makes the credentials read again and the request is tried once more;
every other failure is the caller's to judge. Imported by ``kube.watch``, ``kube.statefulset`` and
``kube.cluster``, and by the plugin, which builds it; imports row 1 and the lower modules of this room.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

from treq.client import HTTPClient
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.client import Agent, HTTPConnectionPool, _HTTP11ClientFactory
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent

from bkscaler import __version__
from bkscaler.errors import (
    ApiError,
    ApiUnreachable,
    ConfigurationError,
    Forbidden,
    Unauthorized,
    WatchSilent,
)
from bkscaler.kube.auth import ClusterAccess, ExecPlugin
from bkscaler.kube.body import WholeBody, follow, json_object, read_body
from bkscaler.kube.execplugin import PluginCredentials
from bkscaler.kube.failures import error_answer, translated, unreachable
from bkscaler.kube.tls import ServerIdentity

T = TypeVar("T")
OnResponse = Callable[[str, int], None]
"""Told the verb (``GET`` ..., ``WATCH`` for streams) and the HTTP status of each answer; 0 stands for none:
out of reach, too late, or broken off before its end."""

MakeCredentials = Callable[[ExecPlugin], PluginCredentials]
"""Makes credentials out of the description of a program that gives them."""

MERGE_PATCH = "application/merge-patch+json"
REQUEST_TIMEOUT_S = 15.0
"""For a request from connecting to the last byte: a healthy server needs milliseconds, a busy one seconds."""
CONNECT_TIMEOUT_S = 10.0
"""Below :data:`REQUEST_TIMEOUT_S`, so that a server out of reach is known not to have been asked."""
IDLE_CONNECTION_S = 5
"""How long an unused connection is kept: for the requests that follow on each other, not for the next wake. A
connection may die meanwhile without a word, as load balancers forget idle ones, and a PATCH on a dead one
takes :data:`REQUEST_TIMEOUT_S` to fail, without telling whether it took effect."""
MAX_ANSWER_BYTES = 16 * 1024 * 1024


def path_to(*parts: str) -> str:
    """Join the parts of an API path, each quoted."""
    return "/" + "/".join(quote(part, safe="") for part in parts)


class _QuietPool(HTTPConnectionPool):
    """Connections that are not announced in the log, two lines for each."""

    class _factory(_HTTP11ClientFactory):  # noqa: N801  # the name that the pool looks for
        noisy = False


class ApiClient:
    """
    The API server of one cluster, for one identity. Lives as long as the process; :meth:`close` it.

    :param access: where the server is and who we are.
    :param agent: performs HTTP; :meth:`over_network` makes a real one.
    :param clock: for time limits.
    :param pool: the agent's connections, closed by :meth:`close`; None when there are none to close.
    :param on_response: told of each answer, for metrics; what it raises is logged.
    :param on_close: called by :meth:`close`.
    :ivar on_forbidden: called after each 403, which names a right that is missing; to be set later.
    """

    _log = Logger()

    def __init__(
        self,
        *,
        access: ClusterAccess,
        agent: IAgent,
        clock: IReactorTime,
        pool: HTTPConnectionPool | None = None,
        on_response: OnResponse | None = None,
        on_close: Callable[[], None] | None = None,
    ) -> None:
        self._access = access
        self._on_close = on_close
        self.on_forbidden: Callable[[], None] | None = None
        self._http = HTTPClient(agent, data_to_body_producer=WholeBody)
        self._clock = clock
        self._pool = pool
        self._on_response = on_response

    @classmethod
    def over_network(
        cls,
        *,
        access: ClusterAccess,
        reactor: Any,
        make_credentials: MakeCredentials | None = None,
        on_response: OnResponse | None = None,
    ) -> ApiClient:
        """
        Make a client on a real reactor, with TLS verified and connections kept for reuse.

        :param access: where the server is, whom to trust, and who we are.
        :param reactor: for connections and time.
        :param make_credentials: makes the credentials that come from a program; None refuses such an access.
        :param on_response: see the class.
        :raises ConfigurationError: when the access needs a program and none may be run.
        """
        on_close = None
        if access.plugin is not None:
            if make_credentials is None:
                raise ConfigurationError(f"{access.plugin.where}: no program is run for credentials here")
            plugin = make_credentials(access.plugin)
            access = replace(access, credentials=plugin, certificate=plugin.certificate)
            on_close = plugin.stop
        if not access.verify:
            cls._log.warn(
                "insecure-skip-tls-verify: anybody can pose as {server}, and be sent our credentials",
                server=access.server,
            )
        pool = _QuietPool(reactor, persistent=True)  # type: ignore[no-untyped-call]  # as its base
        pool.cachedConnectionTimeout = IDLE_CONNECTION_S
        identity = ServerIdentity(
            ca_pem=access.ca_pem,
            server_name=access.tls_server_name,
            verify=access.verify,
            certificate=access.certificate,
        )
        agent = Agent(reactor, contextFactory=identity, connectTimeout=CONNECT_TIMEOUT_S, pool=pool)
        return cls(
            access=access, agent=agent, clock=reactor, pool=pool, on_response=on_response, on_close=on_close
        )

    def __repr__(self) -> str:
        return f"<ApiClient {self._access.server}>"

    def close(self) -> Deferred[None]:
        """
        Close the connections that are kept for reuse. Requests under way are not touched.

        :returns: fires with None when they are closed; never fails; cannot be cancelled.
        """
        if self._on_close is not None:
            self._on_close()
        if self._pool is None:
            return succeed(None)
        closed: Deferred[None] = self._pool.closeCachedConnections()
        return closed.addBoth(lambda _: None)

    async def request(
        self,
        verb: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        content_type: str = "application/json",
        timeout_s: float = REQUEST_TIMEOUT_S,
    ) -> dict[str, Any]:
        """
        Ask once, and once more after a 401.

        :param verb: HTTP method.
        :param path: from the server's root, already quoted (:func:`path_to`).
        :param params: query parameters, not yet quoted.
        :param body: sent as JSON; None sends none.
        :param content_type: of the body.
        :param timeout_s: for the exchange, > 0; the wait for credentials has a limit of its own, and so has
            the second try.
        :returns: the JSON object answered.
        :raises ApiStatus: the subclass for the answer's code.
        :raises ApiUnreachable: without a usable answer; ``sent`` tells whether it may have taken effect.
        :raises ApiError: for an answer that is neither success nor error (a redirect).
        :raises CancelledError: when the caller cancels, which closes the connection; the request may
            have taken effect.
        """

        async def exchange(authorization: bytes | None) -> dict[str, Any]:
            response = await self._send(verb, path, params, authorization, body, content_type)
            content = await self._checked(verb, response)
            return json_object(content)

        return await self._translated(verb, self._retrying_401(exchange, timeout_s))

    async def stream(
        self,
        path: str,
        *,
        params: Mapping[str, str],
        on_open: Callable[[], None],
        on_bytes: Callable[[bytes], None],
        silence_s: float,
        timeout_s: float = REQUEST_TIMEOUT_S,
    ) -> None:
        """
        GET an answer that goes on for long, handing its bytes on as they arrive.

        :param path: from the server's root, already quoted.
        :param params: query parameters, not yet quoted.
        :param on_open: called once, when the server has accepted; what it raises ends the stream.
        :param on_bytes: called with each piece; what it raises ends the stream.
        :param silence_s: longest time without a byte, > 0.
        :param timeout_s: time limit for the head of the answer, > 0.
        :returns: None when the server has ended the stream in an orderly way.
        :raises ApiStatus: when the server did not accept.
        :raises ApiUnreachable: when there was no answer, or the stream was cut.
        :raises WatchSilent: when it was silent for too long.
        :raises ApiError: whatever of our errors ``on_open`` or ``on_bytes`` raised.
        :raises CancelledError: when the caller cancels, which closes the connection at once.
        """

        async def opened(authorization: bytes | None) -> Any:
            response = await self._send("GET", path, params, authorization)
            if response.code != 200:
                await self._checked("WATCH", response)
            else:
                self._tell("WATCH", response.code)
            return response

        async def both() -> None:
            response = await self._retrying_401(opened, timeout_s)
            await follow(response, on_open, on_bytes, clock=self._clock, silence_s=silence_s)

        await self._translated("WATCH", both())

    async def _translated(self, verb: str, work: Awaitable[T]) -> T:
        """
        Let only our errors out, report that there was no answer, and use no connection again that may have
        died with the one that failed: on a dead one the next request would hang for its whole time limit.
        """
        try:
            return await translated(work)
        except WatchSilent:
            self._drop_idle()
            raise
        except ApiUnreachable:
            self._tell(verb, 0)
            self._drop_idle()
            raise
        except Forbidden:
            if self.on_forbidden is not None:
                self.on_forbidden()
            raise

    def _drop_idle(self) -> None:
        if self._pool is not None:
            self._pool.closeCachedConnections().addErrback(lambda _: None)

    async def _retrying_401(self, ask: Callable[[bytes | None], Awaitable[T]], timeout_s: float) -> T:
        """Ask, and after a 401 ask again on a new connection with credentials read anew."""
        credentials = self._access.credentials
        try:
            return await self._in_time(ask(await credentials.header()), timeout_s)
        except Unauthorized:
            await credentials.reread()
            self._drop_idle()
            return await self._in_time(ask(await credentials.header()), timeout_s)

    async def _send(  # noqa: PLR0917  # six parts of one request
        self,
        verb: str,
        path: str,
        params: Mapping[str, str] | None,
        authorization: bytes | None,
        body: Mapping[str, Any] | None = None,
        content_type: str = "",
    ) -> Any:
        """Send a request and wait for the head of the answer."""
        headers = Headers({"Accept": ["application/json"], "User-Agent": [f"bkscaler/{__version__}"]})
        if authorization is not None:
            headers.addRawHeader(b"Authorization", authorization)
        if body is not None:
            headers.addRawHeader("Content-Type", content_type)
        query = "?" + urlencode(params, quote_via=quote) if params else ""
        return await self._http.request(
            verb,
            f"{self._access.server}{path}{query}",
            headers=headers,
            data=None if body is None else json.dumps(body).encode("utf-8"),
            allow_redirects=False,
            unbuffered=True,
            reactor=self._clock,  # type: ignore[arg-type]  # used only for treq's own timeout, which is off
        )

    async def _checked(self, verb: str, response: Any) -> bytes:
        """Read the answer; raise unless it is a success."""
        self._tell(verb, response.code)
        content = await read_body(response, MAX_ANSWER_BYTES)
        if not 200 <= response.code < 300:
            raise error_answer(response, content)
        return content

    async def _in_time(self, work: Awaitable[T], timeout_s: float) -> T:
        """Run a coroutine under a time limit; cancelling passes on to it."""

        def too_late(result: Any, _: float) -> Any:
            error = result.value if isinstance(result, Failure) else None
            if error is None or isinstance(error, ApiError):
                return result
            sent = unreachable(error).sent
            raise ApiUnreachable(f"no answer within {timeout_s:g} s", sent=sent) from error

        deferred: Deferred[Any] = Deferred.fromCoroutine(work)  # type: ignore[arg-type]  # a coroutine it is
        return await deferred.addTimeout(timeout_s, self._clock, onTimeoutCancel=too_late)

    def _tell(self, verb: str, code: int) -> None:
        """Report an answer; metrics may fail without failing the work."""
        if self._on_response is None:
            return
        try:
            self._on_response(verb, code)
        except Exception:
            self._log.failure("the hook for API answers failed")
