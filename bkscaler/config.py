"""
The one table of settings, and what it gives: the options, the environment, the help, a frozen `Settings`.

:data:`SETTINGS` is the only place where a setting is written down. ``docs/configuration.md`` is printed
from it (``python -m bkscaler.config``), so flags, environment names, defaults and documentation cannot
disagree. The environment wins over the flags, as users of the original program expect; a variable that is
set but empty counts as unset. Imported by the plugin and by whatever composes it; imports row 1 only.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from twisted.python import usage

from bkscaler import __version__, readers
from bkscaler.commandline import StrayWord, blame
from bkscaler.errors import ConfigurationError


@dataclass(frozen=True, kw_only=True)
class Setting:
    """
    One row of the table.

    :param flag: long option without dashes; the field of :class:`Settings` is the same with underscores
        and, for a duration, ``_s``.
    :param env: environment variable, which wins over the flag.
    :param default: as a user would type it; ``""`` means none.
    :param read: from text to value; raises ValueError with a message that says what is wrong.
    :param help: what it does, one sentence for ``--help``.
    :param detail: reason for the default and effect of extremes, for the documentation.
    """

    flag: str
    env: str
    default: str
    read: Callable[[str], Any]
    help: str
    detail: str = ""

    @property
    def usage(self) -> str:
        """What ``--help`` says."""
        return f"{self.help} [env {self.env}] [default {self.default or 'none'}]"

    @property
    def is_switch(self) -> bool:
        """Whether the flag is given without a value, which means ``yes``."""
        return self.read is readers.switch

    @property
    def field(self) -> str:
        """The name of the :class:`Settings` field that holds the value."""
        return self.flag.replace("-", "_") + ("_s" if self.read in readers.DURATIONS else "")


SETTINGS: tuple[Setting, ...] = (
    Setting(
        flag="listen-addr",
        env="PROXY_LISTEN_ADDR",
        default=":8080",
        read=readers.listen_address,
        help="Where clients connect: [host]:port, or a Twisted endpoint (tcp: tcp6: unix: systemd:).",
        detail="`:8080` listens on IPv4 and IPv6. Port 0 lets the system choose one; the log says which.",
    ),
    Setting(
        flag="sts-name",
        env="BUILDKITD_STATEFULSET_NAME",
        default="buildkitd",
        read=readers.dns_subdomain,
        help="Name of the buildkitd StatefulSet.",
    ),
    Setting(
        flag="sts-namespace",
        env="BUILDKITD_STATEFULSET_NAMESPACE",
        default="default",
        read=readers.dns_label,
        help="Namespace of the buildkitd StatefulSet.",
        detail="The namespace that bkscaler itself runs in is never used in its place.",
    ),
    Setting(
        flag="headless-service-name",
        env="BUILDKITD_HEADLESS_SERVICE_NAME",
        default="buildkitd-headless",
        read=readers.dns_label,
        help="Name of the buildkitd headless Service, used with --target-address dns.",
    ),
    Setting(
        flag="target-port",
        env="BUILDKITD_TARGET_PORT",
        default="8273",
        read=readers.port,
        help="Port of buildkitd in its pod.",
    ),
    Setting(
        flag="idle-timeout",
        env="SCALE_DOWN_IDLE_TIMEOUT",
        default="2m0s",
        read=readers.positive_duration,
        help="How long after the last connection has closed the builder is put to sleep.",
        detail="Short saves money and costs cold starts and, without a volume, the build cache.",
    ),
    Setting(
        flag="kubeconfig",
        env="KUBECONFIG_PATH",
        default="",
        read=readers.kubeconfig_path,
        help="Path to a kubeconfig file, or several joined by colons; not needed inside a cluster.",
        detail="Several are merged as kubectl does: the first one that has an entry wins. Without it the "
        "ServiceAccount mounted into the pod is used. `$KUBECONFIG` is not read.",
    ),
    Setting(
        flag="context",
        env="KUBE_CONTEXT",
        default="",
        read=readers.optional_text,
        help="Name of the context in the kubeconfig to use; else its current-context.",
    ),
    Setting(
        flag="ready-wait-timeout",
        env="READY_WAIT_TIMEOUT",
        default="5m0s",
        read=readers.positive_duration,
        help="How long a client is held for a builder that does not become ready.",
        detail="Counted for each client from its own arrival. Node scale-up and image pulls take minutes.",
    ),
    Setting(
        flag="give-up-after",
        env="GIVE_UP_AFTER",
        default="off",
        read=readers.duration_or_off,
        help="How long a client is held for a builder that cannot come as things are; off waits on.",
        detail="Counts while no node fits the pod or its image cannot be pulled. Where nodes are added on "
        "demand, keep it above the minutes that takes.",
    ),
    Setting(
        flag="readiness",
        env="BUILDKITD_READINESS",
        default="pod",
        read=readers.one_of("pod", "tcp", "grpc"),
        help="When a pod can be given clients: it is Ready (pod), its port accepts (tcp), or it says that it "
        "serves (grpc).",
        detail="`tcp` and `grpc` do not wait for the Ready condition, which a slow readiness probe delays by "
        "up to its period; `grpc` asks grpc.health.v1. With `--target-address dns` both need "
        "publishNotReadyAddresses in the headless Service.",
    ),
    Setting(
        flag="target-address",
        env="BUILDKITD_TARGET_ADDRESS",
        default="pod-ip",
        read=readers.one_of("pod-ip", "dns"),
        help="Dial the pod by its IP (pod-ip) or by its name in the headless Service (dns).",
        detail="A pod IP needs no DNS, whose caches can delay a cold start by up to 30 s.",
    ),
    Setting(
        flag="cluster-domain",
        env="CLUSTER_DOMAIN",
        default="cluster.local",
        read=readers.dns_subdomain,
        help="DNS domain of the cluster, used with --target-address dns.",
    ),
    Setting(
        flag="admin-addr",
        env="ADMIN_LISTEN_ADDR",
        default=":9090",
        read=readers.listen_address_or_off,
        help="Where the status page, /metrics, /status, /healthz and /readyz are served; off: nowhere.",
    ),
    Setting(
        flag="probe-grace",
        env="PROBE_GRACE",
        default="250ms",
        read=readers.duration,
        help="A client that hangs up within this time without a byte was a probe and wakes nothing.",
        detail="Must be shorter than --ready-wait-timeout. `0s` makes every connection wake the builder.",
    ),
    Setting(
        flag="hold-after",
        env="HOLD_AFTER",
        default="10s",
        read=readers.duration,
        help="How long a gRPC client waits in silence before it is told that a server is there.",
        detail="grpc-go gives up after 20 s without a SETTINGS frame, so stay below 15 s.",
    ),
    Setting(
        flag="drain-timeout",
        env="DRAIN_TIMEOUT",
        default="1h0m0s",
        read=readers.duration,
        help="How long connections may go on after SIGTERM before they are cut.",
        detail="Keep the pod's terminationGracePeriodSeconds above it. `0s` cuts at once.",
    ),
    Setting(
        flag="max-connections",
        env="MAX_CONNECTIONS",
        default="4096",
        read=readers.positive_int,
        help="How many client connections are served at once; further ones are closed immediately.",
        detail="Each needs two file descriptors when joined; the soft limit is raised as far as it may be.",
    ),
    Setting(
        flag="relay",
        env="RELAY",
        default="auto",
        read=readers.one_of("auto", "splice", "copy"),
        help="Who moves the bytes of joined connections: the kernel (splice) or Python (copy).",
        detail="`auto` splices where the system can.",
    ),
    Setting(
        flag="log-format",
        env="LOG_FORMAT",
        default="text",
        read=readers.one_of("text", "json"),
        help="Log lines for people (text) or for machines (json).",
    ),
    Setting(
        flag="log-level",
        env="LOG_LEVEL",
        default="info",
        read=readers.one_of("debug", "info", "warn", "error", "critical"),
        help="Least level that is logged: debug, info, warn, error or critical.",
    ),
    Setting(
        flag="check",
        env="CHECK_ONLY",
        default="no",
        read=readers.switch,
        help="Check the cluster, print what is found, and exit: with 0 if bkscaler would work, else with 1.",
    ),
)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """
    Every setting, read and checked. Fields ending in ``_s`` are seconds; :data:`SETTINGS` says the rest.

    Addresses are Twisted endpoint descriptions; ``admin_addr``, ``kubeconfig`` and ``context`` are None for
    none, and an infinite ``give_up_after_s`` means never.
    """

    listen_addr: str
    sts_name: str
    sts_namespace: str
    headless_service_name: str
    target_port: int
    idle_timeout_s: float
    kubeconfig: str | None
    context: str | None
    ready_wait_timeout_s: float
    give_up_after_s: float
    readiness: str
    target_address: str
    cluster_domain: str
    admin_addr: str | None
    probe_grace_s: float
    hold_after_s: float
    drain_timeout_s: float
    max_connections: int
    relay: str
    log_format: str
    log_level: str
    check: bool


def read_settings(options: Mapping[str, str], environ: Mapping[str, str]) -> Settings:
    """
    Combine flags, environment and defaults into checked settings.

    :param options: values of the flags that were given, by flag name.
    :param environ: environment variables; an empty value counts as unset.
    :raises ConfigurationError: with one problem for each value that cannot be used.
    """
    values: dict[str, Any] = {}
    problems = []
    for setting in SETTINGS:
        source, text = _source_of(setting, options, environ)
        try:
            values[setting.field] = setting.read(text)
        except ValueError as error:
            problems.append(f"{source}: {error}")
    if not problems and values["probe_grace_s"] >= values["ready_wait_timeout_s"]:
        problems.append("--probe-grace: must be shorter than --ready-wait-timeout")
    if problems:
        raise ConfigurationError(*problems)
    return Settings(**values)


def _source_of(setting: Setting, options: Mapping[str, str], environ: Mapping[str, str]) -> tuple[str, str]:
    """Give the name a user knows the value by, and the value."""
    if environ.get(setting.env):
        return f"{setting.env} (--{setting.flag})", environ[setting.env]
    return f"--{setting.flag}", options.get(setting.flag, setting.default)


class Options(usage.Options):
    """
    Command line of ``twistd bkscaler``, made from :data:`SETTINGS`.

    After :meth:`parseOptions` the checked values are in :attr:`settings`. Everything that is wrong is
    printed at once to standard error, one line each, and the process exits with status 1: twistd itself
    would print the help and exit with 0.

    :ivar settings: the checked :class:`Settings`.
    """

    synopsis = "[options]"
    longdesc = "Every option can also be set by the environment variable in brackets, which wins."
    environ: Mapping[str, str]
    settings: Settings

    # (long name, short name, default, description): the default stays None, to tell "not given".
    optParameters = [[s.flag, None, None, s.usage] for s in SETTINGS if not s.is_switch]
    optFlags = [[s.flag, None, s.usage] for s in SETTINGS if s.is_switch]

    def __init__(self, environ: Mapping[str, str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # usage.Options has no annotations
        self.environ = environ

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """
        Parse and check.

        :param options: arguments after the plugin's name; None takes them from the command line.
        :raises SystemExit: with status 1 after the problems have been printed.
        """
        problems = self._parse_leniently(list(sys.argv[1:] if options is None else options))
        try:
            self.settings = read_settings(self._given(), self.environ)
        except ConfigurationError as error:
            problems += error.problems
        problems += self.further_problems(not problems)
        if problems:
            sys.stderr.writelines(f"bkscaler: {problem}\n" for problem in problems)
            raise SystemExit(1)

    def _given(self) -> dict[str, str]:
        """Give the values of the flags that were given."""
        switches = {s.flag for s in SETTINGS if s.is_switch}
        given = {flag: value for flag, value in self.items() if value is not None and flag not in switches}
        return given | {flag: "yes" for flag in switches if self[flag]}

    def further_problems(self, settings_are_good: bool) -> list[str]:
        """
        Check what the table cannot: for the composer to override.

        :param settings_are_good: whether :attr:`settings` has been set.
        :returns: problems, one line each.
        """
        return []

    def _parse_leniently(self, words: list[str]) -> list[str]:
        """Parse, leaving out what does not fit, until the rest is good; say what was left out."""
        problems: list[str] = []
        while True:
            try:
                super().parseOptions(words)  # type: ignore[no-untyped-call]  # nor here
                return problems
            except usage.UsageError as error:
                problem, unfit = blame(error, words, (self.shortOpt, self.longOpt))
                problems.append(problem)
                del words[unfit]

    def opt_version(self) -> None:
        """Print bkscaler's version and exit."""
        sys.stdout.write(f"bkscaler {__version__}\n")
        raise SystemExit(0)

    def parseArgs(self, *words: str) -> None:
        """Refuse words that belong to no option."""
        if words:
            raise StrayWord(len(words), words[0])


def as_markdown() -> str:
    """Print the table of settings as it stands in ``docs/configuration.md``."""
    rows = ["| flag | environment | default | what it does |", "|---|---|---|---|"]
    for s in SETTINGS:
        text = f"{s.help} {s.detail}".strip()
        rows.append(f"| `--{s.flag}` | `{s.env}` | {f'`{s.default}`' if s.default else 'none'} | {text} |")
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    sys.stdout.write(as_markdown())
