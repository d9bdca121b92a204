"""The documentation agrees with the code. Skipped where it is not installed."""

import ast
import re
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from bkscaler.kube.rights import needed_rights
from bkscaler.model import Happening
from bkscaler.observability.outcomes import Outcome
from bkscaler.scaling.machine import MOVES, Event, State

ROOT = Path(__file__).parents[2]


class DocumentationCase(SynchronousTestCase):
    """Reads pages."""

    def page(self, name):
        """Give the text of a page, or skip the test."""
        path = ROOT / name
        if not (ROOT / "docs").is_dir():
            self.skipTest("the documentation is not installed")
        return path.read_text()


class OutcomeTests(DocumentationCase):
    """docs/connections.md."""

    def test_every_word(self):
        """The page explains every outcome, in the order of the code, and no other."""
        rows = re.findall(r"^\| `(\w+)` \| (.+) \| (.+) \|$", self.page("docs/connections.md"), re.MULTILINE)
        self.assertEqual([word for word, _, _ in rows], [outcome.value for outcome in Outcome])


class ClusterAccessTests(DocumentationCase):
    """docs/cluster-access.md."""

    def test_events(self):
        """The page explains every reason of an Event, in the order of the code, and no other."""
        rows = re.findall(r"^\| `(\w+)` \| \w+ \|", self.page("docs/cluster-access.md"), re.MULTILINE)
        self.assertEqual(rows, [what.value for what in Happening])

    def test_rights(self):
        """The page lists the rights that the code needs, and no others."""
        rows = re.findall(
            r"^\| `([a-z0-9./]+)`.*? \| ([a-z, ]+) \| (.+) \|$",
            self.page("docs/cluster-access.md"),
            re.MULTILINE,
        )
        told = [(target, v, then == "not ready") for target, verbs, then in rows for v in verbs.split(", ")]
        self.assertEqual(told, [(r.target, r.verb, r.essential) for r in needed_rights("x")])


class StateTests(DocumentationCase):
    """docs/architecture.md."""

    def test_table(self):
        """The page's table of states and events is the machine's."""
        rows = re.findall(r"^\| ([a-z ]+?) \|(.+)\|$", self.page("docs/architecture.md"), re.MULTILINE)
        table = {name: [cell.strip() for cell in cells.split("|")] for name, cells in rows}
        for state in State:
            self.assertEqual(table[state.value], [self.written(state, event) for event in Event])

    def written(self, state, event):
        """Write where an event leads, as the page does."""
        targets = MOVES[state, event]
        if not targets:
            return "-"
        if len(targets) == len(State) - 2:
            return "any but unknown, going to sleep"
        if targets == {state} and event is not Event.SLEEP_SENT:
            return "stays"
        return ", ".join(
            target.value
            for target in (
                State.WAKING,
                State.AWAKE,
                State.ASLEEP,
                State.IDLE,
                State.GOING_TO_SLEEP,
                State.MISSING,
            )
            if target in targets
        )


class LogLineTests(DocumentationCase):
    """docs/operations.md."""

    def lines(self):
        """List what the product logs on purpose; words that come from elsewhere as a whole are left out."""
        package = ROOT / "bkscaler"
        for path in package.rglob("*.py"):
            if path.relative_to(package).parts[0] not in ("test", "sandbox", "demo"):
                for node in ast.walk(ast.parse(path.read_text())):
                    if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(
                        ("log.info", "log.warn", "log.error")
                    ):
                        text = ast.literal_eval(node.args[0])
                        if re.sub(r"\{\w+\}", "", text).strip(" :"):
                            yield text

    def test_every_line(self):
        """The page explains every line of the log that is not a failure."""
        rows = re.findall(r"^\| `(.+?)` \| .+ \|$", self.page("docs/operations.md"), re.MULTILINE)
        lines = set(self.lines())
        self.assertGreater(len(lines), 15)
        self.assertEqual(lines - set(rows), set())

    def test_every_event(self):
        """The page explains every Event."""
        rows = re.findall(
            r"^\| `(\w+)` \| (?:Normal|Warning) \|", self.page("docs/operations.md"), re.MULTILINE
        )
        self.assertEqual(rows, [happening.value for happening in Happening])


class LinkTests(DocumentationCase):
    """Links between pages."""

    def test_links(self):
        """Every relative link leads to a file."""
        self.page("README.md")
        for page in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]:
            for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
                self.assertTrue((page.parent / target).exists(), f"{page.name}: {target}")
