"""What ``kubectl auth can-i`` and ``kubectl auth whoami`` ask. Pure, but for the authorizer it asks."""

from __future__ import annotations

from collections.abc import Callable

from bkscaler.sandbox.authorization import Access
from bkscaler.sandbox.failures import bad_request
from bkscaler.sandbox.objects import Object


def review(sent: Object, user: str, may: Callable[[Access], bool]) -> Object:
    """
    Answer a review.

    :param sent: the client's SelfSubjectAccessReview.
    :param user: who sent it.
    :param may: says whether an access would be allowed.
    :returns: the review with its status.
    :raises ApiFailure: 400 when it names neither a resource nor a path.
    """
    spec = sent.get("spec") or {}
    resource, path = spec.get("resourceAttributes"), spec.get("nonResourceAttributes")
    if resource is None and path is None:
        raise bad_request("exactly one of nonResourceAttributes or resourceAttributes must be specified")
    wanted: Object = resource or path or {}
    access = Access(
        user=user,
        verb=wanted.get("verb", ""),
        group=wanted.get("group", ""),
        resource=wanted.get("resource", ""),
        subresource=wanted.get("subresource", ""),
        namespace=wanted.get("namespace", ""),
        name=wanted.get("name", ""),
        path=wanted.get("path", ""),
    )
    allowed = may(access)
    status: Object = {"allowed": allowed}
    if allowed:
        status["reason"] = "allowed by the sandbox's authorizer"
    answer: Object = {"kind": "SelfSubjectAccessReview", "apiVersion": "authorization.k8s.io/v1"}
    answer.update(metadata={}, spec=spec, status=status)
    return answer


def introduce(user: str) -> Object:
    """Answer a SelfSubjectReview: tell a user what the server calls them."""
    answer: Object = {"kind": "SelfSubjectReview", "apiVersion": "authentication.k8s.io/v1"}
    answer.update(metadata={}, status={"userInfo": {"username": user, "groups": ["system:authenticated"]}})
    return answer
