"""Tests of metrics: every number adds up, names follow the rules, and the documentation tells the same."""

from __future__ import annotations

import re
from pathlib import Path

from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families
from twisted.trial.unittest import SynchronousTestCase

from bkscaler.errors import ApiStatus, ApiUnreachable, Conflict
from bkscaler.model import Connection
from bkscaler.observability.outcomes import Outcome
from bkscaler.scaling.machine import State
from bkscaler.test.observed import DOWN, NOON_UNIX_S, UP, Played
from bkscaler.test.proxy import make_proxy

DOCS = Path(__file__).parents[2] / "docs"
UNITS = ("_seconds", "_bytes", "_info", "_fds")


def families(played):
    """Scrape, and read it back with the library's own parser."""
    played.recorder.settle()
    text = generate_latest(played.metrics.registry).decode()
    return {family.name: family for family in text_string_to_metric_families(text)}


def samples(played):
    """Scrape; give each sample's value by its name and labels, in the order of the labels' names."""
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in families(played).values()
        for sample in family.samples
    }


class ConnectionTests(SynchronousTestCase):
    """A proxy with a hundred clients of all kinds."""

    def setUp(self):
        self.played = Played()
        self.factory, self.proxy = make_proxy(reports=self.played.recorder, max_connections=90)
        self.played.connections = self.factory.connections

    def mixed(self):
        """Have clients that are probes, that leave, that are served, that are refused, and that stay."""
        proxy = self.proxy
        clients = [proxy.client() for _ in range(100)]  # ten over the limit
        for client in clients[:20]:
            client.hang_up()
        proxy.settle()
        for client in clients[20:90]:
            client.send(b"hello")
        proxy.settle()
        for client in clients[20:30]:
            client.reset()
        proxy.settle()
        proxy.refuse = True
        proxy.capacity.ready()
        proxy.settle()
        proxy.refuse = False
        proxy.after(1)
        for client, builder in list(zip(clients[30:90], proxy.builders, strict=True))[:50]:
            builder.send(b"answer!")
            proxy.settle()
            client.hang_up()
            builder.hang_up()
        proxy.settle()

    def test_adds_up(self):
        """Accepted is ended and present; bytes, holds and failed dials are those of all clients."""
        before = samples(self.played)
        self.mixed()
        now = samples(self.played)
        ended = {key[1]: n for key, n in now.items() if key[0] == "bkscaler_connections_ended_total" and n}
        left = {"probe": 20, "left_while_held": 10, "over_limit": 10, "completed": 50}
        self.assertEqual(ended, left)
        present = now["bkscaler_connections", "held"] + now["bkscaler_connections", "joined"]
        self.assertEqual(present, 10)
        accepted = (
            now["bkscaler_connections_accepted_total",] - before["bkscaler_connections_accepted_total",]
        )
        self.assertEqual(accepted, sum(ended.values()) + present)
        self.assertEqual(now["bkscaler_relayed_bytes_total", "up"], 60 * 5)
        self.assertEqual(now["bkscaler_relayed_bytes_total", "down"], 50 * 7)
        self.assertEqual(now["bkscaler_dial_failures_total",], 60)
        self.assertEqual(now["bkscaler_connection_hold_seconds_count", "joined"], 60)
        self.assertEqual(now["bkscaler_connection_hold_seconds_count", "not_joined"], 10)
        self.factory.cut_all()
        self.proxy.settle()
        after = samples(self.played)
        self.assertEqual(after["bkscaler_relayed_bytes_total", "up"], 60 * 5)
        self.assertEqual(after["bkscaler_connections_ended_total", "shutting_down"], 10)


class BuilderTests(SynchronousTestCase):
    """What is told of the builder, its wakes, and the API."""

    def test_life(self):
        """After a wake, a build and a sleep every number is what happened."""
        played = Played()
        played.asleep()
        played.clock.advance(100)
        played.one_build(60.0, patch_s=0.5, node_s=1.0, start_s=4.0, ready_s=2.5)
        played.clock.advance(20)
        now = samples(played)
        self.assertEqual(now["bkscaler_builder_state", "asleep"], 1)
        self.assertEqual(now["bkscaler_builder_state_seconds_total", "waking"], 8)
        self.assertEqual(now["bkscaler_builder_state_seconds_total", "idle"], 120)
        self.assertEqual(now["bkscaler_builder_state_seconds_total", "asleep"], 120)
        self.assertEqual(now["bkscaler_wakes_total", "ready"], 1)
        self.assertEqual((now["bkscaler_wake_seconds_sum",], now["bkscaler_wake_seconds_count",]), (8, 1))
        self.assertEqual(now["bkscaler_wake_phase_seconds_sum", "started"], 4)
        self.assertEqual(now["bkscaler_scale_requests_total", "up", "ok"], 1)
        self.assertEqual(now["bkscaler_scale_requests_total", "down", "ok"], 1)
        self.assertEqual(now["bkscaler_relayed_bytes_total", "up"], 48_000_000)

    def test_deadline(self):
        """The idle deadline is a date, and there is no series when there is none."""
        played = Played()
        played.asleep()
        self.assertNotIn(("bkscaler_idle_deadline_timestamp_seconds",), samples(played))
        played.awake()
        played.clock.advance(50)
        played.end()
        self.assertEqual(samples(played)["bkscaler_idle_deadline_timestamp_seconds",], NOON_UNIX_S + 170)

    def test_scale_results(self):
        """Each way in which a scale request can fail has one word."""
        played = Played()
        for error in (Conflict(409, "Conflict", ""), ApiStatus(403, "", ""), ApiStatus(500, "", "")):
            played.recorder.scaled(UP, error)
        played.recorder.scaled(DOWN, ApiUnreachable("cut", sent=True))
        now = samples(played)
        counts = {key[1:]: n for key, n in now.items() if key[0] == "bkscaler_scale_requests_total" and n}
        self.assertEqual(
            counts, {("up", "conflict"): 1, ("up", "refused"): 1, ("up", "failed"): 1, ("down", "failed"): 1}
        )

    def test_api(self):
        """Requests are counted by verb and status, restarts of watches by reason."""
        played = Played()
        played.recorder.answered("GET", 200)
        played.recorder.answered("PATCH", 0)
        played.recorder.restarted("unreachable")
        played.in_touch = False
        now = samples(played)
        self.assertEqual(now["bkscaler_api_requests_total", "200", "GET"], 1)
        self.assertEqual(now["bkscaler_api_requests_total", "none", "PATCH"], 1)
        self.assertEqual(now["bkscaler_watch_restarts_total", "unreachable"], 1)
        self.assertEqual(now["bkscaler_api_in_touch",], 0)

    def test_harmless(self):
        """What fails in reporting is logged, and the work never hears of it."""
        played = Played()
        played.recorder.scaled(None, None)
        played.recorder.ended(None, Connection(peer="x"))
        self.assertEqual(len(self.flushLoggedErrors()), 2)


class ExpositionTests(SynchronousTestCase):
    """What a scraper reads."""

    def setUp(self):
        self.played = Played()
        self.played.asleep()
        self.played.recorder.answered("GET", 200)

    def test_rules(self):
        """Names, units and helps follow Prometheus' rules, and no label takes many values."""
        for name, family in families(self.played).items():
            self.assertTrue(family.documentation.endswith(".") or name.startswith("process_"), name)
            self.assertRegex(name, r"^(bkscaler|process)_[a-z_]+$")
            for sample in family.samples:
                if family.type == "counter":
                    self.assertTrue(sample.name.endswith("_total"), sample.name)
                self.assertFalse(sample.name.endswith("_created"), sample.name)
                labels = set(sample.labels) - {"le"}
                self.assertLessEqual(len(labels), 2, sample)
            if family.type in ("gauge", "histogram"):
                self.assertFalse(name.endswith("_total"), name)
            self.assertLessEqual(len(family.samples), 80, name)

    def test_openmetrics(self):
        """OpenMetrics' own strict parser reads it as well."""
        text = openmetrics.generate_latest(self.played.metrics.registry).decode()
        self.assertIn("bkscaler_wakes", {family.name for family in parse_openmetrics(text)})

    def test_there_from_the_start(self):
        """Every outcome and every state has its series before anything has happened."""
        now = samples(Played())
        self.assertEqual({now["bkscaler_connections_ended_total", each.value] for each in Outcome}, {0})
        self.assertEqual(
            sum(now["bkscaler_builder_state", each.value.replace(" ", "_")] for each in State), 1
        )

    def test_documented(self):
        """docs/metrics.md has exactly what is exported, with its type and labels."""
        if not DOCS.is_dir():
            self.skipTest("the documentation is not installed")
        rows = re.findall(r"^\| `(\w+)` \| (\w+) \|(.*?)\| .+ \|$", (DOCS / "metrics.md").read_text(), re.M)
        documented = {name: (kind, set(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}
        for name, family in families(self.played).items():
            shown = f"{name}_total" if family.type == "counter" else name
            kind, words = documented.pop(shown)
            used = {key for sample in family.samples for key in sample.labels} - {"le"}
            self.assertEqual(kind, family.type, shown)
            self.assertLessEqual(used, words, shown)
        self.assertEqual(documented, {})
