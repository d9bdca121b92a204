"""Tests of the sandbox with the real ``kubectl``, where there is one."""

from __future__ import annotations

import atexit
import json
import os
import re
import shutil
import subprocess
import tempfile

from twisted.trial.unittest import SynchronousTestCase

from bkscaler.test.sandbox_process import PATIENCE_S, SandboxProcess

KUBECTL = shutil.which("kubectl")

LEASE = """
apiVersion: coordination.k8s.io/v1
kind: Lease
metadata: {name: held}
spec: {holderIdentity: me, leaseDurationSeconds: 15}
"""

_running: list[SandboxProcess] = []


def _sandbox() -> SandboxProcess:
    """Start one sandbox for all tests, ended when they are over."""
    if not _running:
        flags = ("--backend", "echo", "--start-delay", "50ms", "--stop-delay", "50ms", "--replicas", "1")
        _running.append(SandboxProcess(*flags))
        atexit.register(_running[0].stop)
    return _running[0]


class KubectlTests(SynchronousTestCase):
    """What people type."""

    if KUBECTL is None:
        skip = "there is no kubectl on PATH"

    def kubectl(self, line: str, *, stdin: str | None = None, code: int = 0) -> str:
        """Run kubectl; give its output."""
        result = subprocess.run(
            [KUBECTL or "", *line.split()],
            capture_output=True,
            text=True,
            check=False,
            input=stdin,
            timeout=PATIENCE_S,
            env={**os.environ, "KUBECONFIG": _sandbox().kubeconfig, "HOME": self.home()},
        )
        self.assertEqual(result.returncode, code, f"{line}: {result.stdout}{result.stderr}")
        return result.stdout

    def home(self) -> str:
        """Make a home, so that no cache of an earlier cluster is found."""
        home = tempfile.mkdtemp(prefix="bkscaler-kubectl-")
        self.addCleanup(shutil.rmtree, home, ignore_errors=True)
        return home

    def ready(self) -> None:
        """Have one ready pod."""
        self.kubectl("scale sts buildkitd --replicas=1")
        self.kubectl("wait --for=jsonpath={.status.readyReplicas}=1 sts/buildkitd --timeout=15s")

    def test_get(self):
        """Sets and pods are listed with the usual columns, also wide."""
        self.ready()
        sets, pods = self.kubectl("get sts,pods").split("\n\n")
        self.assertRegex(sets, r"^NAME +READY +AGE\nstatefulset.apps/buildkitd +1/1 +\d+s$")
        self.assertRegex(
            pods, r"^NAME +READY +STATUS +RESTARTS +AGE\npod/buildkitd-0 +1/1 +Running +0 +\d+s\n$"
        )
        wide = self.kubectl("get pods -o wide")
        self.assertRegex(
            wide, r"IP +NODE +NOMINATED NODE +READINESS GATES\n.*127\.\d+\.\d+\.\d+ +sandbox-node"
        )
        self.assertEqual(json.loads(self.kubectl("get sts buildkitd -o json"))["kind"], "StatefulSet")

    def test_follow(self):
        """Changes are followed in rows of the same columns."""
        self.ready()
        following = subprocess.Popen(
            [KUBECTL or "", "get", "pods", "-w"],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "KUBECONFIG": _sandbox().kubeconfig, "HOME": self.home()},
        )
        self.addCleanup(following.wait)
        self.addCleanup(following.terminate)
        assert following.stdout is not None
        self.addCleanup(following.stdout.close)
        lines = [following.stdout.readline(), following.stdout.readline()]
        self.kubectl("scale sts buildkitd --replicas=0")
        while "Completed" not in lines[-1]:
            lines.append(following.stdout.readline())
        self.assertIn("Terminating", "".join(lines))
        self.assertEqual(len({len(re.split(r" {2,}", line.strip())) for line in lines}), 1)

    def test_scale_and_describe(self):
        """A set is scaled, waited for, and described with its Events; so is its pod."""
        self.kubectl("scale sts buildkitd --replicas=0")
        self.kubectl("wait --for=delete pod/buildkitd-0 --timeout=15s")
        self.ready()
        told = self.kubectl("describe sts buildkitd")
        self.assertIn("Replicas:           1 desired | 1 total", told)
        self.assertIn("Create Pod buildkitd-0 in StatefulSet buildkitd successful", told)
        told = self.kubectl("describe pod buildkitd-0")
        self.assertIn("Controlled By:  StatefulSet/buildkitd", told)
        self.assertRegex(told, r"Normal +Scheduled +\d+s +default-scheduler")
        self.assertIn("SuccessfulCreate", self.kubectl("get events"))
        self.assertIn("SuccessfulCreate", self.kubectl("get events.events.k8s.io"))

    def test_delete(self):
        """A deleted pod comes again."""
        self.ready()
        self.kubectl("delete pod buildkitd-0")
        self.kubectl("wait --for=jsonpath={.status.readyReplicas}=1 sts/buildkitd --timeout=15s")

    def test_rights_and_discovery(self):
        """Rights, versions and resources are answered."""
        self.assertEqual(self.kubectl("auth can-i patch statefulsets --subresource=scale"), "yes\n")
        self.assertIn("Server Version: v1.36", self.kubectl("version"))
        self.assertRegex(self.kubectl("api-resources"), r"statefulsets +sts +apps/v1 +true +StatefulSet")
        self.assertEqual(self.kubectl("get --raw /readyz"), "ok")

    def test_apply_and_create(self):
        """Objects are applied twice, by the client and by the server, created and deleted."""
        self.assertIn("created", self.kubectl("apply -f -", stdin=LEASE))
        self.assertIn("unchanged", self.kubectl("apply -f -", stdin=LEASE))
        self.assertIn("configured", self.kubectl("apply -f -", stdin=LEASE.replace("15", "20")))
        self.assertIn("applied", self.kubectl("apply --server-side --force-conflicts -f -", stdin=LEASE))
        self.assertRegex(self.kubectl("get lease"), r"NAME +HOLDER +AGE\nheld +me +\d+s")
        self.kubectl("delete lease held")
        self.kubectl("create namespace made")
        self.kubectl("create configmap -n made m --from-literal=a=b")
        self.assertRegex(self.kubectl("get configmap -n made"), r"m +1 +\d+s")
        self.kubectl("label sts buildkitd made=yes --overwrite")
        self.assertIn("buildkitd", self.kubectl("get sts -l made=yes"))
        self.kubectl("delete namespace made")

    def test_refusals(self):
        """What does not exist is said to."""
        self.kubectl("get sts nope", code=1)
        self.kubectl("get deployments", code=1)
