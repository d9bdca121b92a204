"""
Who has come, and what has become of them: by the clients, by bkscaler's log, and by its metrics.

The three must agree: one line for each client, with a reason; the same numbers in all of them. Told by
``soak.judge``; does no I/O.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping

from bkscaler.config import Settings
from bkscaler.observability.outcomes import Outcome
from bkscaler.soak.journal import Line
from bkscaler.soak.reasons import Ended, unexplained_end, unexplained_outcome
from bkscaler.soak.troubles import Troubles
from bkscaler.soak.views import NOTICED_S, View


class Ledger:
    """
    The accounts of a soak.

    :param settings: bkscaler's.
    :param troubles: what excuses an end.
    :param fail: told in words what does not hold.
    :ivar open: clients that have dialled and of whom not everything is known yet, by address.
    :ivar outcomes: how connections have ended, of all processes.
    :ivar kinds: how many clients of each kind have connected.
    :ivar clients: how many have connected.
    """

    def __init__(self, settings: Settings, troubles: Troubles, fail: Callable[[str], None]) -> None:
        self.open: dict[str, View] = {}
        self.outcomes: Counter[str] = Counter()
        self.kinds: Counter[str] = Counter()
        self._settings = settings
        self._troubles = troubles
        self._fail = fail
        self._lost_s: deque[float] = deque(maxlen=settings.max_connections)
        self._told: dict[str, Outcome] = {}
        self._numbers: Counter[str] = Counter()

    def __repr__(self) -> str:
        return f"<Ledger: {len(self.open)} open, {self.clients} have come>"

    @property
    def clients(self) -> int:
        """How many connections there have been."""
        return self.kinds.total()

    @property
    def present(self) -> list[View]:
        """The clients whose connections are there, or are being made."""
        return [view for view in self.open.values() if not view.over]

    @property
    def unsettled(self) -> int:
        """How many clients have gone of whom bkscaler has not told yet, or the other way round."""
        return len(self.open) - len(self.present)

    def dialled(self, view: View) -> None:
        """Take note of a client, in the moment in which it dials."""
        self.open[view.ip] = view

    def over(self, view: View) -> None:
        """Judge the end of a connection, or of the attempt, as its client sees it."""
        if view.failed:
            del self.open[view.ip]
            if not self._troubles.never_accepted(view.dialled_s):
                self._fail(f"{view} could not connect: {view.failed}")
            return
        self.kinds[view.kind] += 1
        self._lost_s.append(view.lost_s)
        wrong = unexplained_end(view, self._troubles)
        if wrong:
            self._fail(f"{view}: {wrong}")
        if view.ip in self._told:
            self._settle(view)

    def ended(self, line: Line) -> None:
        """Judge a line of the log that says how a connection ended."""
        fields, outcome = line.fields, Outcome(line.fields["outcome"])
        self.outcomes[outcome.value] += 1
        self._numbers[outcome.value] += 1
        for name in ("bytes_up", "bytes_down", "failed_dials"):
            self._numbers[name] += fields[name]
        ip = fields["peer"].rpartition(":")[0]
        view = self.open.get(ip)
        if view is None or ip in self._told:
            self._fail(f"{fields['peer']} has ended twice, or has never come: {outcome.value}")
            return
        self._told[ip] = outcome
        ended = Ended(view=view, outcome=outcome, at_s=line.at_s, others=self._others(outcome, line.at_s))
        wrong = unexplained_outcome(ended, self._troubles, self._settings)
        if wrong:
            self._fail(f"{view} ended as {outcome.value}, but {wrong}")
        if outcome is Outcome.COMPLETED and view.finished and view.received == view.sent and view.honest:
            self._compare(view, fields)
        if view.over:
            self._settle(view)

    def at_rest(self, metrics: Mapping[str, float]) -> None:
        """Compare bkscaler's metrics with its log, when every client has gone and has been told of."""
        ours = {
            f'bkscaler_connections_ended_total{{outcome="{o.value}"}}': self._numbers[o.value]
            for o in Outcome
        }
        ours["bkscaler_connections_accepted_total"] = sum(self._numbers[o.value] for o in Outcome)
        ours['bkscaler_relayed_bytes_total{direction="up"}'] = self._numbers["bytes_up"]
        ours['bkscaler_relayed_bytes_total{direction="down"}'] = self._numbers["bytes_down"]
        ours["bkscaler_dial_failures_total"] = self._numbers["failed_dials"]
        for phase in ("held", "joined"):
            ours[f'bkscaler_connections{{phase="{phase}"}}'] = 0
        for series, number in ours.items():
            if metrics.get(series) != number:
                self._fail(f"{series} is {metrics.get(series)}, and by the log it should be {number}")

    def process_over(self) -> None:
        """A process has ended: it has told of every client it had. The next one counts anew."""
        self.settle_all()
        self._numbers.clear()

    def settle_all(self) -> None:
        """Judge those who have gone and of whom nothing was told; to be called when that had time to be."""
        for view in list(self.open.values()):
            if view.over:
                if not self._troubles.never_accepted(view.came_s):
                    self._fail(f"{view} has gone, and bkscaler has not told how it ended")
                self._settle(view)

    def _others(self, outcome: Outcome, at_s: float) -> int:
        """Count who else was there, where that matters; bkscaler may know of an end later than the client."""
        if outcome is not Outcome.OVER_LIMIT:
            return 0
        just_gone = sum(lost_s > at_s - NOTICED_S for lost_s in self._lost_s)
        return len(self.present) + just_gone - 1

    def _settle(self, view: View) -> None:
        del self.open[view.ip]
        self._told.pop(view.ip, None)

    def _compare(self, view: View, fields: Mapping[str, int]) -> None:
        """What is relayed of a client that has got everything back is what it has sent."""
        for name in ("bytes_up", "bytes_down"):
            if fields[name] != view.sent:
                self._fail(f"{view} has sent {view.sent} bytes, and {name} is {fields[name]}")
