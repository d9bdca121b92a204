"""SelfSubjectAccessReview: what ``kubectl auth can-i`` asks. Pure, but for the authorizer it asks."""

from __future__ import annotations

from bkscaler.sandbox.authorization import Access, Authorizer
from bkscaler.sandbox.failures import bad_request
from bkscaler.sandbox.objects import Object


def review(sent: Object, user: str, authorizer: Authorizer) -> Object:
    """
    Answer a review.

    :param sent: the client's SelfSubjectAccessReview.
    :param user: who sent it.
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
    allowed = authorizer.allows(access)
    status: Object = {"allowed": allowed}
    if allowed:
        status["reason"] = "allowed by the sandbox's authorizer"
    answer: Object = {"kind": "SelfSubjectAccessReview", "apiVersion": "authorization.k8s.io/v1"}
    answer.update(metadata={}, spec=spec, status=status)
    return answer
