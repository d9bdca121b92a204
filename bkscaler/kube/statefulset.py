"""
The StatefulSet: what of it matters to us, and the two requests on it.

Kubernetes leaves out numbers that are zero, so a missing one is 0. Scaling is a merge patch on the
``/scale`` subresource: the Role then needs no right to change pod templates. Imported by ``kube.store`` and
``kube.cluster``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bkscaler.kube import fields
from bkscaler.kube.client import MERGE_PATCH, ApiClient, path_to


@dataclass(frozen=True, kw_only=True)
class StatefulSetView:
    """
    One version of a StatefulSet.

    :param name: its name.
    :param uid: its uid; a successor of the same name has another.
    :param resource_version: version of this view.
    :param generation: counts changes of the spec.
    :param observed_generation: the generation the controller has acted on.
    :param replicas: ``spec.replicas``.
    :param first_ordinal: ``spec.ordinals.start``.
    :param selector: label selector of its pods, as a query parameter wants it.
    :param service_name: the headless Service, or ``""``.
    :param terminating: whether it is being deleted, and its pods with it.
    """

    name: str
    uid: str
    resource_version: str = ""
    generation: int = 0
    observed_generation: int = 0
    replicas: int = 0
    first_ordinal: int = 0
    selector: str = ""
    service_name: str = ""
    terminating: bool = False

    @property
    def caught_up(self) -> bool:
        """Whether the controller has acted on this spec."""
        return self.observed_generation >= self.generation

    def wants(self, ordinal: int) -> bool:
        """Tell whether the spec asks for the pod of an ordinal."""
        return self.first_ordinal <= ordinal < self.first_ordinal + self.replicas and not self.terminating


def parse(value: Mapping[str, Any]) -> StatefulSetView:
    """Read a StatefulSet object; odd or missing parts are empty or 0, nothing is raised."""
    return StatefulSetView(
        name=fields.text(value, "metadata", "name"),
        uid=fields.text(value, "metadata", "uid"),
        resource_version=fields.text(value, "metadata", "resourceVersion"),
        generation=fields.number(value, "metadata", "generation"),
        observed_generation=fields.number(value, "status", "observedGeneration"),
        replicas=fields.number(value, "spec", "replicas"),
        first_ordinal=fields.number(value, "spec", "ordinals", "start"),
        selector=selector_text(fields.mapping(value, "spec", "selector")),
        service_name=fields.text(value, "spec", "serviceName"),
        terminating=bool(fields.text(value, "metadata", "deletionTimestamp")),
    )


def selector_text(selector: Mapping[str, Any]) -> str:
    """
    Write a LabelSelector as a query parameter.

    :param selector: ``matchLabels`` and ``matchExpressions``.
    :returns: for example ``app=buildkitd,tier in (a,b),!old``; ``""`` for an empty selector.
    """
    labels = fields.mapping(selector, "matchLabels")
    parts = [f"{key}={value}" for key, value in sorted(labels.items())]
    return ",".join(parts + [_expression(each) for each in fields.items(selector, "matchExpressions")])


def _expression(expression: Mapping[str, Any]) -> str:
    """Write one requirement."""
    key, operator = fields.text(expression, "key"), fields.text(expression, "operator")
    values = expression.get("values")
    listed = ",".join(str(value) for value in values) if isinstance(values, list) else ""
    if operator in ("In", "NotIn"):
        return f"{key} {operator.lower()} ({listed})"
    return f"!{key}" if operator == "DoesNotExist" else key


def collection_path(namespace: str) -> str:
    """Give the path of the StatefulSets of a namespace."""
    return path_to("apis", "apps", "v1", "namespaces", namespace, "statefulsets")


async def get_scale(client: ApiClient, namespace: str, name: str) -> tuple[int, str]:
    """
    Read ``/scale``.

    :returns: ``spec.replicas`` and the resourceVersion it was read from.
    :raises ApiError: as :meth:`ApiClient.request`; :class:`~bkscaler.errors.NotFound` when there is none.
    """
    return _scale_of(await client.request("GET", f"{collection_path(namespace)}/{path_to(name)[1:]}/scale"))


async def scale(
    client: ApiClient, namespace: str, name: str, replicas: int, resource_version: str
) -> tuple[int, str]:
    """
    Set ``spec.replicas``, provided that nobody has changed the StatefulSet meanwhile.

    :param replicas: wanted, >= 0.
    :param resource_version: version the decision was made on; ``""`` and ``"0"`` are unconditional.
    :returns: ``spec.replicas`` and the resourceVersion after the change.
    :raises Conflict: when the version is stale; nothing was changed.
    :raises ApiError: as :meth:`ApiClient.request`. Cancelling leaves open whether it took effect.
    """
    answer = await client.request(
        "PATCH",
        f"{collection_path(namespace)}/{path_to(name)[1:]}/scale",
        body={"metadata": {"resourceVersion": resource_version}, "spec": {"replicas": replicas}},
        content_type=MERGE_PATCH,
    )
    return _scale_of(answer)


def _scale_of(answer: Mapping[str, Any]) -> tuple[int, str]:
    """Read a Scale object."""
    return fields.number(answer, "spec", "replicas"), fields.text(answer, "metadata", "resourceVersion")
