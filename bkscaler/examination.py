"""
What can be said about a StatefulSet, and its Service, before anything is woken. Pure.

Each function looks at one side of it and gives a :class:`Finding`: how bad it is, what there is, and what to
do. Imported by :mod:`bkscaler.doctor`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any

from bkscaler.config import Settings
from bkscaler.kube import fields

QUICK_S = 2
"""A readiness probe that adds at most this to a cold start is not worth a word."""
SHORT_GRACE_S, LONG_GRACE_S = 5, 120
_LISTENS = re.compile(r"tcp://(\[[^\]]*\]|[^:/\s]*):([0-9]+)")
_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


class Level(Enum):
    """How bad a finding is; the value is the word in the table."""

    OK = "ok"
    NOTE = "note"
    """Works; something to know."""
    WARN = "warn"
    """Works, but slowly, or not always, or with losses."""
    FAIL = "FAIL"
    """Does not work."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """
    One line of the table.

    :param level: how bad it is.
    :param subject: what it is about.
    :param words: what there is.
    :param todo: what to do about it; ``""`` for nothing.
    """

    level: Level
    subject: str
    words: str
    todo: str = ""


def examine_set(value: dict[str, Any], settings: Settings) -> list[Finding]:
    """
    Look at a StatefulSet from all sides.

    :param value: the object as the API gives it.
    :param settings: what bkscaler would run with.
    """
    return [
        _replicas(value, settings),
        _service_name(value, settings),
        _port(value, settings),
        _readiness(value, settings),
        _management(value),
        _grace(value),
        _volumes(value),
    ]


def examine_service(value: dict[str, Any], owner: dict[str, Any], settings: Settings) -> Finding:
    """
    Look at the headless Service.

    :param value: the Service.
    :param owner: the StatefulSet.
    :param settings: what bkscaler would run with.
    """
    name, by_name = settings.headless_service_name, settings.target_address == "dns"
    labels = fields.mapping(owner, "spec", "template", "metadata", "labels")
    selector = fields.mapping(value, "spec", "selector")
    bad = Level.FAIL if by_name else Level.NOTE
    if fields.text(value, "spec", "clusterIP") != "None":
        return Finding(
            level=bad,
            subject="Service",
            words=f"{name} is not headless, so pods have no names in it",
            todo="make it anew with clusterIP: None",
        )
    if not selector or any(labels.get(key) != wanted for key, wanted in selector.items()):
        return Finding(
            level=bad,
            subject="Service",
            words=f"{name} selects other pods than the StatefulSet has",
            todo="give its selector the labels of the pod template",
        )
    if by_name and settings.readiness != "pod" and not fields.flag(value, "spec", "publishNotReadyAddresses"):
        return Finding(
            level=Level.WARN,
            subject="Service",
            words=f"{name} names ready pods only, so that --readiness {settings.readiness} gains nothing",
            todo="set publishNotReadyAddresses: true",
        )
    return Finding(level=Level.OK, subject="Service", words=f"{name} is headless and selects the set's pods")


def _containers(value: dict[str, Any]) -> list[dict[str, Any]]:
    return fields.items(value, "spec", "template", "spec", "containers")


def _replicas(value: dict[str, Any], settings: Settings) -> Finding:
    name = f"{settings.sts_namespace}/{settings.sts_name}"
    replicas, ready = (
        fields.number(value, "spec", "replicas"),
        fields.number(value, "status", "readyReplicas"),
    )
    subject = "StatefulSet"
    if fields.text(value, "metadata", "deletionTimestamp"):
        todo = "wait until it is gone, and make it anew"
        return Finding(level=Level.FAIL, subject=subject, words=f"{name} is being deleted", todo=todo)
    words = f"{name} has {replicas} replicas, {ready} ready" if replicas else f"{name} is asleep"
    if replicas > 1:
        todo = "nothing, if that is meant: more than one is left alone while it is needed, then goes to 0"
        return Finding(level=Level.NOTE, subject=subject, words=words, todo=todo)
    return Finding(level=Level.OK, subject=subject, words=words)


def _service_name(value: dict[str, Any], settings: Settings) -> Finding:
    actual, wanted = fields.text(value, "spec", "serviceName"), settings.headless_service_name
    subject = "serviceName"
    if actual == wanted:
        return Finding(level=Level.OK, subject=subject, words=actual)
    words = f"{actual or 'none'}, and --headless-service-name is {wanted}"
    if settings.target_address == "dns":
        todo = (
            f"run with --headless-service-name {actual}" if actual else "make the set anew with a serviceName"
        )
        return Finding(level=Level.FAIL, subject=subject, words=words, todo=todo)
    return Finding(
        level=Level.NOTE,
        subject=subject,
        words=words,
        todo="nothing: the name is used with --target-address dns only",
    )


def _port(value: dict[str, Any], settings: Settings) -> Finding:
    """Compare the port that is dialled with what the containers declare, and are told to listen on."""
    subject, wanted = "port", settings.target_port
    told = list(_told_to_listen(value))
    if told and all(port != wanted for _, port in told):
        listed = ", ".join(str(port) for _, port in told)
        todo = f"run with --target-port {told[0][1]}, or let buildkitd listen on {wanted}"
        words = f"buildkitd listens on {listed}, and --target-port is {wanted}"
        return Finding(level=Level.FAIL, subject=subject, words=words, todo=todo)
    if told and all(host in _LOOPBACK for host, port in told if port == wanted):
        todo = f"let it listen on tcp://0.0.0.0:{wanted}"
        words = f"buildkitd listens on {wanted} inside its pod only"
        return Finding(level=Level.FAIL, subject=subject, words=words, todo=todo)
    declared = [
        fields.number(port, "containerPort")
        for each in _containers(value)
        for port in fields.items(each, "ports")
    ]
    if wanted in declared or told:
        return Finding(level=Level.OK, subject=subject, words=str(wanted))
    words = f"no container declares {wanted} (--target-port)" + (f", only {declared}" if declared else "")
    todo = f"see that buildkitd has --addr tcp://0.0.0.0:{wanted}, or give another --target-port"
    return Finding(level=Level.WARN, subject=subject, words=words, todo=todo)


def _told_to_listen(value: dict[str, Any]) -> Iterator[tuple[str, int]]:
    """List host and port of each ``tcp://`` address that follows an ``--addr`` in a container's arguments."""
    for container in _containers(value):
        words: list[str] = []
        for key in ("command", "args"):
            listed = container.get(key)
            words += [str(word) for word in listed] if isinstance(listed, list) else []
        for before, word in zip(["", *words], words, strict=False):
            found = _LISTENS.fullmatch(word.removeprefix("--addr="))
            if found and (before == "--addr" or word.startswith("--addr=")):
                yield found[1], int(found[2])


def _readiness(value: dict[str, Any], settings: Settings) -> Finding:
    """Say what the probe adds to a cold start."""
    subject = "readinessProbe"
    if settings.readiness != "pod":
        words = f"is not waited for (--readiness {settings.readiness})"
        return Finding(level=Level.OK, subject=subject, words=words)
    probed = [each for each in _containers(value) if fields.mapping(each, "readinessProbe")]
    slowest = max(map(_worst_s, probed), default=None)
    if slowest is None:
        return Finding(
            level=Level.WARN,
            subject=subject,
            words="there is none: a pod counts as ready before buildkitd listens, and dials fail at first",
            todo=f"add one: grpc with port {settings.target_port} and periodSeconds: 1",
        )
    if any("httpGet" in fields.mapping(each, "readinessProbe") for each in probed):
        todo = f"use grpc with port {settings.target_port}"
        words = "asks by HTTP, which buildkitd does not answer"
        return Finding(level=Level.WARN, subject=subject, words=words, todo=todo)
    words = f"adds up to {slowest} s to each cold start"
    if slowest <= QUICK_S:
        return Finding(level=Level.OK, subject=subject, words=words)
    todo = "set periodSeconds: 1 without initialDelaySeconds or startupProbe, or run with --readiness grpc"
    return Finding(level=Level.WARN, subject=subject, words=words, todo=todo)


def _worst_s(container: dict[str, Any]) -> int:
    """
    Say how long after it listens a container may still not be Ready: the first probe comes after the initial
    delay, the next ones a period apart, as many as are needed; and a startup probe comes before them.
    """
    worst = 0
    for kind in ("startupProbe", "readinessProbe"):
        probe = fields.mapping(container, kind)
        if probe:
            period = fields.number(probe, "periodSeconds") or 10
            times = fields.number(probe, "successThreshold") or 1
            worst += fields.number(probe, "initialDelaySeconds") + period * times
    return worst


def _management(value: dict[str, Any]) -> Finding:
    policy = fields.text(value, "spec", "podManagementPolicy") or "OrderedReady"
    subject = "podManagementPolicy"
    if policy == "Parallel" or fields.number(value, "spec", "replicas") <= 1:
        return Finding(level=Level.OK, subject=subject, words=policy)
    return Finding(
        level=Level.WARN,
        subject=subject,
        words=f"{policy}, with several replicas: while they are not ready none can be taken away",
        todo="make the set anew with podManagementPolicy: Parallel, or keep to one replica",
    )


def _grace(value: dict[str, Any]) -> Finding:
    spec = fields.mapping(value, "spec", "template", "spec")
    grace_s = (
        fields.number(spec, "terminationGracePeriodSeconds")
        if "terminationGracePeriodSeconds" in spec
        else 30
    )
    subject, words = "grace period", f"{grace_s} s"
    if grace_s < SHORT_GRACE_S:
        words += ": buildkitd may be killed before its cache is written"
        return Finding(level=Level.WARN, subject=subject, words=words, todo="set it to 30")
    if grace_s > LONG_GRACE_S:
        words += ": a client that comes back while the pod ends may wait as long as that"
        return Finding(level=Level.WARN, subject=subject, words=words, todo="set it to 30")
    return Finding(level=Level.OK, subject=subject, words=words)


def _volumes(value: dict[str, Any]) -> Finding:
    """Say what becomes of the build cache while the builder sleeps."""
    subject = "build cache"
    volumes = fields.items(value, "spec", "template", "spec", "volumes")
    claimed = any(fields.mapping(volume, "persistentVolumeClaim") for volume in volumes)
    if not claimed and not fields.items(value, "spec", "volumeClaimTemplates"):
        todo = "add volumeClaimTemplates, if builds should find their cache again"
        words = "there is no volume: the cache is lost with each sleep"
        return Finding(level=Level.NOTE, subject=subject, words=words, todo=todo)
    if fields.text(value, "spec", "persistentVolumeClaimRetentionPolicy", "whenScaled") == "Delete":
        todo = "set persistentVolumeClaimRetentionPolicy.whenScaled: Retain"
        words = "its volume is deleted with each sleep"
        return Finding(level=Level.WARN, subject=subject, words=words, todo=todo)
    return Finding(level=Level.OK, subject=subject, words="on a volume that stays")
