"""
The HTTP API over the state: one leaf resource that reads a request, asks who may do it, and does it.

Every refusal is an :class:`~bkscaler.sandbox.failures.ApiFailure`, answered in one place. Order of the
checks as on a real server: 401, 403, 404 of the path, 405, 406, 413, 415, then the object.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from bkscaler.sandbox.authorization import (
    ADMIN,
    Access,
    AllowAuthenticated,
    Authorizer,
    forbidden,
    user_of,
)
from bkscaler.sandbox.calls import Call, check_served, read_call
from bkscaler.sandbox.discovery import HEALTH_PATHS, discover, is_of_known_group
from bkscaler.sandbox.failures import ApiFailure, no_such_path
from bkscaler.sandbox.faults import FaultHook, inflict, no_faults
from bkscaler.sandbox.handlers import Handlers
from bkscaler.sandbox.objects import Now, Random
from bkscaler.sandbox.openapi import describe
from bkscaler.sandbox.replies import MAX_BODY_BYTES, header, send_failure, send_json, send_text
from bkscaler.sandbox.state import State
from bkscaler.sandbox.watches import Watches


class ApiRoot(Resource):
    """
    The API server as a web resource; serve it with a ``Site`` or traverse it in memory.

    :param state: the objects.
    :param clock: for the timeouts of watches.
    :param now: wall clock for stamps.
    :param random: for uids and generated names.
    :param tokens: user by bearer token; None takes every request for the admin's.
    :param authorizer: decides about requests; None allows every user with a token everything.
    :param faults: asked before each request; may be replaced at any time.
    :ivar on_access: told what each request wants to do and whether it may; may be replaced at any time.
    """

    isLeaf = True
    log = Logger()

    def __init__(
        self,
        state: State,
        *,
        clock: IReactorTime,
        now: Now,
        random: Random,
        tokens: Mapping[str, str] | None = None,
        authorizer: Authorizer | None = None,
        faults: FaultHook = no_faults,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # not annotated by Twisted
        self.faults = faults
        self.tokens = tokens
        self.authorizer = authorizer or AllowAuthenticated()
        self.on_access: Callable[[Access, bool], None] = lambda access, allowed: None
        self.watches = Watches()
        self._handlers = Handlers(
            state,
            clock=clock,
            now=now,
            random=random,
            watches=self.watches,
            may=self._may,
        )

    def render(self, request: Request) -> int:
        """Serve one request."""
        fault = self.faults(request.method.decode(), request.uri.decode("latin-1"))
        if fault is not None:
            inflict(request, fault)
            return NOT_DONE_YET
        try:
            self._serve(request)
        except ApiFailure as failure:
            send_failure(request, failure)
        except Exception:
            self.log.failure("cannot serve {uri}", uri=request.uri, failure=Failure())
            send_failure(request, ApiFailure(500, "InternalError", "Internal error occurred: sandbox bug"))
        return NOT_DONE_YET

    def _serve(self, request: Request) -> None:
        user = self._user(request)
        path = request.path.decode("latin-1")
        call = read_call(request.method.decode(), path, _query(request))
        access = (
            Access(user=user, verb=request.method.decode().lower(), path=path)
            if call is None
            else call.access(user)
        )
        allowed = self.authorizer.allows(access)
        self.on_access(access, allowed)
        if not allowed:
            raise forbidden(access)
        if call is None:
            self._serve_path(request, path)
        else:
            self._serve_call(request, call, user)

    def _may(self, access: Access) -> bool:
        return self.authorizer.allows(access)

    def _user(self, request: Request) -> str:
        if self.tokens is None:
            return ADMIN
        return user_of(header(request, "authorization"), self.tokens)

    def _serve_path(self, request: Request, path: str) -> None:
        if path.startswith(HEALTH_PATHS):
            send_text(request, "ok")
            return
        host = request.getHost()
        address = f"{getattr(host, 'host', '')}:{getattr(host, 'port', '')}"
        answer = describe(path) or discover(path, address)
        if answer is not None:
            send_json(request, answer)
        elif is_of_known_group(path):
            raise no_such_path()
        else:
            send_text(request, "404 page not found\n", code=404)

    def _serve_call(self, request: Request, call: Call, user: str) -> None:
        check_served(call)
        body = request.content.read() if request.content else b""
        if len(body) > MAX_BODY_BYTES:
            message = f"Request entity too large: limit is {MAX_BODY_BYTES}"
            raise ApiFailure(413, "RequestEntityTooLarge", message)
        self._handlers.handle(request, call, user, body)


def _query(request: Request) -> dict[str, str]:
    arguments = request.args or {}
    return {key.decode("latin-1"): values[-1].decode(errors="replace") for key, values in arguments.items()}
