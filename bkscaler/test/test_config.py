"""The settings table: options, environment, defaults, problems, and the page that is printed from it."""

import io
import os
import random
import sys
from dataclasses import fields
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from bkscaler import __version__, readers
from bkscaler.config import SETTINGS, Options, Settings, as_markdown, read_settings
from bkscaler.errors import ConfigurationError

ORIGINAL = {
    "listen-addr": ("PROXY_LISTEN_ADDR", ":8080"),
    "sts-name": ("BUILDKITD_STATEFULSET_NAME", "buildkitd"),
    "sts-namespace": ("BUILDKITD_STATEFULSET_NAMESPACE", "default"),
    "headless-service-name": ("BUILDKITD_HEADLESS_SERVICE_NAME", "buildkitd-headless"),
    "target-port": ("BUILDKITD_TARGET_PORT", "8273"),
    "idle-timeout": ("SCALE_DOWN_IDLE_TIMEOUT", "2m0s"),
    "kubeconfig": ("KUBECONFIG_PATH", ""),
    "ready-wait-timeout": ("READY_WAIT_TIMEOUT", "5m0s"),
}


def parse(*words: str, environ: dict[str, str] | None = None) -> Settings:
    """Parse a command line with a given environment."""
    options = Options(environ or {})
    options.parseOptions(list(words))
    return options.settings


class TableTests(SynchronousTestCase):
    """The table itself."""

    def test_originals(self):
        """The eight settings of the original program keep their flags, variables and defaults."""
        table = {s.flag: (s.env, s.default) for s in SETTINGS}
        self.assertEqual({flag: table[flag] for flag in ORIGINAL}, ORIGINAL)

    def test_fields(self):
        """Each row of the table is a field of Settings, and each field a row."""
        self.assertEqual([s.field for s in SETTINGS], [f.name for f in fields(Settings)])

    def test_defaults(self):
        """Without flags and variables every default is read."""
        settings = parse()
        self.assertEqual((settings.idle_timeout_s, settings.ready_wait_timeout_s), (120.0, 300.0))
        self.assertEqual((settings.target_port, settings.kubeconfig), (8273, None))
        both, ipv4_only = r"tcp6:8080:interface=\:\::backlog=1024", "tcp:8080:backlog=1024"
        self.assertIn(settings.listen_addr, (both, ipv4_only))

    def test_documentation(self):
        """docs/configuration.md holds the table as the code prints it."""
        page = Path(__file__).parents[2] / "docs" / "configuration.md"
        if not page.exists():
            self.skipTest("the documentation is not installed")
        self.assertIn(as_markdown(), page.read_text())


class PrecedenceTests(SynchronousTestCase):
    """Which source of a value wins."""

    def test_environment_wins(self):
        """A variable beats the flag."""
        self.assertEqual(parse("--sts-name", "a", environ={"BUILDKITD_STATEFULSET_NAME": "b"}).sts_name, "b")

    def test_empty_is_unset(self):
        """A variable that is set but empty leaves the flag, or else the default, in force."""
        empty = {"BUILDKITD_STATEFULSET_NAME": ""}
        self.assertEqual(parse("--sts-name", "a", environ=empty).sts_name, "a")
        self.assertEqual(parse(environ=empty).sts_name, "buildkitd")

    def test_last_flag_wins(self):
        """Of a repeated flag the last one counts."""
        self.assertEqual(parse("--sts-name", "a", "--sts-name=c").sts_name, "c")

    def test_every_variable(self):
        """Each variable of the table reaches its field."""
        samples = {
            **{"target-port": "1", "max-connections": "7", "kubeconfig": os.devnull, "admin-addr": "off"},
            **{"target-address": "dns", "log-format": "json", "readiness": "tcp", "relay": "copy"},
            **{"check": "yes"},
        }
        for setting in SETTINGS:
            text = samples.get(setting.flag, "299s" if setting.read in readers.DURATIONS else "warn")
            if setting.read in (readers.listen_address,):
                text = "127.0.0.1:1"
            settings = read_settings({}, {setting.env: text})
            self.assertEqual(getattr(settings, setting.field), setting.read(text), setting.flag)


class ProblemTests(SynchronousTestCase):
    """What a user sees of a bad command line."""

    def problems(self, *words: str, environ: dict[str, str] | None = None) -> list[str]:
        """Give the lines on standard error of a command line that must fail with status 1."""
        captured = io.StringIO()
        self.patch(sys, "stderr", captured)
        exit_ = self.assertRaises(SystemExit, parse, *words, environ=environ)
        self.assertEqual(exit_.code, 1)
        return captured.getvalue().splitlines()

    def test_every_problem_at_once(self):
        """All problems are reported together, a line each, with setting and value."""
        lines = self.problems(
            "--idle-timeout", "2x", "--bogus", "7", "--target-port=0", "stray", "--listen-addr", "nope",
            environ={"READY_WAIT_TIMEOUT": "0s", "KUBECONFIG_PATH": "/nonexistent/file"},
        )  # fmt: skip
        self.assertEqual(len(lines), 7)
        for setting, value in [
            ("--bogus", "no such option"),
            ("stray", "belongs to none"),
            ("--idle-timeout", "'2x'"),
            ("--target-port", "'0'"),
            ("--listen-addr", "'nope'"),
            ("READY_WAIT_TIMEOUT (--ready-wait-timeout)", "'0s'"),
            ("KUBECONFIG_PATH (--kubeconfig)", "'/nonexistent/file'"),
        ]:
            self.assertEqual(len([line for line in lines if setting in line and value in line]), 1, setting)

    def test_missing_value(self):
        """A last flag without its value is named, whatever was given before."""
        lines = self.problems("--sts-name", "a", "--sts-name")
        self.assertEqual(lines, ["bkscaler: --sts-name: needs a value"])

    def test_unknown_between_good(self):
        """After an unknown flag, with a value or without, the rest is still read."""
        self.assertEqual(len(self.problems("--x", "--sts-name", "UPPER", "--y=1", "--z", "v")), 4)

    def test_the_right_word_is_blamed(self):
        """An unknown option is named, also where a value looks like it or a known option begins like it."""
        table = [
            (["--sts-name", "bogus", "--bogus"], ["--bogus: there is no such option"]),
            (["--sts-name", "a", "-s", "1"], ["-s: there is no such option"]),
            (["--sts-name=a", "-t"], ["-t: there is no such option"]),
            (["--bogus", "7", "--bogus=8"], ["--bogus: there is no such", "--bogus=8: there is no such"]),
            (["--sts", "x"], ["--sts: may be one of several options"]),
            (["--help=3"], ["--help=3: option --help must not have an argument"]),
            (["--", "a"], ["'a' is not an option"]),
            (["-"], ["'-' is not an option"]),
        ]
        for words, expected in table:
            lines = self.problems(*words)
            self.assertEqual(len(lines), len(expected), lines)
            for line, start in zip(lines, expected, strict=True):
                self.assertTrue(line.startswith(f"bkscaler: {start}"), line)

    def test_random_command_lines(self):
        """Whatever is typed, there are settings, or lines on standard error and status 1; nothing else."""
        chance = random.Random(3)
        pieces = [f"--{s.flag}" for s in SETTINGS]
        pieces += [
            "x",
            "1",
            "",
            "-",
            "--",
            "-x",
            "--x=",
            "2m",
            ":1",
            "--sts",
            "--target-port=9",
            "--=",
            "a=b",
        ]
        for _ in range(400):
            words = chance.choices(pieces, k=chance.randint(0, 6))
            captured = io.StringIO()
            self.patch(sys, "stderr", captured)
            try:
                parse(*words)
            except SystemExit as exit_:
                self.assertEqual(exit_.code, 1)
                lines = captured.getvalue().splitlines()
                self.assertTrue(lines and all(line.startswith("bkscaler: ") for line in lines), words)

    def test_environment_is_named(self):
        """A bad value from the environment is reported under the variable's name, once."""
        lines = self.problems("--target-port", "nonsense", environ={"BUILDKITD_TARGET_PORT": "http"})
        self.assertEqual(len(lines), 1)
        self.assertIn("BUILDKITD_TARGET_PORT (--target-port): 'http'", lines[0])

    def test_flag_is_not_looked_at(self):
        """A bad flag that a variable overrides is no problem, as it has no effect."""
        environ = {"BUILDKITD_TARGET_PORT": "9"}
        self.assertEqual(parse("--target-port", "nonsense", environ=environ).target_port, 9)

    def test_help_and_version_exit(self):
        """--help and --version print to standard output and exit with status 0."""
        for words, expected in [("--help", "--idle-timeout="), ("--version", f"bkscaler {__version__}")]:
            captured = io.StringIO()
            self.patch(sys, "stdout", captured)
            exit_ = self.assertRaises(SystemExit, parse, words)
            self.assertFalse(exit_.code)
            self.assertIn(expected, captured.getvalue())

    def test_switch(self):
        """A switch takes no value on the command line; its variable takes yes or no, and wins."""
        self.assertEqual((parse().check, parse("--check").check), (False, True))
        self.assertTrue(parse(environ={"CHECK_ONLY": "yes"}).check)
        self.assertFalse(parse("--check", environ={"CHECK_ONLY": "no"}).check)
        (line,) = self.problems("--check=yes")
        self.assertIn("--check=yes", line)

    def test_several_kubeconfigs(self):
        """Of several kubeconfigs one must be there; one that is there must be readable."""
        there = self.mktemp()
        with open(there, "w") as file:
            file.write("x")
        several = f"/nonexistent:{there}:"
        self.assertEqual(readers.kubeconfig_path(several), f"/nonexistent:{there}")
        for text in ("/nonexistent:/nowhere", f"{there}:/"):
            self.assertRaises(ValueError, readers.kubeconfig_path, text)

    def test_bad_values(self):
        """Each kind of value has inputs that it refuses."""
        bad = {
            readers.positive_duration: ["", "0s", "-1s", "5", "5 m", "1h2", "9999999999h"],
            readers.duration: ["-1ms", "x"],
            readers.port: ["0", "65536", "http", "-1", "8_0", "٣"],
            readers.positive_int: ["0", "-5", "1.5", "", "1e3"],
            readers.listen_address: ["8080", ":", ":99999", "[::1]", "a b:1", "host:", "[nope]:1"],
            readers.dns_label: ["", "A", "a_b", "-a", "a" * 64, "a.b"],
            readers.dns_subdomain: ["", "a..b", "a" * 254],
            readers.kubeconfig_path: ["/", "/nonexistent"],
            readers.switch: ["", "true", "1", "Yes"],
        }
        for read, texts in bad.items():
            for text in texts:
                error = self.assertRaises(ValueError, read, text)
                self.assertIn(repr(text), str(error))

    def test_grace_below_deadline(self):
        """A probe grace that is not shorter than the wait for readiness is refused."""
        with self.assertRaises(ConfigurationError) as caught:
            read_settings({"probe-grace": "5m0s"}, {})
        self.assertIn("--probe-grace", caught.exception.problems[0])

    def test_help(self):
        """--help names each flag with its variable and default."""
        text = " ".join(Options({}).getUsage(width=200).split())
        for setting in SETTINGS:
            self.assertIn(f"--{setting.flag}{' ' if setting.is_switch else '='}", text)
            self.assertIn(f"[env {setting.env}] [default {setting.default or 'none'}]", text)


class AddressTests(SynchronousTestCase):
    """Addresses to listen on."""

    def test_forms(self):
        """Go's forms become Twisted endpoint descriptions, and those pass through."""
        self.assertEqual(readers.listen_address("127.0.0.1:80"), "tcp:80:interface=127.0.0.1:backlog=1024")
        self.assertEqual(readers.listen_address("[::1]:80"), r"tcp6:80:interface=\:\:1:backlog=1024")
        for text in ("tcp:1", "tcp:port=1:interface=127.0.0.1", "tcp6:1", "unix:/tmp/x"):
            self.assertEqual(readers.listen_address(text), text)
        self.assertIsNone(readers.listen_address_or_off("off"))

    def test_bad_endpoints(self):
        """An endpoint that Twisted cannot read, or that systemd did not hand over, is a problem."""
        for text in (
            "tcp:", "tcp:http", "tcp:99999", "tcp6:port=70000", "tcp:1:bogus=2", "tcp6:1:backlog=x",
            "systemd:name=x", "systemd:domain=INET:index=7",
        ):  # fmt: skip
            error = self.assertRaises(ValueError, readers.listen_address, text)
            self.assertIn(repr(text), str(error))
            self.assertNotIn("\n", str(error))
