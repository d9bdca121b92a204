"""
What Prometheus is told: a registry of our own, counters that are told, and gauges that are read when scraped.

Nothing here is touched for a byte or a chunk: bytes are read from the relays when somebody scrapes, or when a
connection ends. Labels take few values, all of closed lists, and every series is there from the start, so
that ``rate()`` sees the first event. ``docs/metrics.md`` explains each; a test compares. Told by
``observability.recorder``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import product

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, disable_created_metrics
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from twisted.internet.interfaces import IReactorTime

from bkscaler import __version__
from bkscaler.model import Connection
from bkscaler.observability.outcomes import Outcome
from bkscaler.observability.wakes import Phase, Result
from bkscaler.scaling.machine import State
from bkscaler.scaling.snapshot import Snapshot

HOLD_BUCKETS_S = (0.01, 0.1, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600)
WAKE_BUCKETS_S = (0.5, 1, 2, 5, 10, 15, 20, 30, 45, 60, 90, 120, 180, 300, 600)
PHASE_BUCKETS_S = (0.05, 0.25, 1, 2, 5, 10, 20, 30, 60, 120, 300)
DIRECTIONS = ("up", "down")
SCALE_RESULTS = ("ok", "conflict", "refused", "failed")
_SCALE_LABELS = {"direction": DIRECTIONS, "result": SCALE_RESULTS}
RESTART_REASONS = ("ended", "silent", "expired", "unreachable", "refused", "failed")


@dataclass(frozen=True, kw_only=True)
class Sources:
    """
    Where what holds now is asked for, at each scrape and for each status page.

    :param snapshot: the scaler's report.
    :param connections: those that have not ended.
    :param in_touch: whether the watches are live.
    :param trouble: why they are not, one line; ``""`` when nothing is known to say.
    :param missing: what keeps us from being ready, one line each.
    :param draining: whether we are shutting down.
    :param now_unix_s: the date, in seconds since 1970.
    """

    snapshot: Callable[[], Snapshot]
    connections: Callable[[], list[Connection]]
    in_touch: Callable[[], bool]
    trouble: Callable[[], str]
    missing: Callable[[], list[str]]
    draining: Callable[[], bool]
    now_unix_s: Callable[[], float]


class Metrics:
    """
    The counters of one process, and :attr:`registry`, which gives everything.

    :param clock: tells durations.
    :param max_connections: see ``--max-connections``.
    :ivar registry: what is exported; not the library's global one.
    :ivar held_and_joined: takes how long those waited that were joined.
    :ivar held_in_vain: takes how long the others waited.
    """

    def __init__(self, clock: IReactorTime, max_connections: int) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # the library's own switch
        self.registry = registry = CollectorRegistry()
        self.max_connections = max_connections
        self.accepted = _counter(registry, "connections_accepted", "Connections accepted.")
        ended = _counter(
            registry, "connections_ended", "Connections ended, by how.", outcome=[o.value for o in Outcome]
        )
        holds = _histogram(
            registry,
            "connection_hold_seconds",
            "From a client's arrival until it was joined to a builder, or left, or was let go.",
            HOLD_BUCKETS_S,
            end=("joined", "not_joined"),
        )
        # Looked up once: finding a series by its labels is half of what counting costs a connection.
        self._ended = {outcome: ended.labels(outcome.value) for outcome in Outcome}
        self.held_and_joined, self.held_in_vain = holds.labels("joined"), holds.labels("not_joined")
        self.wakes = _counter(registry, "wakes", "Wakes ended, by result.", result=[r.value for r in Result])
        self.wake_seconds = _histogram(
            registry,
            "wake_seconds",
            "From the first client's need until a builder was ready; of wakes with result ready.",
            WAKE_BUCKETS_S,
        )
        self.wake_phase_seconds = _histogram(
            registry,
            "wake_phase_seconds",
            "The same, by phase, each from the end of the one before.",
            PHASE_BUCKETS_S,
            phase=[phase.value for phase in Phase],
        )
        self.scale_requests = _counter(
            registry, "scale_requests", "Scale requests, by direction and result.", **_SCALE_LABELS
        )
        self.api_requests = _counter(
            registry,
            "api_requests",
            "Requests to the Kubernetes API, by verb (WATCH for watches) and HTTP status (none: no answer).",
            verb=(),
            code=(),
        )
        self.watch_restarts = _counter(
            registry, "watch_restarts", "Watches begun anew, by reason.", reason=RESTART_REASONS
        )
        self._outcomes = dict.fromkeys(Outcome, 0)
        self._over = {"up": 0, "down": 0, "failed_dials": 0}
        self.now_s = clock.seconds
        self._time = _StateTime(clock)
        ProcessCollector(registry=registry)

    def enter(self, state: State) -> None:
        """Note the state that the builder is in now."""
        self._time.enter(state)

    def count_of(self, outcome: Outcome) -> int:
        """Say how many connections have ended in one way."""
        return self._outcomes[outcome]

    def add_end(self, outcome: Outcome, connection: Connection) -> None:
        """Count a connection that has ended, and keep its numbers."""
        self._ended[outcome].inc()
        self._outcomes[outcome] += 1
        self._over["up"] += connection.bytes_up
        self._over["down"] += connection.bytes_down
        self._over["failed_dials"] += connection.failed_dials

    def totals(self, alive: Iterable[Connection]) -> dict[str, int]:
        """Sum bytes up, bytes down and failed dials over all connections, ended and alive."""
        totals = dict(self._over)
        for connection in alive:
            totals["up"] += connection.bytes_up
            totals["down"] += connection.bytes_down
            totals["failed_dials"] += connection.failed_dials
        return totals

    def state_seconds(self) -> dict[State, float]:
        """Say how long the builder has been in each state since we started."""
        return self._time.seconds()

    def read_from(self, sources: Sources) -> None:
        """Export what holds now as well. Call it once."""
        self.registry.register(_Now(self, sources))


class _StateTime:
    """How long the builder has been in each state."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._state, self._since_s = State.UNKNOWN, clock.seconds()
        self._seconds = dict.fromkeys(State, 0.0)

    def enter(self, state: State) -> None:
        now_s = self._clock.seconds()
        self._seconds[self._state] += now_s - self._since_s
        self._state, self._since_s = state, now_s

    def seconds(self) -> dict[State, float]:
        running_s = self._clock.seconds() - self._since_s
        return {**self._seconds, self._state: self._seconds[self._state] + running_s}


class _Now:
    """Collects what is read only when somebody scrapes."""

    def __init__(self, metrics: Metrics, sources: Sources) -> None:
        self._metrics = metrics
        self._sources = sources

    def describe(self) -> list[Metric]:
        """Say nothing in advance: registering must not ask what is not running yet."""
        return []

    def collect(self) -> Iterable[Metric]:
        """Give everything that holds now."""
        yield _gauge("build_info", "1; the version is in the labels.", ("version", "python"), {_BUILD: 1})
        yield from self._of_connections()
        yield from self._of_the_builder(self._sources.snapshot())
        yield _gauge("ready", "1 while /readyz says ready.", (), {(): not self._sources.missing()})
        yield _gauge(
            "api_in_touch",
            "1 while the watches of the Kubernetes API are live.",
            (),
            {(): self._sources.in_touch()},
        )

    def _of_connections(self) -> Iterable[Metric]:
        alive = self._sources.connections()
        joined = sum(each.joined_s is not None for each in alive)
        totals = self._metrics.totals(alive)
        yield _gauge(
            "connections",
            "Connections now, by phase.",
            ("phase",),
            {("held",): len(alive) - joined, ("joined",): joined},
        )
        yield _gauge("connections_limit", "See --max-connections.", (), {(): self._metrics.max_connections})
        yield _counted(
            "relayed_bytes",
            "Bytes relayed; up is from clients to the builder.",
            ("direction",),
            {(direction,): totals[direction] for direction in DIRECTIONS},
        )
        yield _counted(
            "dial_failures",
            "Dials of a builder that failed, and were repeated.",
            (),
            {(): totals["failed_dials"]},
        )

    def _of_the_builder(self, snapshot: Snapshot) -> Iterable[Metric]:
        seen = snapshot.observation
        yield _gauge(
            "replicas",
            "Replicas called for by the demand (wanted), in spec.replicas (seen), and usable (ready).",
            ("kind",),
            {
                ("wanted",): snapshot.wanted,
                ("seen",): seen.replicas if seen else 0,
                ("ready",): len(seen.ready) if seen else 0,
            },
        )
        yield _gauge(
            "builder_state",
            "1 for the state that the builder is in.",
            ("state",),
            {(_word(state),): state is snapshot.state for state in State},
        )
        yield _counted(
            "builder_state_seconds",
            "Seconds that the builder has been in each state.",
            ("state",),
            {(_word(state),): seconds for state, seconds in self._metrics.state_seconds().items()},
        )
        yield _gauge(
            "idle_deadline_timestamp_seconds",
            "When the builder will be put to sleep, as a Unix time; no series when it is not idle.",
            (),
            {} if snapshot.sleeps_at_s is None else {(): self._deadline(snapshot.sleeps_at_s)},
        )

    def _deadline(self, at_s: float) -> float:
        return self._sources.now_unix_s() + at_s - self._metrics.now_s()


_BUILD = (__version__, ".".join(map(str, sys.version_info[:3])))


def _word(state: State) -> str:
    """Write a state as a label value."""
    return state.value.replace(" ", "_")


def _counter(registry: CollectorRegistry, name: str, text: str, **labels: Iterable[str]) -> Counter:
    """Make a counter with labels; every combination of their values is there from the start."""
    counter = Counter(f"bkscaler_{name}", text, list(labels), registry=registry)
    for values in product(*labels.values()) if labels else ():
        counter.labels(*values)
    return counter


def _histogram(
    registry: CollectorRegistry, name: str, text: str, buckets: Sequence[float], **labels: Iterable[str]
) -> Histogram:
    """Make a histogram with labels; every combination of their values is there from the start."""
    made = Histogram(f"bkscaler_{name}", text, list(labels), buckets=buckets, registry=registry)
    for values in product(*labels.values()) if labels else ():
        made.labels(*values)
    return made


def _gauge(
    name: str, text: str, labels: tuple[str, ...], values: dict[tuple[str, ...], float]
) -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"bkscaler_{name}", text, labels=labels)
    for key, value in values.items():
        family.add_metric(key, float(value))
    return family


def _counted(
    name: str, text: str, labels: tuple[str, ...], values: dict[tuple[str, ...], float]
) -> CounterMetricFamily:
    family = CounterMetricFamily(f"bkscaler_{name}", text, labels=labels)
    for key, value in values.items():
        family.add_metric(key, float(value))
    return family
