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

from bkscaler.errors import ConfigurationError
from bkscaler.sandbox.pods import PodProcess

Command = Callable[[PodProcess], Sequence[str]]
"""Gives the program and its arguments for one pod."""

_RUNTIMES = ("runc", "buildkit-runc", "crun")

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


def buildkitd_hindrance() -> str:
    """Say why the real buildkitd cannot run on this machine; ``""`` when it can."""
    if not shutil.which("buildkitd"):
        return "buildkitd is not on PATH"
    if not any(shutil.which(name) for name in _RUNTIMES):
        return f"none of {', '.join(_RUNTIMES)} is on PATH"
    if os.geteuid() != 0:
        return "buildkitd must be run as root"
    try:
        subprocess.run(["buildkitd", "--version"], check=True, capture_output=True, timeout=PROBE_LIMIT_S)
    except (OSError, subprocess.SubprocessError) as error:
        return f"buildkitd does not run: {error}"
    return ""


def choose(backend: Backend, hindrance: Callable[[], str] = buildkitd_hindrance) -> Backend:
    """
    Decide between the real one and the stand-in; ``auto`` is the real one where it can run.

    :param hindrance: says why the real one cannot run; not asked for ``echo``.
    :raises ConfigurationError: when the real one was asked for by name and cannot run.
    """
    if backend is Backend.ECHO:
        return backend
    why = hindrance()
    if why and backend is Backend.BUILDKITD:
        raise ConfigurationError(f"--backend {backend.value!r}: {why}")
    return Backend.ECHO if why else Backend.BUILDKITD
