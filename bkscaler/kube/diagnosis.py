"""
Why no pod is ready yet, in one line that a person can act on. Pure.

Read from the pods alone. What only Events tell (a quota that keeps the pod from being created, a volume
that cannot be attached) is therefore described by its effect: no pod yet, volumes not there yet.
Imported by ``kube.store``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from bkscaler.errors import MAX_DETAIL_CHARS
from bkscaler.kube import fields
from bkscaler.kube.pods import ContainerView, PodView, serves
from bkscaler.kube.statefulset import StatefulSetView

_IMAGE_REASONS = frozenset(
    {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError"}
)
_HOPELESS_REASONS = _IMAGE_REASONS | {"CreateContainerConfigError"}
_STARTING_REASONS = frozenset({"", "ContainerCreating", "PodInitializing"})


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """
    What keeps a replica from being ready.

    :param waiting_for: one line of at most 256 characters, ``pod <name>: <why>``; ``""`` when there is
        nothing to wait for.
    :param hopeless: whether it is something that time alone will rarely mend: no node fits, the image
        cannot be pulled, a Secret or ConfigMap of the container is missing.
    """

    waiting_for: str = ""
    hopeless: bool = False


def diagnose(owner: StatefulSetView, pods: Iterable[PodView], *, suspects: Collection[str] = ()) -> Diagnosis:
    """
    Explain the first replica, by ordinal, that the spec asks for and that cannot be given clients.

    :param owner: the StatefulSet; with no replicas wanted there is nothing to explain.
    :param pods: any pods; only those of this set count.
    :param suspects: uids of pods that an earlier spec has condemned.
    """
    if owner.terminating:
        return _line(f"StatefulSet {owner.name} is being deleted")
    own = {pod.ordinal: pod for pod in pods if pod.owner_uid == owner.uid}
    for ordinal in range(owner.first_ordinal, owner.first_ordinal + owner.replicas):
        pod = own.get(ordinal)
        if pod is None:
            return _line(f"pod {owner.name}-{ordinal}: {_not_created(owner)}")
        if not (serves(owner, pod) and pod.ready) or pod.uid in suspects:
            why, hopeless = _why(pod, suspected=pod.uid in suspects)
            return _line(f"pod {pod.name}: {why}", hopeless)
    return Diagnosis()


def _line(words: str, hopeless: bool = False) -> Diagnosis:
    return Diagnosis(waiting_for=fields.one_line(words, MAX_DETAIL_CHARS), hopeless=hopeless)


def _not_created(owner: StatefulSetView) -> str:
    """Say what it means that there is no pod."""
    if not owner.caught_up:
        return "not created yet: the StatefulSet controller has not seen the new scale"
    return "not created yet by the StatefulSet controller (quota or admission may refuse it)"


def _why(pod: PodView, *, suspected: bool) -> tuple[str, bool]:
    """Choose the most telling reason."""
    if pod.terminating:
        return "the old pod is still terminating", False
    if pod.unscheduled:
        return _unscheduled(pod), pod.unscheduled == "Unschedulable"
    if pod.phase in ("Failed", "Succeeded", "Unknown"):
        return _over(pod), False
    for container in pod.containers:
        if not container.ready and (found := _container(pod, container)):
            return found, container.waiting_reason in _HOPELESS_REASONS
    if pod.phase == "Running":
        return _running(pod, suspected), False
    return "scheduled, not started by its node yet" if pod.unready_message else "waiting for a node", False


def _unscheduled(pod: PodView) -> str:
    """Give the scheduler's first sentence; the others are about preemption."""
    if pod.unscheduled == "SchedulingGated":
        return "held back by a scheduling gate"
    return (
        fields.one_line(pod.unscheduled_message, MAX_DETAIL_CHARS).partition(". ")[0].rstrip(".")
        or pod.unscheduled
    )


def _over(pod: PodView) -> str:
    """Describe a pod that has ended, or that has not been heard of."""
    if pod.phase == "Unknown":
        return f"its node cannot be reached{_more(pod.message)}"
    ended = next((_ending(each) for each in pod.containers if each.ended), "")
    return f"{pod.phase.lower()}{_more(pod.reason)}{_more(pod.message or ended)}"


def _container(pod: PodView, container: ContainerView) -> str:
    """Describe what keeps one container from being ready; ``""`` when it simply runs."""
    kind = "init container" if container.init else "container"
    reason = container.waiting_reason
    if reason in _IMAGE_REASONS:
        return f"cannot pull image {container.image}{_more(_pull_words(container) or reason)}"
    if reason == "CrashLoopBackOff" or (
        container.ended and not container.running and reason in _STARTING_REASONS
    ):
        return f"{kind} {container.name} keeps ending{_more(_ending(container))}"
    if reason not in _STARTING_REASONS:
        return f"{kind} {container.name}: {reason}{_more(container.waiting_message)}"
    if reason == "PodInitializing" or (container.running and not container.init):
        return ""
    if container.init:
        return f"init container {container.name} is {'running' if container.running else 'starting'}"
    return _creating(pod, container)


def _creating(pod: PodView, container: ContainerView) -> str:
    """Describe ContainerCreating, which hides volumes, network and image pulls."""
    if pod.set_up:
        return f"pulling image {container.image}, or creating container {container.name}"
    if pod.claims:
        return f"waiting for volumes to be attached and mounted (claims {', '.join(pod.claims)})"
    return "waiting for its volumes and network"


def _running(pod: PodView, suspected: bool) -> str:
    """Describe a pod that runs and yet cannot be used."""
    if not pod.ready:
        starting = [each for each in pod.containers if not each.started]
        probe = "startup" if starting else "readiness"
        crashed = next(
            (f"; last time {_ending(each)}" for each in pod.containers if each.restarts and each.ended), ""
        )
        return f"running, but its {probe} probe has not passed{_more(pod.unready_message)}{crashed}"
    if not pod.ip:
        return "running, but it has no IP address"
    return "may have been told to stop by an earlier scale-down; asking again" if suspected else "not usable"


def _pull_words(container: ContainerView) -> str:
    """Shorten the container runtime's message to what follows its last error code."""
    return container.waiting_message.rpartition(" desc = ")[2]


def _ending(container: ContainerView) -> str:
    """Describe how a container ended: ``OOMKilled, exit code 137, restarted 3 times``."""
    reason = container.ended_reason if container.ended_reason not in ("", "Error", "Completed") else ""
    code = f"exit code {container.exit_code}" if container.ended else ""
    times = (
        f"restarted {container.restarts} time{'s' * (container.restarts != 1)}" if container.restarts else ""
    )
    return ", ".join(part for part in (reason, code, times) if part)


def _more(words: str) -> str:
    return f": {words}" if words else ""
