"""Runs the contract: always against the sandbox, and against a real cluster when one is named."""

from __future__ import annotations

import atexit
import os

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from bkscaler.test.cluster_contract import ContractCase, ListContract, Place, RefusalContract, ScaleContract
from bkscaler.test.cluster_contract_life import LifeContract, WatchContract
from bkscaler.test.cluster_contract_records import EventContract, LeaseContract
from bkscaler.test.sandbox_process import SandboxProcess

REAL = os.environ.get("BKSCALER_CONTRACT_KUBECONFIG", "")
NAMESPACE = os.environ.get("BKSCALER_CONTRACT_NAMESPACE", "")

_places: dict[str, Place] = {}


def _remember(kubeconfig: str, namespace: str = "") -> Place:
    """Make a place, and have it removed when the tests are over."""
    place = Place(kubeconfig, namespace)
    atexit.register(place.remove)
    return place


def _sandbox() -> str:
    """Start a sandbox as a process of its own; give its kubeconfig."""
    sandbox = SandboxProcess("--backend", "echo", "--start-delay", "100ms", "--stop-delay", "300ms")
    atexit.register(sandbox.stop)
    return sandbox.kubeconfig


class _OnSandbox(ContractCase):
    def place_of_tests(self) -> Place:
        if "sandbox" not in _places:
            _places["sandbox"] = _remember(_sandbox())
        return _places["sandbox"]


class _OnRealCluster(ContractCase):
    may_be_young = True

    def place_of_tests(self) -> Place:
        if not REAL:
            raise SkipTest("BKSCALER_CONTRACT_KUBECONFIG names no kubeconfig")
        if "real" not in _places:
            _places["real"] = _remember(REAL, NAMESPACE)
        return _places["real"]


class SandboxScaleTests(_OnSandbox, ScaleContract, SynchronousTestCase):
    """Scale, on the sandbox."""


class SandboxRefusalTests(_OnSandbox, RefusalContract, SynchronousTestCase):
    """Refusals, on the sandbox."""


class SandboxListTests(_OnSandbox, ListContract, SynchronousTestCase):
    """Lists, on the sandbox."""


class SandboxLeaseTests(_OnSandbox, LeaseContract, SynchronousTestCase):
    """Leases, on the sandbox."""


class SandboxEventTests(_OnSandbox, EventContract, SynchronousTestCase):
    """Events, on the sandbox."""


class SandboxWatchTests(_OnSandbox, WatchContract, SynchronousTestCase):
    """Watches, on the sandbox."""


class SandboxLifeTests(_OnSandbox, LifeContract, SynchronousTestCase):
    """The life of a set, on the sandbox."""


class RealScaleTests(_OnRealCluster, ScaleContract, SynchronousTestCase):
    """Scale, on a real cluster."""


class RealRefusalTests(_OnRealCluster, RefusalContract, SynchronousTestCase):
    """Refusals, on a real cluster."""


class RealListTests(_OnRealCluster, ListContract, SynchronousTestCase):
    """Lists, on a real cluster."""


class RealLeaseTests(_OnRealCluster, LeaseContract, SynchronousTestCase):
    """Leases, on a real cluster."""


class RealEventTests(_OnRealCluster, EventContract, SynchronousTestCase):
    """Events, on a real cluster."""


class RealWatchTests(_OnRealCluster, WatchContract, SynchronousTestCase):
    """Watches, on a real cluster."""


class RealLifeTests(_OnRealCluster, LifeContract, SynchronousTestCase):
    """The life of a set, on a real cluster."""
