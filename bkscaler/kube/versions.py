"""
Comparing resourceVersions. Pure.

Kubernetes 1.35 made official what always held: the versions of one kind of object are decimal numbers that
grow. Other servers may use other texts; those cannot be compared, and are then taken as they come.
Imported by ``kube.store``, ``kube.behind`` and ``kube.watches``.
"""

from __future__ import annotations


def is_older(version: str, than: str) -> bool:
    """Tell whether a version is certainly older than another; False when they cannot be compared."""
    return _comparable(version, than) and int(version) < int(than)


def is_newer(version: str, than: str) -> bool:
    """Tell whether a version is newer than another, or cannot be compared with it and differs."""
    return int(version) > int(than) if _comparable(version, than) else version != than


def newest(version: str, other: str) -> str:
    """Choose the newer of two versions; the first when they cannot be compared."""
    return other if is_older(version, than=other) else version


def _comparable(version: str, other: str) -> bool:
    return all(each.isascii() and each.isdigit() and len(each) < 40 for each in (version, other))
