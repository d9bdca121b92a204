"""A sandbox as a process of its own, for the tests that want the real thing. No tests in here."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile

PATIENCE_S = 20
"""Seconds that starting and stopping may take on a busy machine."""


class SandboxProcess:
    """
    One ``python -m bkscaler.sandbox``, ready when the constructor returns.

    :param flags: beside ``--kubeconfig``.
    :ivar kubeconfig: path of the kubeconfig.
    :ivar ready_line: what it printed when it was ready; ``""`` when it ended instead.
    """

    def __init__(self, *flags: str) -> None:
        self._directory = tempfile.mkdtemp(prefix="bkscaler-test-")
        self.kubeconfig = os.path.join(self._directory, "kubeconfig")
        command = [sys.executable, "-m", "bkscaler.sandbox", "--kubeconfig", self.kubeconfig, *flags]
        self._process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8"
        )
        assert self._process.stdout is not None
        self.ready_line = self._process.stdout.readline()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def stop(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        """
        Send a signal, unless it has ended; may be called again.

        :returns: exit code and what was on standard error.
        """
        self._process.send_signal(number)
        try:
            _, said = self._process.communicate(timeout=PATIENCE_S)
        finally:
            shutil.rmtree(self._directory, ignore_errors=True)
        return self._process.returncode, said
