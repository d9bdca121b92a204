"""
``twistd bkscaler --check``: would it work? Asks the cluster, changes nothing, prints a table.

It needs the rights of the product and no others; the Service is looked at only where it may be read.
Imported by the plugin.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence

from bkscaler.config import Settings
from bkscaler.errors import ApiError, ApiStatus, ApiUnreachable, NotFound, Unauthorized
from bkscaler.examination import Finding, Level, examine_service, examine_set
from bkscaler.kube import fields, pods, statefulset
from bkscaler.kube.auth import ClusterAccess
from bkscaler.kube.client import ApiClient, path_to
from bkscaler.kube.rights import Missing, Right, is_granted, missing_rights, needed_rights, who_am_i

WIDTH = 110
"""Columns of the table; a command is never broken, so that it can be copied."""
_SUBJECT_CHARS = max(len("podManagementPolicy"), len("readinessProbe"))


async def check(
    client: ApiClient, access: ClusterAccess, settings: Settings, write: Callable[[str], object]
) -> bool:
    """
    Examine the cluster and print what is found.

    :param client: asks the API server.
    :param access: how it is reached, for the table.
    :param settings: what bkscaler would run with.
    :param write: takes the text, in one piece.
    :returns: whether bkscaler would work.
    """
    findings = await examine(client, access, settings)
    failed = sum(finding.level is Level.FAIL for finding in findings)
    verdict = f"bkscaler would not work: {failed} to mend" if failed else "bkscaler would work"
    write(f"{as_table(findings)}\n{verdict}\n")
    return not failed


async def examine(client: ApiClient, access: ClusterAccess, settings: Settings) -> list[Finding]:
    """
    Look at everything that can be looked at.

    :param client: asks the API server.
    :param access: how it is reached.
    :param settings: what bkscaler would run with.
    :returns: findings in the order of the table; never raises an API error.
    """
    found = []
    if not access.verify:
        words = "the API server's certificate is not checked (insecure-skip-tls-verify)"
        found.append(
            Finding(level=Level.WARN, subject="TLS", words=words, todo="give a certificate authority")
        )
    server = f"{access.server} ({access.source})"
    try:
        user = await who_am_i(client)
        found.append(
            Finding(level=Level.OK, subject="API server", words=f"{server}, as {user or 'somebody'}")
        )
    except ApiError as error:
        return [*found, _out_of_reach(server, error)]
    found += await _rights(client, settings)
    found += await _set(client, settings)
    return found


def as_table(findings: Sequence[Finding]) -> str:
    """Write findings as text, what to do on lines of its own."""
    lines = []
    indent = " " * (len(Level.FAIL.value) + 2 + _SUBJECT_CHARS + 2)
    for finding in findings:
        head = f"{finding.level.value:<{len(Level.FAIL.value)}}  {finding.subject:<{_SUBJECT_CHARS}}  "
        lines += textwrap.wrap(
            finding.words, WIDTH, initial_indent=head, subsequent_indent=indent, break_on_hyphens=False
        )
        lines += [f"{indent}-> {finding.todo}"] if finding.todo else []
    return "\n".join(lines) + "\n"


def _out_of_reach(server: str, error: ApiError) -> Finding:
    """Say what keeps us from asking anything."""
    todo = "look at what the server says"
    if isinstance(error, Unauthorized):
        todo = "log in anew, or give other credentials; a token may have expired"
    elif isinstance(error, ApiUnreachable):
        todo = "see that the server is up and within reach, and that address and authority are right"
    return Finding(level=Level.FAIL, subject="API server", words=f"{server}: {error}", todo=todo)


async def _rights(client: ApiClient, settings: Settings) -> list[Finding]:
    """Ask for the rights."""
    needed = needed_rights(settings.sts_name)
    try:
        missing = await missing_rights(client, settings.sts_namespace, needed)
    except ApiError as error:
        words = f"the server does not say what we may do: {error}"
        return [Finding(level=Level.WARN, subject="rights", words=words)]
    if not missing:
        return [Finding(level=Level.OK, subject="rights", words=f"all {len(needed)} are granted")]
    return [_missing(each) for each in missing]


def _missing(missing: Missing) -> Finding:
    level = Level.FAIL if missing.essential else Level.WARN
    return Finding(level=level, subject="rights", words=missing.what, todo=missing.remedy)


async def _set(client: ApiClient, settings: Settings) -> list[Finding]:
    """Look at the StatefulSet, its scale, its Service and its first pod."""
    namespace, name = settings.sts_namespace, settings.sts_name
    try:
        value = await client.request("GET", f"{statefulset.collection_path(namespace)}{path_to(name)}")
        replicas, _ = await statefulset.get_scale(client, namespace, name)
    except NotFound:
        words = f"there is no {namespace}/{name}"
        todo = "create it, or give another --sts-name or --sts-namespace"
        return [Finding(level=Level.FAIL, subject="StatefulSet", words=words, todo=todo)]
    except ApiError as error:
        words = f"{namespace}/{name} cannot be read: {error}"
        return [Finding(level=Level.FAIL, subject="StatefulSet", words=words, todo="see the rights above")]
    found = examine_set(value, settings)
    found.insert(2, await _service(client, value, settings))
    return [*found, await _pod(client, value, replicas, settings)]


async def _service(client: ApiClient, owner: dict[str, object], settings: Settings) -> Finding:
    """Look at the headless Service, if we may."""
    namespace, name = settings.sts_namespace, settings.headless_service_name
    path = f"{path_to('api', 'v1', 'namespaces', namespace, 'services')}{path_to(name)}"
    right = Right(verb="get", resource="services", name=name, essential=False)
    try:
        if not await is_granted(client, namespace, right):
            words = f"{name} was not looked at: we may not read it, and need not"
            return Finding(level=Level.OK, subject="Service", words=words)
        return examine_service(await client.request("GET", path), owner, settings)
    except NotFound:
        level = Level.FAIL if settings.target_address == "dns" else Level.NOTE
        words = f"there is no {namespace}/{name}"
        todo = (
            "create it: --target-address dns needs it"
            if level is Level.FAIL
            else "nothing: pods are dialled by IP"
        )
        return Finding(level=level, subject="Service", words=words, todo=todo)
    except ApiError as error:
        return Finding(level=Level.NOTE, subject="Service", words=f"{name} cannot be read: {error}")


async def _pod(client: ApiClient, owner: dict[str, object], replicas: int, settings: Settings) -> Finding:
    """Look at the first pod."""
    first = statefulset.parse(owner).first_ordinal
    name = f"{settings.sts_name}-{first}"
    try:
        value = await client.request("GET", f"{pods.collection_path(settings.sts_namespace)}{path_to(name)}")
    except NotFound:
        words = f"{name} is not there" + (" yet" if replicas else ", as the builder is asleep")
        return Finding(level=Level.OK, subject="pod", words=words)
    except ApiStatus as error:
        return Finding(level=Level.NOTE, subject="pod", words=f"{name} cannot be read: {error}")
    except ApiError as error:
        return Finding(level=Level.WARN, subject="pod", words=f"{name}: {error}")
    pod = pods.parse(value)
    state = "terminating" if pod.terminating else f"{pod.phase}, {'' if pod.ready else 'not '}ready"
    words = f"{name} is {state}{f', at {pod.ip}' if pod.ip else ''}"
    why = fields.one_line(pod.unscheduled_message or pod.unready_message, 200) if not pod.ready else ""
    return Finding(level=Level.OK, subject="pod", words=f"{words}{f': {why}' if why else ''}")
