"""
The status page: one HTML document with everything in it, made of what ``/status`` says. Pure.

It asks for nothing from outside, and a browser that keeps to :data:`CONTENT_SECURITY_POLICY` would not let
it: styles and the script are named there by their hashes. Without JavaScript the browser loads it anew; with
it, the script puts the new content in place of the old and writes times in the reader's time zone.
"""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import quote

from bkscaler.observability.drawing import bar_kinds, clock_time, timeline, unix, wake_chart, window_of
from bkscaler.observability.markup import Markup, ours, tag, text
from bkscaler.observability.words import counted, spoken, volume

_HERE = Path(__file__)
STYLE = _HERE.with_name("page.css").read_text("utf-8")
SCRIPT = _HERE.with_name("page.js").read_text("utf-8")
REFRESH_S = {"waking": 1, "awake": 3, "idle": 3, "asleep": 5, "bad": 2}
"""How often a page is refreshed, by tone."""
MAX_ROWS = 50
MAX_HAPPENINGS = 20
NONE = "none"
_WAKE_KEYS = (
    ("patch", "scale request"),
    ("scheduled", "a node"),
    ("started", "image and start"),
    ("ready", "ready"),
    ("failed", "failed"),
    ("abandoned", "nobody waited"),
)
_STEPS = _WAKE_KEYS[:4]
SVG = "http://www.w3.org/2000/svg"
_ICON_COLOURS = {
    "asleep": "#64748b",
    "waking": "#d97706",
    "awake": "#16a34a",
    "idle": "#0891b2",
    "bad": "#dc2626",
}


def _hash_of(content: str) -> str:
    return f"'sha256-{b64encode(sha256(content.encode('utf-8')).digest()).decode('ascii')}'"


CONTENT_SECURITY_POLICY = (
    f"default-src 'none'; style-src {_hash_of(STYLE)}; script-src {_hash_of(SCRIPT)}; img-src data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def render(status: dict[str, Any]) -> bytes:
    """
    Write the page.

    :param status: as :meth:`bkscaler.observability.status.Status.take` gives it.
    """
    builder, which = status["builder"], status["statefulset"]
    seconds = REFRESH_S.get(builder["tone"], 3)
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("noscript", tag("meta", http_equiv="refresh", content=max(5, seconds))),
        tag("title", f"{builder['headline']} · {which['namespace']}/{which['name']} · bkscaler"),
        tag("link", rel="icon", href=_icon(builder["tone"])),
        tag("style", ours(STYLE)),
    )
    # The script tells changes there: the content is replaced every second, and would be read out each time.
    news = tag("p", id="news", class_="unseen", role="status")
    body = tag("body", _main(status, seconds), news, tag("script", ours(SCRIPT)))
    page = "<!doctype html>\n" + tag("html", head, body, lang="en") + "\n"
    return page.encode("utf-8")


def _main(status: dict[str, Any], seconds: int) -> Markup:
    builder, which = status["builder"], status["statefulset"]
    return tag(
        "main",
        tag(
            "header",
            tag("span", "bkscaler", class_="name"),
            tag("span", which["namespace"], " / ", tag("b", which["name"]), class_="which"),
        ),
        tag("p", "bkscaler does not answer. What is shown may be old.", id="stale", hidden=True),
        _warnings(status),
        _hero(builder, unix(status["now"])),
        _figures(status),
        _timeline(status),
        tag("div", _wakes(status), _ends(status), class_="pair"),
        _connections(status["connections"]),
        _happenings(status),
        _settings(status),
        _footer(status),
        data_now=int(unix(status["now"])),
        data_refresh=seconds,
        data_tone=builder["tone"],
    )


def _icon(tone: str) -> str:
    """Draw a dot in the colour of the state, for the tab."""
    colour = _ICON_COLOURS.get(tone, "#64748b")
    dot = tag("circle", cx=8, cy=8, r=7, fill=colour)
    return "data:image/svg+xml," + quote(tag("svg", dot, xmlns=SVG, viewBox="0 0 16 16"))


def _time(date: str, now_s: float, *, exact: bool = False) -> Markup:
    """Write a date as a time of day, UTC; with the day when that is not today's."""
    at_s = unix(date)
    form = ("%H:%M:%S" if exact else "%H:%M") if now_s - at_s < 20 * 3600 else "%d %b %H:%M"
    return tag("time", clock_time(at_s, form), datetime=date, data_time=int(at_s), data_seconds=exact)


def _warnings(status: dict[str, Any]) -> list[Markup]:
    """Say what a reader must know first."""
    lines: list[object] = [tag("b", "Not ready. "), "; ".join(status["not_ready_because"])]
    found = [lines] if status["not_ready_because"] else []
    api = status["api"]
    if not api["in_touch"] and api["trouble"]:
        found.append([tag("b", "Out of touch with the Kubernetes API. "), api["trouble"]])
    return [tag("p", each, class_="warning") for each in found]


def _hero(builder: dict[str, Any], now_s: float) -> Markup:
    tone = builder["tone"]
    return tag(
        "section",
        tag(
            "div",
            tag("span", class_=f"dot fill-{tone}", aria_hidden="true"),
            tag("h1", builder["headline"]),
            tag(
                "p", "since ", _time(builder["since"], now_s), " · ", spoken(builder["for_s"]), class_="since"
            ),
            class_="state",
        ),
        tag("p", builder["why"], class_="why") if builder["why"] else None,
        tag("p", builder["next"], class_="next"),
        _steps(builder["step"]),
        class_=f"hero tone-{tone}",
    )


def _steps(now: str | None) -> Markup | None:
    """Show how far a wake has come."""
    if now is None:
        return None
    place = [name for name, _ in _STEPS].index(now)
    kinds = ["done"] * place + ["now"] + ["later"] * (len(_STEPS) - place - 1)
    steps = [
        tag(
            "li",
            words,
            tag("span", " (done)", class_="unseen") if kind == "done" else None,
            class_=kind,
            aria_current="step" if kind == "now" else None,
        )
        for kind, (_, words) in zip(kinds, _STEPS, strict=True)
    ]
    return tag("ol", steps, class_="steps", aria_label="The wake, step by step")


def _figures(status: dict[str, Any]) -> Markup:
    """Give the numbers that are asked for first."""
    day, connections, replicas = status["last_24h"], status["connections"], status["builder"]["replicas"]
    asleep_s = day["seconds"]["asleep"]
    percent = day["percent_asleep"]
    ready = [wake["took_s"] for wake in day["wakes"] if wake["result"] == "ready"]
    typical = sorted(ready)[len(ready) // 2] if ready else None
    unknown = replicas["seen"] is None
    return tag(
        "dl",
        _figure("Connections", connections["held"] + connections["joined"], _split(connections)),
        _figure(
            "Replicas",
            NONE if unknown or not replicas["seen"] else f"{replicas['ready']} of {replicas['seen']}",
            "not seen yet" if unknown else "ready" if replicas["seen"] else "asked for",
        ),
        _figure("Asleep", NONE if percent is None else f"{percent:g} %", f"{spoken(asleep_s)} {_of(status)}"),
        _figure(
            "Typical wake",
            NONE if typical is None else spoken(typical),
            f"{counted(len(ready), 'wake')} {_of(status)}",
        ),
        class_="figures",
    )


def _split(connections: dict[str, Any]) -> str:
    return f"{connections['joined']} joined, {connections['held']} held"


def _of(status: dict[str, Any]) -> str:
    """Say what stretch of time the numbers are about."""
    age_s = unix(status["now"]) - unix(status["started"])
    window_s = status["last_24h"]["window_s"]
    return "in the last 24 h" if age_s >= window_s else "since the start"


def _figure(name: str, value: object, detail: str) -> Markup:
    return tag("div", tag("dt", name), tag("dd", value), tag("dd", detail, class_="detail"))


def _legend(*entries: tuple[str, str]) -> Markup:
    return tag(
        "ul",
        [tag("li", tag("span", class_=f"key {kind}", aria_hidden="true"), words) for kind, words in entries],
        class_="legend",
    )


def _timeline(status: dict[str, Any]) -> Markup:
    window, now_s = window_of(status), unix(status["now"])
    whole = window.to_s - window.from_s >= status["last_24h"]["window_s"] - 1
    title = "Last 24 hours" if whole else f"Last {spoken(now_s - window.from_s)}"
    return tag(
        "section",
        tag("h2", title),
        timeline(status),
        _legend(
            ("fill-awake", "in use"),
            ("fill-idle", "idle"),
            ("fill-waking", "waking"),
            ("fill-asleep", "asleep"),
            ("key-wake", "a wake"),
            ("key-failed", "a wake that failed"),
            ("key-not-served", "a client not served"),
        ),
    )


def _wakes(status: dict[str, Any]) -> Markup:
    wakes = status["last_24h"]["wakes"]
    if not wakes:
        content: object = tag("p", "No wake yet.", class_="none")
    else:
        used = {kind for wake in wakes for kind in bar_kinds(wake)}
        content = [
            wake_chart(wakes),
            _legend(*((f"phase-{kind}", words) for kind, words in _WAKE_KEYS if kind in used)),
        ]
    return tag("section", tag("h2", "Wake times"), content)


def _ends(status: dict[str, Any]) -> Markup:
    """Count how connections ended."""
    connections = status["connections"]
    ended = {word: number for word, number in connections["ended"].items() if number}
    rows = [
        tag("tr", tag("th", word.replace("_", " "), scope="row"), tag("td", f"{number:,}", class_="number"))
        for word, number in sorted(ended.items(), key=lambda each: -each[1])
    ]
    moved = f"{volume(connections['bytes_up'])} up, {volume(connections['bytes_down'])} down"
    content = tag("table", tag("tbody", rows)) if rows else tag("p", "None yet.", class_="none")
    return tag(
        "section",
        tag("h2", "Ended connections"),
        content,
        tag("p", f"Relayed in all: {moved}.", class_="note"),
    )


def _connections(connections: dict[str, Any]) -> Markup:
    total = connections["held"] + connections["joined"]
    heading = tag("h2", "Connections", tag("span", f"{total:,} of at most {connections['limit']:,}"))
    if not total:
        return tag("section", heading, tag("p", "Nobody is connected.", class_="none"))
    shown = connections["list"][:MAX_ROWS]
    head = ("client", "state", "age", "waited", "up", "down")
    table = tag(
        "table",
        tag(
            "thead", tag("tr", [tag("th", each, scope="col", class_=_side(n)) for n, each in enumerate(head)])
        ),
        tag("tbody", [_row(each) for each in shown]),
    )
    more = total - len(shown)
    rest = tag("p", f"and {more:,} more, younger ones", class_="note") if more > 0 else None
    return tag("section", heading, tag("div", table, class_="connections"), rest)


def _side(column: int) -> str:
    return "number" if column > 1 else ""


def _row(each: dict[str, Any]) -> Markup:
    trouble = f"{counted(each['failed_dials'], 'failed dial')}: {each['why']}" if each["failed_dials"] else ""
    held = each["phase"] == "held"
    numbers = (
        ("age", spoken(each["age_s"])),
        ("waited", spoken(each["waited_s"])),
        ("up", volume(each["bytes_up"])),
        ("down", volume(each["bytes_down"])),
    )
    return tag(
        "tr",
        tag("td", each["peer"], tag("small", trouble) if held and trouble else None, class_="peer"),
        tag("td", tag("span", each["phase"], class_=f"badge tone-{'waking' if held else 'awake'}")),
        [tag("td", words, class_="number", data_label=label) for label, words in numbers],
    )


def _happenings(status: dict[str, Any]) -> Markup:
    now_s, happenings = unix(status["now"]), status["happenings"][:MAX_HAPPENINGS]
    items = [
        tag(
            "li",
            _time(each["at"], now_s, exact=True),
            tag(
                "span",
                each["words"],
                tag("small", f" {each['count']} times") if each["count"] > 1 else None,
                class_="bad" if each["bad"] else "",
            ),
        )
        for each in happenings
    ]
    content = tag("ol", items, class_="happenings") if items else tag("p", "Nothing yet.", class_="none")
    return tag("section", tag("h2", "What happened"), content)


def _settings(status: dict[str, Any]) -> Markup:
    rows = [
        tag("tr", tag("th", tag("code", f"--{flag}"), scope="row"), tag("td", value))
        for flag, value in status["settings"].items()
    ]
    return tag(
        "section",
        tag("details", tag("summary", "Settings in effect"), tag("table", tag("tbody", rows)), id="settings"),
    )


def _footer(status: dict[str, Any]) -> Markup:
    now_s = unix(status["now"])
    return tag(
        "footer",
        tag(
            "p",
            "bkscaler ",
            status["version"],
            ", running for ",
            spoken(now_s - unix(status["started"])),
            ". As of ",
            tag("time", clock_time(now_s, "%H:%M:%S"), data_time=int(now_s), data_seconds=True),
            " ",
            tag("span", "UTC", id="zone"),
            ".",
        ),
        tag(
            "p",
            text(
                [
                    tag("a", "/status", href="status"),
                    " (JSON) · ",
                    tag("a", "/metrics", href="metrics"),
                    " · ",
                    tag("a", "/readyz", href="readyz"),
                    " · ",
                    tag("a", "/healthz", href="healthz"),
                ]
            ),
        ),
    )
