"""
Which program a pod runs: a command of the user's, the real buildkitd, or the echo stand-in.

Decided once, before the first pod. Pure, but for the look at this machine that :func:`choose` asks for.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from enum import Enum

from bkscaler.sandbox.pods import PodProcess

Command = Callable[[PodProcess], Sequence[str]]
"""Gives the program and its arguments for one pod."""

PROBE_LIMIT_S = 10.0
"""Longest time that ``buildkitd --version`` may take before the real one is given up."""


class Backend(Enum):
    """What ``--backend`` may say."""

    AUTO = "auto"
    ECHO = "echo"
    BUILDKITD = "buildkitd"


def echo_command(process: PodProcess) -> list[str]:
    """Run the echo stand-in."""
    return [sys.executable, "-m", "bkscaler.sandbox.builder", process.ip, str(process.port)]


def buildkitd_command(scratch: str) -> Command:
    """
    Run the real buildkitd.

    :param scratch: directory in which each pod name gets a directory of its own, so that a pod's cache
        survives its sleep as on a volume.
    """

    def command(process: PodProcess) -> list[str]:
        root = os.path.join(scratch, process.name)
        return ["buildkitd", "--addr", f"tcp://{process.ip}:{process.port}", "--root", root]

    return command


def custom_command(text: str) -> Command:
    """
    Run a command of the user's, with ``{ip}``, ``{port}`` and ``{pod}`` replaced in each word.

    :raises ValueError: when the text is empty or its quotes do not match.
    """
    words = shlex.split(text)
    if not words:
        raise ValueError("the command is empty")

    def command(process: PodProcess) -> list[str]:
        values = {"{ip}": process.ip, "{port}": str(process.port), "{pod}": process.name}
        result = []
        for word in words:
            for placeholder, value in values.items():
                word = word.replace(placeholder, value)  # noqa: PLW2901  # one word, three replacements
            result.append(word)
        return result

    return command


def buildkitd_can_run() -> bool:
    """Say whether the real buildkitd is on PATH and has what it needs: root and an OCI runtime."""
    if not shutil.which("buildkitd") or os.geteuid() != 0:
        return False
    if not (shutil.which("runc") or shutil.which("buildkit-runc") or shutil.which("crun")):
        return False
    try:
        subprocess.run(["buildkitd", "--version"], check=True, capture_output=True, timeout=PROBE_LIMIT_S)
    except (OSError, subprocess.SubprocessError):
        return False
    return True


def choose(backend: Backend, can_run: Callable[[], bool] = buildkitd_can_run) -> Backend:
    """Turn ``auto`` into one of the two others; ``can_run`` is asked only for that."""
    if backend is not Backend.AUTO:
        return backend
    return Backend.BUILDKITD if can_run() else Backend.ECHO
