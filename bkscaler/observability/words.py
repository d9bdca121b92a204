"""
What the builder does, why, and what happens next, in words a newcomer understands. Pure.

Imported by ``observability.status``, whose ``/status`` and page say it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from bkscaler.scaling.machine import State
from bkscaler.scaling.snapshot import Snapshot


class Tone(Enum):
    """How the page colours it; the value is the word in ``/status``."""

    ASLEEP = "asleep"
    WAKING = "waking"
    AWAKE = "awake"
    IDLE = "idle"
    BAD = "bad"


@dataclass(frozen=True, kw_only=True)
class Story:
    """
    The builder's state in words.

    :param headline: two or three words.
    :param why: what it does or waits for; ``""`` when the headline says it all.
    :param next: what happens next.
    :param tone: whether that is good or bad.
    """

    headline: str
    why: str
    next: str
    tone: Tone


@dataclass(frozen=True, kw_only=True)
class Scene:
    """
    What the words are made of.

    :param snapshot: the scaler's report.
    :param held: clients that wait.
    :param joined: clients that are being served.
    :param sleeps_in_s: seconds until the builder is put to sleep; None when it is not idle.
    :param last_wake_s: how long the last wake took that was ready; None when there was none.
    :param failed_because: why the wake after that failed; None when it did not.
    :param in_touch: whether the watches of the Kubernetes API are live.
    :param draining: whether we are shutting down.
    :param idle_timeout_s: see ``--idle-timeout``.
    :param ready_wait_timeout_s: see ``--ready-wait-timeout``.
    :param drain_timeout_s: see ``--drain-timeout``.
    """

    snapshot: Snapshot
    held: int
    joined: int
    sleeps_in_s: float | None
    last_wake_s: float | None
    failed_because: str | None
    in_touch: bool
    draining: bool
    idle_timeout_s: float
    ready_wait_timeout_s: float
    drain_timeout_s: float


def tell(scene: Scene) -> Story:
    """Put a scene into words."""
    story = _TELL[scene.snapshot.state](scene)
    return replace(story, next=_draining(scene)) if scene.draining else story


def spoken(seconds: float) -> str:
    """Say a duration as people do, in at most two units: ``14 s``, ``3 min 20 s``, ``5 h 12 min``."""
    if seconds < 9.95:
        return f"{seconds:.1f}".removesuffix(".0") + " s"
    whole = round(seconds)
    for size, name, smaller, its_name in (
        (86400, "d", 3600, "h"),
        (3600, "h", 60, "min"),
        (60, "min", 1, "s"),
    ):
        if whole >= size:
            rest = whole % size // smaller
            return f"{whole // size} {name}" + (f" {rest} {its_name}" if rest else "")
    return f"{whole} s"


def counted(number: int, one: str, many: str = "") -> str:
    """Say how many: ``1 client``, ``3 clients``."""
    return f"{number} {one if number == 1 else many or one + 's'}"


def volume(count: int) -> str:
    """Say an amount of bytes: ``512 B``, ``1.4 MiB``."""
    amount = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit == "B" or amount >= 100 else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"


def _draining(scene: Scene) -> str:
    """Say what comes next, whatever the builder does, when we are shutting down."""
    present = scene.held + scene.joined
    theirs = (
        f"{counted(present, 'client')} may go on for up to {spoken(scene.drain_timeout_s)}"
        if present
        else "it has no clients left"
    )
    return f"bkscaler is shutting down: it accepts nobody, {theirs}. The builder is left to its successor."


def _unknown(scene: Scene) -> Story:
    return Story(
        headline="Not seen yet",
        why=scene.snapshot.waiting_for,
        next="bkscaler keeps asking the Kubernetes API. Clients that come now are held.",
        tone=Tone.BAD,
    )


def _missing(scene: Scene) -> Story:
    return Story(
        headline="No builder",
        why=scene.snapshot.waiting_for or "there is no such StatefulSet",
        next="Clients are told so. bkscaler goes on by itself as soon as the StatefulSet is there.",
        tone=Tone.BAD,
    )


def _asleep(scene: Scene) -> Story:
    then = "The next client wakes it"
    if not scene.in_touch:
        then = "The next client is held, and wakes it when the Kubernetes API answers again"
    if scene.failed_because is not None:
        then += f". The last wake failed: {scene.failed_because or 'nothing is known of the reason'}"
    elif scene.last_wake_s is not None:
        then += f"; the last wake took {spoken(scene.last_wake_s)}"
    return Story(
        headline="Asleep",
        why="No builder runs, nobody needs one." if scene.in_touch else "No builder ran when last seen.",
        next=then.rstrip(".") + ".",
        tone=Tone.ASLEEP,
    )


def _waking(scene: Scene) -> Story:
    hopeless = scene.snapshot.observation is not None and scene.snapshot.observation.hopeless
    waits, each = ("is", "") if scene.held == 1 else ("are", "each ")
    more = ""
    if hopeless:
        more = " Time alone will rarely mend this: somebody has to look at the reason above."
    elif scene.last_wake_s is not None:
        more = f" The last wake took {spoken(scene.last_wake_s)}."
    return Story(
        headline="Cannot wake" if hopeless else "Waking",
        why=scene.snapshot.waiting_for or "Asking the Kubernetes API.",
        next=f"{counted(scene.held, 'client')} {waits} held until it is ready, {each}for up to "
        f"{spoken(scene.ready_wait_timeout_s)}.{more}",
        tone=Tone.BAD if hopeless else Tone.WAKING,
    )


def _awake(scene: Scene) -> Story:
    held = f", {counted(scene.held, 'client')} being connected" if scene.held else ""
    known = "" if scene.in_touch else ", as soon as the Kubernetes API answers again"
    return Story(
        headline="Awake",
        why=f"{counted(scene.joined, 'build')} connected{held}.",
        next=f"Sleeps {spoken(scene.idle_timeout_s)} after the last one has left{known}.",
        tone=Tone.AWAKE,
    )


def _idle(scene: Scene) -> Story:
    if not scene.in_touch:
        then = (
            "Goes to sleep when its time is over and the Kubernetes API answers again, unless a client comes."
        )
    elif scene.sleeps_in_s:
        then = f"Goes to sleep in {spoken(scene.sleeps_in_s)}, unless a client comes."
    else:
        then = "It is about to be put to sleep."
    return Story(headline="Idle", why="The builder runs, nobody uses it.", next=then, tone=Tone.IDLE)


def _going(scene: Scene) -> Story:
    return Story(
        headline="Going to sleep",
        why="The scale-down is on its way.",
        next="Clients that come now are held, and wake it again when it has gone.",
        tone=Tone.IDLE,
    )


_TELL = {
    State.UNKNOWN: _unknown,
    State.MISSING: _missing,
    State.ASLEEP: _asleep,
    State.WAKING: _waking,
    State.AWAKE: _awake,
    State.IDLE: _idle,
    State.GOING_TO_SLEEP: _going,
}
