"""
Credentials from a program: ``exec`` in a kubeconfig, as cloud providers use it.

The program runs beside the reactor, at most one at a time, and every request that needs its answer waits for
the same run. It runs again when what it gave is about to expire, and after a 401; when it fails, or the
server refuses what it has just given, further runs wait, longer each time, so that a broken program is not
started for every request. Its words on standard error are told in the log without anything that looks like
a secret; its output never is. Imported by ``kube.client``
and by the plugin, which says where the time and the reactor come from.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ProcessDone, ProcessExitedAlready
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.procutils import which

from bkscaler.backoff import Backoff
from bkscaler.errors import MAX_DETAIL_CHARS, ApiUnreachable
from bkscaler.kube import fields
from bkscaler.kube.auth import ExecPlugin, token_problem
from bkscaler.kube.tls import ClientCertificate, client_certificate

RUN_LIMIT_S = 30.0
"""How long one run may take: cloud providers' programs need a few seconds, and more on a busy machine."""
EARLY = timedelta(seconds=30)
"""How long before it expires a credential is renewed, so that none expires on its way."""
YOUNG_S = 60.0
"""A credential that is refused sooner has not just grown old: running the program again may not help."""
RETRY = Backoff(first_s=1.0, limit_s=15.0)
"""Delays after runs that were of no use; short at most, as the program may need an API that returns."""
MAX_OUTPUT_BYTES = 1024 * 1024
_SECRET = re.compile(r"[A-Za-z0-9_.=+-]{24,}")


@dataclass(frozen=True, kw_only=True)
class Given:
    """
    What a program gave.

    :param header: for ``Authorization``, or None.
    :param certificate: for the TLS handshake, or None.
    :param expires: when it is no longer good; None when the program did not say.
    """

    header: bytes | None = field(default=None, repr=False)
    certificate: ClientCertificate | None = None
    expires: datetime | None = None


RunProgram = Callable[[ExecPlugin, Mapping[str, str]], Coroutine[Any, Any, bytes] | Deferred[bytes]]
"""
Runs a program with further variables and gives its output; raises ValueError with words for the log. What
cancels it ends the program.
"""


class PluginCredentials:
    """
    Credentials that a program gives. Lives as long as the client.

    :param plugin: how to run it.
    :param run: runs it; :func:`runner` makes the real one.
    :param clock: for the waits between runs.
    :param now: wall clock, as expiry is a date.
    :param random: gives numbers in [0, 1), for jitter.
    """

    _log = Logger()

    def __init__(
        self,
        plugin: ExecPlugin,
        *,
        run: RunProgram,
        clock: IReactorTime,
        now: Callable[[], datetime],
        random: Callable[[], float],
    ) -> None:
        self._plugin = plugin
        self._run = run
        self._clock = clock
        self._now = now
        self._random = random
        self._given: Given | None = None
        self._refused = False
        self._given_at_s = 0.0
        self._running: Deferred[None] | None = None
        self._waiters: list[Deferred[None]] = []
        self._failures = 0
        self._not_before_s = 0.0
        self._why = ""

    def __repr__(self) -> str:
        return f"<PluginCredentials {self._plugin.command}>"

    async def header(self) -> bytes | None:
        """
        Give what the program gave, running it if that is needed.

        :raises ApiUnreachable: (not ``sent``) when it fails, or has failed a moment ago.
        """
        if self._needs_run():
            if self._running is None:
                self._start()
            if self._running is not None:
                await self._wait()
        if self._given is None or self._expired(timedelta()):
            raise ApiUnreachable(f"no credentials: {self._plugin.where}: {self._why}", sent=False)
        return self._given.header

    async def reread(self) -> None:
        """Run the program for the next request; a credential refused while it is young makes that wait."""
        if self._given is None or self._running is not None or self._refused:
            return
        self._refused = True
        if self._clock.seconds() >= self._given_at_s + YOUNG_S:
            self._failures = 0
        else:
            self._failures += 1
            self._hold_off()

    def certificate(self) -> ClientCertificate | None:
        """Give the certificate for a new connection; :meth:`header` has been asked before it is made."""
        return None if self._given is None else self._given.certificate

    def stop(self) -> None:
        """End a program that runs."""
        if self._running is not None:
            self._running.cancel()

    def _needs_run(self) -> bool:
        if self._clock.seconds() < self._not_before_s:
            return False
        return self._given is None or self._refused or self._expired(EARLY)

    def _expired(self, early: timedelta) -> bool:
        expires = None if self._given is None else self._given.expires
        return expires is not None and self._now() >= expires - early

    def _start(self) -> None:
        """Start the one run that everybody waits for."""
        running = self._running = Deferred.fromCoroutine(self._renew())
        running.addBoth(self._ended)
        if running.called:
            self._running = None

    async def _renew(self) -> None:
        """Run the program and keep what it gives."""
        try:
            output = await self._run(self._plugin, self._told())
            self._given = read_answer(output, self._plugin.api_version)
        except ValueError as error:
            self._failures += 1
            self._hold_off()
            if self._why != str(error):
                self._why = str(error)
                self._log.warn("{where}: {why}", where=self._plugin.where, why=self._why)
            return
        self._why, self._given_at_s = "", self._clock.seconds()
        if self._expired(timedelta()):
            self._why = "what it gave has expired"
        elif not self._refused:
            self._failures = 0
        self._refused = False
        if self._why:
            self._failures += 1
            self._hold_off()

    def _ended(self, result: object) -> None:
        """Wake everybody who waits."""
        self._running = None
        if isinstance(result, Failure) and not result.check(CancelledError):
            self._log.failure("unexpected failure of a credential plugin", result)
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter.callback(None)

    def _wait(self) -> Deferred[None]:
        """Wait for the end of the run; cancelling ends this wait alone."""
        waiter: Deferred[None] = Deferred(self._waiters.remove)
        self._waiters.append(waiter)
        return waiter

    def _hold_off(self) -> None:
        self._not_before_s = self._clock.seconds() + RETRY.delay_s(self._failures, self._random)

    def _told(self) -> dict[str, str]:
        """Say to the program what is asked of it."""
        spec: dict[str, Any] = {"interactive": False}
        if self._plugin.cluster is not None:
            spec["cluster"] = dict(self._plugin.cluster)
        request = {"kind": "ExecCredential", "apiVersion": self._plugin.api_version, "spec": spec}
        return {"KUBERNETES_EXEC_INFO": json.dumps(request)}


def read_answer(output: bytes, api_version: str) -> Given:
    """
    Read an ``ExecCredential``.

    :param output: of the program.
    :param api_version: the version that was asked for.
    :raises ValueError: when it gives nothing that can be used; the output is not quoted.
    """
    try:
        answer = json.loads(output)
    except (ValueError, RecursionError):
        raise ValueError("its output is not JSON") from None
    if fields.text(answer, "kind") != "ExecCredential" or fields.text(answer, "apiVersion") != api_version:
        raise ValueError(f"its output is no ExecCredential of {api_version}")
    status = fields.mapping(answer, "status")
    token = fields.text(status, "token")
    certificate, key = fields.text(status, "clientCertificateData"), fields.text(status, "clientKeyData")
    if bool(certificate) != bool(key):
        raise ValueError("it gave one of clientCertificateData and clientKeyData, and not the other")
    if not token and not certificate:
        raise ValueError("it gave neither a token nor a certificate")
    if token and token_problem(token):
        raise ValueError(f"its output {token_problem(token)}")
    return Given(
        header=b"Bearer " + token.encode("ascii") if token else None,
        certificate=client_certificate(certificate.encode(), key.encode()) if certificate else None,
        expires=_date(status.get("expirationTimestamp")),
    )


def _date(value: object) -> datetime | None:
    """Read a time; None when there is none."""
    if value in (None, ""):
        return None
    try:
        time = datetime.fromisoformat(str(value))
    except ValueError:
        raise ValueError(f"its expirationTimestamp {str(value)[:40]!r} is not a time") from None
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def runner(reactor: Any, environ: Mapping[str, str]) -> RunProgram:
    """
    Make what runs programs.

    :param reactor: spawns them and keeps the time.
    :param environ: our own variables, which they get as well.
    """

    async def run(plugin: ExecPlugin, further: Mapping[str, str]) -> bytes:
        path = plugin.command if "/" in plugin.command else next(iter(which(plugin.command)), "")
        if not path or not os.access(path, os.X_OK):
            hint = (
                f"; {fields.one_line(plugin.install_hint, MAX_DETAIL_CHARS)}" if plugin.install_hint else ""
            )
            raise ValueError(f"there is no program {plugin.command!r}{hint}")
        program = _Program(reactor)
        try:
            reactor.spawnProcess(
                program, path, [path, *plugin.args], env={**environ, **plugin.env, **further}, path=None
            )
        except OSError as error:
            raise ValueError(f"cannot run {plugin.command!r}: {error.strerror}") from error
        return await program.done

    return run


class _Program(ProcessProtocol):
    """One run: collects what it says; ends it when it takes too long or says too much."""

    def __init__(self, clock: IReactorTime) -> None:
        self.done: Deferred[bytes] = Deferred(self._cancelled)
        self._said: dict[int, bytes] = {1: b"", 2: b""}
        self._verdict = ""
        self._limit = clock.callLater(RUN_LIMIT_S, self._too_late)

    def connectionMade(self) -> None:
        """Give it nothing to read."""
        assert self.transport is not None
        self.transport.closeStdin()

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        """Collect, within bounds."""
        self._said[childFD] += data
        if len(self._said[childFD]) > MAX_OUTPUT_BYTES:
            self._said[childFD] = self._said[childFD][-MAX_OUTPUT_BYTES:]
            self._kill("says too much")

    def processEnded(self, reason: Failure) -> None:
        """Judge the run."""
        if self._limit.active():
            self._limit.cancel()
        if reason.check(ProcessDone) and not self._verdict and not self.done.called:
            self.done.callback(self._said[1])
        else:
            self._judge(reason)

    def _judge(self, reason: Failure | None = None) -> None:
        """Say what was wrong, once."""
        if not self.done.called:
            how = self._verdict or _how_it_ended(reason)
            self.done.errback(ValueError(f"the program {how}{_last_words(self._said[2])}"))

    def _too_late(self) -> None:
        self._kill(f"took longer than {RUN_LIMIT_S:g} s")
        self._judge()

    def _kill(self, verdict: str) -> None:
        """End it, and close its pipes, which its children may hold."""
        self._verdict = self._verdict or verdict
        if self.transport is not None:
            with suppress(ProcessExitedAlready):
                self.transport.signalProcess("KILL")
            self.transport.loseConnection()

    def _cancelled(self, _: object) -> None:
        if self._limit.active():
            self._limit.cancel()
        self._kill("was stopped")


def _how_it_ended(reason: Failure | None) -> str:
    """Say how a program failed."""
    value = None if reason is None else reason.value
    number = getattr(value, "signal", None)
    return f"was ended by signal {number}" if number else f"ended with {getattr(value, 'exitCode', '?')}"


def _last_words(stderr: bytes) -> str:
    """Give the last line that a program wrote for people, without what may be a secret."""
    lines = [line for line in stderr.decode("utf-8", "replace").splitlines() if line.strip()]
    words = fields.one_line(_SECRET.sub("(hidden)", lines[-1]), MAX_DETAIL_CHARS) if lines else ""
    return f": {words}" if words else ""
