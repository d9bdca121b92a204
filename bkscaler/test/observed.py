"""What the tests of reports share: a builder whose life is played by hand, on a clock, and its status."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from twisted.internet.task import Clock

from bkscaler.config import read_settings
from bkscaler.model import Connection, Observation, Replica, Stage
from bkscaler.observability.history import History
from bkscaler.observability.metrics import Metrics, Sources
from bkscaler.observability.outcomes import Outcome
from bkscaler.observability.recorder import Recorder
from bkscaler.observability.status import Status
from bkscaler.scaling.machine import State
from bkscaler.scaling.policy import ScaleTo
from bkscaler.scaling.snapshot import Snapshot

NOON_UNIX_S = 1_785_412_800.0
"""30 July 2026, 12:00 UTC: what the clock's 0 stands for."""
POD = Replica(ordinal=0, name="buildkitd-0", uid="uid-0", ip="10.0.0.7")
UP = ScaleTo(replicas=1, resource_version="1", reason="1 client waits")
DOWN = ScaleTo(replicas=0, resource_version="2", reason="idle for 2m0s", down=True)
PULLING = "pod buildkitd-0: pulling image moby/buildkit:v0.25.1, or creating container buildkitd"


class Played:
    """
    A builder that does what the test says, with everything that reports on it.

    :ivar alive: the connections that have not ended.
    :ivar connections: gives them; may be replaced.
    :ivar in_touch: whether the API is in touch.
    :ivar trouble: why it is not.
    :ivar missing: what keeps us from being ready.
    :ivar draining: whether we are shutting down.
    """

    def __init__(self, **settings: str) -> None:
        self.clock = Clock()
        self.settings = read_settings(settings, {})
        self.metrics = Metrics(self.clock, self.settings.max_connections)
        self.history = History(self.clock)
        self.recorder = Recorder(self.clock, self.metrics, self.history)
        self.alive: list[Connection] = []
        self.in_touch, self.trouble = True, ""
        self.missing: list[str] = []
        self.draining = False
        self.connections: Callable[[], list[Connection]] = lambda: self.alive
        self.snapshot = Snapshot(
            state=State.UNKNOWN, since_s=0.0, holds=0, waiting=0, sleeps_at_s=None, observation=None
        )
        self.sources = Sources(
            snapshot=lambda: self.snapshot,
            connections=lambda: self.connections(),  # noqa: PLW0108  # may be replaced
            in_touch=lambda: self.in_touch,
            trouble=lambda: self.trouble,
            missing=lambda: self.missing,
            draining=lambda: self.draining,
            now_unix_s=lambda: NOON_UNIX_S + self.clock.seconds(),
        )
        self.metrics.read_from(self.sources)
        self.status = Status(
            clock=self.clock, sources=self.sources, recorder=self.recorder, settings=self.settings
        )

    def be(self, state: State, **changes: Any) -> None:
        """Change the state, or only what is seen in it."""
        now_s = self.clock.seconds()
        since_s = self.snapshot.since_s if state is self.snapshot.state else now_s
        idle = now_s + self.settings.idle_timeout_s if state is State.IDLE else None
        values = {"state": state, "since_s": since_s, "sleeps_at_s": idle, "waiting_for": "", **changes}
        self.snapshot = replace(self.snapshot, **values)
        self.recorder.changed(self.snapshot)

    def see(self, replicas: int = 1, ready: bool = False, **more: Any) -> Observation:
        """Make an observation of the set."""
        return Observation(replicas=replicas, resource_version="1", ready=(POD,) if ready else (), **more)

    def asleep(self) -> None:
        """Be asleep."""
        self.be(State.ASLEEP, holds=0, wanted=0, observation=self.see(0))

    def arrive(self, count: int = 1) -> None:
        """Have clients arrive; they need a builder."""
        for number in range(count):
            self.recorder.accepted()
            self.alive.append(Connection(peer=f"10.1.2.{len(self.alive) + 3}:{40000 + 37 * number}"))

    def wake(
        self, patch_s: float = 0.1, node_s: float = 1.0, start_s: float = 9.0, ready_s: float = 2.0
    ) -> None:
        """Wake for the clients that are there, through all phases, and be awake with them joined."""
        self.begin_wake(patch_s)
        self.clock.advance(node_s)
        seen = self.see(stage=Stage.SCHEDULED)
        self.be(State.WAKING, holds=len(self.alive), observation=seen, waiting_for=PULLING)
        self.clock.advance(start_s)
        seen = self.see(stage=Stage.STARTED)
        self.be(State.WAKING, holds=len(self.alive), observation=seen, waiting_for="pod buildkitd-0: running")
        self.clock.advance(ready_s)
        self.awake()
        self.clock.advance(0.02)
        self.join()

    def begin_wake(self, patch_s: float = 0.1) -> None:
        """Begin to wake, and have the scale request carried out."""
        self.be(State.WAKING, holds=len(self.alive), wanted=1, observation=self.see(0))
        self.clock.advance(patch_s)
        self.recorder.scaled(UP, None)

    def awake(self) -> None:
        """Be awake."""
        seen = self.see(ready=True, stage=Stage.STARTED)
        self.be(State.AWAKE, holds=max(1, len(self.alive)), wanted=1, observation=seen)

    def join(self) -> None:
        """Join all clients."""
        for number, each in enumerate(self.alive):
            self.alive[number] = replace(each, joined_s=each.joined_s or 0.0)
            self.recorder.joined(each.waited_s)

    def end(self, outcome: Outcome = Outcome.COMPLETED, **numbers: Any) -> None:
        """Have all connections end in one way; nobody needs the builder any more."""
        leaving, self.alive = self.alive, []
        state = (
            State.IDLE if self.snapshot.observation and self.snapshot.observation.replicas else State.ASLEEP
        )
        self.be(state, holds=0, wanted=0)
        for each in leaving:
            self.recorder.ended(outcome, replace(each, **numbers))

    def fall_asleep(self) -> None:
        """Let the idle timeout pass, and go to sleep."""
        self.clock.advance(self.settings.idle_timeout_s)
        self.be(State.GOING_TO_SLEEP)
        self.clock.advance(0.05)
        self.recorder.scaled(DOWN, None)
        self.asleep()

    def one_build(self, lasts_s: float, **wake: float) -> None:
        """Go through a whole cycle: a client comes, the builder wakes, builds, and goes to sleep."""
        self.arrive()
        self.wake(**wake)
        self.clock.advance(lasts_s)
        self.end(joined_s=lasts_s, bytes_up=48_000_000, bytes_down=3_000_000)
        self.fall_asleep()
