"""
What is measured, one function for each load: it puts the load on one way to the server and gives its values.

CPU time is what the proxy's processes have used between the beginning and the end of the load. Imported by
``bench.course``.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from twisted.internet.task import deferLater
from twisted.internet.utils import getProcessOutputAndValue

from bkscaler.bench import backend, peers, tools
from bkscaler.bench.field import Spot
from bkscaler.bench.table import Row
from bkscaler.bench.tools import Tool, Toolbox
from bkscaler.demo.children import Child
from bkscaler.demo.stage import inherited
from bkscaler.errors import BkscalerError

GIB = 1 << 30
KEPT_CONNECTIONS = 16
"""On how many connections the small requests are made, by one thread, each as soon as it can."""
BULK_TRIES, BULK_TRY_AGAIN_S = 3, 0.5
"""iperf3's server takes one stream at a time, and cleans up a while after it has told the client the end."""
PACE_S = 0.002
"""Seconds between two small requests of the crowd."""
WRK_SCRIPT = """\
done = function(summary, latency, requests)
  local e = summary.errors
  local errors = e.connect + e.read + e.write + e.status + e.timeout
  io.write(string.format('{"requests": %d, "errors": %d, "p50_us": %.1f, "p99_us": %.1f}\\n',
    summary.requests, errors, latency:percentile(50), latency:percentile(99)))
end
"""
_LOAD = (sys.executable, "-m", "bkscaler.bench.load")
Values = Mapping[str, float]


class LoadFailed(BkscalerError):
    """A load did not come through. Give up on the value, and show what the tool said."""


@dataclass(frozen=True, kw_only=True)
class Amounts:
    """
    How much load there is.

    :param seconds: how long each load lasts, whole ones as iperf3 and wrk take them.
    :param crowd: how many connections there are beside a bulk transfer, itself included.
    :param held: how many idle connections memory is measured with, ascending.
    """

    seconds: int
    crowd: int
    held: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Load:
    """
    Where a load runs.

    :param box: what this machine has.
    :param amounts: how much.
    :param wrk_script: path of a file that holds :data:`WRK_SCRIPT`.
    :param reactor: runs programs.
    """

    box: Toolbox
    amounts: Amounts
    wrk_script: str
    reactor: Any

    async def run(self, *words: str) -> str:
        """
        Run a program to its end.

        :returns: its standard output.
        :raises LoadFailed: when it failed.
        """
        out, err, status = await getProcessOutputAndValue(
            words[0], words[1:], env=inherited(os.environ), reactor=self.reactor
        )
        if status:
            raise LoadFailed(f"{' '.join(words)}: status {status}: {(out + err).decode()[-500:]}")
        return str(out.decode())

    def keep(self, *words: str) -> Child:
        """Start a client of our own that goes on until it is ended."""
        return Child.spawn(" ".join(words), (*_LOAD, *words), inherited(os.environ), self.reactor)


def read_iperf3(output: str) -> tuple[int, float]:
    """
    Read what ``iperf3 --json`` prints.

    :returns: how many bytes the server has received, and how fast, GiB/s.
    :raises LoadFailed: when it reports an error.
    """
    report = json.loads(output)
    if "error" in report:
        raise LoadFailed(f"iperf3: {report['error']}")
    received = report["end"]["sum_received"]
    return int(received["bytes"]), float(received["bits_per_second"]) / 8 / GIB


def read_wrk(output: str) -> dict[str, float]:
    """
    Read the line that :data:`WRK_SCRIPT` prints.

    :raises LoadFailed: when it is missing, or tells of errors, or of nothing done.
    """
    found = re.search(r"^\{.*\}$", output, re.MULTILINE)
    if found is None:
        raise LoadFailed(f"wrk said {output[-500:]!r}")
    values: dict[str, float] = json.loads(found[0])
    if values["errors"] or not values["requests"]:
        raise LoadFailed(f"wrk: {values['errors']} errors in {values['requests']} requests")
    return values


async def bulk(load: Load, spot: Spot) -> Values:
    """Send one stream, from client to server; again when the server was not done with the stream before."""
    for _ in range(BULK_TRIES - 1):
        try:
            return await _bulk_once(load, spot)
        except LoadFailed:
            await deferLater(load.reactor, BULK_TRY_AGAIN_S)
    return await _bulk_once(load, spot)


async def _bulk_once(load: Load, spot: Spot) -> Values:
    before_s = spot.usage.cpu_s() if spot.usage else 0.0
    words = (load.box.path(tools.IPERF3), "--client", spot.host, "--port", str(spot.port))
    output = await load.run(*words, "--time", str(load.amounts.seconds), "--json")
    count, rate = read_iperf3(output)
    values = {"bulk rate": rate}
    if spot.usage:
        values["bulk cpu"] = (spot.usage.cpu_s() - before_s) / (count / GIB)
    return values


async def _wrk(load: Load, spot: Spot, *flags: str) -> tuple[dict[str, float], float]:
    """Make requests; give what wrk says, and the CPU time of the proxy for each request in microseconds."""
    before_s = spot.usage.cpu_s() if spot.usage else 0.0
    words = [load.box.path(tools.WRK), "--threads", "1", "--connections", str(KEPT_CONNECTIONS)]
    words += ["--duration", f"{load.amounts.seconds}s", "--latency", "--script", load.wrk_script]
    output = await load.run(*words, *flags, f"http://{spot.host}:{spot.port}/")
    said = read_wrk(output)
    used_s = spot.usage.cpu_s() - before_s if spot.usage else 0.0
    return said, used_s * 1e6 / said["requests"]


async def kept(load: Load, spot: Spot) -> Values:
    """Make small requests on kept connections."""
    said, cpu_us = await _wrk(load, spot)
    values = {"kept p50": said["p50_us"], "kept p99": said["p99_us"]}
    return {**values, "kept cpu": cpu_us} if spot.usage else values


async def fresh(load: Load, spot: Spot) -> Values:
    """Make each small request on a connection of its own; another one stays, so that there is always one."""
    staying = load.keep("hold", spot.host, str(spot.port), "1")
    try:
        await staying.said("holding")
        said, cpu_us = await _wrk(load, spot, "--header", "Connection: close")
    finally:
        await staying.end()
    values = {"fresh p50": said["p50_us"]}
    return {**values, "fresh cpu": cpu_us} if spot.usage else values


async def crowd(load: Load, spot: Spot) -> Values:
    """Make small requests on many connections, beside a bulk transfer that takes all it can get."""
    amounts = load.amounts
    place = (spot.host, str(spot.port))
    pulling = load.keep("pull", *place)
    try:
        await pulling.said("pulling")
        seconds = (str(amounts.seconds), str(PACE_S))
        said = json.loads(await load.run(*_LOAD, "crowd", *place, str(amounts.crowd - 1), *seconds))
    finally:
        await pulling.end()
    return {"crowd p50": said["p50_s"] * 1e3, "crowd p99": said["p99_s"] * 1e3}


async def memory(load: Load, spot: Spot) -> Values:
    """Hold joined connections, more and more, that are idle; the proxy has served nobody yet."""
    if spot.usage is None:
        return {}
    counts = (0, *load.amounts.held)
    resident_kib = {0: spot.usage.resident_kib()}
    holding: list[Child] = []
    try:
        for fewer, count in pairwise(counts):
            child = load.keep("hold", spot.host, str(spot.port), str(count - fewer))
            holding.append(child)
            await child.said("holding")
            resident_kib[count] = spot.usage.resident_kib()
    finally:
        for child in holding:
            await child.end()
    values = {f"resident {count}": kib / 1024 for count, kib in resident_kib.items()}
    most = counts[-1]
    return {**values, "idle": (resident_kib[most] - resident_kib[0]) / most}


@dataclass(frozen=True, kw_only=True)
class Measure:
    """
    One load and where it is put.

    :param name: for ``--only``.
    :param kind: the server that it needs.
    :param needs: what else it needs of this machine.
    :param put: puts it on one way to the server.
    :param peers: those beside bkscaler that it is put on.
    :param unused: whether it needs proxies that have served nobody.
    """

    name: str
    kind: str
    needs: tuple[Tool, ...] = ()
    put: Callable[[Load, Spot], Awaitable[Values]]
    peers: Sequence[str]
    unused: bool = False


_ALL = (*(peer.name for peer in peers.PEERS), peers.DIRECT)
_MANY = ("haproxy", "nginx", peers.DIRECT)
MEASURES = (
    Measure(name="bulk", kind=backend.IPERF3, put=bulk, peers=_ALL),
    Measure(name="kept", kind=backend.HTTP, needs=(tools.WRK,), put=kept, peers=_ALL),
    Measure(name="fresh", kind=backend.HTTP, needs=(tools.WRK,), put=fresh, peers=_ALL),
    Measure(name="crowd", kind=backend.HTTP, put=crowd, peers=_MANY),
    Measure(name="memory", kind=backend.ECHO, put=memory, peers=_MANY[:2], unused=True),
)


_ASKED_MIB: dict[int, dict[str, float]] = {1000: {"floor": 64}, 3000: {"aim": 64}}
"""What is asked of the resident memory with so many idle connections."""


def _resident(count: int) -> Row:
    asked = _ASKED_MIB.get(count, {})
    title = f"resident, {count} idle connections, MiB"
    return Row(key=f"resident {count}", title=title, floor=asked.get("floor"), aim=asked.get("aim"))


def rows(amounts: Amounts) -> list[Row]:
    """List what the table shows, with what is asked of bkscaler."""
    return [
        Row(
            key="bulk rate",
            title="one stream, GiB/s",
            reference="haproxy",
            floor=0.9,
            aim=1.0,
            more_is_better=True,
        ),
        Row(key="bulk cpu", title="one stream, CPU s per GiB", reference="haproxy", floor=1.25, aim=1.0),
        Row(key="kept cpu", title="small request, CPU µs", reference="nginx", floor=1.3, aim=1.0),
        Row(key="kept p50", title="small request, p50 µs"),
        Row(key="kept p99", title="small request, p99 µs"),
        Row(key="fresh cpu", title="new connection, CPU µs", reference="nginx", floor=2.5, aim=1.5),
        Row(key="fresh p50", title="new connection and request, p50 µs"),
        Row(key="crowd p50", title=f"{amounts.crowd} connections, one bulk: p50 ms"),
        Row(key="crowd p99", title=f"{amounts.crowd} connections, one bulk: p99 ms", floor=5, aim=2),
        *(_resident(count) for count in (0, *amounts.held)),
        Row(key="idle", title="idle joined connection, KiB", floor=6, aim=3),
    ]
