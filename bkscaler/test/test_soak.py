"""The judges of the soak: each thing that must hold is seen to fail, in a soak that is made up."""

from __future__ import annotations

import math
from collections import Counter
from random import Random

from twisted.logger import LogLevel
from twisted.trial.unittest import SynchronousTestCase

from bkscaler.config import read_settings
from bkscaler.frontend.ending import log_end
from bkscaler.model import Connection
from bkscaler.observability.logs import as_json
from bkscaler.observability.outcomes import Outcome
from bkscaler.soak.errands import ERRANDS, draw
from bkscaler.soak.faults import FAULTS, LARGE, deal
from bkscaler.soak.journal import read_line, read_metrics
from bkscaler.soak.judge import (
    AFTER_TROUBLE_S,
    ASLEEP_LATE_S,
    IN_FLIGHT_S,
    MAX_FAILURES,
    SERVED_LATE_S,
    TROUBLED_S,
    Judge,
)
from bkscaler.soak.report import report
from bkscaler.soak.rests import ENOUGH_RESTS, GROWTH_LIMIT_KIB, Rest, growth_kib, leaks, sockets_of, sort
from bkscaler.soak.stage import FLAGS
from bkscaler.soak.views import View

T = 1_800_000_000.0
"""When the made-up soaks begin."""
IDLE_S = 2.0


def written(at_s, message, level=LogLevel.info, **fields):
    """Write a line as bkscaler does."""
    event = {"log_format": message, "log_level": level, "log_time": at_s, "log_namespace": "bkscaler.x"}
    return as_json({**event, **fields}).rstrip()


class SoakCase(SynchronousTestCase):
    """A soak that is made up: bkscaler with an idle timeout of two seconds, clients, and their judge."""

    def setUp(self):
        self.said = []
        self.settings = read_settings(FLAGS, {})
        self.assertEqual(self.settings.idle_timeout_s, IDLE_S)
        self.judge = Judge(self.settings, self.said.append)
        self.judge.started(T - 1000)
        self.judge.troubles.over_s = -math.inf

    def client(self, came_s, number=1, **what):
        """Let a client come and speak, and tell the judge; ``served_s`` and the like as given."""
        times = {"dialled_s": came_s, "came_s": came_s, "spoke_s": came_s, **what}
        view = View(**{"name": f"{number:08}", "kind": "build", "ip": f"127.1.0.{number}", **times})
        self.judge.ledger.dialled(view)
        return view

    def lose(self, view, at_s):
        """Let nothing be left of a client's connection."""
        view.lost_s = at_s
        self.judge.client_over(view)

    def told(self, view, outcome, at_s, **numbers):
        """Let bkscaler say how a connection ended."""
        lines = []
        end = Connection(peer=f"{view.ip}:1234", joined_s=1.0, **numbers)
        log_end(lambda text, **fields: lines.append(written(at_s, text, **fields)), outcome, end)
        self.judge.heard(lines[0])

    def leave(self, view, at_s, outcome=Outcome.COMPLETED, **numbers):
        """Let a client hang up, and bkscaler tell of it."""
        view.left_s = at_s
        self.lose(view, at_s + 0.01)
        self.told(view, outcome, at_s + 0.02, **numbers)

    def scale(self, direction, at_s, takes_effect=True):
        """Let bkscaler say that it scales, and the cluster do so."""
        replicas = 1 if direction == "up" else 0
        words = {"event": "scaling", "reason": "r", "direction": direction, "replicas": replicas}
        self.judge.heard(written(at_s, "scaling", **words))
        if takes_effect:
            self.judge.scaled(1 - replicas, replicas, at_s + 0.01)

    def served(self, **what):
        """Let a client come at T, be woken for and be served, and leave at T + 10."""
        view = self.client(T, **what)
        self.scale("up", T + 0.1)
        view.served_s = T + 2
        self.leave(view, T + 10)
        return view

    def assert_failed(self, *about):
        """So many failures, each about the right thing, and each told at once."""
        self.assertEqual(len(self.judge.failures), len(about), self.judge.failures)
        for words, pattern in zip(self.judge.failures, about, strict=True):
            self.assertRegex(words, pattern)
        self.assertEqual(self.said, [f"FAILED: {words}" for words in self.judge.failures])


class SleepTests(SoakCase):
    """When the builder may be sent away, when it must be, and when it is woken."""

    def test_all_is_well(self):
        """A wake, a client and a sleep that are as they should be are no failure."""
        self.served()
        self.scale("down", T + 12.1)
        self.judge.look(T + 60)
        self.judge.at_rest()
        self.assert_failed()
        self.assertEqual((self.judge.wakes, self.judge.sleeps, self.judge.replicas), (1, 1, 0))

    def test_sent_away_while_joined(self):
        """Nobody is joined when bkscaler decides to send the builder away, nor when that takes effect."""
        self.served()
        self.client(T + 11, number=2, served_s=T + 11.1)
        self.client(T + 11, number=3, served_s=T + 11.1)
        self.scale("down", T + 12.1)
        self.assert_failed(
            r"127.1.0.2 \(and 1 more\) is joined when bkscaler decides",
            r"127.1.0.2 \(and 1 more\) was joined when the builder",
        )

    def test_sent_away_while_half_closed(self):
        """A client that has half-closed and has not got everything is still joined."""
        self.served()
        view = self.client(T + 3, number=2, served_s=T + 4, left_s=T + 5, finished=True)
        self.scale("down", T + 12.1)
        self.assert_failed("is joined", "was joined when")
        self.lose(view, T + 20)

    def test_sent_away_while_wanted(self):
        """Nobody waits for the builder when it is sent away; who has come just now does not count yet."""
        self.served()
        self.client(T + 9, number=2)
        self.client(T + 12, number=3)
        self.client(T + 9, number=4, honest=False)
        self.scale("down", T + 12.1)
        self.assert_failed("^build client 127.1.0.2 waits when bkscaler decides")

    def test_sent_away_early_by_the_log(self):
        """The idle timeout is over when the builder is sent away; a health check does not begin it anew."""
        self.served()
        view = self.client(T + 11, number=2, spoke_s=math.inf)
        self.leave(view, T + 11.1, Outcome.PROBE)
        self.scale("down", T + 11.9)
        self.assert_failed(r"after 1\.880 s without clients")

    def test_sent_away_early_by_the_client(self):
        """The idle timeout is counted from when a client has left, whatever bkscaler says of it."""
        view = self.client(T, served_s=T + 1)
        self.told(view, Outcome.CLIENT_LOST, T + 5)
        view.left_s = T + 9
        self.lose(view, T + 9)
        self.scale("down", T + 10)
        self.assert_failed("but it has not left", r"after 1\.000 s without clients")

    def test_sent_away_early_by_a_new_process(self):
        """A process that has just been started waits for the idle timeout, too."""
        self.judge.started(T)
        self.scale("down", T + 1)
        self.assert_failed(r"after 1\.000 s without clients")

    def test_still_awake(self):
        """Without clients the builder is asleep in time; that is said once."""
        self.served()
        self.judge.look(T + 10.02 + IDLE_S + ASLEEP_LATE_S)
        self.assert_failed()
        self.judge.look(T + 10.1 + IDLE_S + ASLEEP_LATE_S)
        self.judge.look(T + 100)
        self.assert_failed("is awake 7.1 s after the last client has gone")

    def test_awake_for_somebody(self):
        """With a client it stays awake, also with one of whom not everything is known."""
        self.served()
        self.client(T + 11, number=2, served_s=T + 12)
        self.judge.look(T + 100)
        self.assert_failed()

    def test_awake_in_trouble(self):
        """In trouble, and for a while after, it may fall asleep later."""
        self.served()
        self.judge.troubles.begin("x")
        self.judge.look(T + 100)
        self.judge.troubles.end("x", T + 100)
        self.judge.look(T + 99 + IDLE_S + AFTER_TROUBLE_S)
        self.assert_failed()
        self.judge.look(T + 101 + IDLE_S + AFTER_TROUBLE_S)
        self.assert_failed("is awake 18.0 s")

    def test_woken_for_nobody(self):
        """It is woken for clients, or for one that has left just now."""
        self.served()
        self.scale("down", T + 12.1)
        self.scale("up", T + 10 + IN_FLIGHT_S)
        self.assert_failed()
        self.judge.scaled(0, 1, T + 20)
        self.assert_failed(r"was woken 9\.98 s|was woken 10\.0 s")

    def test_scaled_without_a_word(self):
        """Each change of the replicas has a line in the log."""
        self.served()
        self.judge.scaled(1, 0, T + 13)
        self.judge.at_rest()
        self.assert_failed("scaled down 1 times, and the log tells of 0")


class ServedTests(SoakCase):
    """How long clients wait."""

    def test_not_served(self):
        """A client that waits is served in time; that is said once for each."""
        view = self.client(T, waits_s=T)
        self.judge.look(T + SERVED_LATE_S)
        self.assert_failed()
        self.judge.look(T + SERVED_LATE_S + 1)
        self.judge.look(T + SERVED_LATE_S + 2)
        self.assert_failed("build client 127.1.0.1 has waited for bytes for 9 s")
        view.waits_s = math.inf

    def test_stalled(self):
        """So is one that has been served and waits for more."""
        self.client(T, served_s=T + 1, waits_s=T + 5)
        self.judge.look(T + 5.1 + SERVED_LATE_S)
        self.assert_failed("has waited for bytes")

    def test_waits_for_nothing(self):
        """Who waits for nothing is not late, nor is one who has asked for nothing good."""
        self.client(T, served_s=T + 1)
        self.client(T, number=2, waits_s=T, honest=False)
        self.judge.look(T + 100)
        self.assert_failed()

    def test_in_trouble(self):
        """Trouble makes it later, for those who come soon after as well, and for nobody else."""
        self.client(T, waits_s=T)
        self.judge.troubles.begin("x")
        self.judge.look(T + 50)
        self.judge.troubles.end("x", T + 50)
        self.client(T + 51 + TROUBLED_S, number=2, waits_s=T + 51 + TROUBLED_S)
        self.judge.look(T + 50 + AFTER_TROUBLE_S)
        self.assert_failed("127.1.0.2 has waited")
        self.judge.look(T + 50.1 + AFTER_TROUBLE_S)
        self.assertIn("127.1.0.1 has waited", self.judge.failures[1])

    def test_draining(self):
        """A process that ends is not judged by these bounds."""
        self.client(T, waits_s=T)
        self.judge.troubles.draining_s = T
        self.judge.look(T + 100)
        self.assert_failed()


class LogTests(SoakCase):
    """Lines that must not be."""

    def test_bad_lines(self):
        """An error, a traceback, and what is no line of the log are failures; a warning is counted."""
        self.judge.heard(written(T, "oh", LogLevel.error))
        self.judge.heard(
            '{"time": "2026-01-01T00:00:00.0+0000", "level": "info", "message": "", "traceback": ""}'
        )
        self.judge.heard("Segmentation fault")
        self.judge.heard("[]")
        self.judge.heard(written(T, "hm", LogLevel.warn))
        self.assert_failed("in the log: .*oh", "in the log: .*traceback", "no JSON: Segm", r"no JSON: \[\]")
        self.assertEqual(self.judge.warnings, 1)

    def test_read_line(self):
        """A line of the log is read as it was meant."""
        line = read_line(written(T + 0.25, "{state} it is", event="builder_state", state="asleep"))
        self.assertEqual((line.at_s, line.level, line.event), (T + 0.25, "info", "builder_state"))
        self.assertEqual((line.words, line.fields["state"]), ("asleep it is", "asleep"))
        self.assertRaises(ValueError, read_line, '{"time": 3}')

    def test_hopeless(self):
        """After so many failures there is no use in going on."""
        for number in range(MAX_FAILURES):
            self.assertFalse(self.judge.hopeless)
            self.judge.fail(f"{number}")
        self.assertTrue(self.judge.hopeless)
        self.judge.fail("one more")
        self.assertEqual((len(self.judge.failures), self.judge.failed), (MAX_FAILURES, MAX_FAILURES + 1))


class LedgerTests(SoakCase):
    """Each connection ends once, for a reason, and is counted."""

    def metrics(self, **changed):
        """Give metrics of a bkscaler that has had one client, who was served and sent 5 bytes."""
        ended = {f'bkscaler_connections_ended_total{{outcome="{o.value}"}}': 0.0 for o in Outcome}
        ended['bkscaler_connections_ended_total{outcome="completed"}'] = 1.0
        phases = {f'bkscaler_connections{{phase="{phase}"}}': 0.0 for phase in ("held", "joined")}
        bytes_ = {f'bkscaler_relayed_bytes_total{{direction="{way}"}}': 5.0 for way in ("up", "down")}
        sums = {"bkscaler_connections_accepted_total": 1.0, "bkscaler_dial_failures_total": 0.0}
        return {**ended, **phases, **bytes_, **sums, **changed}

    def test_metrics(self):
        """Metrics that differ from the log in any number are a failure; a new process counts anew."""
        view = self.client(T, served_s=T + 1, sent=5, received=5)
        self.leave(view, T + 3, bytes_up=5, bytes_down=5)
        self.judge.ledger.at_rest(self.metrics())
        self.assert_failed()
        for series in self.metrics():
            self.judge.ledger.at_rest(self.metrics(**{series: 7.0}))
        self.judge.ledger.at_rest({})
        self.assertEqual(self.judge.failed, 2 * len(self.metrics()))
        self.judge.ledger.process_over()
        self.judge.ledger.at_rest(dict.fromkeys(self.metrics(), 0.0))
        self.assertEqual(self.judge.failed, 2 * len(self.metrics()))

    def test_read_metrics(self):
        """Prometheus' text is read to numbers by series."""
        text = '# HELP x y\nx_total 3.0\nx{a="b c"} 1e3\n'
        self.assertEqual(read_metrics(text), {"x_total": 3.0, 'x{a="b c"}': 1000.0})

    def test_told_twice(self):
        """A connection that ends twice, or of a client that has never come, is a failure."""
        view = self.client(T, served_s=T + 1, left_s=T + 2)
        self.told(view, Outcome.COMPLETED, T + 3)
        self.told(view, Outcome.COMPLETED, T + 4)
        self.told(View(name="9", kind="x", ip="127.9.9.9", dialled_s=T), Outcome.PROBE, T + 4)
        self.assert_failed("127.1.0.1:1234 has ended twice", "127.9.9.9:1234 has ended twice")

    def test_not_told(self):
        """A client of whom bkscaler does not tell is a failure, at the latest when the process has ended."""
        view = self.client(T, served_s=T + 1, left_s=T + 2)
        self.lose(view, T + 3)
        self.assert_failed()
        self.judge.ledger.process_over()
        self.assert_failed("has gone, and bkscaler has not told how it ended")
        self.assertEqual(self.judge.ledger.open, {})

    def test_not_accepted(self):
        """Who comes when bkscaler is about to end may never be accepted; who came before it has to be."""
        self.judge.troubles.draining_s = T
        for number, came_s in ((1, T - 0.5), (2, T - 2)):
            self.lose(self.client(came_s, number=number, cut_s=T), T)
        self.judge.ledger.process_over()
        self.assert_failed("127.1.0.2 has gone")

    def test_could_not_connect(self):
        """Who cannot connect is a failure, unless bkscaler is about to end."""
        for number in (1, 2):
            view = self.client(T, number=number, failed="refused")
            self.judge.client_over(view)
            self.judge.troubles.draining_s = T
        self.assert_failed("127.1.0.1 could not connect: refused")
        self.assertEqual(self.judge.ledger.clients, 0)

    def test_bytes(self):
        """What the log says was relayed is what the client has sent and got back."""
        view = self.client(T, served_s=T + 1, left_s=T + 2, finished=True, sent=5, received=5)
        self.told(view, Outcome.COMPLETED, T + 3, bytes_up=5, bytes_down=4)
        self.assert_failed("has sent 5 bytes, and bytes_down is 4")

    def test_wrong_bytes(self):
        """What a client finds wrong is a failure, whatever excuses an end."""
        self.judge.troubles.builder_dies(T)
        self.lose(self.client(T, wrong="got something else"), T + 1)
        self.assert_failed("build client 127.1.0.1: got something else")

    def test_cut(self):
        """A client that is cut while it is served is a failure, unless its builder has died."""
        self.lose(self.client(T, served_s=T + 1, cut_s=T + 2), T + 2)
        self.judge.troubles.builder_dies(T + 3)
        self.lose(self.client(T, number=2, served_s=T + 1, cut_s=T + 4), T + 4)
        self.lose(self.client(T + 6, number=3, served_s=T + 7, cut_s=T + 8), T + 8)
        self.assert_failed("127.1.0.1: it was cut", "127.1.0.3: it was cut")

    def test_incomplete(self):
        """Who has half-closed gets everything back."""
        what = {"served_s": T + 1, "left_s": T + 2, "finished": True, "sent": 9}
        self.lose(self.client(T, received=8, **what), T + 3)
        self.lose(self.client(T, number=2, received=9, **what), T + 3)
        self.assert_failed("127.1.0.1: it got 8 of 9 bytes back")

    def outcome(self, outcome, at_s=T + 5, died_s=math.inf, others=0, **what):
        """Give what is wrong with a client that ends in some way, in a soak of its own."""
        judge = Judge(self.settings, lambda words: None)
        judge.troubles.deaths_s.append(died_s)
        for number in range(others):
            judge.ledger.dialled(View(name="", kind="x", ip=f"{number}", dialled_s=T))
        self.judge = judge
        self.told(self.client(T, **what), outcome, at_s)
        return "".join(judge.failures).partition("but ")[2]

    def test_outcomes(self):
        """Each outcome needs its reason."""
        served, left = {"served_s": T + 1}, {"left_s": T + 4}
        quiet = {"spoke_s": math.inf}
        for outcome, what, wrong in (
            (Outcome.COMPLETED, {**served, **left}, ""),
            (Outcome.COMPLETED, served, "it has not left"),
            (Outcome.COMPLETED, {**served, "honest": False}, ""),
            (Outcome.CLIENT_LOST, {**served, **left}, ""),
            (Outcome.CLIENT_LOST, served, "it has not left"),
            (Outcome.BUILDER_LOST, served, "no builder has died"),
            (Outcome.PROBE, {**quiet, "left_s": T + 0.1}, ""),
            (Outcome.PROBE, {"left_s": T + 0.1}, "it has spoken"),
            (Outcome.PROBE, {"left_s": T + 0.1, "reset": True}, ""),
            (Outcome.PROBE, {**quiet, **left}, "it has stayed"),
            (Outcome.LEFT_WHILE_HELD, left, ""),
            (Outcome.LEFT_WHILE_HELD, {}, "it has not left"),
            (Outcome.LEFT_WHILE_HELD, {**served, **left}, "it was served"),
            (Outcome.CANCELLED_WHILE_HELD, {"cancelled": True}, ""),
            (Outcome.CANCELLED_WHILE_HELD, left, "it has not cancelled"),
            (Outcome.PROTOCOL_ERROR, {"honest": False}, ""),
            (Outcome.PROTOCOL_ERROR, left, "it has not misbehaved"),
            (Outcome.NOT_READY_IN_TIME, {}, "it has waited for 5.0 s only"),
            (Outcome.BUILDER_REFUSED, {}, "it has waited for 5.0 s only"),
            (Outcome.CANNOT_WAKE, {}, "nothing that is done here leads to it"),
            (Outcome.OVER_LIMIT, {}, "there were only 0 others"),
            (Outcome.SHUTTING_DOWN, {}, "the drain timeout is not over"),
            (Outcome.INTERNAL_ERROR, {}, "nothing that is done here leads to it"),
        ):
            self.assertEqual(self.outcome(outcome, **what), wrong, (outcome, what))

    def test_no_trouble_lasts_that_long(self):
        """A client that has waited for all of the timeout is a failure, too: no trouble is as long."""
        late_s = T + self.settings.ready_wait_timeout_s
        self.assertEqual(self.outcome(Outcome.NOT_READY_IN_TIME, late_s), "no trouble lasts for so long")

    def test_builder_died(self):
        """A builder that dies explains its clients' ends, in order or not."""
        for outcome in (Outcome.COMPLETED, Outcome.BUILDER_LOST):
            self.assertEqual(self.outcome(outcome, served_s=T + 1, died_s=T + 3), "")
            self.assertNotEqual(self.outcome(outcome, served_s=T + 1, died_s=T + 6), "")

    def test_drain_timeout(self):
        """After the drain timeout whoever is left is cut."""
        self.judge.troubles.draining_s = T
        view = self.client(T, served_s=T + 1)
        self.told(view, Outcome.SHUTTING_DOWN, T + self.settings.drain_timeout_s)
        self.assert_failed()

    def test_limit(self):
        """A client is turned away when there are as many as the limit allows."""
        limit = self.settings.max_connections
        self.assertEqual(self.outcome(Outcome.OVER_LIMIT, others=limit), "")
        wrong = f"there were only {limit - 1} others"
        self.assertEqual(self.outcome(Outcome.OVER_LIMIT, others=limit - 1), wrong)

    def test_limit_just_now(self):
        """Who has gone just now may still count for the limit."""
        for number in range(self.settings.max_connections):
            view = View(name="", kind="x", ip=f"{number}", dialled_s=T, left_s=T + 4)
            self.judge.ledger.dialled(view)
            self.lose(view, T + 4.5)
        self.told(self.client(T, number=7), Outcome.OVER_LIMIT, T + 5)
        self.assert_failed()


class RestTests(SynchronousTestCase):
    """What is held at rest."""

    TABLE = (
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
        "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 11 1\n"
        "   1: 0100007F:1F90 0100007F:D431 01 00000000:00000000 00:00000000 00000000     0        0 12 1\n"
        "   2: 0100007F:D432 0100007F:01BB 01 00000000:00000000 00:00000000 00000000     0        0 13 1\n"
    )

    def test_sorted(self):
        """Descriptors are told apart by what they lead to."""
        targets = ["socket:[11]", "socket:[12]", "socket:[13]", "socket:[14]", "pipe:[1]", "pipe:[1]"]
        targets += ["anon_inode:[eventpoll]", "/dev/null"]
        found = sort(targets, sockets_of(self.TABLE), {8080: "of clients", 443: "to the API"})
        expected = {"listening": 1, "of clients": 1, "to the API": 1, "another socket": 1, "pipe": 2}
        self.assertEqual(found, Counter({**expected, "anon_inode:[eventpoll]": 1, "file": 1}))

    def rest(self, kib=0, children=0, **descriptors):
        """Make a rest; an underscore stands for a blank."""
        counted = Counter({name.replace("_", " "): count for name, count in descriptors.items()})
        return Rest(resident_kib=kib, descriptors=counted, children=children)

    def test_leaks(self):
        """Whatever is more or less than at first is a leak; pipes and the API's connections may be kept."""
        first = self.rest(file=3, pipe=2, to_the_API=2)
        for now, wrong in (
            (self.rest(file=3, pipe=2, to_the_API=2), []),
            (self.rest(file=3, pipe=18, to_the_API=5), []),
            (self.rest(file=3, pipe=20, to_the_API=2), ["20 descriptors pipe, and 2 at first"]),
            (self.rest(file=3, pipe=2, to_the_API=6), ["6 descriptors to the API, and 2 at first"]),
            (self.rest(file=4, pipe=2), ["4 descriptors file, and 3 at first"]),
            (self.rest(file=2, pipe=2), ["2 descriptors file, and 3 at first"]),
            (self.rest(file=3, pipe=2, of_clients=1), ["1 descriptors of clients, and 0 at first"]),
            (self.rest(file=3, pipe=2, children=1), ["1 child processes"]),
        ):
            self.assertEqual(leaks(first, now), wrong)

    def test_growth(self):
        """Growth is that from the second third to the last, in the median; single peaks do not matter."""
        sizes = [900, 100, 100, 100, 100, 9000, 110, 110, 100]
        self.assertEqual(growth_kib([self.rest(size) for size in sizes]), 10)
        leaking = [self.rest(50_000 + number * GROWTH_LIMIT_KIB) for number in range(ENOUGH_RESTS)]
        self.assertGreater(growth_kib(leaking), GROWTH_LIMIT_KIB)
        self.assertIsNone(growth_kib(leaking[1:]))


class PlanTests(SynchronousTestCase):
    """What chance decides."""

    def test_same_again(self):
        """The same seed gives the same clients, and every kind of them."""
        one, other = Random("7"), Random("7")
        drawn = [draw(one) for _ in range(2000)]
        self.assertEqual(drawn, [draw(other) for _ in range(2000)])
        self.assertEqual(len({errand.kind for errand in drawn}), len(ERRANDS))

    def test_faults(self):
        """Each fault happens once before one happens again; the largest ones are second and third."""
        faults = deal(Random("7"))
        first = [next(faults) for _ in FAULTS]
        self.assertEqual(sorted(first), sorted(FAULTS))
        self.assertEqual(first[1:3], LARGE)
        self.assertEqual(sorted(next(faults) for _ in FAULTS), sorted(FAULTS))


class ReportTests(SoakCase):
    """What is said in the end."""

    def test_lines(self):
        """The last line counts; each failure has a line before it."""
        self.judge.fail("one thing")
        lines = report(_CourseThatIsOver(), self.judge, 5.0)
        self.assertEqual(lines[-2:], ["FAILED: one thing", "soaked 5.0 minutes, 0 connections, 1 failures"])
        self.assertTrue(any("resident MiB: first 1.0, last 2.0, most 3.0" in line for line in lines), lines)


class _CourseThatIsOver:
    """What the report reads of a course."""

    done = Counter({"rounds": 3})
    rests = ([Rest(resident_kib=size * 1024, descriptors=Counter(file=3)) for size in (1, 3, 2)],)
