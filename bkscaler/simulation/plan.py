"""
The plan of a world: everything that chance decides before it begins, from one seed.

A plan is settings, a cluster and a list of acts in the order of time. A prefix of the acts is a plan, too; so
a failing world can be made shorter.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from bkscaler.sandbox.cluster import ClusterSettings
from bkscaler.simulation.acts import Act
from bkscaler.simulation.apifaults import API_FAULTS
from bkscaler.simulation.lagging import LAGS
from bkscaler.simulation.others import ENDS, OTHERS
from bkscaler.simulation.podfaults import POD_FAULTS
from bkscaler.simulation.visitors import CLIENTS

MOODS: dict[str, dict[Act, int]] = {
    "calm": {},
    "api": API_FAULTS,
    "pods": POD_FAULTS | LAGS,
    "others": OTHERS | ENDS | LAGS,
    "all": API_FAULTS | POD_FAULTS | OTHERS | ENDS | LAGS,
}
"""Which faults a world knows."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """
    One act at its time.

    :param at_s: seconds after the beginning.
    :param act: what happens.
    :param chance: the seed of its own chance.
    """

    at_s: float
    act: Act
    chance: str


@dataclass(frozen=True, kw_only=True)
class Plan:
    """
    A world that is yet to be.

    :param seed: whose plan it is.
    :param mood: key of :data:`MOODS`.
    :param flags: bkscaler's command line.
    :param cluster: what the cluster begins with.
    :param steps: what happens, by time.
    :param lasts_s: when everybody leaves and all trouble is over.
    """

    seed: int
    mood: str
    flags: dict[str, str]
    cluster: ClusterSettings
    steps: list[Step]
    lasts_s: float


def make_plan(seed: int) -> Plan:
    """Make the plan of a seed."""
    chance = Random(f"{seed} plan")
    mood = chance.choice(("calm", "api", "api", "pods", "pods", "others", "all", "all"))
    lasts_s = chance.choice((20.0, 60.0, 60.0, 200.0, 600.0))
    acts = chance.choices(list(CLIENTS), list(CLIENTS.values()), k=chance.randint(1, 8))
    if MOODS[mood]:
        faults = MOODS[mood]
        acts += chance.choices(list(faults), list(faults.values()), k=chance.randint(1, 7))
    steps = [
        Step(at_s=_when(chance, lasts_s), act=act, chance=f"{seed} {number}")
        for number, act in enumerate(acts)
    ]
    steps.sort(key=lambda step: step.at_s)
    return Plan(
        seed=seed,
        mood=mood,
        flags=_flags(chance),
        cluster=_cluster(chance),
        steps=steps,
        lasts_s=lasts_s,
    )


def _when(chance: Random, lasts_s: float) -> float:
    """Choose a time: often one at which several other things happen as well."""
    if chance.random() < 0.4:
        return lasts_s * chance.randint(0, 4) / 5 + chance.choice((0.0, 0.02, 1.0, 3.0)) * chance.random()
    return lasts_s * chance.random()


def _flags(chance: Random) -> dict[str, str]:
    """Choose bkscaler's settings."""
    return {
        "idle-timeout": chance.choice(("1s", "5s", "5s", "20s", "100s")),
        "ready-wait-timeout": chance.choice(("15s", "40s", "40s", "120s")),
        "give-up-after": chance.choice(("off", "off", "10s", "30s")),
        "hold-after": chance.choice(("0s", "1s", "10s", "10s")),
        "probe-grace": chance.choice(("0s", "100ms", "250ms", "1s")),
        "drain-timeout": chance.choice(("0s", "5s", "60s")),
        "max-connections": chance.choice(("3", "100", "100", "100")),
        "readiness": chance.choice(("pod", "pod", "tcp", "grpc")),
        "target-address": chance.choice(("pod-ip", "pod-ip", "pod-ip", "dns")),
    }


def _cluster(chance: Random) -> ClusterSettings:
    """Choose what the cluster begins with."""
    return ClusterSettings(
        replicas=chance.choice((0, 0, 0, 1, 2)),
        policy=chance.choice(("OrderedReady", "Parallel")),
        start_delay_s=chance.choice((0.1, 1.0, 5.0)),
        stop_delay_s=chance.choice((0.0, 0.5, 3.0)),
    )
