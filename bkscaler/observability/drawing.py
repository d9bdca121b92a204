"""
The two pictures of the status page, as inline SVG. Pure.

Lengths along x are percentages, so that a picture is as wide as its place and its letters keep their size.
What is drawn is bounded, however much has happened. Imported by ``observability.page``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from typing import Any

from bkscaler.observability.markup import Markup, tag
from bkscaler.observability.words import counted, spoken

COLUMNS = 720
"""How finely the timeline is drawn: two minutes of a day."""
LEAST_WINDOW_S = 180.0
MAX_BARS = 40
MAX_MARKS = 200
_TICKS_S = (60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 14400)
_MOST_TICKS = 7
_HEIGHTS = {"awake": 40, "waking": 40, "idle": 22, "asleep": 6, "unknown": 2}
_BASE_Y, _MARK_Y, _AXIS_Y = 62, 10, 82
_CHART_Y = 120
_PHASES = ("patch", "scheduled", "started", "ready")


def unix(date: str) -> float:
    """Read a date of the status, to seconds since 1970."""
    return datetime.fromisoformat(date).timestamp()


def clock_time(unix_s: float, form: str = "%H:%M") -> str:
    """Write a time of day, UTC."""
    return datetime.fromtimestamp(unix_s, UTC).strftime(form)


@dataclass(frozen=True, kw_only=True)
class Window:
    """
    The stretch of time that is drawn.

    :param from_s: its beginning, in seconds since 1970.
    :param to_s: its end.
    """

    from_s: float
    to_s: float

    def percent(self, at_s: float) -> float:
        """Say where a time lies, from 0 to 100."""
        return 100 * min(1.0, max(0.0, (at_s - self.from_s) / (self.to_s - self.from_s)))

    def ticks(self) -> list[float]:
        """Choose round times for the axis."""
        step_s = next(
            (s for s in _TICKS_S if (self.to_s - self.from_s) / s <= _MOST_TICKS), float(_TICKS_S[-1])
        )
        first = -(-self.from_s // step_s)
        return [n * step_s for n in range(int(first), int(self.to_s // step_s) + 1)]


def window_of(status: dict[str, Any]) -> Window:
    """Choose the last 24 hours, or what there is of them."""
    now_s = unix(status["now"])
    began_s = min((unix(span["from"]) for span in status["last_24h"]["spans"]), default=now_s)
    return Window(from_s=min(began_s, now_s - LEAST_WINDOW_S), to_s=now_s)


def timeline(status: dict[str, Any]) -> Markup:
    """Draw what the builder was at, with wakes and clients that were not served."""
    window, day = window_of(status), status["last_24h"]
    return tag(
        "svg",
        tag("title", _told(day)),
        tag("line", x1="0", x2="100%", y1=_BASE_Y, y2=_BASE_Y, class_="axis"),
        _bands(day["spans"], window),
        [_failure(unix(each), window) for each in day["failures"][-MAX_MARKS:]],
        [_wake(each, window) for each in day["wakes"][-MAX_MARKS:]],
        [_tick(at_s, window) for at_s in window.ticks()],
        role="img",
        class_="timeline",
        width="100%",
        height="90",
    )


def _told(day: dict[str, Any]) -> str:
    """Say in words what the timeline shows, for those who do not see it."""
    names = (("awake", "in use"), ("idle", "idle"), ("waking", "waking"), ("asleep", "asleep"))
    modes = [f"{words} for {spoken(day['seconds'][mode])}" for mode, words in names if day["seconds"][mode]]
    failed = sum(wake["result"] == "failed" for wake in day["wakes"])
    marks = f"{counted(len(day['wakes']), 'wake')}, {failed} failed; "
    return (
        f"The builder over time: {', '.join(modes) or 'not seen yet'}; {marks}"
        f"{counted(len(day['failures']), 'client')} not served."
    )


def _bands(spans: list[dict[str, Any]], window: Window) -> Iterable[Markup]:
    """Draw the modes: what a column was for longest, and columns that are the same as one."""
    column_s = (window.to_s - window.from_s) / COLUMNS
    shares: list[dict[str, float]] = [{} for _ in range(COLUMNS)]
    for span in spans:
        from_s, to_s = unix(span["from"]) - window.from_s, unix(span["to"]) - window.from_s
        for column in range(max(0, int(from_s / column_s)), min(COLUMNS, int(to_s / column_s) + 1)):
            part = min(to_s, (column + 1) * column_s) - max(from_s, column * column_s)
            shares[column][span["mode"]] = shares[column].get(span["mode"], 0.0) + part
    modes = [max(each, key=each.__getitem__) if each else "" for each in shares]
    place = 0
    for mode, group in groupby(modes):
        length = len(list(group))
        if mode:
            height = _HEIGHTS.get(mode, 2)
            lasted = tag("title", f"{mode} for {spoken(length * column_s)}")
            x, width = f"{100 * place / COLUMNS:.3f}%", f"{100 * length / COLUMNS:.3f}%"
            yield tag(
                "rect", lasted, x=x, width=width, y=_BASE_Y - height, height=height, class_=f"fill-{mode}"
            )
        place += length


def _wake(wake: dict[str, Any], window: Window) -> Markup:
    """Draw a wake where it began: a ring, or a cross when it failed."""
    at_s = unix(wake["at"])
    x = f"{window.percent(at_s):.3f}%"
    words = tag("title", f"{clock_time(at_s)} UTC, wake {wake['result']} after {spoken(wake['took_s'])}")
    if wake["result"] != "failed":
        return tag("circle", words, cx=x, cy=_MARK_Y, r=4, class_=f"wake-{wake['result']}")
    return tag("text", words, "✕", x=x, y=_MARK_Y + 5, class_="wake-failed")


def _failure(at_s: float, window: Window) -> Markup:
    """Draw a client that was not served: a stroke below the line."""
    x = f"{window.percent(at_s):.3f}%"
    words = tag("title", f"{clock_time(at_s)} UTC, a client was not served")
    return tag("line", words, x1=x, x2=x, y1=_BASE_Y + 1, y2=_BASE_Y + 8, class_="not-served")


def _tick(at_s: float, window: Window) -> Markup:
    """Write a time below the line, unless it would be cut off."""
    place = window.percent(at_s)
    if not 4 <= place <= 96:
        return Markup("")
    return tag("text", clock_time(at_s), x=f"{place:.3f}%", y=_AXIS_Y, class_="tick", data_time=int(at_s))


def wake_chart(wakes: list[dict[str, Any]]) -> Markup:
    """
    Draw how long the last wakes took, newest on the right, those that were ready in their phases. The scale
    is theirs; others, which may have taken as long as clients wait, are cut off there.
    """
    shown = wakes[-MAX_BARS:]
    ready = [wake["took_s"] for wake in shown if wake["result"] == "ready"]
    top_s = _round_up(max(ready or [wake["took_s"] for wake in shown], default=1.0))
    places = max(12, len(shown))
    bars = [_bar(wake, places - len(shown) + n, places, top_s) for n, wake in enumerate(shown)]
    return tag(
        "svg",
        tag("title", _wakes_told(shown, ready)),
        tag("line", x1="0", x2="100%", y1=_CHART_Y, y2=_CHART_Y, class_="axis"),
        [_level(share * top_s, top_s) for share in (0.5, 1)],
        bars,
        role="img",
        class_="wakes",
        width="100%",
        height=_CHART_Y + 4,
    )


def _wakes_told(shown: list[dict[str, Any]], ready: list[float]) -> str:
    """Say in words what the chart shows."""
    others = len(shown) - len(ready)
    words = f"The last {counted(len(shown), 'wake')}: {len(ready)} ready"
    if ready:
        words += f", after {' to '.join(dict.fromkeys(map(spoken, (min(ready), max(ready)))))}"
    return f"{words}; {others} not ready." if others else f"{words}."


def _round_up(seconds: float) -> float:
    """Choose the top of the scale: a round number above all values."""
    scale = (1, 2, 5, 10, 20, 30, 60, 120, 180, 300, 600, 1200, 1800, 3600)
    return float(next((top for top in scale if seconds <= top), seconds))


def _level(seconds: float, top_s: float) -> list[Markup]:
    y = _height_y(seconds, top_s)
    words = f"{seconds:g} s" if seconds < 60 else spoken(seconds)
    return [
        tag("line", x1="0", x2="100%", y1=y, y2=y, class_="level"),
        tag("text", words, x="0", y=f"{y - 4:.1f}", class_="tick start"),
    ]


def _height_y(seconds: float, top_s: float) -> float:
    return round(_CHART_Y - (_CHART_Y - 18) * min(1.0, seconds / top_s), 1)


def _bar(wake: dict[str, Any], place: int, places: int, top_s: float) -> Markup:
    """Draw one wake; the first tenth of the width is for the scale."""
    room = 90 / places
    x, width = f"{10 + room * (place + 0.15):.2f}%", f"{room * 0.7:.2f}%"
    parts, below_s = [], 0.0
    for name, seconds in _parts(wake):
        y = _height_y(below_s + seconds, top_s)
        height = round(_height_y(below_s, top_s) - y, 1)
        if height > 0:
            parts.append(tag("rect", x=x, width=width, y=y, height=height, class_=f"phase-{name}"))
        below_s += seconds
    if below_s > top_s:
        y = _height_y(0.93 * top_s, top_s)
        parts.append(tag("rect", x=x, width=width, y=y, height=3, class_="phase-cut"))
    words = f"{clock_time(unix(wake['at']))} UTC: {wake['result']} after {spoken(wake['took_s'])}"
    details = ", ".join(f"{name} {spoken(seconds)}" for name, seconds in wake["phases_s"].items())
    return tag("g", tag("title", words + (f" ({details})" if details else "")), parts)


def bar_kinds(wake: dict[str, Any]) -> list[str]:
    """Say which colours the bar of a wake has."""
    return [name for name, seconds in _parts(wake) if seconds > 0]


def _parts(wake: dict[str, Any]) -> list[tuple[str, float]]:
    """Take a wake apart for its bar, from bottom to top."""
    phases = wake["phases_s"]
    if wake["result"] != "ready" or not phases:
        return [(wake["result"], wake["took_s"])]
    return [(name, phases[name]) for name in _PHASES if name in phases]
