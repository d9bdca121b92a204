"""Tests of /status, of the words, and of the page that is made of them."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

from twisted.trial.unittest import SynchronousTestCase

from bkscaler.config import SETTINGS
from bkscaler.model import Connection, Stage
from bkscaler.observability.markup import tag
from bkscaler.observability.outcomes import Outcome
from bkscaler.observability.page import SCRIPT, STYLE, render
from bkscaler.observability.words import spoken, volume
from bkscaler.scaling.machine import State
from bkscaler.test.observed import PULLING, Played

DOCS = Path(__file__).parents[2] / "docs"
EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)> & ]]>"


def used():
    """Make a builder that has been used all day, failed once, and sleeps."""
    played = Played()
    played.clock.advance(0.5)
    played.asleep()
    for hours in (2, 1, 4):
        played.clock.advance(3600 * hours)
        played.one_build(900.0)
    played.arrive(2)
    played.begin_wake()
    played.clock.advance(300)
    played.end(Outcome.NOT_READY_IN_TIME, why="pod buildkitd-0: 0/3 nodes are available: 3 Insufficient cpu")
    played.fall_asleep()
    played.clock.advance(3000)
    return played


def waking():
    """Make a builder that pulls its image while two clients wait."""
    played = used()
    played.arrive(2)
    played.begin_wake()
    played.clock.advance(14)
    seen = played.see(stage=Stage.SCHEDULED)
    played.be(State.WAKING, holds=2, observation=seen, waiting_for=PULLING)
    return played


def awake():
    """Make a builder with three builds, and a client whose dials fail."""
    played = used()
    played.arrive(3)
    played.wake()
    played.clock.advance(300)
    played.alive = [replace(each, joined_s=300.0, bytes_up=123_456_789) for each in played.alive]
    played.arrive()
    played.alive[3] = replace(played.alive[3], failed_dials=2, why="pod buildkitd-0: Connection refused")
    played.awake()
    return played


def idle():
    """Make a builder whose last client has just left."""
    played = used()
    played.arrive()
    played.wake()
    played.clock.advance(60)
    played.end(joined_s=60.0)
    played.clock.advance(45)
    return played


def failing():
    """Make a builder whose image has a name that attacks, with clients and an API that do the same."""
    played = used()
    played.alive = [Connection(peer=EVIL, failed_dials=1, why=EVIL)]
    played.begin_wake()
    seen = played.see(stage=Stage.CREATED, hopeless=True)
    played.be(State.WAKING, holds=1, observation=seen, waiting_for=f"cannot pull {EVIL}")
    played.clock.advance(90)
    played.in_touch, played.trouble, played.missing = False, EVIL, [EVIL]
    return played


SCENES = {"asleep": used, "waking": waking, "awake": awake, "idle": idle, "failing": failing}


class Parsed(HTMLParser):
    """A page taken apart: its elements with their attributes, and its text."""

    def __init__(self, page):
        super().__init__()
        self.elements, self.words = [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.words.append(data)


class StatusTests(SynchronousTestCase):
    """The JSON value."""

    def test_documented(self):
        """docs/status.md has every field, and no other."""
        if not DOCS.is_dir():
            self.skipTest("the documentation is not installed")
        text = (DOCS / "status.md").read_text()
        rows = re.findall(r"^\| ((?:`[\w.]+`(?:, )?)+) \| ", text[text.index("## `/status`") :], re.M)
        documented = {name for row in rows for name in re.findall(r"`([\w.]+)`", row)}
        status = Played().status.take()
        given = set()
        for key, value in status.items():
            whole = not isinstance(value, dict) or key in documented
            given |= {key} if whole else {f"{key}.{inner}" for inner in value}
        self.assertEqual(given, documented)

    def test_documented_within(self):
        """Where a field is a list or a mapping of named things, its row has each name."""
        if not DOCS.is_dir():
            self.skipTest("the documentation is not installed")
        rows = re.findall(r"^\| (`.+?) \| (.+) \|$", (DOCS / "status.md").read_text(), re.M)
        told = {name: words for names, words in rows for name in re.findall(r"`([\w.]+)`", names)}
        status = awake().status.take()
        for name, value in (
            ("connections.list", status["connections"]["list"][0]),
            ("happenings", status["happenings"][0]),
            ("statefulset", status["statefulset"]),
            ("builder.pods", status["builder"]["pods"][0]),
            ("builder.replicas", status["builder"]["replicas"]),
            ("last_24h.seconds", status["last_24h"]["seconds"]),
            ("last_24h.spans", status["last_24h"]["spans"][0]),
            ("last_24h.wakes", status["last_24h"]["wakes"][0]),
        ):
            self.assertLessEqual(set(value), set(re.findall(r"`(\w+)`", told[name])), name)

    def test_every_state(self):
        """In every state it can be written as JSON, and says in words what is, why, and what comes next."""
        for state in State:
            played = used()
            played.be(state, holds=0)
            builder = json.loads(json.dumps(played.status.take()))["builder"]
            self.assertEqual(builder["state"], state.value)
            self.assertTrue(builder["headline"] and builder["next"], state)

    def test_words(self):
        """The words name what is waited for, who waits, and how long things take."""
        builder = waking().status.take()["builder"]
        self.assertEqual((builder["headline"], builder["why"]), ("Waking", PULLING))
        self.assertEqual(
            builder["next"],
            "2 clients are held until it is ready, each for up to 5 min. The last wake took 12 s.",
        )
        builder = awake().status.take()["builder"]
        self.assertEqual(builder["why"], "3 builds connected, 1 client being connected.")
        self.assertEqual(builder["next"], "Sleeps 2 min after the last one has left.")
        builder = failing().status.take()["builder"]
        self.assertEqual((builder["headline"], builder["tone"]), ("Cannot wake", "bad"))

    def test_asleep(self):
        """Asleep, it says what the next client sets off: as the last did, or that the last wake failed."""
        played = Played()
        played.asleep()
        self.assertEqual(played.status.take()["builder"]["next"], "The next client wakes it.")
        played.one_build(5.0)
        words = "The next client wakes it; the last wake took 12 s."
        self.assertEqual(played.status.take()["builder"]["next"], words)
        played.arrive()
        played.begin_wake()
        played.end(Outcome.NOT_READY_IN_TIME, why="no node fits.")
        words = "The next client wakes it. The last wake failed: no node fits."
        self.assertEqual(played.status.take()["builder"]["next"], words)
        played.one_build(5.0)
        self.assertNotIn("failed", played.status.take()["builder"]["next"])

    def test_out_of_touch(self):
        """While the API is away nothing is promised that only the API can bring about."""
        for scene, words in (
            (used, "is held, and wakes it when the Kubernetes API answers again"),
            (awake, "after the last one has left, as soon as the Kubernetes API answers again."),
            (idle, "when its time is over and the Kubernetes API answers again, unless a client comes."),
        ):
            played = scene()
            played.in_touch = False
            builder = played.status.take()["builder"]
            self.assertIn(words, builder["next"])
        played = used()
        played.in_touch = False
        self.assertEqual(played.status.take()["builder"]["why"], "No builder ran when last seen.")

    def test_draining(self):
        """When bkscaler shuts down it says so, and that it will not put the builder to sleep."""
        for scene, words in (
            (awake, "4 clients may go on for up to 1 h"),
            (waking, "2 clients may go on for up to 1 h"),
            (idle, "it has no clients left"),
        ):
            played = scene()
            played.draining = True
            said = played.status.take()["builder"]["next"]
            self.assertEqual(said.split(": ")[0], "bkscaler is shutting down")
            self.assertIn(f", {words}. The builder is left to its successor.", said)

    def test_step(self):
        """While it wakes, the step that goes on is told, and the page marks it and those before it."""
        played = Played()
        played.asleep()
        self.assertIsNone(played.status.take()["builder"]["step"])
        played.arrive()
        steps = []
        for replicas, stage in ((0, Stage.ABSENT), *((1, stage) for stage in Stage)):
            played.be(State.WAKING, holds=1, observation=played.see(replicas, stage=stage))
            steps.append(played.status.take()["builder"]["step"])
        self.assertEqual(steps, ["patch", "scheduled", "scheduled", "started", "ready"])
        elements = Parsed(render(played.status.take()).decode()).elements
        kinds = [
            attrs.get("class") for tag, attrs in elements if attrs.get("class") in ("done", "now", "later")
        ]
        self.assertEqual(kinds, ["done", "done", "done", "now"])
        self.assertEqual(sum(attrs.get("aria-current") == "step" for _, attrs in elements), 1)

    def test_idle(self):
        """An idle builder says in how many seconds it goes to sleep."""
        played = Played()
        played.awake()
        played.end()
        played.clock.advance(48)
        builder = played.status.take()["builder"]
        self.assertEqual(builder["sleeps_in_s"], 72)
        self.assertEqual(builder["next"], "Goes to sleep in 1 min 12 s, unless a client comes.")

    def test_asleep_share(self):
        """The share of time asleep is of the time that is known."""
        played = Played()
        played.clock.advance(100)
        played.asleep()
        played.clock.advance(75)
        played.awake()
        played.clock.advance(25)
        self.assertEqual(played.status.take()["last_24h"]["percent_asleep"], 75.0)

    def test_dates(self):
        """Dates are UTC, with milliseconds."""
        played = Played()
        played.clock.advance(61.5)
        played.asleep()
        self.assertEqual(played.status.take()["builder"]["since"], "2026-07-30T12:01:01.500Z")

    def test_bounded(self):
        """However many clients there are, the list is bounded and their number is whole."""
        played = Played()
        played.alive = [Connection(peer=str(number)) for number in range(4000)]
        connections = played.status.take()["connections"]
        self.assertEqual((len(connections["list"]), connections["held"]), (100, 4000))

    def test_settings(self):
        """Every setting is there, as a user would type it."""
        settings = Played().status.take()["settings"]
        self.assertEqual(list(settings), [each.flag for each in SETTINGS])
        self.assertEqual((settings["idle-timeout"], settings["give-up-after"]), ("2m0s", "off"))
        self.assertEqual((settings["kubeconfig"], settings["max-connections"]), ("none", "4096"))

    def test_spoken(self):
        """Durations and amounts are said in at most two units."""
        for seconds, words in (
            (0, "0 s"),
            (0.25, "0.2 s"),
            (14.4, "14 s"),
            (119.6, "2 min"),
            (3725, "1 h 2 min"),
        ):
            self.assertEqual(spoken(seconds), words)
        self.assertEqual(spoken(266_400), "3 d 2 h")
        for count, words in (
            (0, "0 B"),
            (1023, "1.0 KiB"),
            (150 * 1024**2, "150 MiB"),
            (5 * 1024**4, "5.0 TiB"),
        ):
            self.assertEqual(volume(count), words)


class PageTests(SynchronousTestCase):
    """The HTML."""

    def test_says_it_all(self):
        """In each scene the headline, the reason, what comes next and every section are there."""
        for name, scene in SCENES.items():
            played = scene()
            builder, parsed = played.status.take()["builder"], Parsed(render(played.status.take()).decode())
            text = " ".join(parsed.words)
            for words in (builder["headline"], builder["why"], builder["next"]):
                self.assertIn(words, text, name)
            for heading in ("Wake times", "Ended connections", "Connections", "What happened"):
                self.assertIn(heading, text, name)
            tags = [tag for tag, _ in parsed.elements]
            self.assertEqual((tags.count("svg"), tags.count("h1"), tags.count("script")), (2, 1, 1), name)

    def test_attack(self):
        """What clients and cluster objects contain is shown as it is written, and is never markup."""
        page = render(failing().status.take()).decode()
        parsed = Parsed(page)
        self.assertEqual([tag for tag, _ in parsed.elements if tag == "img"], [])
        self.assertEqual(page.count("<script"), 1)
        self.assertFalse([key for _, attrs in parsed.elements for key in attrs if key.startswith("on")])
        self.assertIn(EVIL, "".join(parsed.words))

    def test_self_contained(self):
        """Nothing is loaded from anywhere, and nothing can be sent or changed."""
        for scene in SCENES.values():
            parsed = Parsed(render(scene().status.take()).decode())
            for tag_name, attrs in parsed.elements:
                self.assertNotIn(tag_name, ("form", "input", "button", "iframe", "object"))
                self.assertNotIn("style", attrs)
                if "src" in attrs or (tag_name == "link" and "href" in attrs):
                    self.assertTrue(attrs["href"].startswith("data:"), attrs)
                if tag_name == "a":
                    self.assertIn(attrs["href"], ("status", "metrics", "readyz", "healthz"))
        self.assertNotRegex(STYLE + SCRIPT, r"https?:|@import|url\(")

    def test_without_javascript(self):
        """Without JavaScript the page loads itself anew, and times are written out."""
        page = render(waking().status.take()).decode()
        self.assertRegex(page, r'<noscript><meta http-equiv="refresh" content="\d+"/></noscript>')
        self.assertRegex(page, r"<time [^>]*>\d\d:\d\d</time>")
        self.assertIn("UTC", page)

    def test_pictures(self):
        """The pictures are well-formed, and bounded whatever has happened."""
        played = used()
        for _ in range(3000):
            played.one_build(5.0)
        page = render(played.status.take()).decode()
        self.assertLess(len(page), 200_000)
        for picture in re.findall(r"<svg.*?</svg>", page, re.DOTALL):
            ElementTree.fromstring(picture)

    def test_pictures_in_words(self):
        """Each picture says in words what it shows, for those who do not see it."""
        page = render(used().status.take()).decode()
        first, second = re.findall(r"<svg[^>]*><title>(.*?)</title>", page)
        self.assertEqual(
            first,
            "The builder over time: in use for 45 min, idle for 6 min, waking for 5 min 36 s, "
            "asleep for 7 h 52 min; 4 wakes, 1 failed; 2 clients not served.",
        )
        self.assertEqual(second, "The last 4 wakes: 3 ready, after 12 s; 1 not ready.")

    def test_read_aloud(self):
        """What is replaced every second is no live region; one place is, and only a script writes to it."""
        page = render(failing().status.take()).decode()
        elements = Parsed(page).elements
        live = [
            attrs for _, attrs in elements if attrs.get("role") in ("status", "alert") or "aria-live" in attrs
        ]
        self.assertEqual([attrs["id"] for attrs in live], ["news"])
        self.assertLess(page.index("</main>"), page.index('id="news"'))
        heads = [tag for tag, _ in elements if re.fullmatch("h[1-6]", tag)]
        self.assertEqual(heads[0], "h1")
        self.assertEqual(set(heads[1:]), {"h2"})

    def test_just_started(self):
        """Before anything is known the page is there, and says so."""
        played = Played()
        text = " ".join(Parsed(render(played.status.take()).decode()).words)
        for words in ("Not seen yet", "No wake yet.", "Nobody is connected.", "Nothing yet."):
            self.assertIn(words, text)


class MarkupTests(SynchronousTestCase):
    """Elements."""

    def test_escaped(self):
        """Text and attributes are escaped, markup is not escaped twice, nothing is nothing."""
        inner = tag("b", "<&>", title='"')
        self.assertEqual(inner, '<b title="&quot;">&lt;&amp;&gt;</b>')
        self.assertEqual(tag("p", inner, None, [1, "x"], hidden=True, id=None), f"<p hidden>{inner}1x</p>")
        self.assertEqual(tag("br"), "<br/>")
