"""What this process takes of its machine: memory and open files. Imported by the plugin."""

from __future__ import annotations

import gc
import resource

from twisted.logger import Logger

OTHER_DESCRIPTORS = 64
"""How many files are open beside those of connections: the API's, the log, the admin port's clients."""
log = Logger()


def settle_memory() -> None:
    """
    Spare the garbage collector what was imported, which stays, and let it look less often: a tenth of the
    time that a new connection costs went into looking at 700 new objects at a time. When it looks for the
    seventh time it looks at everything: what has become old before it was left is never cleared away
    otherwise, which let memory grow by a third in ten thousand connections.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 5, 0)


def allow_descriptors(max_connections: int) -> None:
    """
    Raise the limit of open files, as far as we may, to what so many connections need: two each when they are
    joined, and as the pipes of stalled readers may have a quarter of all, a third more than that.

    :param max_connections: see ``--max-connections``.
    """
    least = max_connections * 2 + OTHER_DESCRIPTORS
    wanted = least + max_connections * 2 // 3
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    if allowed < least:
        log.warn(
            "--max-connections {count}: so many connections have up to {least} files open, but no more than "
            "{allowed} are allowed (ulimit -Hn)",
            count=max_connections,
            least=least,
            allowed=allowed,
        )
