"""
The course of a soak, in rounds: a crowd with a fault, then quiet until the builder sleeps, then a look at
what is left. After the first round bkscaler is told to end while builds run, and is started again.

Imported by ``soak.__main__``.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall

from bkscaler.demo.children import ChildEnded
from bkscaler.soak.faults import FAULTS, Field, deal
from bkscaler.soak.journal import read_metrics
from bkscaler.soak.rests import GROWTH_LIMIT_KIB, Rest, growth_kib, leaks, warmed_up
from bkscaler.soak.stage import StageFailed

LOOK_EVERY_S = 0.2
PROGRESS_EVERY_S = 15.0
QUIET_LIMIT_S = 30.0
"""How long clients may take to be gone, and the builder to be asleep, before the soak gives up."""
ENDS_S = 5.0
"""How long a bkscaler that is told to end may take when its last client has gone."""
LOG_LATE_S = 0.3
"""How long it takes until what is in the log has been read."""
LONGEST_PAUSE = 0.9
"""How long the quiet within a round is at most, as a part of the idle timeout: nobody may be sent away."""


class Course:
    """
    One soak.

    :param field: where it happens.
    :param seconds: how long it goes on, about.
    :param write: takes a line for people.
    :ivar done: what has happened, in numbers.
    :ivar rests: what each bkscaler held at each of its rests, the first one before any client.
    """

    def __init__(self, field: Field, *, seconds: float, write: Callable[[str], None]) -> None:
        self.done: Counter[str] = Counter()
        self.rests: list[list[Rest]] = []
        self._field = field
        self._seconds = seconds
        self._write = write
        self._began_s = 0.0
        self._wrote_s = -math.inf
        self._what = "it begins"
        self._faults = deal(field.chance)
        self._looking = LoopingCall(self._look)
        self._looking.clock = field.reactor
        self._pids: dict[int, str] = {}

    def __repr__(self) -> str:
        return f"<Course: {self.done['rounds']} rounds, {self._what}>"

    @property
    def elapsed_s(self) -> float:
        """Seconds since the beginning."""
        return float(self._field.reactor.seconds() - self._began_s)

    async def run(self) -> None:
        """Go through all of it. What does not hold is told to the judge; see its ``failures``."""
        field = self._field
        self._began_s = field.reactor.seconds()
        try:
            await field.stage.open()
            self._looking.start(LOOK_EVERY_S)
            await self._start()
            while self.elapsed_s < self._seconds and not field.judge.hopeless:
                await self._round()
                if self.done["rounds"] == 1:
                    await self._drain()
                    await self._start()
                    await self._asleep()
                    await self._rest()
            await self._drain()
        except (StageFailed, ChildEnded) as error:
            field.judge.fail(f"the soak cannot go on: {error}")

    async def close(self) -> None:
        """End everything. May be called at any time."""
        if self._looking.running:
            self._looking.stop()
        self._field.crowd.cease()
        self._field.crowd.leave()
        await self._field.stage.close()
        for pid, what in self._pids.items():
            if os.path.exists(f"/proc/{pid}"):
                self._field.judge.fail(f"{what} is left behind, process {pid}")

    async def _start(self) -> None:
        """Start bkscaler, and remember what it holds before the first client."""
        field = self._field
        self._what = "bkscaler starts"
        field.judge.started(field.reactor.seconds())
        await field.stage.start()
        program = field.stage.program
        assert program is not None
        program.ended().addCallback(lambda status: self._ended(program, status))
        self._pids[program.pid] = "bkscaler"
        await field.wait(0.5)
        self.rests.append([field.stage.rest()])

    def _ended(self, program: object, status: int) -> None:
        if self._field.stage.program is program:
            self._field.judge.fail(f"bkscaler has ended with status {status}")

    async def _round(self) -> None:
        """Let a crowd come, something go wrong, everybody leave; wait until the builder sleeps, and look."""
        field, chance = self._field, self._field.chance
        self.done["rounds"] += 1
        fault = next(self._faults)
        field.crowd.come(chance.randint(80, 280))
        await field.wait(0.5 + 3.0 * chance.random())
        self._what = fault
        self.done[fault] += 1
        self._progress()
        await FAULTS[fault](field)
        await field.wait(0.5 + 2.0 * chance.random())
        if chance.random() < 0.5:
            await self._quiet()
            self._what = "a pause"
            await field.wait(LONGEST_PAUSE * chance.random() * field.stage.settings.idle_timeout_s)
            field.crowd.come(chance.randint(20, 150))
            await field.wait(2.0)
        await self._quiet()
        await self._asleep()
        await self._rest()

    async def _asleep(self) -> None:
        """Wait until the builder sleeps."""
        self._what = "the builder may sleep"
        judge = self._field.judge
        await self._field.stage.until(lambda: not judge.replicas, "the builder does not sleep", QUIET_LIMIT_S)

    async def _quiet(self) -> None:
        """Let everybody leave, and wait until all of them have been told of."""
        field = self._field
        self._what = "everybody leaves"
        field.crowd.cease()
        await field.wait(2.0)
        await self._gone()

    async def _gone(self) -> None:
        """Let everybody leave, those too who are still connecting, and wait until they have gone."""
        crowd = self._field.crowd

        def nobody() -> bool:
            crowd.leave()
            return not len(crowd)

        await self._field.stage.until(nobody, "not every client is gone", QUIET_LIMIT_S)
        await self._settled()

    async def _settled(self) -> None:
        """Wait until bkscaler has told of every client; who is missing then is missing for good."""
        field = self._field
        try:
            await field.stage.until(lambda: not field.judge.ledger.open, "", 3.0)
        except StageFailed:
            field.judge.ledger.settle_all()

    async def _rest(self) -> None:
        """Look at what is left when nobody is there and the builder sleeps."""
        field = self._field
        await field.wait(LOG_LATE_S)
        field.judge.at_rest()
        field.judge.ledger.at_rest(read_metrics(await field.stage.metrics()))
        rests = self.rests[-1]
        wrong: list[str] = []

        def nothing_is_left() -> bool:
            wrong[:] = leaks(rests[0], field.stage.rest())
            return not wrong

        try:
            await field.stage.until(nothing_is_left, "", 3.0)
        except StageFailed:
            for words in wrong:
                field.judge.fail(f"at rest there are {words}")
        rests.append(field.stage.rest())

    async def _drain(self) -> None:
        """Tell bkscaler to end while builds run: it lets them finish, and exits."""
        field = self._field
        field.crowd.come(100)
        await field.wait(2.0)
        self._what = "bkscaler is told to end"
        self.done["bkscaler is told to end"] += 1
        self._progress()
        field.judge.troubles.draining_s = field.reactor.seconds()
        field.crowd.cease()
        ending: Deferred[int] = Deferred.fromCoroutine(field.stage.end())
        await field.wait(3.0)
        await self._gone()
        await field.stage.until(lambda: ending.called, "bkscaler does not end", ENDS_S)
        status = await ending
        if status:
            field.judge.fail(f"bkscaler has ended with status {status} after SIGTERM")
        field.judge.ledger.process_over()
        self._judge_growth()

    def _judge_growth(self) -> None:
        """Judge the memory of a process that has done its work."""
        growth = growth_kib(warmed_up(self.rests[-1]))
        if growth is not None and growth > GROWTH_LIMIT_KIB:
            self._field.judge.fail(f"resident memory grows: {growth:.0f} KiB from one third to the next")

    def _look(self) -> None:
        self._field.judge.look(self._field.reactor.seconds())
        for process in self._field.stage.runner.running:
            self._pids[process.pid] = "a builder"
        if self._field.reactor.seconds() > self._wrote_s + PROGRESS_EVERY_S:
            self._progress()

    def _progress(self) -> None:
        field = self._field
        self._wrote_s = field.reactor.seconds()
        resident = f", {self.rests[-1][-1].resident_kib / 1024:.1f} MiB at rest" if self.rests else ""
        self._write(
            f"{self.elapsed_s:6.0f} s  round {self.done['rounds']:3}: {len(field.crowd):4} clients of "
            f"{field.crowd.count:,}, {field.judge.wakes} wakes{resident}; {self._what}"
        )
