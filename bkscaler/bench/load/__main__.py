"""
``python -m bkscaler.bench.load``: one of the bench's own clients.

``hold HOST PORT COUNT`` joins connections and keeps them until it is ended; ``pull HOST PORT`` receives in
bulk until it is ended; ``crowd HOST PORT COUNT SECONDS EVERY_S`` makes small requests and prints how they
waited.
"""

from __future__ import annotations

import json
import signal
import socket
import sys
import time
from collections.abc import Sequence

from bkscaler.bench.load.crowd import Crowd, percentile
from bkscaler.bench.load.hold import LIMIT_S, join
from bkscaler.bench.load.pull import pull


def _say(text: str) -> None:
    print(text, flush=True)


def main(words: Sequence[str]) -> None:
    """Run one client."""
    what, host, port, *rest = words
    address = (host, int(port))
    if what == "hold":
        clients = join(address, int(rest[0]))
        _say(f"holding {len(clients)}")
        signal.pause()
    elif what == "pull":
        with socket.create_connection(address, LIMIT_S) as client:
            pull(client, lambda: _say("pulling"))
    else:
        crowd = Crowd(join(address, int(rest[0])), time.monotonic)
        crowd.run(float(rest[1]), float(rest[2]))
        p50_s, p99_s = (percentile(crowd.waits_s, percent) for percent in (50, 99))
        _say(json.dumps({"answered": len(crowd.waits_s), "p50_s": p50_s, "p99_s": p99_s}))


if __name__ == "__main__":
    main(sys.argv[1:])
