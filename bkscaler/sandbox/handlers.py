"""
What each verb answers: from a read call and a body to the object that is sent.

Handlers hold no rules of their own; those are in :mod:`~bkscaler.sandbox.verbs`,
:mod:`~bkscaler.sandbox.scale`, :mod:`~bkscaler.sandbox.lists` and :mod:`~bkscaler.sandbox.watches`.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure
from twisted.web.server import Request

from bkscaler.sandbox.authorization import Access
from bkscaler.sandbox.calls import Call
from bkscaler.sandbox.failures import bad_request
from bkscaler.sandbox.kinds import ACCESS_REVIEWS, SELF_REVIEWS
from bkscaler.sandbox.lists import ListOptions, check_list_version, list_objects
from bkscaler.sandbox.objects import Now, Object, Random, dig
from bkscaler.sandbox.patches import decode_json, read_patch
from bkscaler.sandbox.protobuf import MEDIA_TYPE, read_protobuf
from bkscaler.sandbox.replies import accepted_form, header, send_failure, send_json
from bkscaler.sandbox.reviews import introduce, review
from bkscaler.sandbox.scale import ScaleVerbs
from bkscaler.sandbox.selectors import Selector, field_selector, label_selector
from bkscaler.sandbox.state import State
from bkscaler.sandbox.tables import make_table, metadata_only
from bkscaler.sandbox.verbs import Verbs
from bkscaler.sandbox.watches import Watches, WatchStream
from bkscaler.sandbox.watchoptions import WatchOptions, check_watch

FUTURE_WAIT_S = 3.0
"""Seconds a list waits for a version that has not come yet before it is answered 504."""

WATCH_TIMEOUT_S = 1800.0
"""Shortest time a watch without ``timeoutSeconds`` stays open; the longest is twice that, by chance."""


class Handlers:
    """
    Serves calls that are read, allowed and served by their kind.

    :param watches: keeps hold of the open watches.
    :param may: says whether an access would be allowed, for access reviews.
    """

    def __init__(
        self,
        state: State,
        *,
        clock: IReactorTime,
        now: Now,
        random: Random,
        watches: Watches,
        may: Callable[[Access], bool],
    ) -> None:
        self._state = state
        self._clock = clock
        self._now = now
        self._random = random
        self._watches = watches
        self._may = may
        self._verbs = Verbs(state, now=now, random=random)
        self._scale = ScaleVerbs(self._verbs)

    def handle(self, request: Request, call: Call, user: str, body: bytes) -> None:
        """
        Answer a call; a watch stays open.

        :raises ApiFailure: for every refusal; nothing has been sent then.
        """
        form = accepted_form(header(request, "accept"))
        if call.kind is ACCESS_REVIEWS:
            send_json(request, review(_sent(request, call, body), user, self._may), code=201)
        elif call.kind is SELF_REVIEWS:
            send_json(request, introduce(user), code=201)
        elif call.subresource == "scale":
            self._handle_scale(request, call, body)
        elif call.verb == "list":
            self._list(request, call, form)
        elif call.verb == "watch":
            self._watch(request, call, form)
        else:
            self._handle_object(request, call, form, body)

    def _handle_object(self, request: Request, call: Call, form: str, body: bytes) -> None:
        kind, namespace, name, code = call.kind, call.namespace, call.name, 200
        match call.verb:
            case "create":
                value = self._verbs.create(kind, namespace, _sent(request, call, body), dry_run=call.dry_run)
                code = 201
            case "update":
                value, created = self._verbs.replace(
                    kind, namespace, name, _sent(request, call, body), dry_run=call.dry_run
                )
                code = 201 if created else 200
            case "patch":
                patch = read_patch(header(request, "content-type") or "", body)
                value = self._verbs.patch(kind, namespace, name, patch, dry_run=call.dry_run)
            case "delete":
                value = self._delete(request, call, body)
            case _:
                value = self._verbs.get(kind, namespace, name)
        send_json(request, self._shown(call, value, form), code=code)

    def _delete(self, request: Request, call: Call, body: bytes) -> Object:
        options = _json_object(body) if body.strip() and not _is_protobuf(request) else {}
        for key in ("gracePeriodSeconds", "propagationPolicy"):
            if call.text(key):
                options[key] = call.number(key) if key == "gracePeriodSeconds" else call.text(key)
        if options.get("dryRun") or call.dry_run:
            return self._verbs.get(call.kind, call.namespace, call.name)
        return self._verbs.delete(call.kind, call.namespace, call.name, options)

    def _shown(self, call: Call, value: Object, form: str) -> Object:
        """Give an object in the form the client asked for; a Status has only its own."""
        if not form or value.get("kind") == "Status":
            return value
        if form == "Table":
            meta = {"resourceVersion": value["metadata"]["resourceVersion"]}
            include = call.text("includeObject") or "Metadata"
            return make_table(call.kind, [value], meta, self._now(), include=include)
        return metadata_only(value)

    def _handle_scale(self, request: Request, call: Call, body: bytes) -> None:
        namespace, name, headers = call.namespace, call.name, {}
        if call.verb == "get":
            value = self._scale.get(namespace, name)
        elif call.verb == "update":
            value = self._scale.replace(namespace, name, _json_object(body), dry_run=call.dry_run)
        else:
            patch = read_patch(header(request, "content-type") or "", body)
            strict = call.text("fieldValidation") == "Strict"
            value, unknown = self._scale.patch(namespace, name, patch, dry_run=call.dry_run, strict=strict)
            if unknown and call.text("fieldValidation") != "Ignore":
                headers["Warning"] = f'299 - "unknown field \\"{unknown[0]}\\""'
        send_json(request, value, headers=headers)

    def _selector(self, call: Call) -> Selector:
        fields = field_selector(call.kind, call.text("fieldSelector"))
        labels = label_selector(call.text("labelSelector"))
        return lambda value: fields(value) and labels(value)

    def _list(self, request: Request, call: Call, form: str) -> None:
        selector = self._selector(call)
        options = ListOptions(
            namespace=call.namespace,
            version=call.text("resourceVersion"),
            match=call.text("resourceVersionMatch"),
            limit=call.number("limit"),
            token=call.text("continue"),
        )
        late = check_list_version(self._state, options)
        if late is not None:
            waiting = self._clock.callLater(FUTURE_WAIT_S, send_failure, request, late)
            request.notifyFinish().addErrback(_cancel, waiting)
            return
        listing = list_objects(self._state, call.kind, options, selector)
        if form:
            listing = self._list_in_form(call, listing, form)
        send_json(request, listing)

    def _list_in_form(self, call: Call, listing: Object, form: str) -> Object:
        kind = {"kind": call.kind.kind, "apiVersion": call.kind.api_version}
        views = [{**kind, **item} for item in listing["items"]]
        if form == "Table":
            include = call.text("includeObject") or "Metadata"
            return make_table(call.kind, views, listing["metadata"], self._now(), include=include)
        answer: Object = {"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1"}
        answer.update(metadata=listing["metadata"], items=[metadata_only(view) for view in views])
        return answer

    def _watch(self, request: Request, call: Call, form: str) -> None:
        selector = self._selector(call)
        initial = call.flag("sendInitialEvents") if "sendInitialEvents" in call.query else None
        timeout_s = call.number("timeoutSeconds") or WATCH_TIMEOUT_S * (1 + self._random())
        options = WatchOptions(
            kind=call.kind,
            namespace=call.namespace,
            version=call.text("resourceVersion"),
            match=call.text("resourceVersionMatch"),
            timeout_s=timeout_s,
            bookmarks=call.flag("allowWatchBookmarks"),
            initial_events=initial,
            form=form,
            include=call.text("includeObject") or "Metadata",
        )
        after = check_watch(options)
        state, clock, now = self._state, self._clock, self._now
        stream = WatchStream(request, options, after, selector, state=state, clock=clock, now=now)
        self._watches.start(stream)


def _cancel(_reason: Failure, call: IDelayedCall) -> None:
    if call.active():
        call.cancel()


def _sent(request: Request, call: Call, body: bytes) -> Object:
    """Read the object that a client sent, in the form it comes in."""
    return read_protobuf(call.kind, body) if _is_protobuf(request) else _json_object(body)


def _is_protobuf(request: Request) -> bool:
    return (header(request, "content-type") or "").startswith(MEDIA_TYPE)


def _json_object(body: bytes) -> Object:
    """Read a body that must be one object, with its metadata."""
    value = decode_json(body, "couldn't get version/kind; json parse error")
    if not isinstance(value, dict) or not isinstance(dig(value, "metadata") or {}, dict):
        raise bad_request("the body of the request is no object")
    if value.get("metadata") is None:
        value["metadata"] = {}
    return value
