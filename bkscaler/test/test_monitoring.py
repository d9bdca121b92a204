"""Tests of deploy/monitoring: what it uses is exported. Skipped where it is not installed."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import yaml
from twisted.trial.unittest import SynchronousTestCase

from bkscaler.config import read_settings
from bkscaler.durations import parse_duration
from bkscaler.test.observed import Played
from bkscaler.test.test_observability_metrics import families

MONITORING = Path(__file__).parents[2] / "deploy" / "monitoring"
LIVES = Path(__file__).parent / "data" / "alerts.yaml"
KNOWN_LABELS = {"namespace", "pod", "le"}
"""What the scraping adds, and what histograms have."""


class MonitoringTests(SynchronousTestCase):
    """Expressions."""

    def setUp(self):
        if not MONITORING.is_dir():
            self.skipTest("the manifests are not installed")
        played = Played()
        played.awake()
        played.end()
        played.recorder.answered("GET", 200)
        found = families(played).values()
        self.labels = {s.name: {} for family in found for s in family.samples}
        for family in found:
            for sample in family.samples:
                for key, value in sample.labels.items():
                    self.labels[sample.name].setdefault(key, set()).add(value)

    def rules(self):
        """Read the alerts."""
        return yaml.safe_load((MONITORING / "prometheusrule.yaml").read_text())["spec"]["groups"][0]["rules"]

    def panels(self):
        """Read the dashboard's panels."""
        return json.loads((MONITORING / "grafana-dashboard.json").read_text())["panels"]

    def expressions(self):
        """List every expression."""
        found = [rule["expr"] for rule in self.rules()]
        return found + [target["expr"] for panel in self.panels() for target in panel["targets"]]

    def test_names(self):
        """Every metric that an expression names is exported."""
        used = {
            name for each in self.expressions() for name in re.findall(r"\b(?:bkscaler|process)_\w+", each)
        }
        self.assertGreater(len(used), 15)
        self.assertEqual(used - self.labels.keys(), set())

    def test_label_values(self):
        """Every label that an expression chooses or sums by is its metric's, with a value that it takes."""
        for each in self.expressions():
            for name, matchers in re.findall(r"((?:bkscaler|process)_\w+)\{([^}]*)\}", each):
                for label, sign, value in re.findall(r"(\w+)(=~|!~|!=|=)\"([^\"]*)\"", matchers):
                    if label not in KNOWN_LABELS:
                        self.assertLessEqual(set(value.split("|")), self.labels[name][label], (each, sign))
            mentioned = [name for name in self.labels if name in each]
            there = KNOWN_LABELS.union(*(self.labels[name] for name in mentioned))
            for by in re.findall(r"by \(([^)]*)\)", each):
                self.assertLessEqual(set(re.split(r", *", by)), there, each)

    def test_alerts(self):
        """Each alert says how bad it is, in one line what it means, and where to look."""
        names = {rule["alert"] for rule in self.rules()}
        self.assertEqual(len(names), 6)
        for rule in self.rules():
            self.assertIn(rule["labels"]["severity"], ("warning", "critical"))
            self.assertTrue(rule["annotations"]["summary"].endswith("."))
            self.assertTrue(rule["annotations"]["description"])

    def promtool(self, files, *words):
        """Have Prometheus' own tool look at files in a directory of its own."""
        promtool = shutil.which("promtool")
        if promtool is None:
            self.skipTest("there is no promtool")
        directory = Path(self.mktemp())
        directory.mkdir(parents=True)
        for name, content in files.items():
            (directory / name).write_text(yaml.safe_dump(content))
        done = subprocess.run((promtool, *words), check=False, cwd=directory, capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_lives(self):
        """Prometheus' own tool has nothing to say against the alerts, and each fires when it should."""
        rules = yaml.safe_load((MONITORING / "prometheusrule.yaml").read_text())["spec"]
        self.promtool({"rules.yaml": rules}, "check", "rules", "--lint=all", "--lint-fatal", "rules.yaml")
        lives = yaml.safe_load(LIVES.read_text())
        self.promtool({"rules.yaml": rules, "lives.yaml": lives}, "test", "rules", "lives.yaml")

    def test_language(self):
        """Every expression of the dashboard is one that Prometheus understands."""
        expressions = [re.sub(r"\$__\w+", "1h", each) for each in self.expressions()]
        rules = [{"record": f"r:{number}", "expr": each} for number, each in enumerate(expressions)]
        groups = {"groups": [{"name": "dashboard", "rules": rules}]}
        self.promtool({"rules.yaml": groups}, "check", "rules", "rules.yaml")

    def test_waits_less_than_clients(self):
        """The alert about a long wake fires before the clients that wait by default are let go."""
        (waits,) = (rule["for"] for rule in self.rules() if rule["alert"] == "BkscalerWakeTakesLong")
        self.assertLess(parse_duration(waits), read_settings({}, {}).ready_wait_timeout_s)

    def test_dashboard(self):
        """Panels have different numbers, do not overlap, and take their data from the chosen source."""
        taken = set()
        for panel in self.panels():
            place = panel["gridPos"]
            cells = {
                (x, y)
                for x in range(place["x"], place["x"] + place["w"])
                for y in range(place["y"], place["y"] + place["h"])
            }
            self.assertFalse(cells & taken, panel["title"])
            self.assertLessEqual(place["x"] + place["w"], 24)
            taken |= cells
            self.assertEqual(panel["datasource"]["uid"], "${datasource}")
        self.assertEqual(len({panel["id"] for panel in self.panels()}), len(self.panels()))

    def test_monitors(self):
        """Both monitors read /metrics from the port named admin."""
        for name, key in (("servicemonitor", "endpoints"), ("podmonitor", "podMetricsEndpoints")):
            (endpoint,) = yaml.safe_load((MONITORING / f"{name}.yaml").read_text())["spec"][key]
            self.assertEqual((endpoint["port"], endpoint["path"]), ("admin", "/metrics"))
