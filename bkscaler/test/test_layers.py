"""Who imports whom: the picture of the rooms, checked against the imports that there are."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

PACKAGE = Path(__file__).parents[1]

ROWS = """
1  errors   model   backoff   durations <- readers   timers   commandline
2  config   shutdown   observability.outcomes|lines|markup <- observability.logs
   kube.fields|versions|tls|body <- kube.behind|failures|wire|auth|kubefile <- kube.kubeconfig|execplugin
      <- kube.client <- kube.watch|statefulset|rights <- kube.pods|permissions <- kube.diagnosis
      <- kube.store <- kube.watches <- kube.cluster|events
   scaling.demand|waiters|refusals <- scaling.policy <- scaling.machine|requests|telling
      <- scaling.snapshot <- scaling.service
   relay.sockets|poller|pipes <- relay.hangups|leg <- relay.bare <- relay.stalls <- relay.pair|flow
      <- relay.splice
3  frontend.sniff|http2|refusal|dial|ending|acceptor <- frontend.calls|greeting|health
      <- frontend.conversation <- frontend.held|lateack|surroundings <- frontend.session
      <- frontend.shortcut <- frontend.listener
4  observability.wakes|words <- observability.history|metrics <- observability.recorder
      <- observability.status <- observability.drawing <- observability.page <- observability.site
   examination <- doctor
5  services   outside   resources
6  plugin
7  demo.timeline|children|clients|running <- demo.watching <- demo.stage <- demo.story <- demo.__main__
8  bench.tools|usage <- bench.peers <- bench.backend|table <- bench.field <- bench.measures <- bench.course
      <- bench.__main__
   bench.load.hold|pull <- bench.load.crowd <- bench.load.__main__
9  simulation.clock|links|lines|identity|names <- simulation.network|calls <- simulation.serving
      <- simulation.builders|process|asking <- simulation.clients|apiserver <- simulation.callers
      <- simulation.truth|world <- simulation.reasons|records|promises
      <- simulation.bounds|scalings|condemned|knowing <- simulation.dialling <- simulation.judge
10 simulation.acts|breaking <- simulation.visitors|misscaling|misserving
      <- simulation.podfaults|others|lagging
      <- simulation.apifaults <- simulation.plan <- simulation.run|thrift <- simulation.mutants|__main__
11 soak.views|errands|journal|troubles|gate|program|rests <- soak.clients|reasons
      <- soak.grpcclient|ledger|stage <- soak.crowd|judge <- soak.faults <- soak.course <- soak.report
      <- soak.__main__
   soak.builder.__main__
"""
"""
A module may import what stands in a row above it. Within a row, things three spaces apart do not know each
other; in ``a|b <- c``, c may import a and b. A name may be listed before there is such a module.
"""
APART = {"kube", "scaling", "frontend", "relay"}
"""Rooms that do not import each other; each states what it needs, and the plugin joins them."""
EXCEPT = {("frontend", "relay")}
FOR_SANDBOX = 1
"""The sandbox imports this row only, and only the demo, the simulation, the soak and tests import it."""


def places() -> dict[str, tuple[int, int, int]]:
    """Read the picture: for each module its row, its group in the row, and its rank in the group."""
    found: dict[str, tuple[int, int, int]] = {}
    text = re.sub(r"\n\s+<-", " <-", ROWS.strip())
    row = 0
    for line in text.splitlines():
        number, rest = line[:3].strip(), line[3:]
        row = int(number) if number else row
        for group in re.split(r" {3,}", rest.strip()):
            for rank, names in enumerate(group.split(" <- ")):
                room, _, modules = names.strip().rpartition(".")
                for module in modules.split("|"):
                    name = f"{room}.{module}" if room else module
                    found[name] = (row, hash(group), rank)
    return found


@cache
def modules() -> dict[str, ast.Module]:
    """Parse every module of the package but its tests and the packages' own files."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if parts[0] != "test" and parts[-1] != "__init__":
            found[".".join(parts)] = ast.parse(path.read_text("utf-8"))
    return found


def imports(tree: ast.Module, known: set[str]) -> Iterator[str]:
    """List which of our modules a module imports, wherever the statement stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            names = [module, *(f"{module}.{alias.name}" for alias in node.names)]
        else:
            continue
        for name in names:
            if name.removeprefix("bkscaler.") in known and name.startswith("bkscaler."):
                yield name.removeprefix("bkscaler.")


@cache
def import_graph() -> dict[str, set[str]]:
    """Say for each module which of ours it imports."""
    return {name: set(imports(tree, set(modules()))) for name, tree in modules().items()}


class LayersTests(SynchronousTestCase):
    """The picture of the rooms."""

    def setUp(self):
        self.graph = import_graph()
        self.places = places()

    def test_everything_is_found(self):
        """The test sees the modules and the imports that it is about."""
        self.assertIn("kube.cluster", self.graph)
        self.assertIn("errors", self.graph["kube.cluster"])
        self.assertIn("kube.pods", self.graph["kube.cluster"])
        self.assertIn("kube.client", self.graph["plugin"])

    def test_every_module_has_a_place(self):
        """Each module stands in the picture, once."""
        placed = {name for name in self.graph if not name.startswith("sandbox.")}
        self.assertEqual(placed - self.places.keys(), set())

    def test_directions(self):
        """No module imports one that stands below it, or beside it without being told so."""
        wrong = []
        for name, imported in self.graph.items():
            if name.startswith("sandbox."):
                continue
            row, group, rank = self.places[name]
            for other in imported:
                if other.startswith("sandbox."):
                    continue
                its_row, its_group, its_rank = self.places[other]
                above = its_row < row
                earlier = its_row == row and its_group == group and its_rank < rank
                if not (above or earlier):
                    wrong.append(f"{name} imports {other}")
        self.assertEqual(wrong, [])

    def test_rooms_apart(self):
        """Kubernetes, scaling, frontend and relay do not know each other; the frontend knows the relay."""
        wrong = [
            f"{name} imports {other}"
            for name, imported in self.graph.items()
            for other in imported
            if (room := name.partition(".")[0]) in APART
            and (its_room := other.partition(".")[0]) in APART
            and room != its_room
            and (room, its_room) not in EXCEPT
        ]
        self.assertEqual(wrong, [])

    def test_sandbox(self):
        """The sandbox imports the foundations only, and no part of the product knows the sandbox."""
        wrong = []
        for name, imported in self.graph.items():
            for other in imported:
                inside, target_inside = name.startswith("sandbox."), other.startswith("sandbox.")
                if inside and not target_inside and self.places[other][0] != FOR_SANDBOX:
                    wrong.append(f"{name} imports {other}")
                if target_inside and not inside and not name.startswith(("demo.", "simulation.", "soak.")):
                    wrong.append(f"{name} imports {other}")
        self.assertEqual(wrong, [])

    def test_no_circles(self):
        """No chain of imports comes back to where it began, in the sandbox neither."""
        done = set()

        def walk(name, path):
            self.assertNotIn(name, path, " -> ".join((*path, name)))
            if name not in done:
                for other in self.graph[name]:
                    walk(other, (*path, name))
                done.add(name)

        for name in self.graph:
            walk(name, ())

    def test_never_through_a_package(self):
        """A package's own file holds a docstring, and at most the version."""
        for path in PACKAGE.rglob("__init__.py"):
            for node in ast.parse(path.read_text("utf-8")).body:
                is_docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
                is_version = isinstance(node, ast.Assign) and "__version__" in ast.unparse(node)
                self.assertTrue(is_docstring or is_version, f"{path}: {ast.unparse(node)}")
