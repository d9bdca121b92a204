"""
Everything there is to say, as one JSON value: what ``/status`` gives and what the page is made of.

``docs/status.md`` explains the fields. They are stable: new ones may come, none changes its meaning.
Lists are bounded, see the constants.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from twisted.internet.interfaces import IReactorTime

from bkscaler import __version__
from bkscaler.config import SETTINGS, Settings
from bkscaler.durations import format_duration
from bkscaler.model import Connection, Stage
from bkscaler.observability.history import WINDOW_S, Mode, Span
from bkscaler.observability.metrics import Sources
from bkscaler.observability.outcomes import Outcome
from bkscaler.observability.recorder import Recorder
from bkscaler.observability.wakes import Phase, Result, Wake
from bkscaler.observability.words import Scene, tell
from bkscaler.scaling.machine import State
from bkscaler.scaling.snapshot import Snapshot

_STEPS = {
    Stage.ABSENT: Phase.SCHEDULED,
    Stage.CREATED: Phase.SCHEDULED,
    Stage.SCHEDULED: Phase.STARTED,
    Stage.STARTED: Phase.READY,
}
MAX_CONNECTIONS_SHOWN = 100
"""How many connections are listed, the oldest; their number is given whole."""


class Status:
    """
    Takes the status. Lives as long as the process.

    :param clock: tells durations.
    :param sources: tell what holds now.
    :param recorder: remembers what was.
    :param settings: the effective ones.
    """

    def __init__(
        self, *, clock: IReactorTime, sources: Sources, recorder: Recorder, settings: Settings
    ) -> None:
        self._clock = clock
        self._sources = sources
        self._recorder = recorder
        self._settings = settings
        self._started_s = clock.seconds()

    def take(self) -> dict[str, Any]:
        """Say everything, as it is now."""
        self._recorder.settle()
        snapshot, connections = self._sources.snapshot(), self._sources.connections()
        return {
            "version": __version__,
            "now": self._date(self._clock.seconds()),
            "started": self._date(self._started_s),
            "statefulset": {"namespace": self._settings.sts_namespace, "name": self._settings.sts_name},
            "builder": self._builder(snapshot, connections),
            "api": {"in_touch": self._sources.in_touch(), "trouble": self._sources.trouble()},
            "not_ready_because": self._sources.missing(),
            "connections": self._connections(connections),
            "last_24h": self._last_day(),
            "happenings": self._happenings(),
            "settings": effective(self._settings),
        }

    def _builder(self, snapshot: Snapshot, connections: list[Connection]) -> dict[str, Any]:
        seen, now_s = snapshot.observation, self._clock.seconds()
        joined = sum(each.joined_s is not None for each in connections)
        sleeps_in_s = None if snapshot.sleeps_at_s is None else max(0.0, snapshot.sleeps_at_s - now_s)
        good, failure = self._last_wakes()
        story = tell(
            Scene(
                snapshot=snapshot,
                held=len(connections) - joined,
                joined=joined,
                sleeps_in_s=sleeps_in_s,
                last_wake_s=good,
                failed_because=failure,
                in_touch=self._sources.in_touch(),
                draining=self._sources.draining(),
                idle_timeout_s=self._settings.idle_timeout_s,
                ready_wait_timeout_s=self._settings.ready_wait_timeout_s,
                drain_timeout_s=self._settings.drain_timeout_s,
            )
        )
        step = _step(snapshot)
        return {
            "state": snapshot.state.value,
            "since": self._date(snapshot.since_s),
            "for_s": round(now_s - snapshot.since_s, 3),
            "headline": story.headline,
            "why": story.why,
            "next": story.next,
            "tone": story.tone.value,
            "step": step.value if step else None,
            "waiting_for": snapshot.waiting_for,
            "sleeps_in_s": None if sleeps_in_s is None else round(sleeps_in_s, 3),
            "replicas": {
                "wanted": snapshot.wanted,
                "seen": seen.replicas if seen else None,
                "ready": len(seen.ready) if seen else None,
            },
            "pods": [{"name": pod.name, "ip": pod.ip} for pod in (seen.ready if seen else ())],
        }

    def _last_wakes(self) -> tuple[float | None, str | None]:
        """Say how long the last good wake took, and why there was a failure since."""
        failure = None
        for wake in reversed(self._recorder.history.wakes):
            if wake.result is Result.READY:
                return wake.took_s, failure
            if wake.result is Result.FAILED and failure is None:
                failure = wake.reason
        return None, failure

    def _connections(self, alive: list[Connection]) -> dict[str, Any]:
        metrics = self._recorder.metrics
        totals = metrics.totals(alive)
        joined = sum(each.joined_s is not None for each in alive)
        return {
            "held": len(alive) - joined,
            "joined": joined,
            "limit": metrics.max_connections,
            "ended": {outcome.value: metrics.count_of(outcome) for outcome in Outcome},
            "bytes_up": totals["up"],
            "bytes_down": totals["down"],
            "list": [_connection(each) for each in alive[:MAX_CONNECTIONS_SHOWN]],
        }

    def _last_day(self) -> dict[str, Any]:
        history = self._recorder.history
        spans = history.spans()
        seconds = {mode: sum(s.to_s - s.from_s for s in spans if s.mode is mode) for mode in Mode}
        known_s = sum(seconds.values()) - seconds[Mode.UNKNOWN]
        asleep = round(100 * seconds[Mode.ASLEEP] / known_s, 1) if known_s else None
        return {
            "window_s": WINDOW_S,
            "seconds": {mode.value: round(each, 3) for mode, each in seconds.items()},
            "percent_asleep": asleep,
            "spans": [self._span(each) for each in spans],
            "wakes": [self._wake(each) for each in history.recent_wakes()],
            "failures": [self._date(at_s) for at_s in history.recent_failures()],
        }

    def _happenings(self) -> list[dict[str, Any]]:
        """Give what happened, newest first."""
        return [
            {
                "at": self._date(each.at_s),
                "kind": each.kind.value,
                "words": each.words,
                "bad": each.bad,
                "count": each.count,
            }
            for each in reversed(self._recorder.history.happenings)
        ]

    def _span(self, span: Span) -> dict[str, Any]:
        return {"mode": span.mode.value, "from": self._date(span.from_s), "to": self._date(span.to_s)}

    def _wake(self, wake: Wake) -> dict[str, Any]:
        return {
            "at": self._date(wake.began_s),
            "took_s": round(wake.took_s, 3),
            "result": wake.result.value,
            "reason": wake.reason,
            "phases_s": {phase.value: round(each, 3) for phase, each in wake.phases.items()},
        }

    def _date(self, at_s: float) -> str:
        """Turn a time on the clock into a date."""
        unix_s = self._sources.now_unix_s() + at_s - self._clock.seconds()
        return datetime.fromtimestamp(unix_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _step(snapshot: Snapshot) -> Phase | None:
    """Say which part of a wake is going on; None when none is."""
    if snapshot.state is not State.WAKING:
        return None
    seen = snapshot.observation
    if seen is None or not seen.replicas:
        return Phase.PATCH
    return _STEPS[seen.stage]


def effective(settings: Settings) -> dict[str, str]:
    """Write the settings as a user would type them, by flag."""
    return {setting.flag: _written(getattr(settings, setting.field), setting.field) for setting in SETTINGS}


def _written(value: object, field: str) -> str:
    if value is None or value == math.inf:
        return "none" if field == "kubeconfig" else "off"
    if isinstance(value, float):
        return format_duration(value)
    return str(value)


def _connection(each: Connection) -> dict[str, Any]:
    return {
        "peer": each.peer,
        "phase": "held" if each.joined_s is None else "joined",
        "age_s": round(each.waited_s + (each.joined_s or 0.0), 3),
        "waited_s": round(each.waited_s, 3),
        "bytes_up": each.bytes_up,
        "bytes_down": each.bytes_down,
        "failed_dials": each.failed_dials,
        "why": each.why,
    }


Take = Callable[[], dict[str, Any]]
"""As :meth:`Status.take`."""
