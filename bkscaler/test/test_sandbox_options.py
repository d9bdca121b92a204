"""Tests of the sandbox's command line, and of what it decides about the pods' program."""

from __future__ import annotations

import io
import os
from contextlib import redirect_stderr, redirect_stdout

from twisted.trial.unittest import SynchronousTestCase

from bkscaler.errors import ConfigurationError
from bkscaler.sandbox.__main__ import main
from bkscaler.sandbox.backends import Backend, buildkitd_command, choose, custom_command, echo_command
from bkscaler.sandbox.cluster import ClusterSettings
from bkscaler.sandbox.options import SandboxSettings, help_text, read_settings
from bkscaler.sandbox.pods import FailureMode, PodProcess

PROCESS = PodProcess(name="buildkitd-0", uid="u", ip="127.9.8.7", port=8273)


class ReadingTests(SynchronousTestCase):
    """From words to settings."""

    def problems(self, *words):
        """Give the problems of a command line."""
        return self.assertRaises(ConfigurationError, read_settings, words).problems

    def test_defaults(self):
        """Only the kubeconfig must be named."""
        self.assertEqual(read_settings(["--kubeconfig", "kc"]), SandboxSettings(kubeconfig="kc"))

    def test_everything(self):
        """Every option is read, with a space or an equals sign before its value."""
        line = (
            "--kubeconfig=kc --listen [::1]:7 --namespace n --statefulset s.t --replicas 3 --container-port 9"
            " --start-delay 1m --stop-delay=0s --fail crash --backend echo"
        )
        settings = read_settings(line.split())
        cluster = ClusterSettings(
            namespace="n",
            statefulset="s.t",
            replicas=3,
            container_port=9,
            start_delay_s=60,
            stop_delay_s=0,
            failure=FailureMode.CRASH,
        )
        expected = SandboxSettings(
            kubeconfig="kc", host="::1", port=7, cluster=cluster, backend=Backend.ECHO, command=None
        )
        self.assertEqual(settings, expected)

    def test_the_last_one_wins(self):
        """An option that is named twice has its last value."""
        line = "--kubeconfig a --kubeconfig b --listen localhost:1 --listen :2"
        settings = read_settings(line.split())
        self.assertEqual((settings.kubeconfig, settings.host, settings.port), ("b", "127.0.0.1", 2))

    def test_every_problem_at_once(self):
        """Everything that is wrong is said, a line each, with the option and its value."""
        wrong = {
            "--listen": "nowhere",
            "--namespace": "N",
            "--statefulset": "-",
            "--replicas": "101",
            "--container-port": "0",
            "--start-delay": "2",
            "--stop-delay": "-1s",
            "--fail": "often",
            "--backend": "none",
            "--backend-command": "'",
            "--kubeconfig": "/no/such/directory/kc",
        }
        problems = self.problems(*(word for pair in wrong.items() for word in pair))
        self.assertEqual(len(problems), len(wrong))
        for option, value in wrong.items():
            (problem,) = (line for line in problems if line.startswith(f"{option}: "))
            self.assertIn(value, problem)

    def test_words_that_fit_nowhere(self):
        """Unknown options, stray words and missing values are problems beside the others."""
        problems = self.problems("--bogus", "1", "stray", "-x", "--listen=1.2.3.4.5:1", "--kubeconfig")
        self.assertEqual(
            problems[:4],
            (
                "--bogus: there is no such option",
                "'stray' is not an option and belongs to none",
                "-x: there is no such option",
                "--kubeconfig: needs a value",
            ),
        )
        self.assertIn("'1.2.3.4.5' is not an IP address", problems[-1])
        self.assertIn("is required", problems[-2])

    def test_help(self):
        """The help names every option of the sandbox."""
        for name in ("kubeconfig", "listen", "namespace", "statefulset", "replicas", "container-port"):
            self.assertIn(f"--{name} ", help_text())
        for name in ("start-delay", "stop-delay", "fail", "backend", "backend-command"):
            self.assertIn(f"--{name} ", help_text())
        with redirect_stdout(io.StringIO()) as shown:
            self.assertEqual(main(["--help"]), 0)
        self.assertEqual(shown.getvalue(), help_text())

    def test_exit_status(self):
        """A wrong command line ends with 1, one line for each problem on standard error."""
        with redirect_stderr(io.StringIO()) as said:
            self.assertEqual(main(["--replicas", "many"]), 1)
        self.assertEqual(len(said.getvalue().splitlines()), 2)


class BackendTests(SynchronousTestCase):
    """Which program a pod runs."""

    def test_auto(self):
        """Left to itself, the real one is taken where it can run, else the stand-in."""
        self.assertIs(choose(Backend.AUTO, lambda: ""), Backend.BUILDKITD)
        self.assertIs(choose(Backend.AUTO, lambda: "no"), Backend.ECHO)
        self.assertIs(choose(Backend.ECHO, self.fail), Backend.ECHO)

    def test_buildkitd_that_cannot_run(self):
        """The real one, asked for by name where it cannot run, is refused with the reason."""
        self.assertIs(choose(Backend.BUILDKITD, lambda: ""), Backend.BUILDKITD)
        error = self.assertRaises(ConfigurationError, choose, Backend.BUILDKITD, lambda: "it is not there")
        self.assertEqual(error.problems, ("--backend 'buildkitd': it is not there",))

    def test_commands(self):
        """Each program is told the pod's address and port."""
        self.assertEqual(echo_command(PROCESS)[-2:], ["127.9.8.7", "8273"])
        self.assertEqual(
            buildkitd_command("/s")(PROCESS),
            ["buildkitd", "--addr", "tcp://127.9.8.7:8273", "--root", os.path.join("/s", "buildkitd-0")],
        )

    def test_custom_command(self):
        """A command of the user's own is split as a shell does, and its placeholders are filled."""
        command = custom_command("run '{pod} at' tcp://{ip}:{port} {ip}{ip} {other}")
        expected = ["run", "buildkitd-0 at", "tcp://127.9.8.7:8273", "127.9.8.7127.9.8.7", "{other}"]
        self.assertEqual(command(PROCESS), expected)
        self.assertRaises(ValueError, custom_command, " ")
