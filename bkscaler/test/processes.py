"""
Whole processes for tests: a sandbox and ``twistd -n bkscaler``, as users run them.

Waiting is for a line of output or for the end of a process, never for time to pass.
"""

from __future__ import annotations

import os
import re
import select
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.request import Request, urlopen

from twisted.internet.defer import Deferred

from bkscaler.kube.kubeconfig import load

LIMIT_S = 60.0
"""How long anything is waited for."""
TWISTD = (sys.executable, "-c", "from twisted.scripts.twistd import run; run()")
SANDBOX = (sys.executable, "-m", "bkscaler.sandbox")


@dataclass(frozen=True)
class User:
    """A user without rights of root's."""

    uid: int
    gid: int


def somebody_else() -> User | None:
    """Choose who a process shall be that must not have the rights of root; None when we are not root."""
    return User(65534, 65534) if os.getuid() == 0 else None


class Child:
    """
    A process whose output, both streams in one, is read as it comes.

    :param words: program and arguments.
    :param environ: added to our environment.
    """

    def __init__(self, *words: str, environ: dict[str, str] | None = None) -> None:
        self.output = ""
        self._process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **(environ or {})},
        )

    @property
    def pid(self) -> int:
        """Give its number."""
        return self._process.pid

    def until(self, pattern: str) -> re.Match[str]:
        """Read until the output holds something; what came before the call counts as well."""
        give_up_s = time.monotonic() + LIMIT_S
        while not (found := re.search(pattern, self.output)):
            if not self._read(give_up_s):
                raise AssertionError(f"no {pattern!r} in: {self.output}")
        return found

    def until_told(self, words: str, times: int) -> None:
        """Read until the output holds something so many times."""
        give_up_s = time.monotonic() + LIMIT_S
        while (found := self.output.count(words)) < times:
            if not self._read(give_up_s):
                raise AssertionError(f"{words!r} only {found} times in: {self.output}")

    def signal(self, number: int) -> None:
        """Send a signal."""
        self._process.send_signal(number)

    def ended(self) -> int:
        """Wait for the end; give the exit status."""
        while self._read(time.monotonic() + LIMIT_S):
            pass
        return self._process.wait(LIMIT_S)

    def kill(self) -> None:
        """End it: SIGTERM twice, then SIGKILL. Nothing happens to one that has ended."""
        assert self._process.stdout is not None
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGKILL):
            if self._process.poll() is None:
                self._process.send_signal(number)
                try:
                    self._process.wait(2)
                except subprocess.TimeoutExpired:
                    continue
        self._process.stdout.close()

    def _read(self, give_up_s: float) -> bool:
        """Read what there is; False at the end of the output."""
        assert self._process.stdout is not None
        left_s = max(0.0, give_up_s - time.monotonic())
        if not select.select([self._process.stdout], [], [], left_s)[0]:
            raise AssertionError(f"too late: {self.output}")
        data = os.read(self._process.stdout.fileno(), 65536)
        self.output += data.decode("utf-8", "replace")
        return bool(data)


def twistd(
    *words: str, pidfile: str, environ: dict[str, str] | None = None, user: User | None = None
) -> Child:
    """Run ``twistd -n bkscaler`` with options; as another user, if one is given, who takes over from root."""
    become = ("--uid", str(user.uid), "--gid", str(user.gid)) if user else ()
    return Child(*TWISTD, "-n", *become, "--pidfile", pidfile, "bkscaler", *words, environ=environ)


class World:
    """
    A sandbox and a bkscaler in front of it.

    :param add_cleanup: takes what ends them.
    :param directory: for the kubeconfig and the pid file; exists.
    :param sandbox: options of the sandbox, beside those that make it quick.
    :param bkscaler: options of bkscaler, beside those that find the sandbox.
    :param user: who bkscaler becomes once it listens; None is who we are.
    """

    def __init__(
        self,
        add_cleanup: Callable[..., Any],
        directory: str,
        *,
        sandbox: tuple[str, ...] = (),
        bkscaler: tuple[str, ...] = (),
        user: User | None = None,
    ) -> None:
        self.kubeconfig = os.path.join(directory, "kubeconfig")
        quick = ("--backend", "echo", "--start-delay", "100ms", "--stop-delay", "100ms", *sandbox)
        self.sandbox = Child(*SANDBOX, "--kubeconfig", self.kubeconfig, *quick)
        add_cleanup(self.sandbox.kill)
        self.sandbox.until("sandbox ready")
        if user is not None:
            os.chown(self.kubeconfig, user.uid, user.gid)
        addresses = ("--listen-addr", "127.0.0.1:0", "--admin-addr", "127.0.0.1:0")
        pidfile = os.path.join(directory, "pid")
        words = ("--kubeconfig", self.kubeconfig, *addresses, "--idle-timeout", "1s", *bkscaler)
        self.bkscaler = twistd(*words, pidfile=pidfile, user=user)
        add_cleanup(self.bkscaler.kill)
        self.port = self._port("listen-addr")
        self.admin_port = self._port("admin-addr")
        self.bkscaler.until("builder is (asleep|idle)")
        self.bkscaler.until("all needed rights are granted")

    def _port(self, flag: str) -> int:
        found = self.bkscaler.until(rf"--{flag}: listening on .*port=(\d+)")
        return int(found[1])

    def connect(self, first: bytes = b"") -> socket.socket:
        """Connect a client that sends something."""
        client = socket.create_connection(("127.0.0.1", self.port), LIMIT_S)
        client.settimeout(LIMIT_S)
        client.sendall(first)
        return client

    def ready(self) -> tuple[int, str]:
        """Ask ``/readyz``; give the status and the text."""
        return self.ask("/readyz")

    def ask(self, path: str) -> tuple[int, str]:
        """Ask the status port for something; give the status and the text."""
        with socket.create_connection(("127.0.0.1", self.admin_port), LIMIT_S) as client:
            client.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
            answer = b"".join(iter(lambda: client.recv(65536), b"")).decode()
        return int(answer.split()[1]), answer.rpartition("\r\n\r\n")[2].strip()

    def until_terminating(self) -> None:
        """Watch the pods until one is being deleted."""
        watched = "/api/v1/namespaces/default/pods?watch=1"
        with ask_api(self.kubeconfig, "GET", watched) as watch:
            assert any(b"deletionTimestamp" in line for line in watch)


def ask_api(kubeconfig: str, method: str, path: str) -> Any:
    """Send a request to a sandbox; give the answer, a file that must be closed."""
    access = load(kubeconfig)
    context = ssl.create_default_context(cadata=(access.ca_pem or b"").decode())
    header: Any = Deferred.fromCoroutine(access.credentials.header()).result
    headers = {"Authorization": header.decode()}
    request = Request(access.server + path, method=method, headers=headers)
    return urlopen(request, timeout=LIMIT_S, context=context)


def delete_set(kubeconfig: str) -> None:
    """Delete the StatefulSet of a sandbox."""
    ask_api(kubeconfig, "DELETE", "/apis/apps/v1/namespaces/default/statefulsets/buildkitd").close()


def read_exactly(client: socket.socket, count: int) -> bytes:
    """Read so many bytes, or what there is before the end."""
    data = bytearray()
    while len(data) < count and (more := client.recv(count - len(data))):
        data += more
    return bytes(data)
