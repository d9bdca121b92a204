"""The cluster's DNS: names of pods in their headless Service, with caches that are late."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bkscaler.sandbox.podstatus import is_ready

TTL_S, NONE_TTL_S = 30.0, 5.0
"""How long an answer is remembered on the way, and how long that there is none."""


class Names:
    """
    Resolves the names of pods.

    :param pods: gives them.
    :param clock: for the caches.
    :param unready_too: whether the Service has publishNotReadyAddresses.
    """

    def __init__(self, pods: Callable[[], list[Any]], clock: Any, unready_too: bool) -> None:
        self._pods = pods
        self._clock = clock
        self._unready_too = unready_too
        self._cached: dict[str, tuple[str, float]] = {}

    def __call__(self, name: str) -> str:
        """Give the address of a name; ``""`` when there is none."""
        found, until_s = self._cached.get(name, ("", 0.0))
        now_s = self._clock.rightNow
        if now_s < until_s:
            return found
        pod_name = name.partition(".")[0]
        pods = [each for each in self._pods() if each["metadata"]["name"] == pod_name]
        here = [each for each in pods if self._unready_too or is_ready(each)]
        found = next((each["status"]["podIP"] for each in here if each["status"].get("podIP")), "")
        self._cached[name] = found, now_s + (TTL_S if found else NONE_TTL_S)
        return found
