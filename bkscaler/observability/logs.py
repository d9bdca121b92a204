"""
What the log looks like: lines for people or JSON for machines, from some level on.

A JSON line has only the fields listed in :data:`FIELDS`, which ``docs/logs.md`` explains; so nothing gets
into the log by being attached to an event. Everything else that an event says is in its message.

A line of text is what Twisted's classic observer would write. It is put together here because that one
formats field by field in Python: a tenth of what a new connection costs went into its one line.
Imported by the plugin.
"""

from __future__ import annotations

import atexit
import json
import sys
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from typing import Any, TextIO

from twisted.logger import (
    ILogObserver,
    LogEvent,
    LogLevel,
    eventAsText,
    formatEvent,
    formatEventAsClassicLogText,
    formatTime,
)
from twisted.python.logfile import LogFile

from bkscaler.observability.lines import Lines

MAX_TEXT_CHARS = 2000
"""The longest value of one field; a traceback may be ten times as long."""
FIELDS = (
    "event",
    "peer",
    "outcome",
    "reason",
    "waited_s",
    "joined_s",
    "bytes_up",
    "bytes_down",
    "failed_dials",
    "state",
    "direction",
    "replicas",
    "error",
    "version",
)
"""Fields of the events that have a name of ours, after ``time``, ``level``, ``logger`` and ``message``."""
_SPECIAL = frozenset({"log_failure", "log_system", "log_flattened"})
"""What only Twisted's own formatting deals with."""


def as_json(event: LogEvent) -> str:
    """
    Write one event as one line of JSON, its end included.

    :param event: of :mod:`twisted.logger`.
    """
    level = event.get("log_level") or LogLevel.info
    line: dict[str, Any] = {
        "time": formatTime(event.get("log_time"), timeFormat="%Y-%m-%dT%H:%M:%S.%f%z"),
        "level": level.name,
        "logger": str(event.get("log_namespace", "")),
        "message": _message(event)[:MAX_TEXT_CHARS],
    }
    for name in FIELDS if "event" in event else ():
        if name in event:
            line[name] = _plain(event[name])
    if "log_failure" in event:
        trace = eventAsText(event, includeTimestamp=False, includeSystem=False)
        line["traceback"] = trace[: 10 * MAX_TEXT_CHARS]
    return json.dumps(line, ensure_ascii=False) + "\n"


def as_text(event: LogEvent) -> str | None:
    """
    Write one event as a line for people, its end included; further lines of it are indented.

    :param event: of :mod:`twisted.logger`.
    :returns: the same as :func:`twisted.logger.formatEventAsClassicLogText`: None for an event that says
        nothing.
    """
    level = event.get("log_level")
    if level is None or not _SPECIAL.isdisjoint(event):
        return formatEventAsClassicLogText(event)
    message = _message(event)
    if not message:
        return None
    if "\n" in message:
        message = message.replace("\n", "\n\t")
    return f"{_second(int(event['log_time']))} [{event['log_namespace']}#{level.name}] {message}\n"


def observer(log_format: str, log_level: str, out: TextIO, reactor: Any = None) -> Lines:
    """
    Make what writes the log.

    :param log_format: ``text`` or ``json``.
    :param log_level: least level that is written: debug, info, warn, error or critical.
    :param out: where to.
    :param reactor: see :class:`~bkscaler.observability.lines.Lines`.
    :returns: an :class:`~twisted.logger.ILogObserver`.
    """
    write = as_json if log_format == "json" else as_text
    least = LogLevel.lookupByName(log_level)
    return Lines(out, write, {each for each in LogLevel.iterconstants() if each >= least}, reactor)


def observer_for_twistd(
    log_format: str, log_level: str, twistd: Mapping[str, Any] | None, reactor: Any = None
) -> Lines | None:
    """
    Make what writes the log where twistd would write it.

    :param log_format: see :func:`observer`.
    :param log_level: see :func:`observer`.
    :param twistd: twistd's own options; None when it is not twistd that runs us.
    :param reactor: see :func:`observer`.
    :returns: an observer; None leaves the log to twistd, which was told to do something special with it
        (``--logger``, ``--syslog``), or is not there.
    """
    if twistd is None or twistd.get("logger") or twistd.get("syslog"):
        return None
    name = twistd.get("logfile")
    to_stdout = name == "-" or (not name and twistd.get("nodaemon"))
    out = sys.stdout if to_stdout else LogFile.fromFullPath(name or "twistd.log")
    chosen = observer(log_format, log_level, out, reactor)
    atexit.register(chosen.write)
    return chosen


def install(application: Any, chosen: Any) -> None:
    """
    Have twistd use an observer, before it begins to log. Nothing happens if there is one already, or if
    what we are part of is not twistd's application.

    :param application: what our service is put under.
    :param chosen: the observer; None leaves things as they are.
    """
    get = getattr(application, "getComponent", None)
    if chosen is not None and get is not None and get(ILogObserver, None) is None:
        application.setComponent(ILogObserver, chosen)


@lru_cache(maxsize=2)
def _second(unix_s: int) -> str:
    """Write a time to the second; lines come many to a second."""
    return formatTime(unix_s)


def _message(event: LogEvent) -> str:
    """
    Format what an event says as :func:`twisted.logger.formatEvent` does, by the interpreter's own formatting
    where that is able to: it does not know ``{calls()}``, and raises where Twisted describes the event.
    """
    if "log_flattened" not in event:
        with suppress(Exception):
            return str(event["log_format"].format_map(event))
    return formatEvent(event)


def _plain(value: object) -> object:
    """Give numbers as they are, and text no longer than is good."""
    if value is None or isinstance(value, bool | int | float):
        return value
    return str(value)[:MAX_TEXT_CHARS]
