"""The status page in a real browser, without a window. Skipped where there is no chromium."""

from __future__ import annotations

import os
import re
import shutil
import struct
import subprocess
import threading
import zlib
from html import escape
from http.server import BaseHTTPRequestHandler, HTTPServer

from twisted.trial.unittest import SynchronousTestCase

from bkscaler.observability.page import CONTENT_SECURITY_POLICY, render
from bkscaler.test.test_observability_page import EVIL, SCENES

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
LIMIT_S = 60
PHONE = 390
SIZE = "--window-size=1000,400"
FRAME = "style='width:1000px;height:400px;border:0'"
ROWS = 110
"""How many rows of a picture are looked at: they show the page's ground, its head and the builder's state."""


class Pages(HTTPServer):
    """Gives its first page once, and from then on the second."""

    pages: list[bytes]


class Handler(BaseHTTPRequestHandler):
    """Answers whatever is asked for."""

    def do_GET(self):
        """Give the next page."""
        pages = self.server.pages
        page = pages.pop(0) if len(pages) > 1 and self.path == "/" else pages[0]
        self.send_response(200)
        self.send_header("content-type", "text/html; charset=utf-8")
        self.send_header("content-security-policy", CONTENT_SECURITY_POLICY)
        self.end_headers()
        self.wfile.write(page)

    def log_message(self, *_):
        """Say nothing."""


class BrowserTests(SynchronousTestCase):
    """Each scene, as a browser shows it."""

    if CHROMIUM is None:
        skip = "there is no chromium"

    def browse(self, name, *words, page=None):
        """Have the browser open a scene; give what it writes to its output."""
        directory = os.path.abspath(self.mktemp())
        os.makedirs(directory)
        path = os.path.join(directory, "page.html")
        with open(path, "wb") as file:
            file.write(page or render(SCENES[name]().status.take()))
        return self.open(f"file://{path}", directory, *words)

    def open(self, address, directory, *words):
        """Have the browser open an address; give what it writes to its output."""
        done = subprocess.run(
            (
                CHROMIUM,
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                "--hide-scrollbars",
                "--virtual-time-budget=500",
                f"--user-data-dir={directory}/profile",
                *words,
                address,
            ),
            capture_output=True,
            timeout=LIMIT_S,
            check=True,
            env={**os.environ, "TZ": "Asia/Kolkata"},
        )
        return done.stdout.decode()

    def picture(self, name, *words, page=None):
        """Take a screenshot; give its first rows, as bytes of red, green and blue."""
        path = os.path.abspath(self.mktemp()) + ".png"
        self.browse(name, f"--screenshot={path}", *words, page=page)
        with open(path, "rb") as file:
            return decoded(file.read())

    def test_with_javascript(self):
        """The script runs: times are those of the reader's zone, and nothing of an attack does."""
        for name in SCENES:
            shown = self.browse(name, "--dump-dom")
            self.assertIn('<span id="zone">Asia/Calcutta</span>', shown.replace("Kolkata", "Calcutta"), name)
            self.assertIn("<h1>", shown)
        self.assertNotIn("<img", shown)
        self.assertEqual(shown.count("<script>"), 1, EVIL)

    def test_refreshed(self):
        """The script puts new content in place of the old, and has a new state read out."""
        pages = [render(SCENES[name]().status.take()) for name in ("asleep", "waking")]
        server = Pages(("127.0.0.1", 0), Handler)
        server.pages = pages
        self.addCleanup(server.server_close)
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        self.addCleanup(serving.join)
        self.addCleanup(server.shutdown)
        directory = os.path.abspath(self.mktemp())
        address = f"http://127.0.0.1:{server.server_port}/"
        shown = self.open(address, directory, "--dump-dom", "--virtual-time-budget=7000")
        self.assertIn("<h1>Waking</h1>", shown)
        self.assertRegex(shown, r"<title>Waking ")
        self.assertRegex(
            shown, r'id="news"[^>]*>Waking\. pod buildkitd-0: pulling image .* 2 clients are held'
        )

    def test_without_javascript(self):
        """Where scripts are not allowed the page looks the same."""
        page = escape(render(SCENES["waking"]().status.take()).decode())
        frame = f"<body style='margin:0'><iframe sandbox srcdoc=\"{page}\" {FRAME}></iframe>"
        pictures = (self.picture("waking", SIZE, page=frame.encode()) for _ in range(5))
        # The frame is drawn by a process of its own, which a busy machine may keep waiting.
        rows = next(rows for rows in pictures if len({bytes(row) for row in rows}) > 30)
        self.assertEqual(rows[100][30:33], self.picture("waking", SIZE)[100][30:33])

    def test_light_and_dark(self):
        """The page is light or dark as the reader's system is, in each scene in its own colour."""
        corners, heroes = set(), set()
        for name in SCENES:
            light = self.picture(name, SIZE)
            dark = self.picture(name, SIZE, "--blink-settings=preferredColorScheme=0")
            self.assertGreater(sum(light[1][0:3]), 680, name)
            self.assertLess(sum(dark[1][0:3]), 100, name)
            corners.add((bytes(light[1][0:3]), bytes(dark[1][0:3])))
            middle = 3 * 900
            heroes.add(bytes(light[100][middle : middle + 3]))
        self.assertEqual((len(corners), len(heroes)), (1, len(SCENES)))

    def test_phone(self):
        """On a phone nothing is wider than the screen, in any scene."""
        for name in SCENES:
            page = render(SCENES[name]().status.take()).decode()
            measure = (
                f"<iframe id=f style='width:{PHONE}px;height:800px;border:0'></iframe>"
                f"<script>f.srcdoc={_as_script(page)};f.onload=()=>"
                "{document.title='width '+f.contentDocument.documentElement.scrollWidth}</script>"
            )
            shown = self.browse(name, "--dump-dom", page=measure.encode())
            self.assertIn(f"<title>width {PHONE}</title>", shown, name)


def _as_script(page):
    """Write a page as a JavaScript string inside a script element."""
    escaped = page.replace("\\", "\\\\").replace("`", "\\`").replace("$", "\\$")
    return "`" + re.sub("<(/?script|!--)", r"\\x3c\1", escaped) + "`"


def decoded(png):
    """Decode a PNG of eight bits for each colour, without interlacing; give its first rows."""
    width, _, _, kind = struct.unpack(">IIBB", png[16:26])
    step = {2: 3, 6: 4}[kind]
    data, place = bytearray(), 8
    while place < len(png):
        length, name = struct.unpack(">I4s", png[place : place + 8])
        if name == b"IDAT":
            data += png[place + 8 : place + 8 + length]
        place += 12 + length
    raw = zlib.decompress(data)
    rows, before = [], bytearray(width * step)
    for start in range(0, min(len(raw), ROWS * (width * step + 1)), width * step + 1):
        row = bytearray(raw[start + 1 : start + 1 + width * step])
        unfilter(raw[start], row, before, step)
        rows.append(row)
        before = row
    if step == 4:
        rows = [bytearray(b for n, b in enumerate(row) if n % 4 != 3) for row in rows]
    return rows


def unfilter(how, row, before, step):
    """Undo a PNG filter in place."""
    for n in range(len(row)):
        left, up = row[n - step] if n >= step else 0, before[n]
        corner = before[n - step] if n >= step else 0
        if how == 1:
            row[n] = (row[n] + left) & 255
        elif how == 2:
            row[n] = (row[n] + up) & 255
        elif how == 3:
            row[n] = (row[n] + (left + up) // 2) & 255
        elif how == 4:
            guess = left + up - corner
            nearest = min((left, up, corner), key=lambda each: abs(guess - each))
            row[n] = (row[n] + nearest) & 255
