"""Tests of the log's formats, and of what the program says in it."""

from __future__ import annotations

import ast
import json
import re
from io import StringIO
from pathlib import Path

from twisted.application.service import Application, Service
from twisted.logger import (
    ILogObserver,
    Logger,
    LogLevel,
    eventAsJSON,
    eventFromJSON,
    formatEventAsClassicLogText,
)
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from bkscaler.frontend.session import Session
from bkscaler.observability import logs
from bkscaler.services import Parts
from bkscaler.test.proxy import make_proxy

PACKAGE = Path(__file__).parents[1]
DOCS = PACKAGE.parent / "docs"


def logger_to(log_format="json", log_level="info"):
    """Make a logger and what it writes to."""
    out = StringIO()
    return Logger("bkscaler.x", observer=logs.observer(log_format, log_level, out)), out


class JsonTests(SynchronousTestCase):
    """Lines for machines."""

    def test_line(self):
        """An event is one line with time, level, logger, message and the documented fields it has."""
        log, out = logger_to()
        log.warn("{peer} is {mood}", event="mood", peer="10.0.0.1:1", mood="sad", waited_s=1.5, replicas=0)
        line = json.loads(out.getvalue())
        self.assertRegex(line.pop("time"), r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}[+-]\d{4}$")
        self.assertEqual(
            line,
            {
                "level": "warn",
                "logger": "bkscaler.x",
                "message": "10.0.0.1:1 is sad",
                "event": "mood",
                "peer": "10.0.0.1:1",
                "waited_s": 1.5,
                "replicas": 0,
            },
        )

    def test_always_one_line(self):
        """Line ends in what is logged do not end the line, and odd events are written all the same."""
        log, out = logger_to()
        log.info("a\nb {reason}", reason="c\r\nd")
        log.info("no such field: {nothing}")
        log.info("{reason}", reason=object())
        lines = out.getvalue().splitlines()
        self.assertEqual(len(lines), 3)
        self.assertEqual(json.loads(lines[0])["message"], "a\nb c\r\nd")

    def test_nothing_by_accident(self):
        """What is attached to an event without being documented or written in the message stays out."""
        log, out = logger_to()
        log.info(
            "asked", version="of something else", headers={"Authorization": "Bearer sesame"}, token="sesame"
        )
        self.assertNotIn("sesame", out.getvalue())
        self.assertNotIn("something else", out.getvalue())

    def test_failure(self):
        """An unexpected failure has its traceback in one field."""
        log, out = logger_to()
        try:
            raise ZeroDivisionError
        except ZeroDivisionError:
            log.failure("it failed")
        line = json.loads(out.getvalue())
        self.assertEqual((line["message"], line["level"]), ("it failed", "critical"))
        self.assertIn("ZeroDivisionError", line["traceback"])

    def test_long(self):
        """Values are cut."""
        log, out = logger_to()
        log.info("x", event="x", reason="y" * 100_000)
        self.assertEqual(len(json.loads(out.getvalue())["reason"]), logs.MAX_TEXT_CHARS)


class LevelTests(SynchronousTestCase):
    """--log-level and --log-format."""

    def test_level(self):
        """What is below the level is left out, in both formats."""
        for log_format in ("text", "json"):
            log, out = logger_to(log_format, "warn")
            log.info("quiet")
            log.error("loud")
            self.assertEqual(len(out.getvalue().splitlines()), 1)
            self.assertIn("loud", out.getvalue())

    def test_without_a_level(self):
        """An event without a level is nobody's, and is left out."""
        out = StringIO()
        logs.observer("text", "debug", out)({"log_format": "hello"})
        self.assertEqual(out.getvalue(), "")

    def test_text(self):
        """Text has the time, the logger with the level, and the message."""
        log, out = logger_to("text")
        log.info("hello")
        self.assertRegex(out.getvalue(), r"^\d{4}-\S+ \[bkscaler\.x#info\] hello\n$")


class _Odd:
    """Says different things when it is written, shown and called; cannot be counted."""

    part = {"of": ["it"]}

    def __str__(self):
        return "odd"

    def __call__(self):
        return "called"

    def refuse(self):
        raise ZeroDivisionError


class TextTests(SynchronousTestCase):
    """A line of text is the one that Twisted would write, whatever is logged."""

    def lines(self, write):
        """Log one event, and give our line and Twisted's."""
        events = []
        write(Logger("bkscaler.x", observer=events.append))
        return logs.as_text(events[0]), formatEventAsClassicLogText(events[0])

    def test_same(self):
        """Every way to write a format gives the same line, also one that cannot be formatted."""
        odd = _Odd()
        for words in (
            "hello",
            "two\nlines {odd}",
            "{odd} {odd!r} {number:06.2f} {number:>{width}} {{braces}}",
            "{odd.part[of]} {many[0]}",
            "{odd()} and {odd.refuse}",
            "{odd.refuse()}",
            "{nothing}",
            "{0}",
            "{number:s}",
            "{",
            b"bytes {number}",
            "",
            None,
        ):
            ours, twisteds = self.lines(
                lambda log, words=words: log.info(words, odd=odd, number=2.5, width=8, many=["one"])
            )
            # an event that cannot be formatted is told with a traceback, which differs by where it was made
            self.assertEqual(ours and ours[:200], twisteds and twisteds[:200], words)

    def test_special(self):
        """Failures have their traceback, flattened events and those of the old log their own words."""
        special = (
            lambda log: log.failure("it {what}", Failure(ZeroDivisionError()), what="failed"),
            lambda log: log.info("x", log_system="the old log"),
            lambda log: log.warn("{log_text}", log_text="from the old log"),
        )
        for write in special:
            ours, twisteds = self.lines(write)
            self.assertEqual(ours, twisteds)
        event = {"log_format": "{x}", "x": 1, "log_level": LogLevel.info, "log_namespace": "n"}
        event["log_time"] = 1.0
        flattened = eventFromJSON(eventAsJSON(event))
        flattened["x"] = 2
        for each in (event, flattened, {}, {"log_format": "hello"}):
            self.assertEqual(logs.as_text(each), formatEventAsClassicLogText(each))

    def test_time(self):
        """The time goes on from second to second."""
        event = {"log_format": "x", "log_level": LogLevel.info, "log_namespace": "n"}
        for second in (1.0, 1.9, 2.0, 3.5, 86_400.1):
            event["log_time"] = second
            self.assertEqual(logs.as_text(event), formatEventAsClassicLogText(event))


class InstallTests(SynchronousTestCase):
    """Taking twistd's log over."""

    def test_application(self):
        """Put under twistd's application, the service says how the log is written."""
        chosen, application = object(), Application("bkscaler")
        Parts(chosen).setServiceParent(application)
        self.assertIs(application.getComponent(ILogObserver), chosen)

    def test_left_alone(self):
        """An observer that is there stays, and so does everything when nothing was chosen."""
        application = Application("bkscaler")
        Parts(None).setServiceParent(application)
        self.assertIs(application.getComponent(ILogObserver, None), None)
        first = object()
        logs.install(application, first)
        logs.install(application, object())
        self.assertIs(application.getComponent(ILogObserver), first)
        logs.install(Service(), object())

    def test_where(self):
        """The log goes where twistd was told; what is special is left to twistd."""
        for twistd in (None, {"logger": "x"}, {"syslog": 1}):
            self.assertIs(logs.observer_for_twistd("json", "info", twistd), None)
        self.assertIsNot(logs.observer_for_twistd("json", "info", {"nodaemon": 1}), None)
        path = self.mktemp()
        observer = logs.observer_for_twistd("json", "info", {"logfile": path, "nodaemon": 1})
        Logger("x", observer=observer).info("into the file")
        self.assertIn("into the file", Path(path).read_text())


class WordsTests(SynchronousTestCase):
    """What the program says."""

    def calls(self):
        """List the keywords of each call of a logger in the product, with the place."""
        for path in PACKAGE.rglob("*.py"):
            if {"test", "sandbox", "demo", "soak"} & set(path.relative_to(PACKAGE).parts):
                continue
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                words = {each.arg: each.value for each in getattr(node, "keywords", ())}
                if isinstance(node, ast.Call) and "event" in words:
                    yield path.name, words

    def test_documented(self):
        """docs/logs.md has every event with its fields, and every field."""
        if not DOCS.is_dir():
            self.skipTest("the documentation is not installed")
        text = (DOCS / "logs.md").read_text()
        rows = re.findall(r"^\| `(\w+)` \| .+? \| ((?:`\w+`(?:, )?)*) ?\|$", text, re.M)
        documented = {name: set(re.findall(r"`(\w+)`", fields)) for name, fields in rows}
        said = {}
        for _, words in self.calls():
            name = ast.literal_eval(words["event"])
            said[name] = {word for word in words if word in logs.FIELDS and word != "event"}
        self.assertGreater(len(said), 5)
        self.assertEqual(said, documented)
        fields = re.findall(r"^\| `(\w+)` \| [^|]+ \|$", text, re.M)
        self.assertEqual(fields, ["time", "level", "logger", "message", *logs.FIELDS, "traceback"])

    def test_end_of_a_connection(self):
        """The line of a connection has who, outcome, waited, lasted and bytes, in words and in fields."""
        log, out = logger_to()
        self.patch(Session, "log", log)
        _, proxy = make_proxy()
        proxy.capacity.ready()
        client = proxy.client()
        client.send(b"hello")
        proxy.settle()
        proxy.after(90)
        client.hang_up()
        proxy.builders[-1].hang_up()
        proxy.settle()
        line = json.loads(out.getvalue().splitlines()[0])
        self.assertEqual(
            line["message"],
            "127.0.0.1:40000 completed after waiting 0s, joined for 1m30s, 5 bytes up, 0 down",
        )
        self.assertEqual(
            (line["event"], line["outcome"], line["reason"]), ("connection_ended", "completed", "")
        )
        self.assertEqual((line["waited_s"], line["joined_s"], line["bytes_up"]), (0.0, 90.0, 5))
