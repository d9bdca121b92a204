"""
What must hold when a builder is dialled: it is none that bkscaler has sent away, or knows not to be fit.

Imported by :mod:`bkscaler.simulation.judge`.
"""

from __future__ import annotations

import math
from typing import Any

from bkscaler.sandbox.podstatus import is_ready
from bkscaler.sandbox.state import Change
from bkscaler.simulation.condemned import Condemned
from bkscaler.simulation.lines import Line
from bkscaler.simulation.scalings import Scalings

HEARD_S = 1.0
"""How long it may take until bkscaler has heard of a change."""


class Dialling:
    """
    Judges each dial of a builder.

    :param judge: whom failures are told, and who knows the world.
    :param scalings: knows whether bkscaler has scaled to 0.
    """

    def __init__(self, judge: Any, scalings: Scalings) -> None:
        self._judge = judge
        self._scalings = scalings
        self._truth = judge.truth
        self._unready_s: dict[str, float] = {}
        self._told_going: set[str] = set()
        self._uids: dict[str, str] = {}
        self._condemned = Condemned(judge.truth, judge.world.cluster)
        judge.world.cluster.state.subscribe("pods", self._pod_changed)

    def told(self, line: Line) -> None:
        """Take note of which pods the API server says are being deleted, or have been."""
        deleted = line.get("type") == "DELETED"
        for each in line.get("items", [line.get("object", line)]):
            meta = each.get("metadata", {})
            if deleted or "deletionTimestamp" in meta:
                self._told_going.add(meta.get("uid", ""))
        self._condemned.told(line)

    def started(self) -> None:
        """Take note that a process begins, which has been told nothing."""
        self._told_going.clear()
        self._condemned.started()

    def restored(self) -> None:
        """Take note that what was going may be alive again."""
        self._told_going.clear()
        self._condemned.restored()

    def dialled(self, ip: str) -> None:
        """
        No client is given a pod that bkscaler knows to be going, or that was sent away, as far as it can
        know, and has not been spared. (Where DNS, which may be late, says which pod it is, only that none is
        while bkscaler has scaled to 0.)
        """
        if self._scalings.we_sleep:
            self._judge.fail(f"{ip} is dialled, although bkscaler has scaled to 0")
        if self._judge.world.settings.target_address == "dns":
            return
        here = [pod["metadata"] for pod in self._truth.pods() if pod["status"].get("podIP") == ip]
        for meta in here:
            if meta["uid"] in self._told_going and "deletionTimestamp" in meta:
                self._judge.fail(f"pod {meta['uid']} is dialled, which is going")
            if self._condemned.is_known(meta["uid"]):
                self._judge.fail(f"pod {meta['uid']} is dialled, which was sent away")
        if self._judge.is_well and (why := self._unfit(here)):
            self._judge.fail(f"{ip} is dialled, {why}")
        uid = self._uids.get(ip, "")
        if not here and (uid in self._told_going or self._condemned.is_known(uid)):
            self._judge.fail(f"{ip} is dialled, whose pod {uid} is gone")

    def _unfit(self, pods: list[dict[str, Any]]) -> str:
        """Say what bkscaler should have known of a pod that it dials."""
        before_s = self._truth.now_s - HEARD_S
        asks = self._judge.world.settings.readiness != "pod"
        if not asks and any(self._unready_s.get(meta["uid"], math.inf) < before_s for meta in pods):
            return "whose pod is not Ready"
        return "whose set is being deleted" if self._scalings.condemned_s < before_s else ""

    def _pod_changed(self, change: Change) -> None:
        """Take note since when a pod has not been Ready, and whose an address was last."""
        uid = change.object["metadata"]["uid"]
        if ip := change.object["status"].get("podIP"):
            self._uids[ip] = uid
        if is_ready(change.object):
            self._unready_s.pop(uid, None)
        else:
            self._unready_s.setdefault(uid, self._truth.now_s)
