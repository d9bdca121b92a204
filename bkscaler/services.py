"""
Services that twistd runs for us beside the scaler: ports, what talks to Kubernetes, and their parent.

Imported by the plugin, which builds them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from twisted.application.internet import StreamServerEndpointService
from twisted.application.service import MultiService, Service
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IProtocolFactory
from twisted.logger import Logger

from bkscaler.kube.client import ApiClient
from bkscaler.kube.cluster import ClusterView
from bkscaler.kube.events import Events
from bkscaler.kube.permissions import Permissions
from bkscaler.model import Connection
from bkscaler.observability import logs
from bkscaler.observability.outcomes import Outcome
from bkscaler.observability.recorder import Recorder


class Parts(MultiService):
    """
    The parent of all parts. Put under twistd's application it says how the log is written.

    :param observer: writes the log; None leaves that to twistd.
    """

    def __init__(self, observer: Any) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # MultiService has no annotations
        self._observer = observer

    def setServiceParent(self, parent: Any) -> None:
        """Become a part of something; of an application before it begins to log."""
        logs.install(parent, self._observer)
        super().setServiceParent(parent)  # type: ignore[no-untyped-call]  # nor here


class Listener(StreamServerEndpointService):
    """
    A listening port. One that cannot be had ends the process with one line and status 1.

    :param reactor: listens.
    :param flag: the setting, for the message.
    :param description: Twisted endpoint description, checked.
    :param factory: makes the protocols.
    """

    log = Logger()
    _raiseSynchronously = True  # as twisted.application.strports does

    def __init__(self, reactor: Any, flag: str, description: str, factory: IProtocolFactory) -> None:
        super().__init__(serverFromString(reactor, description), factory)  # type: ignore[no-untyped-call]
        self.name = flag
        self._description = description

    def privilegedStartService(self) -> None:
        """Listen."""
        try:
            super().privilegedStartService()  # type: ignore[no-untyped-call]
        except (CannotListenError, OSError) as error:
            why = getattr(error, "socketError", error)
            words = getattr(why, "strerror", None) or str(why)
            sys.stderr.write(f"bkscaler: --{self.name}: cannot listen on {self._description!r}: {words}\n")
            raise SystemExit(1) from error
        assert self._waitingForPort is not None
        self._waitingForPort.addCallback(self._say)

    def _say(self, port: Any) -> Any:
        self.log.info("--{flag}: listening on {host}", flag=self.name, host=port.getHost())
        return port


class Kubernetes(Service):
    """
    Everything that talks to the API server while it runs; its connections are closed at the end.

    :param client: asks the API server.
    :param view: keeps the cluster in view.
    :param permissions: knows what we may do.
    :param events: writes Events.
    """

    def __init__(
        self, *, client: ApiClient, view: ClusterView, permissions: Permissions, events: Events
    ) -> None:
        self.view = view
        self.permissions = permissions
        self.events = events
        self._client = client

    def startService(self) -> None:
        """Begin to watch, and to ask for our rights."""
        super().startService()  # type: ignore[no-untyped-call]  # Service has no annotations
        self.view.start()
        self.permissions.start()

    def stopService(self) -> Deferred[None]:
        """End; fires when nothing is open."""
        super().stopService()  # type: ignore[no-untyped-call]  # nor here
        parts = [self.view.stop(), self.permissions.stop(), self.events.stop()]
        return gatherResults(parts).addCallback(lambda _: self._client.close())


class ConnectionReports:
    """
    Passes reports of connections on, and tells the scaler of each client whose time was over.

    :param recorder: keeps count.
    :param gave_up: told of such a client; must not raise.
    """

    def __init__(self, recorder: Recorder, gave_up: Callable[[], None]) -> None:
        self.accepted, self.joined = recorder.accepted, recorder.joined
        self._recorder = recorder
        self._gave_up = gave_up

    def ended(self, outcome: Outcome, connection: Connection) -> None:
        """Hear how a connection ended."""
        self._recorder.ended(outcome, connection)
        if outcome is Outcome.NOT_READY_IN_TIME:
            self._gave_up()
