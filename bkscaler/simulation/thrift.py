"""
A process that runs many worlds and nothing else: what is the same in all of them is worked out once.

What is kept are answers of functions of libraries that depend on their arguments only, or on what is
installed: a client of one API server asks again and again for the same few URLs, each time through all of
IDNA.
"""

from __future__ import annotations

import gc
from functools import lru_cache
from typing import Any

import hyperlink._url
from hyperlink import URL
from twisted.internet.endpoints import HostnameEndpoint
from twisted.logger import ILogObserver, LogEvent, globalLogBeginner
from twisted.web import http_headers
from twisted.web.client import URI
from zope.interface import provider

from twisted import plugin

KEPT = 4096
"""How many answers of a function are kept."""

STATIC: tuple[tuple[Any, str], ...] = (
    (URL, "from_text"),
    (URI, "fromBytes"),
    (HostnameEndpoint, "_hostAsBytesAndText"),
)
ORDINARY: tuple[tuple[Any, str], ...] = (
    (hyperlink._url, "idna_encode"),
    (URL, "to_uri"),
    (URL, "to_text"),
    (http_headers, "_sanitizeLinearWhitespace"),
    (plugin, "getCache"),
)
"""Whose answers are kept: methods that need no object, and the others. What they give is never changed."""


def prepare() -> None:
    """
    Let nothing be logged but to the worlds; let nobody clear away in the middle of one. To be called before
    the first world; a process that was forked from one where it was done needs no more.
    """
    if gc.isenabled():
        globalLogBeginner.beginLoggingTo([_drop], redirectStandardIO=False, discardBuffer=True)
        _keep_answers()
        gc.disable()


def clear_away() -> None:
    """Clear away what worlds have left, in a process that goes on."""
    gc.collect()


@provider(ILogObserver)
def _drop(event: LogEvent) -> None:
    """Log nothing."""


def _keep_answers() -> None:
    """Keep those that this version of the libraries has: some names are their own business."""
    for names, wrap in ((STATIC, staticmethod), (ORDINARY, lambda function: function)):
        for owner, name in names:
            if hasattr(owner, name):
                setattr(owner, name, wrap(lru_cache(KEPT)(getattr(owner, name))))
