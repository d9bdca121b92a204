"""House rules that a machine can check: time and chance come from outside, sizes, docstrings, errors."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from bkscaler import errors

PACKAGE = Path(__file__).parents[1]
MAY_TOUCH_THE_WORLD = {"plugin.py", "demo.py", "__main__.py"}
MAX_MODULE_LINES, MAX_FUNCTION_LINES = 400, 50
Function = ast.FunctionDef | ast.AsyncFunctionDef


@cache
def sources(*, tests: bool) -> tuple[tuple[str, str, ast.Module], ...]:
    """Give name, text and syntax tree of each module of the product, or of the tests."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        name = str(path.relative_to(PACKAGE))
        if name.startswith("test/") == tests:
            text = path.read_text("utf-8")
            found.append((name, text, ast.parse(text)))
    return tuple(found)


def public(tree: ast.Module) -> Iterator[tuple[str, ast.ClassDef | Function]]:
    """List the public classes and functions of a module, and the public methods of those classes."""
    for node in tree.body:
        if not isinstance(node, ast.ClassDef | Function) or node.name.startswith("_"):
            continue
        yield node.name, node
        if isinstance(node, ast.ClassDef):
            for inner in node.body:
                if isinstance(inner, Function) and not inner.name.startswith("_"):
                    yield f"{node.name}.{inner.name}", inner


class WorldTests(SynchronousTestCase):
    """Time and chance come in from outside."""

    def test_no_clock_or_reactor_of_our_own(self):
        """Only the composition roots import time or the global reactor, ask for the date, or draw lots."""
        wrong = []
        for name, _, tree in sources(tests=False):
            if Path(name).name not in MAY_TOUCH_THE_WORLD:
                wrong += [f"{name}:{node.lineno}" for node in ast.walk(tree) if self.touches(node)]
        self.assertEqual(wrong, [])

    def touches(self, node: ast.AST) -> bool:
        """Tell whether a piece of code reaches for the clock, for chance, or for the global reactor."""
        if isinstance(node, ast.Import):
            return any(a.name in ("time", "twisted.internet.reactor") for a in node.names)
        if isinstance(node, ast.ImportFrom):
            named = {f"{node.module}.{alias.name}" for alias in node.names}
            forbidden = {"twisted.internet.reactor", "random.random", "random.SystemRandom"}
            return bool(named & forbidden) or node.module in ("time", "twisted.internet.reactor")
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            called = ast.unparse(node.func)
            return called in ("datetime.now", "datetime.utcnow", "datetime.datetime.now", "random.random")
        return False

    def test_it_would_notice(self):
        """The check notices each of the forms that it is about."""
        for code in (
            "import time",
            "from time import sleep",
            "from twisted.internet import defer, reactor",
            "import twisted.internet.reactor",
            "datetime.now()",
            "def f():\n    from random import SystemRandom",
        ):
            self.assertTrue(any(self.touches(node) for node in ast.walk(ast.parse(code))), code)


class SizeTests(SynchronousTestCase):
    """Small enough to read."""

    def test_modules(self):
        """No module of the product has more than 400 lines."""
        lengths = {name: text.count("\n") for name, text, _ in sources(tests=False)}
        self.assertEqual({name: n for name, n in lengths.items() if n > MAX_MODULE_LINES}, {})

    def test_functions(self):
        """No function has more than 50 lines, its docstring apart, in the tests neither."""
        wrong = []
        for tests in (False, True):
            for name, _, tree in sources(tests=tests):
                for node in ast.walk(tree):
                    if isinstance(node, Function) and self.lines(node) > MAX_FUNCTION_LINES:
                        wrong.append(f"{name}: {node.name} has {self.lines(node)} lines")
        self.assertEqual(wrong, [])

    def lines(self, node: Function) -> int:
        """Count the lines of a function without its docstring."""
        assert node.end_lineno is not None
        first = node.body[0]
        docstring = (first.end_lineno or 0) - first.lineno + 1 if ast.get_docstring(node) else 0
        return node.end_lineno - node.lineno + 1 - docstring


class DocstringTests(SynchronousTestCase):
    """What must be said about it."""

    def test_public_names(self):
        """Every module, and every public class, function and method of the product, has a docstring."""
        wrong = []
        for name, _, tree in sources(tests=False):
            if not ast.get_docstring(tree):
                wrong.append(name)
            wrong += [f"{name}: {what}" for what, node in public(tree) if not ast.get_docstring(node)]
        self.assertEqual(wrong, [])

    def test_tests(self):
        """Every test states what is observed, as a sentence."""
        wrong = []
        for name, _, tree in sources(tests=True):
            for node in ast.walk(tree):
                if isinstance(node, Function) and node.name.startswith("test_"):
                    words = ast.get_docstring(node) or ""
                    if not words.endswith(".") or words.lower().startswith(("test that", "tests", "check")):
                        wrong.append(f"{name}: {node.name}")
        self.assertEqual(wrong, [])

    def test_test_classes(self):
        """A class of tests is called <Thing>Tests, or <Thing>Contract when shared, and says what for."""
        wrong = []
        for name, _, tree in sources(tests=True):
            for node in ast.walk(tree):
                if isinstance(node, ast.ClassDef) and any(
                    isinstance(each, Function) and each.name.startswith("test_") for each in node.body
                ):
                    named = node.name.endswith(("Tests", "Contract"))
                    wrong += [] if named and ast.get_docstring(node) else [f"{name}: {node.name}"]
        self.assertEqual(wrong, [])


class ErrorTreeTests(SynchronousTestCase):
    """One tree of errors."""

    def test_one_root(self):
        """Every error stands under the one root and says what its receiver should do."""
        classes = [each for each in vars(errors).values() if isinstance(each, type)]
        self.assertGreater(len(classes), 10)
        for each in classes:
            self.assertTrue(issubclass(each, errors.BkscalerError), each)
            self.assertTrue(each.__doc__)

    def test_what_the_kube_room_raises(self):
        """The kube room raises errors of the tree, cancellation, or ValueError from pure functions."""
        allowed = {name for name, value in vars(errors).items() if isinstance(value, type)}
        allowed |= {"CancelledError", "ValueError", "kind", "error_answer", "_error", "unreachable"}
        wrong = []
        for name, _, tree in sources(tests=False):
            for node in ast.walk(tree):
                if name.startswith("kube/") and isinstance(node, ast.Raise) and node.exc is not None:
                    raised = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
                    word = ast.unparse(raised).removeprefix("errors.")
                    if word not in allowed and not word.endswith(".wrong"):
                        wrong.append(f"{name}:{node.lineno}: {word}")
        self.assertEqual(wrong, [])

    def test_messages_are_cut(self):
        """No more than 256 characters of a server's words enter an error."""
        error = errors.ApiStatus(500, "X", "a" * 5000)
        self.assertEqual(len(error.message), errors.MAX_DETAIL_CHARS)
        self.assertLess(len(str(error)), 300)

    def test_without_a_message(self):
        """A server that gives no words is quoted without any."""
        for reason, words in (("", "504"), ("Timeout", "504 Timeout")):
            self.assertEqual(str(errors.ApiStatus(504, reason, "")), words)

    def test_all_problems_are_kept(self):
        """A configuration error keeps its problems apart, and shows them all."""
        error = errors.ConfigurationError("one", "two")
        self.assertEqual((error.problems, str(error)), (("one", "two"), "one; two"))
