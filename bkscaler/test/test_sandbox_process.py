"""Tests of the sandbox as a program: real TLS, real processes, real signals. Linux, loopback only."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import yaml
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from bkscaler.test.cluster_client import MERGE, Api
from bkscaler.test.sandbox_process import PATIENCE_S, SandboxProcess

PODS = "/api/v1/namespaces/default/pods"
SCALE = "/apis/apps/v1/namespaces/default/statefulsets/buildkitd/scale"
QUICK = ("--start-delay", "50ms", "--stop-delay", "50ms")

SERVER_WITH_A_CHILD = """
import signal, socket, subprocess, sys
server = socket.create_server((sys.argv[1], int(sys.argv[2])))
subprocess.Popen([sys.executable, '-c', 'import signal; signal.pause()', sys.argv[1]])
signal.pause()
"""


def alive(pid):
    """Say whether a process runs."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def processes_on(ip):
    """Give the processes whose command line names an address."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            except OSError:
                continue
            found += [int(entry.name)] if ip in words else []
    return found


class ProgramTests(SynchronousTestCase):
    """The program from its command line to its end."""

    if not sys.platform.startswith("linux"):
        skip = "other systems have no /proc, and only one address of their own"

    def start(self, *flags):
        """Start a sandbox; give it and its API."""
        sandbox = SandboxProcess(*QUICK, *flags)
        self.addCleanup(sandbox.stop)
        api = Api(sandbox.kubeconfig)
        self.addCleanup(api.close)
        return sandbox, api

    def pod_when(self, watch, ready, uid=None):
        """Wait until the pod is ready or not; give it."""
        while True:
            pod = watch.next()["object"]
            conditions = {c["type"]: c["status"] for c in pod["status"].get("conditions", [])}
            if (conditions.get("Ready") == "True") is ready and uid in (None, pod["metadata"]["uid"]):
                return pod

    def watch(self, api):
        """Watch the pods."""
        watch = api.watch(PODS)
        self.addCleanup(watch.close)
        return watch

    def test_life_of_the_program(self):
        """It says when it is ready, serves what the kubeconfig names, and ends with 0 and no process left."""
        sandbox, api = self.start("--backend", "echo", "--replicas", "1")
        server = yaml.safe_load(Path(sandbox.kubeconfig).read_text())["clusters"][0]["cluster"]["server"]
        expected = f"server={server} kubeconfig={sandbox.kubeconfig} statefulset=default/buildkitd"
        self.assertEqual(sandbox.ready_line, f"sandbox ready: {expected}\n")
        self.assertEqual(stat.S_IMODE(os.stat(sandbox.kubeconfig).st_mode), 0o600)
        self.assertEqual(os.listdir(os.path.dirname(sandbox.kubeconfig)), ["kubeconfig"])
        pod = self.pod_when(self.watch(api), True)
        self.assertEqual(len(processes_on(pod["status"]["podIP"])), 1)
        code, said = sandbox.stop(signal.SIGTERM)
        self.assertEqual((code, said), (0, ""))
        self.assertEqual(processes_on(pod["status"]["podIP"]), [])

    def test_interrupt(self):
        """Ctrl-C ends it as SIGTERM does."""
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
            raise SkipTest("whoever started the tests has SIGINT ignored, and so would the sandbox")
        sandbox, _ = self.start("--backend", "echo")
        self.assertEqual(sandbox.stop(signal.SIGINT), (0, ""))

    def test_a_killed_sandbox_leaves_no_pod(self):
        """When the sandbox is killed, its echo pods notice and end."""
        sandbox, api = self.start("--backend", "echo", "--replicas", "1")
        (pid,) = processes_on(self.pod_when(self.watch(api), True)["status"]["podIP"])
        sandbox.stop(signal.SIGKILL)
        deadline = time.monotonic() + PATIENCE_S
        while alive(pid):
            self.assertLess(time.monotonic(), deadline, "the pod is still there")

    def test_echo(self):
        """The stand-in builder sends back what it gets and answers a half-close with a half-close."""
        _, api = self.start("--backend", "echo", "--replicas", "1", "--container-port", "9001")
        ip = self.pod_when(self.watch(api), True)["status"]["podIP"]
        with socket.create_connection((ip, 9001), timeout=PATIENCE_S) as client:
            client.sendall(b"hello" * 50_000)
            client.shutdown(socket.SHUT_WR)
            received = b"".join(iter(lambda: client.recv(65536), b""))
        self.assertEqual(received, b"hello" * 50_000)

    def test_killed_by_hand(self):
        """A pod whose process is killed by hand has crashed, and is started again with the same address."""
        _, api = self.start("--backend", "echo", "--replicas", "1")
        watch = self.watch(api)
        before = self.pod_when(watch, True)
        (pid,) = processes_on(before["status"]["podIP"])
        os.kill(pid, signal.SIGKILL)
        crashed = self.pod_when(watch, False)["status"]["containerStatuses"][0]["state"]["terminated"]
        self.assertEqual((crashed["exitCode"], crashed["reason"]), (137, "Error"))
        after = self.pod_when(watch, True, before["metadata"]["uid"])
        self.assertEqual(after["status"]["containerStatuses"][0]["restartCount"], 1)
        self.assertEqual(after["status"]["podIP"], before["status"]["podIP"])

    def test_command_of_ones_own(self):
        """A pod may run any command; what it has started itself ends with it."""
        command = f'{sys.executable} -c "{SERVER_WITH_A_CHILD}" {{ip}} {{port}} {{pod}}'
        _, api = self.start("--backend-command", command, "--replicas", "1")
        watch = self.watch(api)
        pod = self.pod_when(watch, True)
        pids = processes_on(pod["status"]["podIP"])
        self.assertEqual(len(pids), 2)
        self.assertIn(b"buildkitd-0", b"".join(Path(f"/proc/{pid}/cmdline").read_bytes() for pid in pids))
        api.call("PATCH", SCALE, {"spec": {"replicas": 0}}, content_type=MERGE)
        while watch.next()["type"] != "DELETED":
            pass
        self.assertEqual([pid for pid in pids if alive(pid)], [])

    def test_command_that_does_not_exist(self):
        """A command that cannot be run is a crash, with its words on standard error."""
        sandbox, api = self.start("--backend-command", "/no/such/program", "--replicas", "1")
        watch = self.watch(api)
        while not (statuses := watch.next()["object"]["status"].get("containerStatuses")) or not (
            ended := statuses[0]["state"].get("terminated")
        ):
            pass
        self.assertEqual(ended["exitCode"], 1)
        self.assertIn("/no/such/program", sandbox.stop()[1])

    def test_failures(self):
        """A sandbox whose pods are to fail shows the reason on the pod."""
        _, api = self.start("--fail", "imagepull", "--replicas", "1", "--backend", "echo")
        watch = self.watch(api)
        while not (statuses := watch.next()["object"]["status"].get("containerStatuses")) or (
            statuses[0]["state"]["waiting"]["reason"] != "ErrImagePull"
        ):
            pass

    def test_taken_port(self):
        """A port that is taken stops the start with 1 and one line, and no kubeconfig is written."""
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            sandbox = SandboxProcess("--listen", f"127.0.0.1:{port}", "--backend", "echo")
            self.assertFalse(os.path.exists(sandbox.kubeconfig))
            code, said = sandbox.stop()
        self.assertEqual((sandbox.ready_line, code, len(said.splitlines())), ("", 1, 1))
        self.assertIn(str(port), said)

    def test_wrong_flags(self):
        """Wrong flags are said, a line each, and the exit status is 1."""
        result = subprocess.run(
            [sys.executable, "-m", "bkscaler.sandbox", "--replicas", "-1", "--fail", "x"],
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE_S,
        )
        self.assertEqual((result.returncode, result.stdout, len(result.stderr.splitlines())), (1, "", 3))

    def test_a_watch_line_is_quick(self):
        """A watch line arrives within milliseconds of the change; on a busy machine within a second."""
        _, api = self.start("--backend", "echo")
        watch = api.watch(SCALE.removesuffix("/buildkitd/scale"))
        self.addCleanup(watch.close)
        watch.next()
        sent_s = time.monotonic()
        api.call("PATCH", SCALE, {"spec": {"replicas": 1}}, content_type=MERGE)
        while watch.next()["object"]["spec"].get("replicas") != 1:
            pass
        self.assertLess(time.monotonic() - sent_s, 1)
