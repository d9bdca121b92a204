"""
Watches: one answer that goes on, a line for every change, written at once.

A stream begins with synthetic ``ADDED`` lines (no version, or ``0``), with the changes since its version,
or with one ``ERROR`` line when that version is forgotten. It ends with a clean EOF at its timeout, when
the client leaves, or when the sandbox stops.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure
from twisted.web.server import Request

from bkscaler.sandbox.failures import ApiFailure, expired
from bkscaler.sandbox.objects import Now, Object
from bkscaler.sandbox.replies import begin, encode
from bkscaler.sandbox.selectors import Selector
from bkscaler.sandbox.state import Change, State, TooOld
from bkscaler.sandbox.tables import make_table, metadata_only
from bkscaler.sandbox.views import table_of, to_view
from bkscaler.sandbox.watchoptions import WatchOptions, empty_object

BOOKMARK_S = 60.0
"""Seconds between two bookmarks, about; a real server adds jitter."""

LAST_BOOKMARK_S = 2.0
"""Seconds before its timeout when a watch gets its last bookmark."""

SHORT_WATCH_S = 10.0
"""Watches not longer than this get no last bookmark, as was recorded."""


def _nothing() -> None:
    """Stand for an unsubscription while there is no subscription."""


class WatchStream:
    """
    One open watch. Lives until :meth:`end` or until its client leaves; then it holds nothing.

    :param request: the request it answers.
    :param options: checked with :func:`~bkscaler.sandbox.watchoptions.check_watch`, which gave ``after``.
    :param after: version to start after, 0 for any.
    :param selector: which objects the client sees.
    """

    def __init__(
        self,
        request: Request,
        options: WatchOptions,
        after: int,
        selector: Selector,
        *,
        state: State,
        clock: IReactorTime,
        now: Now,
    ) -> None:
        self._request = request
        self._options = options
        self._after = after
        self._selector = selector
        self._state = state
        self._clock = clock
        self._now = now
        self._calls: list[IDelayedCall] = []
        self._columns_sent = False
        self._open = True
        self._unsubscribe: Callable[[], None] = _nothing

    def start(self) -> None:
        """Send the head, the first lines, and follow. Called once."""
        request, options = self._request, self._options
        request.notifyFinish().addErrback(self._client_left)
        begin(request, 200, "application/json")
        request.write(b"")
        self._later(options.timeout_s, self.end)
        try:
            self._send_first()
        except TooOld as error:
            self._line("ERROR", expired(str(error)).body())
            self.end()
            return
        self._unsubscribe = self._state.subscribe(table_of(options.kind), self._changed)
        if options.bookmarks:
            self._later(BOOKMARK_S, self._bookmark_again)
            if options.timeout_s > SHORT_WATCH_S:
                self._later(options.timeout_s - LAST_BOOKMARK_S, self._bookmark)

    def end(self) -> None:
        """End the answer cleanly. Harmless when it has ended."""
        if self._open:
            self._stop()
            self._request.finish()

    @property
    def is_open(self) -> bool:
        """Whether lines are still sent."""
        return self._open

    def fail(self, failure: ApiFailure) -> None:
        """Send an ``ERROR`` line, as a server does in trouble, and end. Ignored when it has ended."""
        if self._open:
            self._line("ERROR", failure.body())
            self.end()

    def _client_left(self, _reason: Failure) -> None:
        self._stop()

    def _stop(self) -> None:
        self._open = False
        self._unsubscribe()
        for call in self._calls:
            if call.active():
                call.cancel()
        self._calls.clear()

    def _later(self, seconds: float, function: Callable[[], None]) -> None:
        self._calls = [call for call in self._calls if call.active()]
        self._calls.append(self._clock.callLater(seconds, function))

    def _send_first(self) -> None:
        initial = self._options.initial_events
        if initial is None:
            initial = self._after == 0
        if not initial:
            for change in self._state.changes_since(table_of(self._options.kind), self._start_version()):
                self._changed(change)
            return
        self._after = max(self._after, self._state.version)
        for stored in self._state.peek_all(table_of(self._options.kind), self._options.namespace):
            view = to_view(self._options.kind, stored)
            if self._selector(view):
                self._object_line("ADDED", view)
        if self._options.initial_events and self._options.bookmarks:
            self._bookmark(annotations={"k8s.io/initial-events-end": "true"})

    def _start_version(self) -> int:
        """Give the version to resume after; an unnamed one is now."""
        self._after = self._after or self._state.version
        return self._after

    def _changed(self, change: Change) -> None:
        if not self._open or change.version <= self._after:
            return
        kind, namespace = self._options.kind, self._options.namespace
        if namespace and change.object["metadata"].get("namespace") != namespace:
            return
        view = to_view(kind, change.object)
        before = None if change.previous is None else to_view(kind, change.previous)
        was = before is not None and self._selector(before)
        if change.type == "DELETED":
            if was:
                self._object_line("DELETED", view)
        elif self._selector(view):
            self._object_line("MODIFIED" if was else "ADDED", view)
        elif was and before is not None:
            meta = {**before["metadata"], "resourceVersion": str(change.version)}
            self._object_line("DELETED", {**before, "metadata": meta})

    def _object_line(self, event: str, view: Object) -> None:
        form, kind = self._options.form, self._options.kind
        if form == "Table":
            meta = {"resourceVersion": view["metadata"]["resourceVersion"]}
            include, columns = self._options.include, not self._columns_sent
            self._columns_sent = True
            view = make_table(kind, [view], meta, self._now(), include=include, columns=columns)
        elif form:
            view = metadata_only(view)
        self._line(event, view)

    def _bookmark(self, annotations: Object | None = None) -> None:
        if self._state.version < self._after:
            return  # of a version from the future nothing is ever told
        kind = self._options.kind
        meta: Object = {"resourceVersion": str(self._state.version)}
        if annotations:
            meta["annotations"] = annotations
        value: Object = {"kind": kind.kind, "apiVersion": kind.api_version, "metadata": meta}
        if self._options.form == "Table":
            value = make_table(kind, [], meta, self._now(), columns=False)
        else:
            value.update(empty_object(kind))
        self._line("BOOKMARK", value)

    def _bookmark_again(self) -> None:
        self._bookmark()
        self._later(BOOKMARK_S, self._bookmark_again)

    def _line(self, event: str, value: Object) -> None:
        self._request.write(encode({"type": event, "object": value}))


class Watches:
    """All open watches of one server."""

    def __init__(self) -> None:
        self._streams: list[WatchStream] = []

    def __len__(self) -> int:
        self._streams = [stream for stream in self._streams if stream.is_open]
        return len(self._streams)

    def start(self, stream: WatchStream) -> None:
        """Start a stream and keep hold of it until it ends."""
        self._streams = [other for other in self._streams if other.is_open]
        self._streams.append(stream)
        stream.start()

    def end_all(self) -> None:
        """End every open watch cleanly."""
        for stream in list(self._streams):
            stream.end()
        self._streams.clear()
